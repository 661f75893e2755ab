//! How far loading is, for whoever shows it.

use std::path::PathBuf;

/// How far loading is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// A file has been read.
    Read {
        /// The file.
        path: PathBuf,
        /// Its rows that are meant.
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
