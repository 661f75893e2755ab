//! CSV and TSV: a header, then records; every field is a text, an empty one too.
//!
//! Quoted fields may hold separators, quotes and line breaks (RFC 4180).

use std::collections::HashSet;
use std::io::Read;

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use serde_json::{Map, Value};

use super::lines::{Input, until_error};
use super::text::field;
use super::{FileRows, MAX_ROW_BYTES, RawContent, RawRow, Unit, broken, too_long, unreadable_text};
use crate::foundation::{Error, quoted_list};
use crate::reading::row::RowProblem;

pub(super) fn open(path: String, input: Input, separator: u8) -> Result<FileRows, Error> {
    let limited = Limited { input, left: MAX_ROW_BYTES };
    let mut reader = ReaderBuilder::new().delimiter(separator).flexible(true).from_reader(limited);
    let header = reader.byte_headers().map_err(|error| failed(&path, 1, error))?.clone();
    let mut names = Vec::with_capacity(header.len());
    let mut known = HashSet::with_capacity(header.len());
    for name in &header {
        let name = field(name.to_vec()).map_err(|problem| broken(&path, &problem.problem, &problem.hint))?;
        if !known.insert(name.clone()) {
            let problem = format!("the header names the column `{name}` twice");
            return Err(broken(&format!("{path}:1"), &problem, "give each column a different name"));
        }
        names.push(name);
    }
    let mut record = ByteRecord::new();
    let rows = until_error(move || {
        let line = next_line(&reader);
        reader.get_mut().left = MAX_ROW_BYTES;
        if !reader.read_byte_record(&mut record).map_err(|error| failed(&path, line, error))? {
            return Ok(None);
        }
        let number = record.position().map_or(line, |position| lines(position.line()));
        let content = match columns(&record, &names, separator) {
            Ok(columns) => RawContent::Columns(columns),
            Err(problem) => RawContent::Broken(problem),
        };
        Ok(Some(RawRow { number, content }))
    });
    Ok(FileRows { unit: Unit::Lines, rows: Box::new(rows) })
}

fn columns(record: &ByteRecord, names: &[String], separator: u8) -> Result<Map<String, Value>, RowProblem> {
    if record.len() != names.len() {
        let count = record.len();
        let plural = if count == 1 { "" } else { "s" };
        let what = if separator == b'\t' { "tabs" } else { "commas and quotes" };
        return Err(RowProblem::new(
            format!("the record has {count} field{plural}, the header names {}", quoted_list(names)),
            format!("put a field that holds {what} in double quotes, and double the quotes inside it"),
        ));
    }
    let pairs = names.iter().zip(record.iter());
    pairs.map(|(name, bytes)| Ok((name.clone(), Value::String(field(bytes.to_vec())?)))).collect()
}

fn next_line(reader: &Reader<Limited>) -> usize {
    lines(reader.position().line())
}

fn lines(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX)
}

fn failed(path: &str, line: usize, error: csv::Error) -> Error {
    let place = Unit::Lines.place(path, line);
    let text = error.to_string();
    match error.into_kind() {
        ErrorKind::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<TooLong>()) => too_long(place),
        ErrorKind::Io(error) => unreadable_text(path, error),
        _ => broken(&place, &text, "write the file according to RFC 4180: a header, then one record per row"),
    }
}

/// An input that fails after `left` bytes, until that is set again: a quote that is never closed would
/// otherwise make one row of the rest of the file.
struct Limited {
    input: Input,
    left: usize,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.left = self.left.checked_sub(read).ok_or_else(|| std::io::Error::other(TooLong))?;
        Ok(read)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the row is too long")]
struct TooLong;
