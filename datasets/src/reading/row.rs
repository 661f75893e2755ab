//! One row of a file, and how formats take fields out of it with errors that help.

use serde_json::{Map, Value};

use crate::foundation::{nearest, quoted_list};

/// The one key of an object that stands for a number that JSON does not have, such as `NaN`; its value is the name.
pub(crate) const NOT_A_NUMBER: &str = "not a number of JSON";

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
    /// True if it is that a column which the format reads is missing.
    pub(crate) lacks_column: bool,
}

impl RowProblem {
    pub(crate) fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        RowProblem { problem: problem.into(), hint: hint.into(), lacks_column: false }
    }

    /// The same with other advice, if it is that a column is missing and there is any.
    pub(crate) fn advised(self, advice: Option<String>) -> Self {
        match advice {
            Some(hint) if self.lacks_column => RowProblem { hint, ..self },
            _ => self,
        }
    }

    /// The same with a fact after the hint.
    pub(crate) fn and(self, fact: &str) -> Self {
        RowProblem { hint: format!("{}; {fact}", self.hint), ..self }
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
                // The type decides which columns are read; no key renames this one.
                _ if setting == "type" => format!("name it `{column}`, or set another `type`"),
                Some(near) => format!("did you mean `{near}`? Then set `{setting}: {near}`"),
                None => format!("set `{setting}` to the column that holds it, or another `type`"),
            };
            let problem = format!("the field `{column}` is missing; the row has {}", quoted_list(self.columns.keys()));
            RowProblem { problem, hint, lacks_column: true }
        })
    }
}

/// The name of the number that JSON does not have, if `value` stands for one.
pub(crate) fn not_a_number(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get(NOT_A_NUMBER)?.as_str()
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
        Value::Object(_) if not_a_number(value).is_some() => format!("`{}`", not_a_number(value).unwrap_or_default()),
        Value::Object(_) => "an object".to_owned(),
    }
}
