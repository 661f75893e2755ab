//! CSV and TSV: a header, then records; every field is a text, an empty one too.
//!
//! Quoted fields may hold separators, quotes and line breaks (RFC 4180). Lines are counted as editors count them: a line
//! ends with `\n`, `\r\n` or a lone `\r`, within quotes too; blank lines are no records.

use std::collections::HashSet;
use std::io::{BufRead, Read};

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use serde_json::{Map, Value};

use super::lines::{Input, until_error};
use super::text::field;
use super::{FileRows, MAX_ROW_BYTES, RawContent, RawRow, Unit, broken, too_long, unreadable_text};
use crate::foundation::{Error, quoted_list};
use crate::reading::row::RowProblem;

/// The separators that spreadsheets and databases write, with their names.
const SEPARATORS: [(u8, &str); 4] = [(b',', "`,`"), (b';', "`;`"), (b'\t', "tabs"), (b'|', "`|`")];

pub(super) fn open(path: String, mut input: Input, separator: u8) -> Result<FileRows, Error> {
    let start = input.fill_buf().map_err(|error| unreadable_text(&path, error))?;
    let written = written_separator(start, separator);
    let note = written.map(|(_, name)| format!("its fields are separated by {name}"));
    let separator = written.map_or(separator, |(other, _)| other);
    let mut records = Records::new(path, input, separator);
    let names = match records.next()? {
        None => Vec::new(),
        Some(line) => header(&records, line)?,
    };
    let rows = until_error(move || {
        loop {
            let Some(number) = records.next()? else {
                return Ok(None);
            };
            // A line of white space is blank too, where a record has several fields.
            if names.len() > 1 && records.record.len() == 1 && records.record[0].trim_ascii().is_empty() {
                continue;
            }
            let content = match columns(&records.record, &names, separator) {
                Ok(columns) => RawContent::Columns(columns),
                Err(problem) => RawContent::Broken(problem),
            };
            return Ok(Some(RawRow { number, content }));
        }
    });
    Ok(FileRows { unit: Unit::Lines, notes: note.into_iter().collect(), rows: Box::new(rows) })
}

/// The separator of a header that has none of the expected ones but another.
fn written_separator(start: &[u8], expected: u8) -> Option<(u8, &'static str)> {
    let mut quoted = false;
    let mut found = [0; SEPARATORS.len()];
    let header = start.iter().skip_while(|byte| matches!(byte, b'\r' | b'\n'));
    for byte in header {
        match byte {
            b'"' => quoted = !quoted,
            b'\r' | b'\n' if !quoted => break,
            byte if !quoted => {
                if let Some(index) = SEPARATORS.iter().position(|(separator, _)| separator == byte) {
                    found[index] += 1;
                }
            }
            _ => {}
        }
    }
    let written =
        |wanted: u8| SEPARATORS.iter().zip(found).any(|((separator, _), count)| *separator == wanted && count > 0);
    if written(expected) {
        return None;
    }
    SEPARATORS.iter().copied().find(|(separator, _)| written(*separator))
}

/// The names of the columns, which the record just read, on `line`, holds.
fn header(records: &Records, line: usize) -> Result<Vec<String>, Error> {
    let place = Unit::Lines.place(&records.path, line);
    let mut names = Vec::with_capacity(records.record.len());
    let mut known = HashSet::with_capacity(records.record.len());
    for name in &records.record {
        let name = field(name.to_vec()).map_err(|problem| broken(&records.path, &problem.problem, &problem.hint))?;
        if !known.insert(name.clone()) {
            let problem = format!("the header names the column `{name}` twice");
            return Err(broken(&place, &problem, "give each column a different name"));
        }
        names.push(name);
    }
    Ok(names)
}

fn columns(record: &ByteRecord, names: &[String], separator: u8) -> Result<Map<String, Value>, RowProblem> {
    if record.len() != names.len() {
        let count = record.len();
        let plural = if count == 1 { "" } else { "s" };
        let what = match separator {
            b'\t' => "tabs",
            b';' => "semicolons and quotes",
            b'|' => "`|` and quotes",
            _ => "commas and quotes",
        };
        return Err(RowProblem::new(
            format!("the record has {count} field{plural}, the header names {}", quoted_list(names)),
            format!("put a field that holds {what} in double quotes, and double the quotes inside it"),
        ));
    }
    let pairs = names.iter().zip(record.iter());
    pairs.map(|(name, bytes)| Ok((name.clone(), Value::String(field(bytes.to_vec())?)))).collect()
}

/// The records of a file, one at a time.
struct Records {
    path: String,
    reader: Reader<Lines>,
    record: ByteRecord,
}

impl Records {
    fn new(path: String, input: Input, separator: u8) -> Records {
        let last = Vec::new();
        let lines = Lines { input, left: 0, last, at: 0, passed: 0, line: 1, after_return: false, start: None };
        let reader = ReaderBuilder::new().delimiter(separator).flexible(true).has_headers(false).from_reader(lines);
        Records { path, reader, record: ByteRecord::new() }
    }

    /// Reads the next record; returns the line on which it begins, or `None` at the end of the file.
    fn next(&mut self) -> Result<Option<usize>, Error> {
        let at = self.reader.position().byte();
        self.reader.get_mut().begin_record(at);
        let read = self.reader.read_byte_record(&mut self.record);
        let lines = self.reader.get_ref();
        let line = lines.start.unwrap_or(lines.line);
        match read {
            Ok(read) => Ok(read.then_some(line)),
            Err(error) => Err(failed(&self.path, line, error)),
        }
    }
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

/// An input that counts lines. It fails after the bytes of the longest row, until the next record begins: a quote that
/// is never closed would otherwise make one record of the rest of the file.
struct Lines {
    input: Input,
    /// The bytes that may still be read for the record.
    left: usize,
    /// The bytes that were read last; the parser asks for more only once it is through with them.
    last: Vec<u8>,
    /// The number of bytes before them.
    at: u64,
    /// The number of the last bytes whose line breaks are counted, and the line after these.
    passed: usize,
    line: usize,
    /// True if they end with a carriage return, with which a line feed is one line break.
    after_return: bool,
    /// The line on which the record begins, once its first byte was read.
    start: Option<usize>,
}

impl Lines {
    /// Begins the record that follows the first `at` bytes and the line breaks after them.
    fn begin_record(&mut self, at: u64) {
        self.left = MAX_ROW_BYTES;
        self.pass(usize::try_from(at - self.at).unwrap_or(usize::MAX).min(self.last.len()));
        self.start = None;
        self.seek_start();
    }

    /// Finds the first byte of the record in the rest of the last bytes.
    fn seek_start(&mut self) {
        let first = self.last[self.passed..].iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
        self.pass(first.map_or(self.last.len(), |first| self.passed + first));
        self.start = first.map(|_| self.line);
    }

    /// Counts the line breaks before the index `to`.
    fn pass(&mut self, to: usize) {
        for byte in &self.last[self.passed.min(to)..to] {
            self.line += usize::from(*byte == b'\r' || (*byte == b'\n' && !self.after_return));
            self.after_return = *byte == b'\r';
        }
        self.passed = self.passed.max(to);
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.pass(self.last.len());
        self.at += self.last.len() as u64;
        self.last.clear();
        self.passed = 0;
        let read = self.input.read(buffer)?;
        self.left = self.left.checked_sub(read).ok_or_else(|| std::io::Error::other(TooLong))?;
        self.last.extend_from_slice(&buffer[..read]);
        if self.start.is_none() {
            self.seek_start();
        }
        Ok(read)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the row is too long")]
struct TooLong;
