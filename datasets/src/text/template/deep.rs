//! Threads with stacks for the deepest nesting of a template: recursive functions parse chains of operators, and drop,
//! compare and write lists that are nested as deeply as the fuel lasts.

use std::cell::Cell;
use std::io::{Error, Result};
use std::panic::resume_unwind;
use std::thread::{Builder, scope};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Bytes of such a stack: comparing takes up to 710 bytes a level, for which it pays fuel, writing 360. Only the part that
/// is used takes memory.
const STACK_BYTES: usize = 512 << 20;

/// The hint where the system refuses such a thread.
pub(crate) const MORE_THREADS: &str = "raise the limit on threads or address space (`ulimit -u`, `ulimit -v`)";

thread_local! {
    /// True if this thread has such a stack.
    static IS_DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on such a stack, on another thread if this one has none.
///
/// # Errors
/// If the system refuses a thread.
pub(super) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    if IS_DEEP.get() {
        return Ok(work());
    }
    scope(|scope| {
        let thread = Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// A pool of threads with such stacks, as many as the current pool has.
///
/// # Errors
/// If the system refuses one.
pub(crate) fn deep_pool() -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).stack_size(STACK_BYTES);
    pool.start_handler(|_| IS_DEEP.set(true)).build().map_err(Error::other)
}
