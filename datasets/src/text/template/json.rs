//! JSON as Python's `json.dumps` writes it, since models were trained on it.
//!
//! `, ` and `: ` between items, non-ASCII text kept as it is, floats in Python's notation.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::python::python_float;

/// The options of `json.dumps` that templates use.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonStyle {
    pub(super) ascii: bool,
    pub(super) indent: Option<usize>,
    /// Item separator and key separator, where they differ from Python's defaults.
    pub(super) separators: Option<Vec<String>>,
    pub(super) sorted: bool,
}

/// `value` as `json.dumps` writes it, without escaping other letters than English ones.
pub(crate) fn python_json(value: &Value) -> String {
    to_json(value, &JsonStyle::default()).unwrap_or_default()
}

/// Most bytes of a text: as many as a rendering may make.
const MOST_BYTES: usize = 64 << 20;

/// `value` as text; `None` if that is too long.
pub(super) fn to_json(value: &Value, style: &JsonStyle) -> Option<String> {
    let (item, key) = match style.separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        _ if style.indent.is_some() => (",", ": "),
        _ => (", ", ": "),
    };
    let mut writer = Writer { text: String::new(), style, item, key };
    writer.value(value, 0);
    Some(writer.text).filter(|text| text.len() <= MOST_BYTES)
}

struct Writer<'a> {
    text: String,
    style: &'a JsonStyle,
    item: &'a str,
    key: &'a str,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(yes) => self.text.push_str(if *yes { "true" } else { "false" }),
            Value::Number(number) => self.text.push_str(&python_number(number)),
            Value::String(text) => self.string(text),
            Value::Array(items) if items.is_empty() => self.text.push_str("[]"),
            Value::Array(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if self.text.len() > MOST_BYTES {
                        return;
                    }
                    self.next_item(index, depth + 1);
                    self.value(item, depth + 1);
                }
                self.new_line(depth);
                self.text.push(']');
            }
            Value::Object(entries) if entries.is_empty() => self.text.push_str("{}"),
            Value::Object(entries) => self.object(entries, depth),
        }
    }

    fn object(&mut self, entries: &Map<String, Value>, depth: usize) {
        let mut pairs: Vec<(&String, &Value)> = entries.iter().collect();
        if self.style.sorted {
            pairs.sort_by_key(|(key, _)| *key);
        }
        self.text.push('{');
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            if self.text.len() > MOST_BYTES {
                return;
            }
            self.next_item(index, depth + 1);
            self.string(key);
            self.text.push_str(self.key);
            self.value(value, depth + 1);
        }
        self.new_line(depth);
        self.text.push('}');
    }

    fn next_item(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.text.push_str(self.item);
        }
        self.new_line(depth);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = self.style.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', indent.saturating_mul(depth).min(1000)));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                control if u32::from(control) < 0x20 => self.escape(u16::try_from(u32::from(control)).unwrap_or(0)),
                wide if self.style.ascii && !wide.is_ascii() => {
                    let mut units = [0; 2];
                    for unit in wide.encode_utf16(&mut units) {
                        self.escape(*unit);
                    }
                }
                '\u{7f}' if self.style.ascii => self.text.push('\u{7f}'),
                plain => self.text.push(plain),
            }
        }
        self.text.push('"');
    }

    fn escape(&mut self, unit: u16) {
        write!(self.text, "\\u{unit:04x}").expect("writing to a string cannot fail");
    }
}

/// A number as Python's `repr` writes it.
fn python_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => python_float(float),
        _ => number.to_string(),
    }
}

/// A plain value as the key of an object; `None` for a list or an object.
pub(super) fn key_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("null".to_owned()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Number(number) => Some(python_number(number)),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = json!({"a": "é<&'\"\n", "b": [1, 2.5, 1e-7, 1e16, 100.0, true, null], "c": {}, "d": []});
        assert_eq!(
            to_json(&value, &JsonStyle::default()).unwrap(),
            r#"{"a": "é<&'\"\n", "b": [1, 2.5, 1e-07, 1e+16, 100.0, true, null], "c": {}, "d": []}"#
        );
    }

    #[test]
    fn indentation_drops_the_space_after_commas() {
        let style = JsonStyle { indent: Some(4), ..JsonStyle::default() };
        assert_eq!(to_json(&json!({"a": [1, 2]}), &style).unwrap(), "{\n    \"a\": [\n        1,\n        2\n    ]\n}");
    }

    #[test]
    fn ascii_sorting_and_separators_are_options() {
        let style = JsonStyle {
            ascii: true,
            sorted: true,
            separators: Some(vec![",".to_owned(), ":".to_owned()]),
            indent: None,
        };
        assert_eq!(to_json(&json!({"b": "🙂", "a": 1}), &style).unwrap(), r#"{"a":1,"b":"\ud83d\ude42"}"#);
    }
}
