//! One row of a file, and how formats take fields out of it with errors that help.

use serde_json::{Map, Value};

use crate::foundation::{nearest, quoted_list};

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The columns, in the file's order.
    pub(crate) columns: Map<String, Value>,
}

/// The problem of a row, without its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RowProblem {
    pub(crate) problem: String,
    pub(crate) hint: String,
}

impl RowProblem {
    pub(crate) fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        RowProblem { problem: problem.into(), hint: hint.into() }
    }
}

impl Row {
    /// The text of a column that must be there; `setting` is the recipe key that renames it.
    pub(crate) fn text(&self, column: &str, setting: &str) -> Result<&str, RowProblem> {
        match self.value(column, setting)? {
            Value::String(text) => Ok(text),
            other => Err(wrong_type(column, other, "a string")),
        }
    }

    /// The text of a column that may be missing or null: empty then.
    pub(crate) fn optional_text(&self, column: &str) -> Result<&str, RowProblem> {
        match self.columns.get(column) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(wrong_type(column, other, "a string")),
        }
    }

    /// A column that must be there.
    pub(crate) fn value(&self, column: &str, setting: &str) -> Result<&Value, RowProblem> {
        self.columns.get(column).ok_or_else(|| {
            let hint = match nearest(column, self.columns.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`? Then set `{setting}: {near}`"),
                None => format!("set `{setting}` to the column that holds it, or another `type`"),
            };
            RowProblem::new(
                format!("the field `{column}` is missing; the row has {}", quoted_list(self.columns.keys())),
                hint,
            )
        })
    }
}

/// The problem of a field whose JSON type is not the accepted one.
pub(crate) fn wrong_type(field: &str, found: &Value, accepted: &str) -> RowProblem {
    RowProblem::new(
        format!("the field `{field}` is {}, accepted is {accepted}", described(found)),
        format!("write `{field}` as {accepted}, or name another field in the recipe"),
    )
}

/// A short description of a JSON value: its type and, where short, the value itself.
pub(crate) fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("`{value}`"),
        Value::String(text) if text.chars().count() <= 40 => format!("the string `{text}`"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
