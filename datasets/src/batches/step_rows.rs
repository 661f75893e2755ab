//! The rows of every step: documents packed into rows, and the order in which each epoch goes through them.
//!
//! A window of rows is a pure function of the seed and the step, so that resuming needs nothing but the step.

use std::sync::{Arc, Mutex, PoisonError};

use super::packing::{PackedRows, pack};
use crate::foundation::{DatasetSettings, Purpose, in_turn, shuffled};

/// Rows to train on, and their order in an epoch.
#[derive(Debug)]
pub(crate) struct StepRows {
    /// Rows, each the indices of its documents.
    rows: PackedRows,
    /// The tokens of each row.
    row_tokens: Vec<u32>,
    /// The epoch that was asked for last, and its order.
    last: Mutex<Option<(usize, Arc<[u32]>)>>,
    /// If set, every epoch has a new order.
    shuffle: bool,
    seed: u64,
}

impl StepRows {
    /// Makes rows of documents of these lengths.
    pub(crate) fn new(lengths: &[u32], settings: &DatasetSettings) -> StepRows {
        let packing = settings.batching.packing;
        let order = if settings.shuffle && packing {
            shuffled(lengths.len(), settings.seed, Purpose::Packing)
        } else {
            in_turn(lengths.len())
        };
        let rows = rows_of(lengths, order, packing, settings.sequence_len);
        let row_tokens = rows.iter().map(|row| row.iter().map(|document| lengths[*document as usize]).sum()).collect();
        StepRows { rows, row_tokens, last: Mutex::new(None), shuffle: settings.shuffle, seed: settings.seed }
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The documents of a row, which must be below [`StepRows::rows`].
    pub(crate) fn documents(&self, row: u32) -> &[u32] {
        self.rows.row(row as usize)
    }

    /// The tokens of a row, which must be below [`StepRows::rows`].
    pub(crate) fn tokens(&self, row: u32) -> usize {
        self.row_tokens[row as usize] as usize
    }

    /// Steps that go once through the rows; a last, partial window is a step too. At least 1.
    pub(crate) fn steps_per_epoch(&self, rows_per_step: usize) -> usize {
        self.rows.len().div_ceil(rows_per_step).max(1)
    }

    /// The rows of a step, in the epoch's order.
    pub(crate) fn window(&self, step: usize, rows_per_step: usize) -> Vec<u32> {
        let steps = self.steps_per_epoch(rows_per_step);
        let (epoch, within) = (step / steps, step % steps);
        self.order(epoch).iter().skip(within * rows_per_step).take(rows_per_step).copied().collect()
    }

    /// The order of rows in an epoch; drawn once for the steps that follow each other in it.
    fn order(&self, epoch: usize) -> Arc<[u32]> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = last.as_ref().filter(|(of, _)| *of == epoch || !self.shuffle) {
            return Arc::clone(order);
        }
        let order: Arc<[u32]> = if self.shuffle {
            shuffled(self.rows.len(), self.seed, Purpose::Epoch(epoch as u64)).into()
        } else {
            in_turn(self.rows.len()).into()
        };
        *last = Some((epoch, Arc::clone(&order)));
        order
    }
}

/// Rows of documents of these lengths: packed, or one each.
pub(crate) fn rows_of(lengths: &[u32], order: Vec<u32>, packing: bool, sequence_len: usize) -> PackedRows {
    if packing { pack(lengths, &order, sequence_len) } else { PackedRows::single(order) }
}
