//! Lines of a text of any length, one in memory at a time.

use std::io::{BufRead, Read};

use crate::foundation::Error;

use super::{MAX_ROW_BYTES, Unit, too_long, unreadable_text};

/// The input of a text file, decompressed.
pub(super) type Input = std::io::BufReader<Box<dyn Read + Send>>;

/// A reader of lines that knows their numbers.
pub(super) struct Lines {
    pub(super) path: String,
    pub(super) input: Input,
    /// Lines read so far.
    pub(super) number: usize,
}

impl Lines {
    pub(super) fn new(path: String, input: Input) -> Lines {
        Lines { path, input, number: 0 }
    }

    /// The next line without its end; `None` at the end of the file.
    pub(super) fn next_line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut line = Vec::new();
        let read = (&mut self.input)
            .take(MAX_ROW_BYTES as u64 + 2)
            .read_until(b'\n', &mut line)
            .map_err(|error| unreadable_text(&self.path, error))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.ends_with(b"\n") {
            line.pop();
        }
        if line.ends_with(b"\r") {
            line.pop();
        }
        if line.len() > MAX_ROW_BYTES {
            return Err(too_long(Unit::Lines.place(&self.path, self.number)));
        }
        Ok(Some(line))
    }

    /// The next line that is not blank.
    pub(super) fn next_filled(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while let Some(line) = self.next_line()? {
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }
}

/// Yields the items of `next` until it returns `None` or an error.
pub(super) fn until_error<T>(
    mut next: impl FnMut() -> Result<Option<T>, Error>,
) -> impl Iterator<Item = Result<T, Error>> {
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let item = next().transpose();
        done = !matches!(item, Some(Ok(_)));
        item
    })
}
