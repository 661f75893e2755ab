//! Examples to batches: rows of one or more documents, laid out with targets, masks and positions.

mod batch;
mod packing;

pub(crate) use self::batch::row_length;
pub use self::batch::{Batch, MicroBatch};
pub(crate) use self::packing::{Rows, pack};
