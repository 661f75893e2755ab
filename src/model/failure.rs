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

/// What burn's backends say when there is no memory for a tensor: none left, or never enough.
const OUT_OF_MEMORY: [&str; 6] = [
    "out of device memory",
    "can't allocate buffer of size",
    "Can't allocate",
    "out-of-memory",
    "OutOfMemory",
    "BufferTooBig",
];

impl DeviceFailure {
    /// What the device says of its memory, if it is for want of it that it failed.
    pub fn shortage(&self) -> Option<&str> {
        let begin = OUT_OF_MEMORY.iter().filter_map(|words| self.reason.find(words)).min()?;
        let text = &self.reason[begin..];
        // What follows is a backtrace, in a text that may be quoted in another.
        let end = ["\n", "\\n", "\""].iter().filter_map(|end| text.find(end)).min();
        Some(&text[..end.unwrap_or(text.len())])
    }

    /// From what burn reports when a tensor is read.
    pub fn new(error: impl std::fmt::Debug) -> Self {
        Self { reason: format!("{error:?}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_memory_is_told_from_other_failures() {
        let shortage = |reason: &str| DeviceFailure { reason: reason.to_owned() }.shortage().map(str::to_owned);
        let quoted = "Execution(WithContext { reason: \"read\\nCaused by:\\n out of device memory allocating 64 bytes\\n   0: main\" })";
        assert_eq!(shortage(quoted).as_deref(), Some("out of device memory allocating 64 bytes"));
        let plain = "can't allocate buffer of size: 99\n0: main";
        assert_eq!(shortage(plain).as_deref(), Some("can't allocate buffer of size: 99"));
        assert_eq!(shortage("Execution(DevicePoisoned { reason: \"illegal address\" })"), None);
    }
}
