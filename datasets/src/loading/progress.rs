//! The progress of loading, for display.

use std::path::PathBuf;

/// The progress of loading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// A file has been read.
    Read {
        /// The file.
        path: PathBuf,
        /// Its selected rows.
        rows: usize,
    },
    /// Rows of a source have been tokenised.
    Tokenised {
        /// Rows done.
        done: usize,
        /// Rows of the source: an estimate above `done` until all are done.
        total: usize,
    },
}
