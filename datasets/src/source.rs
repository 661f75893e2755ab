//! Files to rows: JSON lines and JSON arrays, each row with the line it starts on.
//!
//! A `.json` file may hold either form. What is broken is reported with the parser's words and
//! the place in the file; of many broken lines the first is shown and the rest are counted.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, and_more};
use crate::row::{Row, described};

/// Reads the rows of a `.jsonl` or `.json` file; never an empty list.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Unreadable { path: path.display().to_string(), source })?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF".as_slice()).unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        let hint = "save the file as UTF-8";
        broken(path, line, "the file is not UTF-8 here".to_owned(), 0, hint)
    })?;
    let rows = match text.trim_start().starts_with('[') {
        true => read_array(path, text)?,
        false => read_lines(path, text)?,
    };
    if rows.is_empty() {
        return Err(Error::EmptyFile { path: path.display().to_string() });
    }
    Ok(rows)
}

fn read_lines(path: &Path, text: &str) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    let mut first: Option<(usize, String)> = None;
    let mut others = 0;
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match object(line) {
            Ok(columns) => rows.push(Row { line: index + 1, columns }),
            Err(_) if first.is_some() => others += 1,
            Err(message) => first = Some((index + 1, message)),
        }
    }
    match first {
        None => Ok(rows),
        Some((line, message)) => {
            let hint = if rows.is_empty() {
                "the file is to hold one JSON object per line, or one array of objects"
            } else {
                "correct the line or delete it; each line is one JSON object"
            };
            Err(broken(path, line, message, others, hint))
        }
    }
}

/// One line as an object, or what is wrong with it.
fn object(line: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(line) {
        Ok(Value::Object(columns)) => Ok(columns),
        Ok(other) => Err(not_an_object(&other)),
        Err(error) => {
            let column = error.column();
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            Err(format!("{message} at column {column}"))
        }
    }
}

fn not_an_object(value: &Value) -> String {
    format!("the row is {}, accepted is an object", described(value))
}

fn read_array(path: &Path, text: &str) -> Result<Vec<Row>, Error> {
    let hint = "the file is to hold an array of objects, separated by commas";
    let mut rows = Vec::new();
    let mut scanner = Scanner { text, offset: 0, line: 1 };
    scanner.skip_blank();
    scanner.advance(1);
    scanner.skip_blank();
    while !scanner.rest().starts_with(']') {
        let start = scanner.line;
        let mut values = serde_json::Deserializer::from_str(scanner.rest()).into_iter::<Value>();
        let columns = match values.next() {
            Some(Ok(Value::Object(columns))) => columns,
            Some(Ok(other)) => return Err(broken(path, start, not_an_object(&other), 0, hint)),
            Some(Err(error)) => {
                let line = start + error.line().saturating_sub(1);
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default().to_owned();
                return Err(broken(path, line, message, 0, hint));
            }
            None => {
                return Err(broken(path, start, "the array is not closed".to_owned(), 0, hint));
            }
        };
        let consumed = values.byte_offset();
        rows.push(Row { line: start, columns });
        scanner.advance(consumed);
        scanner.skip_blank();
        if scanner.rest().starts_with(',') {
            scanner.advance(1);
            scanner.skip_blank();
        } else if !scanner.rest().starts_with(']') {
            let message = "expected `,` or `]` after a row".to_owned();
            return Err(broken(path, scanner.line, message, 0, hint));
        }
    }
    scanner.advance(1);
    scanner.skip_blank();
    if !scanner.rest().is_empty() {
        let message = "there is more text after the array".to_owned();
        return Err(broken(path, scanner.line, message, 0, hint));
    }
    Ok(rows)
}

/// A place in a text that knows its line.
struct Scanner<'a> {
    text: &'a str,
    offset: usize,
    line: usize,
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        &self.text[self.offset..]
    }

    fn advance(&mut self, bytes: usize) {
        let end = (self.offset + bytes).min(self.text.len());
        self.line += self.text[self.offset..end].bytes().filter(|byte| *byte == b'\n').count();
        self.offset = end;
    }

    fn skip_blank(&mut self) {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start().len();
        self.advance(blank);
    }
}

fn broken(path: &Path, line: usize, message: String, others: usize, hint: &str) -> Error {
    Error::BrokenJson {
        path: path.display().to_string(),
        line,
        message,
        more: and_more(others, "such line"),
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizer::Folder;

    fn lines_of(name: &str, text: &str) -> Result<Vec<usize>, String> {
        let folder = Folder::new();
        let path = folder.write(name, text);
        read(&path)
            .map(|rows| rows.iter().map(|row| row.line).collect())
            .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn rows_know_their_lines() {
        assert_eq!(lines_of("a.jsonl", "\u{feff}{\"a\": 1}\r\n\n{\"a\": 2}\n"), Ok(vec![1, 3]));
        assert_eq!(lines_of("a.json", "[\n {\"a\": 1},\n {\n\"a\": 2\n},{\"b\": 1}\n]\n"), Ok(vec![2, 3, 5]));
        assert_eq!(lines_of("a.json", "{\"a\": 1}\n{\"a\": 2}"), Ok(vec![1, 2]));
    }

    #[test]
    fn a_broken_line_is_named_and_the_others_are_counted() {
        let error = lines_of("train.jsonl", "{\"a\": 1}\n{\"a\": }\n{\n{\"a\": 2}").unwrap_err();
        assert!(
            error.starts_with("train.jsonl:2: broken JSON: expected value at column 7 (and 1 more such line)\nhint: "),
            "{error}"
        );
    }

    #[test]
    fn a_broken_array_is_named_by_line() {
        let error = lines_of("train.json", "[\n{\"a\": 1},\n{\"a\" 2}\n]").unwrap_err();
        assert!(error.starts_with("train.json:3: broken JSON: expected `:`"), "{error}");
        let error = lines_of("train.json", "[\n{\"a\": 1}\n{\"a\": 2}\n]").unwrap_err();
        assert!(error.starts_with("train.json:3: broken JSON: expected `,` or `]`"), "{error}");
        assert!(lines_of("train.json", "[{\"a\": 1}").is_err());
        assert!(lines_of("train.json", "[{\"a\": 1},").is_err());
        assert!(lines_of("train.json", "[1]").unwrap_err().contains("the row is `1`"));
        assert!(lines_of("train.json", "[{}] x").is_err());
    }

    #[test]
    fn empty_files_and_other_encodings_are_refused() {
        for text in ["", "\n\n", "[]"] {
            let error = lines_of("train.json", text).unwrap_err();
            assert!(error.starts_with("train.json: the file holds no rows\nhint: "), "{error}");
        }
        let folder = Folder::new();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, b"{}\n{\"a\": \"\xff\"}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("a.jsonl:2: broken JSON: the file is not UTF-8"));
    }
}
