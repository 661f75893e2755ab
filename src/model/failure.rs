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

/// What burn's backends call it when there is no memory for a tensor: none left, or never enough.
const OUT_OF_MEMORY: [&str; 6] = [
    "OutOfMemory",
    "BufferTooBig",
    "out of device memory",
    "can't allocate buffer of size",
    "Can't allocate",
    "out of memory",
];

impl DeviceFailure {
    /// What the device says.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether it was for want of memory.
    pub fn is_out_of_memory(&self) -> bool {
        OUT_OF_MEMORY.iter().any(|words| self.reason.contains(words))
    }

    /// From what burn reports when a tensor is read.
    pub fn new(error: impl std::fmt::Debug) -> Self {
        Self { reason: format!("{error:?}") }
    }
}
