//! Examples to batches: documents are packed into rows, rows are put in order, and laid out with targets and masks.

mod batch;
mod packing;
mod step_rows;

pub use self::batch::{Batch, MicroBatch};
pub(crate) use self::batch::{longest_first, micro_batches};
#[cfg(test)]
pub(crate) use self::packing::pack;
pub(crate) use self::step_rows::{StepRows, rows_of};
