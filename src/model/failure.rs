//! A device that fails while it computes, which shows when a result is read.

use std::any::Any;
use std::borrow::Cow;
use std::panic::resume_unwind;

use thiserror::Error;

use crate::panics;

/// The device reports an error.
#[derive(Debug, Error)]
#[error("the device failed: {reason}")]
pub struct DeviceFailure {
    reason: String,
}

/// Messages of burn's backends and the libraries below them when there is no memory for a tensor, none left or never
/// enough; in lower case.
const OUT_OF_MEMORY: [&str; 6] = [
    // CubeCL.
    "out of device memory",
    "can't allocate",
    // CubeCL where a kernel is launched.
    "out-of-memory",
    // CUDA, in an error that CubeCL hands on, and wgpu, which panics in a thread of CubeCL's.
    "out of memory",
    "not enough memory",
    "outofmemory",
];

impl DeviceFailure {
    /// The hint: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        Some("if memory ran out, lower micro_batch_size or sequence_len, or set gradient_checkpointing: true".into())
    }

    /// The device's words about its memory, if it failed for lack of it.
    pub fn shortage(&self) -> Option<&str> {
        let lower = self.reason.to_ascii_lowercase();
        let begin = OUT_OF_MEMORY.iter().filter_map(|words| lower.find(words)).min()?;
        let text = &self.reason[begin..];
        // What follows is a backtrace, in a text that may be quoted in another.
        let end = ["\n", "\\n", "\""].iter().filter_map(|end| text.find(end)).min();
        Some(&text[..end.unwrap_or(text.len())])
    }

    /// From what burn reports when a tensor is read; with what a thread of its library died of before, if one did.
    pub fn new(error: impl std::fmt::Debug) -> Self {
        Self::of(format!("{error:?}"), panics::take())
    }

    /// The error of a panic for lack of memory; any other panic continues.
    pub fn of_panic(panic: Box<dyn Any + Send>) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let failure = Self { reason: text.unwrap_or_default().to_owned() };
        if failure.shortage().is_none() {
            resume_unwind(panic);
        }
        panics::take();
        failure
    }

    fn of(error: String, panic: Option<String>) -> Self {
        Self { reason: panic.map_or(error.clone(), |panic| format!("{error}\nafter {panic}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_from_other_failures() {
        let shortage = |reason: &str| DeviceFailure { reason: reason.to_owned() }.shortage().map(str::to_owned);
        for (reason, reported) in [
            (
                "Execution(WithContext { reason: \"read\\nCaused by:\\n out of device memory allocating 64 bytes\\n   0: main\" })",
                "out of device memory allocating 64 bytes",
            ),
            ("can't allocate buffer of size: 99\n0: main", "can't allocate buffer of size: 99"),
            (
                "Can't allocate 9 bytes: every page size the memory tracks still holds live allocations\nNo backtrace",
                "Can't allocate 9 bytes: every page size the memory tracks still holds live allocations",
            ),
            (
                "An out-of-memory error happened during launch\nCaused by:\n  stack",
                "out-of-memory error happened during launch",
            ),
            (
                "Unknown error happened during execution: CUDA error: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                "out of memory",
            ),
            ("wgpu error: Out of Memory", "Out of Memory"),
            ("wgpu error: Validation Error\n\nCaused by:\n  Not enough memory left.\n", "Not enough memory left."),
            ("The device is poisoned\nCaused by:\n  Unknown: Out of memory", "Out of memory"),
        ] {
            assert_eq!(shortage(reason).as_deref(), Some(reported), "{reason}");
        }
        assert_eq!(shortage("Execution(DevicePoisoned { reason: \"illegal address\" })"), None);
    }

    #[test]
    fn what_a_thread_of_the_library_died_of_is_told() {
        let read = "The work writing this buffer was torn down".to_owned();
        assert_eq!(DeviceFailure::of(read.clone(), None).shortage(), None);
        let died = "panicked at stream.rs:1:1:\nwgpu error: Out of Memory".to_owned();
        assert_eq!(DeviceFailure::of(read, Some(died)).shortage(), Some("Out of Memory"));
    }
}
