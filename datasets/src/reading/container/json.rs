//! JSON: objects by line, an array of objects, objects over several lines, or an object of arrays.
//!
//! The first bytes of a file decide, not its suffix. Values are cut out of the text by counting brackets
//! outside of strings, and parsed later, each by itself.

use std::io::BufRead;

use serde_json::{Map, Value};

use super::lines::{Input, Lines, until_error};
use super::python;
use super::{FileRows, MAX_ROW_BYTES, RawContent, RawRow, Unit, broken, too_long, unreadable_text};
use crate::foundation::Error;
use crate::reading::row::{RowProblem, described, not_a_number};

/// Columns that are lists in themselves, and not always of objects, so that a single object with one of them may well be
/// a row.
const LIST_COLUMNS: [&str; 9] =
    ["messages", "conversations", "input_ids", "labels", "attention_mask", "segments", "chosen", "rejected", "tools"];

pub(super) fn open(path: String, input: Input) -> Result<FileRows, Error> {
    let mut values = Values { path, input, line: 1 };
    values.skip_blank()?;
    if values.peek()? == Some(b'[') {
        let line = values.line;
        values.consume(1);
        values.skip_blank()?;
        // An array that begins on the line of its bracket is likely to be on that line as a whole.
        let unit = if values.line == line { Unit::Rows } else { Unit::Lines };
        return Ok(FileRows { unit, notes: Vec::new(), rows: Box::new(array(values, unit)) });
    }
    let before = values.line - 1;
    let mut lines = Lines { path: values.path, input: values.input, number: before };
    let Some(first) = lines.next_line()? else {
        return Ok(by_line(std::iter::empty()));
    };
    let number = lines.number;
    let parsed = serde_json::from_slice::<Value>(&first);
    let parsed = parsed.or_else(|error| python::parsed(&first).unwrap_or(Err(error)));
    match parsed {
        Err(error) if error.is_eof() => objects(lines, first),
        Ok(Value::Object(columns)) => match lines.next_filled()? {
            None if is_table(&columns) => Ok(table(columns)),
            None => Ok(by_line(std::iter::once(Ok(RawRow { number, content: RawContent::Columns(columns) })))),
            Some(second) => {
                let read = [(number, first), (lines.number, second)];
                Ok(by_line(read.into_iter().map(json_row).chain(rest_of(lines))))
            }
        },
        _ => Ok(by_line(std::iter::once(json_row((number, first))).chain(rest_of(lines)))),
    }
}

/// A row's text as an object.
pub(super) fn object(text: &[u8]) -> Result<Map<String, Value>, RowProblem> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(columns)) => Ok(columns),
        Ok(other) => Err(RowProblem::new(
            format!("the row is {}, accepted is an object", described(&other)),
            "write one JSON object per line, or one array of objects",
        )),
        Err(_) if std::str::from_utf8(text).is_err() => Err(not_utf8()),
        Err(error) => {
            if let Some(Ok(Value::Object(columns))) = python::parsed(text) {
                return Ok(columns);
            }
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            let within = match error.line() {
                0 | 1 => String::new(),
                line => format!("line {line} of the row, "),
            };
            Err(RowProblem::new(
                format!("broken JSON: {message} at {within}column {}", error.column()),
                python::hint(text).unwrap_or("correct the row or delete it; a row is one JSON object"),
            ))
        }
    }
}

pub(super) fn not_utf8() -> RowProblem {
    RowProblem::new("the text is not valid UTF-8", "save the file as UTF-8")
}

fn by_line(rows: impl Iterator<Item = Result<RawRow, Error>> + Send + 'static) -> FileRows {
    FileRows { unit: Unit::Lines, notes: Vec::new(), rows: Box::new(rows) }
}

fn json_row((number, text): (usize, Vec<u8>)) -> Result<RawRow, Error> {
    Ok(RawRow { number, content: RawContent::Json(text) })
}

fn rest_of(mut lines: Lines) -> impl Iterator<Item = Result<RawRow, Error>> {
    until_error(move || match lines.next_filled()? {
        Some(line) => json_row((lines.number, line)).map(Some),
        None => Ok(None),
    })
}

/// Objects one after another, whatever the line breaks; the first may be a table.
fn objects(lines: Lines, mut first: Vec<u8>) -> Result<FileRows, Error> {
    let start = lines.number;
    let mut values = Values { path: lines.path, input: lines.input, line: start + 1 };
    first.push(b'\n');
    let mut scan = Scan::default();
    scan.feed(&first);
    let text = values.finish(start, first, scan)?;
    let unparsed = text.clone();
    values.skip_blank()?;
    if values.peek()?.is_none()
        && let Ok(columns) = object(&text)
        && is_table(&columns)
    {
        return Ok(table(columns));
    }
    let rest = until_error(move || {
        values.skip_blank()?;
        match values.peek()? {
            None => Ok(None),
            Some(_) => json_row(values.value()?).map(Some),
        }
    });
    Ok(by_line(std::iter::once(json_row((start, unparsed))).chain(rest)))
}

/// True if an object is the columns of a table: arrays of one length with a cell for each row. An array of objects is
/// no column but a list of messages or the like, with which the object is itself a row.
fn is_table(columns: &Map<String, Value>) -> bool {
    let length = columns.values().next().and_then(Value::as_array).map(Vec::len).filter(|length| *length > 0);
    length.is_some_and(|length| {
        columns.iter().all(|(name, values)| {
            let Value::Array(values) = values else { return false };
            let of_lists = !LIST_COLUMNS.contains(&name.as_str()) || values.first().is_some_and(Value::is_array);
            let of_objects = values.iter().any(|value| value.is_object() && not_a_number(value).is_none());
            values.len() == length && of_lists && !of_objects
        })
    })
}

fn table(columns: Map<String, Value>) -> FileRows {
    let (names, mut cells): (Vec<String>, Vec<_>) = columns
        .into_iter()
        .map(|(name, values)| match values {
            Value::Array(values) => (name, values.into_iter()),
            _ => (name, Vec::new().into_iter()),
        })
        .unzip();
    let mut number = 0;
    let rows = until_error(move || {
        let row: Option<Vec<Value>> = cells.iter_mut().map(Iterator::next).collect();
        let Some(row) = row else { return Ok(None) };
        number += 1;
        let columns = names.iter().cloned().zip(row).collect();
        Ok(Some(RawRow { number, content: RawContent::Columns(columns) }))
    });
    FileRows { unit: Unit::Rows, notes: Vec::new(), rows: Box::new(rows) }
}

/// The elements of an array whose `[` has been read.
fn array(mut values: Values, unit: Unit) -> impl Iterator<Item = Result<RawRow, Error>> {
    let hint = "write an array of objects, separated by commas";
    let mut first = true;
    let mut rows = 0;
    until_error(move || {
        values.skip_blank()?;
        let place = |values: &Values| Unit::Lines.place(&values.path, values.line);
        let unclosed = |values: &Values| broken(&place(values), "broken JSON: the array is not closed", hint);
        let mut next = values.peek()?.ok_or_else(|| unclosed(&values))?;
        if next == b',' && !first {
            values.consume(1);
            values.skip_blank()?;
            next = values.peek()?.ok_or_else(|| unclosed(&values))?;
        } else if next != b']' && !first {
            return Err(broken(&place(&values), "broken JSON: expected `,` or `]` after a row", hint));
        }
        first = false;
        if next == b']' {
            values.consume(1);
            values.skip_blank()?;
            return match values.peek()? {
                None => Ok(None),
                Some(_) => Err(broken(&place(&values), "broken JSON: there is more text after the array", hint)),
            };
        }
        let (line, text) = values.value()?;
        rows += 1;
        json_row((if unit == Unit::Rows { rows } else { line }, text)).map(Some)
    })
}

/// A text of JSON values that are cut out one by one.
struct Values {
    path: String,
    input: Input,
    /// The line of the next byte.
    line: usize,
}

impl Values {
    fn peek(&mut self) -> Result<Option<u8>, Error> {
        let path = &self.path;
        self.input.fill_buf().map(|bytes| bytes.first().copied()).map_err(|error| unreadable_text(path, error))
    }

    fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
    }

    fn skip_blank(&mut self) -> Result<(), Error> {
        while let Some(byte) = self.peek()?.filter(u8::is_ascii_whitespace) {
            self.line += usize::from(byte == b'\n');
            self.consume(1);
        }
        Ok(())
    }

    /// The value that begins here, with its line.
    fn value(&mut self) -> Result<(usize, Vec<u8>), Error> {
        let start = self.line;
        Ok((start, self.finish(start, Vec::new(), Scan::default())?))
    }

    /// Reads the rest of a value of which `scan` has seen the beginning.
    fn finish(&mut self, start: usize, mut text: Vec<u8>, mut scan: Scan) -> Result<Vec<u8>, Error> {
        loop {
            let bytes = self.input.fill_buf().map_err(|error| unreadable_text(&self.path, error))?;
            if bytes.is_empty() {
                // A text that is cut short is reported when it is parsed.
                return Ok(text);
            }
            let (taken, ended) = scan.feed(bytes);
            text.extend_from_slice(&bytes[..taken]);
            self.line += bytes[..taken].iter().filter(|byte| **byte == b'\n').count();
            self.input.consume(taken);
            if ended {
                return Ok(text);
            }
            if text.len() > MAX_ROW_BYTES {
                return Err(too_long(Unit::Lines.place(&self.path, start)));
            }
        }
    }
}

/// The progress within a value.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

impl Scan {
    /// Scans more `bytes`; returns the number that belong to the value, and true if it ends with them.
    fn feed(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (index, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return (index + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth <= 1 => {
                    // A bracket that closes nothing is left to the array around, if it ends a value.
                    let own = usize::from(self.depth == 1 || !self.begun);
                    self.depth = 0;
                    return (index + own, true);
                }
                b'}' | b']' => self.depth -= 1,
                b',' if self.depth == 0 && self.begun => return (index, true),
                b',' if self.depth == 0 => return (index + 1, true),
                byte if self.depth == 0 && byte.is_ascii_whitespace() && self.begun => return (index, true),
                _ => {}
            }
            self.begun = true;
        }
        (bytes.len(), false)
    }
}
