//! Conversations: the input of chat templates.
//!
//! Messages keep every property of the row, since templates read more than role and content
//! (`tool_calls`, `reasoning_content`, `name` ...).

use serde_json::{Map, Value};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool` ...
    pub role: String,
    /// A string, a list of parts (`[{"type": "text", "text": ...}]`), or null beside tool calls.
    pub content: Value,
    /// All further properties, which the template sees under their own names.
    pub extra: Map<String, Value>,
    /// The flag of the row itself by which this turn is, or is not, trained on.
    pub trained: Option<bool>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Self {
        Message { role: role.into(), content: Value::String(text.into()), extra: Map::new(), trained: None }
    }

    /// The content as text; the text parts joined where it is a list of parts.
    pub fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let texts: Vec<&str> =
                    parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
                texts.concat()
            }
            _ => String::new(),
        }
    }

    /// True if the message calls tools.
    pub fn calls_tools(&self) -> bool {
        self.extra.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty())
    }

    /// The message as a template sees it; one that does not read parts gets their text.
    pub fn to_value(&self, reads_parts: bool) -> Value {
        let content = match &self.content {
            Value::Array(_) if !reads_parts => Value::String(self.text()),
            content => content.clone(),
        };
        let mut object = Map::new();
        object.insert("role".to_owned(), Value::String(self.role.clone()));
        object.insert("content".to_owned(), content);
        for (key, value) in &self.extra {
            object.insert(key.clone(), value.clone());
        }
        Value::Object(object)
    }
}

/// Messages, and the further input of the template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// The turns, in order.
    pub messages: Vec<Message>,
    /// Tool definitions (a list of JSON schemas), if the row has any.
    pub tools: Option<Value>,
    /// Further variables of the template.
    pub variables: Map<String, Value>,
    /// True if an unknown role was kept.
    pub unknown_role: bool,
}
