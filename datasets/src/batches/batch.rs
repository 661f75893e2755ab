//! Examples side by side in one rectangle of token ids, padded on the right or packed.
//!
//! Masking is by length, never by token id: a padding token may well be the end-of-sequence token.

use crate::rows::Example;

/// The rows of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The micro-batches of the accumulation window, longest rows first; at least one.
    pub micro_batches: Vec<MicroBatch>,
    /// Predictions that count, over all micro-batches: the divisor of the step's loss.
    pub trained_tokens: usize,
    /// Tokens without padding, over all micro-batches.
    pub tokens: usize,
    /// Epochs done once this batch is done, e.g. 1.0 after the last batch of the first epoch.
    pub epoch: f64,
}

/// Rows that go through the model together; every field is `[rows * width]`, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroBatch {
    /// Number of rows.
    pub rows: usize,
    /// Tokens per row, padding included.
    pub width: usize,
    /// Token ids; 0 on padding.
    pub tokens: Vec<i32>,
    /// The id of the following token of the same document; 0 where there is none.
    pub targets: Vec<i32>,
    /// True if predicting `targets` here counts; never on a document's last token or on padding.
    pub trained: Vec<bool>,
    /// Number of the document within its row, from 0; -1 on padding.
    pub documents: Vec<i32>,
    /// Position within the document, from 0; 0 on padding.
    pub positions: Vec<i32>,
    /// Tokens without padding.
    pub real_tokens: usize,
}

impl MicroBatch {
    /// Lays rows out, each of which is one or more documents, in `width` columns.
    ///
    /// A `width` smaller than the longest row is raised to it.
    pub fn from_examples(rows: &[Vec<&Example>], width: usize) -> MicroBatch {
        let longest = rows.iter().map(|row| row_length(row)).max().unwrap_or(0);
        let width = width.max(longest);
        let cells = rows.len() * width;
        let mut batch = MicroBatch {
            rows: rows.len(),
            width,
            tokens: vec![0; cells],
            targets: vec![0; cells],
            trained: vec![false; cells],
            documents: vec![-1; cells],
            positions: vec![0; cells],
            real_tokens: rows.iter().map(|row| row_length(row)).sum(),
        };
        for (index, row) in rows.iter().enumerate() {
            let mut start = index * width;
            for (number, document) in row.iter().enumerate() {
                batch.lay_out(document, number, start);
                start += document.tokens.len();
            }
        }
        batch
    }

    /// Predictions that count.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().filter(|trained| **trained).count()
    }

    fn lay_out(&mut self, document: &Example, number: usize, start: usize) {
        let ids = &document.tokens;
        for (position, id) in ids.iter().enumerate() {
            let cell = start + position;
            self.tokens[cell] = id.cast_signed();
            self.documents[cell] = i32::try_from(number).unwrap_or(i32::MAX);
            self.positions[cell] = i32::try_from(position).unwrap_or(i32::MAX);
            if let Some(next) = ids.get(position + 1) {
                self.targets[cell] = next.cast_signed();
                self.trained[cell] = document.trained[position + 1];
            }
        }
    }
}

/// Rows sorted by length, so that those side by side need little padding, cut into batches of `size` rows; `width`
/// gives a batch's width for its longest row.
pub(crate) fn micro_batches(rows: &[Vec<Example>], size: usize, width: impl Fn(usize) -> usize) -> Vec<MicroBatch> {
    longest_first(rows)
        .chunks(size.max(1))
        .map(|rows| {
            let longest = rows.iter().map(|row| row_length(row)).max().unwrap_or(0);
            MicroBatch::from_examples(rows, width(longest))
        })
        .collect()
}

/// Rows by their length, those of the same length in their order.
pub(crate) fn longest_first(rows: &[Vec<Example>]) -> Vec<Vec<&Example>> {
    let mut rows: Vec<Vec<&Example>> = rows.iter().map(|row| row.iter().collect()).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row_length(row)));
    rows
}

/// The tokens of a row's documents together.
fn row_length(row: &[&Example]) -> usize {
    row.iter().map(|document| document.tokens.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(tokens: &[u32], trained: &[bool]) -> Example {
        Example { tokens: tokens.to_vec(), trained: trained.to_vec(), file: 0, line: 1 }
    }

    #[test]
    fn targets_are_the_next_tokens_of_the_same_document() {
        let (one, two) = (example(&[5, 6, 7], &[false, false, true]), example(&[8, 9], &[true, true]));
        let batch = MicroBatch::from_examples(&[vec![&one, &two], vec![&two]], 6);
        assert_eq!((batch.rows, batch.width, batch.real_tokens), (2, 6, 7));
        assert_eq!(batch.tokens, [5, 6, 7, 8, 9, 0, 8, 9, 0, 0, 0, 0]);
        assert_eq!(batch.targets, [6, 7, 0, 9, 0, 0, 9, 0, 0, 0, 0, 0]);
        assert_eq!(batch.documents, [0, 0, 0, 1, 1, -1, 0, 0, -1, -1, -1, -1]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1, 0, 0, 1, 0, 0, 0, 0]);
        let counted: Vec<usize> = (0..12).filter(|cell| batch.trained[*cell]).collect();
        assert_eq!(counted, [1, 3, 6]);
        assert_eq!(batch.trained_tokens(), one.trained_tokens() + 2 * two.trained_tokens());
    }

    #[test]
    fn padding_is_recognised_by_length_and_not_by_token() {
        let ends_with_pad = example(&[0, 0, 0], &[true, true, true]);
        let batch = MicroBatch::from_examples(&[vec![&ends_with_pad]], 4);
        assert_eq!(batch.trained, [true, true, false, false]);
    }
}
