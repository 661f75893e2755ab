//! Conversations: the input of chat templates.
//!
//! Messages keep every property of the row, since templates read more than role and content
//! (`tool_calls`, `reasoning_content`, `name` ...). The form that a template wants them in is found by `Forms`.

use serde_json::{Map, Value};

use super::template::python_json;

/// The property of a message that holds its reasoning.
pub(crate) const REASONING: &str = "reasoning_content";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool` ...
    pub role: String,
    /// A string, a list of parts (`[{"type": "text", "text": ...}]`), null where there is none, or what a tool returned
    /// as JSON.
    pub content: Value,
    /// All further properties, which the template sees under their own names.
    pub extra: Map<String, Value>,
    /// The flag of the row itself by which this turn is, or is not, trained on.
    pub trained: Option<bool>,
    /// The stretches of the content that are, or are not, trained on; nothing else of it is.
    pub content_details: Option<Vec<TrainingDetail>>,
    /// The same of the reasoning.
    pub reasoning_details: Option<Vec<TrainingDetail>>,
}

/// A stretch of a text, as Axolotl's `training_detail` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingDetail {
    /// Its first character, from 0.
    pub first: usize,
    /// Its last character.
    pub last: usize,
    /// True if it is trained on.
    pub trained: bool,
}

impl TrainingDetail {
    /// True if a token with the characters from `first` to `last` belongs to the stretch: if it lies inside, or if two
    /// of its characters reach in at an end. So Axolotl moves the ends to those of tokens. Of a character in several
    /// tokens, all but the last have no length: they end before they begin.
    pub(crate) fn covers(&self, first: isize, last: isize) -> bool {
        let (begins, ends) = (self.first as isize, self.last as isize);
        (first >= begins || last > begins) && (last <= ends || first < ends)
    }
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Self {
        Message {
            role: role.into(),
            content: Value::String(text.into()),
            extra: Map::new(),
            trained: None,
            content_details: None,
            reasoning_details: None,
        }
    }

    /// The content as text; the text parts joined where it is a list of parts, and what a tool returned as JSON.
    pub fn text(&self) -> String {
        match &self.content {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            data => self.parts().map_or_else(|| python_json(data), |parts| parts.concat()),
        }
    }

    /// The texts of the content's parts, if it is a list of those and not one that a tool returned.
    pub(crate) fn parts(&self) -> Option<Vec<&str>> {
        self.content.as_array()?.iter().map(|part| part.get("text")?.as_str()).collect()
    }

    /// The tool calls of the message.
    pub(crate) fn tool_calls(&self) -> &[Value] {
        self.extra.get("tool_calls").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// True if the message calls tools.
    pub fn calls_tools(&self) -> bool {
        !self.tool_calls().is_empty()
    }

    /// True if the row itself tells that the message is, or is not, trained on, by a flag or in parts.
    pub(crate) fn own_choice(&self) -> Option<bool> {
        let details = [&self.content_details, &self.reasoning_details];
        let in_parts = || {
            let mut given = details.into_iter().flatten().peekable();
            given.peek()?;
            Some(given.any(|details| !details.is_empty()))
        };
        self.trained.or_else(in_parts)
    }
}

/// Messages, and the further input of the template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// The turns, in order.
    pub messages: Vec<Message>,
    /// The number of leading messages that are a prompt, not trained on by their roles.
    pub prompt_messages: usize,
    /// Tool definitions (a list of JSON schemas), if the row has any.
    pub tools: Option<Value>,
    /// Further variables of the template.
    pub variables: Map<String, Value>,
    /// The first unknown role, which reaches the template as it is.
    pub unknown_role: Option<String>,
    /// True if messages say whether they are trained on by keys that the recipe does not name.
    pub flagged: bool,
}
