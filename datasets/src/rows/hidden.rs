//! What a row has and the chat template does not show: tools, tool calls, reasoning.
//!
//! The conversation is rendered once more with words in place of names and reasoning that occur nowhere else: what the
//! template shows appears in the text.

use serde_json::{Value, json};

use crate::text::{Conversation, Message, Tokenizer, unused_word};

/// What the template does not show of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hidden {
    /// Tools that are defined.
    pub(crate) tools: bool,
    /// Tool calls.
    pub(crate) calls: bool,
    /// All of the reasoning.
    pub(crate) reasoning: bool,
}

/// Keys under which messages have their reasoning.
const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// The parts of `conversation` that are not in `text`, which the template made of it.
pub(crate) fn hidden(tokenizer: &Tokenizer, conversation: &Conversation, text: &str) -> Hidden {
    let mut marked = Marked::of(conversation, &unused_word(text));
    if marked.is_plain() {
        return Hidden::default();
    }
    let Conversation { messages, tools, variables, .. } = &marked.conversation;
    let Ok(shown) = tokenizer.render(messages, tools.as_ref(), false, variables) else {
        // A template that looks into names: what is written in the text itself is shown.
        marked.words_are_originals();
        return marked.hidden(text);
    };
    marked.hidden(&shown)
}

/// A conversation with words in place of names and reasoning.
struct Marked {
    conversation: Conversation,
    tools: Vec<Word>,
    calls: Vec<Word>,
    reasoning: Vec<Word>,
}

/// A word in place of a text of the row.
struct Word {
    word: String,
    original: String,
    /// True if the row has the text elsewhere too, where the template shows it.
    is_written: bool,
}

impl Marked {
    fn of(conversation: &Conversation, word: &str) -> Marked {
        let mut marked =
            Marked { conversation: conversation.clone(), tools: Vec::new(), calls: Vec::new(), reasoning: Vec::new() };
        let system =
            conversation.messages.iter().filter(|message| matches!(message.role.as_str(), "system" | "developer"));
        let system: String = system.map(Message::text).collect();
        for tool in marked.conversation.tools.iter_mut().filter_map(Value::as_array_mut).flatten() {
            replace(name_of(tool), format!("{word}T{}E", marked.tools.len()), &system, &mut marked.tools);
        }
        for message in &mut marked.conversation.messages {
            let content = message.text();
            let calls = message.extra.get_mut("tool_calls").and_then(Value::as_array_mut);
            for call in calls.into_iter().flatten() {
                replace(name_of(call), format!("{word}C{}E", marked.calls.len()), &content, &mut marked.calls);
            }
            for key in REASONING {
                let word = format!("{word}R{}E", marked.reasoning.len());
                replace(message.extra.get_mut(key), word, &content, &mut marked.reasoning);
            }
        }
        marked
    }

    fn is_plain(&self) -> bool {
        self.tools.is_empty() && self.calls.is_empty() && self.reasoning.is_empty()
    }

    fn words_are_originals(&mut self) {
        for word in self.tools.iter_mut().chain(&mut self.calls).chain(&mut self.reasoning) {
            word.word.clone_from(&word.original);
        }
    }

    fn hidden(&self, shown: &str) -> Hidden {
        let is_hidden = |word: &Word| !word.is_written && !shown.contains(&word.word);
        Hidden {
            tools: self.tools.iter().any(is_hidden),
            calls: self.calls.iter().any(is_hidden),
            reasoning: !self.reasoning.is_empty() && self.reasoning.iter().all(is_hidden),
        }
    }
}

/// The name of the function of a call or of a definition.
fn name_of(value: &mut Value) -> Option<&mut Value> {
    if value.get("function").is_some() { value.get_mut("function")?.get_mut("name") } else { value.get_mut("name") }
}

/// Puts a word in place of a text, unless that is empty.
fn replace(value: Option<&mut Value>, word: String, elsewhere: &str, words: &mut Vec<Word>) {
    let Some(value) = value else { return };
    let Some(original) = value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned) else { return };
    let is_written = elsewhere.contains(original.trim());
    *value = json!(word);
    words.push(Word { word, original, is_written });
}
