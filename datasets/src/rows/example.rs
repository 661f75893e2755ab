//! An example: the token ids of a row, with the mask of those that are trained on.

/// Token ids of a row, and the mask of those that are trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The ids.
    pub tokens: Vec<u32>,
    /// The mask, as long as `tokens`: true for tokens that are trained on.
    pub trained: Vec<bool>,
    /// Index of the file it came from, in [`Dataset::files`](crate::Dataset::files).
    pub file: usize,
    /// Line or row of that file, from 1.
    pub line: usize,
}

impl Example {
    /// The number of predictions that count: trained tokens, except the very first, which nothing predicts.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().skip(1).filter(|trained| **trained).count()
    }
}
