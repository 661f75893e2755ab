//! Rows of tokens on the host: what a forward pass is given.

/// Rows of token ids on the host, all slices `[rows * width]` row-major.
#[derive(Debug, Clone, Copy)]
pub struct TokenRows<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Tokens per row, padding included.
    pub width: usize,
    /// Token ids; anything in range on padding.
    pub tokens: &'a [i32],
    /// Position of each token in its document, from 0.
    pub positions: &'a [i32],
    /// The document of its row that each token belongs to; negative on padding, which is at the end.
    pub documents: &'a [i32],
    /// Positions of the longest document of the micro-batch that these rows are of, padding included.
    pub span: usize,
}

impl TokenRows<'_> {
    /// If set, a row holds several documents.
    pub(crate) fn packed(&self) -> bool {
        self.documents.iter().any(|&document| document > 0)
    }
}

/// The positions of the longest document, padding included; `documents` and `positions` as in [`TokenRows`].
pub fn span(width: usize, documents: &[i32], positions: &[i32]) -> usize {
    if documents.iter().any(|&document| document > 0) {
        positions.iter().max().map_or(0, |&last| last as usize + 1)
    } else {
        width
    }
}
