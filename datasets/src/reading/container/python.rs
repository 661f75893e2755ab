//! Rows that Python wrote and that are not quite JSON: `json.dumps` writes `NaN`, `Infinity` and `-Infinity`, which
//! `json.loads` reads again.
//!
//! Such a number becomes a value that no field accepts, so that it is no matter in a column that is not read, and is
//! named where one is.

use serde_json::Value;

use crate::reading::row::NOT_A_NUMBER;

/// The names of numbers that JSON does not have; the longer ones of one beginning come first.
const NAMES: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// A text that is JSON but for Python's names of numbers, parsed with the values that stand for them; `None` if it has
/// no such name.
pub(super) fn parsed(text: &[u8]) -> Option<serde_json::Result<Value>> {
    let mut written = Vec::with_capacity(text.len() + 64);
    let (mut in_string, mut escaped, mut replaced) = (false, false, false);
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else if *byte == b'"' {
            in_string = true;
        } else if let Some(name) = NAMES.iter().find(|name| text[at..].starts_with(name.as_bytes())) {
            written.extend_from_slice(format!("{{\"{NOT_A_NUMBER}\":\"{name}\"}}").as_bytes());
            at += name.len();
            replaced = true;
            continue;
        }
        written.push(*byte);
        at += 1;
    }
    replaced.then(|| serde_json::from_slice(&written))
}

/// Advice on a text that is an object of Python rather than JSON.
pub(super) fn hint(text: &[u8]) -> Option<&'static str> {
    let begin = text.trim_ascii_start();
    let is_literal = begin.starts_with(b"{'") || begin.starts_with(b"{ '");
    is_literal.then_some("this is an object as Python prints it: write rows with `json.dumps`")
}
