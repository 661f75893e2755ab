//! A device that fails while it computes, which shows when a result is read.

use thiserror::Error;

/// The device reports an error.
#[derive(Debug, Error)]
#[error(
    "the device failed: {reason}\nhint: if memory ran out, lower micro_batch_size or sequence_len, or set gradient_checkpointing: true"
)]
pub struct DeviceFailure {
    reason: String,
}

impl DeviceFailure {
    /// From what burn reports when a tensor is read.
    pub fn new(error: impl std::fmt::Debug) -> Self {
        Self { reason: format!("{error:?}") }
    }
}
