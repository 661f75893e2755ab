//! The text that a chat template writes around turns, found once by rendering a question and an answer.

use minijinja::Value;
use serde_json::json;

use super::conversation::Message;
use super::template::to_jinja;

/// The text that a template writes around turns.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The text that asks for an answer, e.g. `<|im_start|>assistant\n`; empty where there is none.
    pub(crate) prompt: String,
    /// The text that follows the last answer of a conversation, e.g. `<|im_end|>\n`.
    pub(crate) tail: String,
    /// True if content that is a list of parts is rendered as its text.
    pub(crate) reads_parts: bool,
}

impl Turns {
    /// Renders a question and an answer by `render`, which gets messages and whether to ask for an answer.
    ///
    /// A template that refuses them, for which `render` gives an empty text, leaves both texts empty.
    pub(crate) fn probe(render: impl Fn(&[Value], bool) -> String) -> Turns {
        let (asked, answered) = ("tuneQuestion", "tuneAnswer");
        let question = to_jinja(&Message::new("user", asked).to_value(true));
        let answer = to_jinja(&Message::new("assistant", answered).to_value(true));
        let parts = |role: &str, text: &str| {
            let content = json!([{"type": "text", "text": text}]);
            to_jinja(&Message { content, ..Message::new(role, "") }.to_value(true))
        };
        let with_prompt = render(std::slice::from_ref(&question), true);
        let without = render(std::slice::from_ref(&question), false);
        let in_parts = render(&[parts("user", asked), parts("assistant", answered)], false);
        let whole = render(&[question, answer], false);
        let shared = common_prefix(&with_prompt, &without);
        Turns {
            prompt: with_prompt[shared..].to_owned(),
            reads_parts: in_parts == whole,
            tail: whole.split_once(answered).map_or_else(String::new, |(_, tail)| tail.to_owned()),
        }
    }
}

/// Length in bytes of the longest common prefix, at a character boundary.
pub(super) fn common_prefix(left: &str, right: &str) -> usize {
    left.char_indices()
        .zip(right.chars())
        .find(|((_, one), other)| one != other)
        .map_or_else(|| left.len().min(right.len()), |((index, _), _)| index)
}
