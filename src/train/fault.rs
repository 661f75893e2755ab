//! Memory that runs out on demand, for the tests of what a run does then: no device that tests can count on has little
//! enough, and the CPU's own ends the process.
//!
//! `TUNE_TEST_SHORTAGE=KIND:ROWS:STEPS` is no setting: after so many steps a micro-batch of more rows fails as a device's
//! would. `read` is CUDA's way, an error when the loss is read; `panic` that of a library that panics; `thread` wgpu's,
//! which panics in a thread of CubeCL's, so that the read says less.

use std::sync::LazyLock;

use crate::model::DeviceFailure;

static SHORTAGE: LazyLock<Option<Shortage>> =
    LazyLock::new(|| Shortage::parse(&std::env::var("TUNE_TEST_SHORTAGE").ok()?));

struct Shortage {
    kind: String,
    rows: usize,
    steps: usize,
}

impl Shortage {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (kind, rows, steps) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { kind: kind.to_owned(), rows: rows.parse().ok()?, steps: steps.parse().ok()? })
    }
}

/// Fails where a test wants a micro-batch of `rows` to, after `steps` steps; the texts are CubeCL's and wgpu's.
pub(super) fn check(rows: usize, steps: usize) -> Result<(), DeviceFailure> {
    let Some(shortage) = SHORTAGE.as_ref().filter(|shortage| rows > shortage.rows && steps >= shortage.steps) else {
        return Ok(());
    };
    let unwritten =
        |root: &str| format!("The bytes were never written (failure #1)\nCaused by:\n  {root}\nAsked at:\n");
    match shortage.kind.as_str() {
        "panic" => panic!("{}", unwritten("out of device memory allocating 4096 bytes\nNo backtrace available")),
        "thread" => {
            let _ = std::thread::spawn(|| panic!("wgpu error: Out of Memory")).join();
            Err(DeviceFailure::new(unwritten("The work writing this buffer was torn down")))
        }
        _ => Err(DeviceFailure::new(unwritten("out of device memory allocating 4096 bytes\nNo backtrace available"))),
    }
}
