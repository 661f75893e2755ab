//! An example: the token ids of a row, with the mask of those that are trained on.

/// Token ids of a row, and which of them are to be learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The ids.
    pub tokens: Vec<u32>,
    /// Whether token i is to be learnt; as long as `tokens`.
    pub trained: Vec<bool>,
    /// Index of the file it came from, in [`Dataset::files`](crate::Dataset::files).
    pub file: usize,
    /// Line or row of that file, from 1.
    pub line: usize,
}

impl Example {
    /// How many predictions count: trained tokens but for the very first, which nothing predicts.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().skip(1).filter(|trained| **trained).count()
    }
}
