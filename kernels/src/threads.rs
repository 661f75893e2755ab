//! The threads that an operation may use: all of them, unless its caller runs several side by side.

use std::cell::Cell;

use rayon::prelude::*;

/// Values of one piece of work: enough that handing it to a thread costs little beside it.
pub(crate) const PIECE: usize = 1 << 15;

thread_local! {
    static SHARE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs `work` on this thread, in which operations use at most `threads` threads each.
pub fn with_threads<R>(threads: usize, work: impl FnOnce() -> R) -> R {
    let before = SHARE.replace(Some(threads.max(1)));
    let result = work();
    SHARE.set(before);
    result
}

/// Threads that an operation called from here may use.
pub fn threads() -> usize {
    SHARE.get().unwrap_or_else(rayon::current_num_threads)
}

/// Calls `work` with every item, on as many threads as there may be.
pub fn for_each<T: Send>(items: impl IndexedParallelIterator<Item = T>, work: impl Fn(T) + Sync) {
    match threads() {
        // Work that another thread took over must not spread further.
        1 => items.with_min_len(usize::MAX).for_each(&work),
        _ => items.for_each(|item| with_threads(1, || work(item))),
    }
}
