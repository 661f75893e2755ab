//! The text that a chat template writes around turns, found once by rendering a question and an answer.

use minijinja::Value;
use serde_json::Value as Json;

use super::conversation::Message;
use super::forms::Forms;
use super::template::{TemplateProblem, to_jinja};

/// The text that a template writes around turns, and the forms in which it wants them.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The text that follows the last answer of a conversation, e.g. `<|im_end|>\n`.
    pub(crate) tail: String,
    /// The forms of messages and tools.
    pub(crate) forms: Forms,
}

impl Turns {
    /// Renders a question and an answer by `render`, which gets messages and tools.
    ///
    /// A template that refuses them leaves the text empty. One that does not read tools is not asked for their form.
    pub(crate) fn probe(
        reads_tools: bool,
        render: impl Fn(&[Value], Option<&Json>) -> Result<String, TemplateProblem>,
    ) -> Turns {
        let answered = "tuneAnswer";
        let messages = [Message::new("user", "tuneQuestion"), Message::new("assistant", answered)];
        let rendered = |wants_parts: bool| {
            let forms = Forms::of_content(wants_parts);
            let messages: Vec<Value> = messages.iter().map(|message| to_jinja(&forms.message(message))).collect();
            render(&messages, None).unwrap_or_default()
        };
        let whole = rendered(false);
        let (wants_parts, shown) = if whole.contains(answered) {
            (false, whole)
        } else {
            let in_parts = rendered(true);
            (in_parts.contains(answered), in_parts)
        };
        let tail = shown.split_once(answered).map_or_else(String::new, |(_, tail)| tail.to_owned());
        Turns { tail, forms: Forms::probe(wants_parts, reads_tools, &render) }
    }
}

/// Length in bytes of the longest common prefix, at a character boundary.
pub(super) fn common_prefix(left: &str, right: &str) -> usize {
    left.char_indices()
        .zip(right.chars())
        .find(|((_, one), other)| one != other)
        .map_or_else(|| left.len().min(right.len()), |((index, _), _)| index)
}

/// Length in bytes of the longest common suffix, at a character boundary.
pub(super) fn common_suffix(left: &str, right: &str) -> usize {
    let equal = left.chars().rev().zip(right.chars().rev()).take_while(|(one, other)| one == other);
    equal.map(|(character, _)| character.len_utf8()).sum()
}
