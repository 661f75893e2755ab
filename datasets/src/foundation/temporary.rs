//! Unique names for temporary files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The path of a new file in the system's directory for temporary files, unique among running programs.
pub(crate) fn temporary_file() -> PathBuf {
    std::env::temp_dir().join(format!("tune-examples-{}.arrow", unique_suffix()))
}

/// A suffix for file names that no other part of any running program has.
pub(crate) fn unique_suffix() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
