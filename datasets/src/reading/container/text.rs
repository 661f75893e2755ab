//! Plain text: every line that is not blank is a row with the one column `text`.

use serde_json::{Map, Value};

use super::lines::{Input, Lines, until_error};
use super::{FileRows, RawContent, RawRow, Unit};
use crate::reading::row::RowProblem;

pub(super) fn open(path: String, input: Input) -> FileRows {
    let mut lines = Lines::new(path, input);
    let rows = until_error(move || {
        let Some(line) = lines.next_filled()? else {
            return Ok(None);
        };
        let content = match field(line) {
            Ok(text) => RawContent::Columns(Map::from_iter([("text".to_owned(), Value::String(text))])),
            Err(problem) => RawContent::Broken(problem),
        };
        Ok(Some(RawRow { number: lines.number, content }))
    });
    FileRows { unit: Unit::Lines, notes: Vec::new(), rows: Box::new(rows) }
}

/// Bytes of a text file as text.
pub(super) fn field(bytes: Vec<u8>) -> Result<String, RowProblem> {
    if bytes.contains(&0) {
        return Err(RowProblem::new("the row holds a NUL byte", "remove it; texts do not hold NUL bytes"));
    }
    String::from_utf8(bytes).map_err(|_| super::json::not_utf8())
}
