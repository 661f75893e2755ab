//! The program's memory allocator.
//!
//! Tensors are blocks of up to hundreds of megabytes that one thread asks for and another gives back. The C library
//! of Linux (glibc) keeps what is freed apart for each thread, so that the peak of a run depends on which thread did
//! what, and gives large blocks back to the system only to have them cleared again a moment later. So large blocks
//! come from one heap of the C library's that all threads share and that keeps what it has, and small ones, of which
//! tokenising makes millions, from mimalloc, where threads do not wait for each other. Elsewhere memory comes from the
//! system's allocator.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc;

/// Makes all threads share the C library's heap, where it is glibc; called before there are other threads.
pub fn share_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::share_heap();
}
