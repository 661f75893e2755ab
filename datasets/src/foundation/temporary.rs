//! Names of files that no other part of any running program uses.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file name that no other run has, where the system keeps what is not to stay.
pub(crate) fn temporary_file() -> PathBuf {
    std::env::temp_dir().join(format!("tune-examples-{}.arrow", unique_suffix()))
}

/// A word that no other part of any running program has.
pub(crate) fn unique_suffix() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
