//! Threads whose stacks hold what a template may nest: a chain of operators is parsed, and a list in a list in a list,
//! as often as its fuel lasts, is taken apart, compared and written, by functions that call themselves for each.

use std::cell::Cell;
use std::io::{Error, Result};
use std::panic::resume_unwind;
use std::thread::{Builder, scope};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Bytes of such a stack: comparing takes up to 710 bytes a level and its fuel too, writing 360. Only what is used of it
/// takes memory.
const STACK_BYTES: usize = 512 << 20;

/// What to try where the system gives no such thread.
pub(crate) const MORE_THREADS: &str = "raise the limit on threads or address space (`ulimit -u`, `ulimit -v`)";

thread_local! {
    /// Whether this thread has such a stack.
    static IS_DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on such a stack, on a thread of its own where this one has none.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    if IS_DEEP.get() {
        return Ok(work());
    }
    scope(|scope| {
        let thread = Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// As many threads with such stacks as there are in the pool of this one.
///
/// # Errors
/// When the system gives none.
pub(crate) fn deep_pool() -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).stack_size(STACK_BYTES);
    pool.start_handler(|_| IS_DEEP.set(true)).build().map_err(Error::other)
}
