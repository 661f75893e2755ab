//! Untrusted files: panics of the libraries that read them become errors, and their size is bounded.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result as IoResult};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Runs a library on an untrusted file; a panic becomes an error with its message.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        text.unwrap_or("its lengths contradict each other").lines().next().unwrap_or_default().to_owned()
    })
}

/// Reads a regular file of at most `most` bytes.
pub(crate) fn read_bounded(path: &Path, most: u64) -> IoResult<Vec<u8>> {
    // A pipe may wait for a writer, and a device may have no end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} MB", most / 1_000_000)));
    }
    Ok(bytes)
}
