//! A sample, the content of a row whatever its format: a conversation, plain text, or tokens.

use serde_json::Value;

use crate::reading::{RowProblem, not_a_number};
use crate::text::Conversation;

/// The content of a row, as its format reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Turns that the chat template renders.
    Chat(Conversation),
    /// A prompt and the text that follows it; no template.
    Answer {
        /// Text that is read, not trained on.
        prompt: String,
        /// Text that is trained on, together with the end-of-sequence token.
        completion: String,
        /// The question as a person would put it.
        shown: String,
        /// If set, the two are tokenised apart.
        apart: bool,
    },
    /// Text that is trained on as a whole, with the end-of-sequence token.
    Text(String),
    /// Pieces of one text to which nothing is added.
    Segments(Vec<Segment>),
    /// Two answers to one prompt.
    Preference {
        /// The answer to prefer.
        chosen: Box<Sample>,
        /// The answer to avoid.
        rejected: Box<Sample>,
    },
    /// An answer and whether it is wanted.
    Judged {
        /// The answer.
        answer: Box<Sample>,
        /// True if it is wanted.
        desirable: bool,
    },
    /// A row that is tokens already.
    Tokens {
        /// The ids.
        tokens: Vec<u32>,
        /// The mask: true for the ids that are trained on.
        trained: Vec<bool>,
    },
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The piece.
    pub text: String,
    /// True if it is trained on.
    pub trained: bool,
}

impl Sample {
    /// The sample without properties of messages that are `NaN`, which is how pandas writes one that is missing.
    ///
    /// # Errors
    /// If there is such a number where the template may read it.
    pub(crate) fn without_missing_numbers(mut self) -> Result<Sample, RowProblem> {
        let Sample::Chat(conversation) = &mut self else { return Ok(self) };
        for (index, message) in conversation.messages.iter_mut().enumerate() {
            message.extra.retain(|_, value| not_a_number(value).is_none());
            check_numbers(&message.content, || format!("messages[{index}].content"))?;
            for (name, value) in &message.extra {
                check_numbers(value, || format!("messages[{index}].{name}"))?;
            }
        }
        if let Some(tools) = &conversation.tools {
            check_numbers(tools, || "tools".to_owned())?;
        }
        Ok(self)
    }
}

/// Refuses numbers that JSON does not have anywhere in `value`.
fn check_numbers(value: &Value, field: impl Fn() -> String) -> Result<(), RowProblem> {
    fn find(value: &Value) -> Option<&str> {
        match value {
            Value::Array(values) => values.iter().find_map(find),
            Value::Object(values) => not_a_number(value).or_else(|| values.values().find_map(find)),
            _ => None,
        }
    }
    match find(value) {
        None => Ok(()),
        Some(name) => Err(RowProblem::new(
            format!("the field `{}` holds `{name}`, which is not JSON", field()),
            "write `null`, or leave the key out: JSON has no such number, and the template may read it",
        )),
    }
}
