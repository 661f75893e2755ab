//! The spans of a rendered conversation that its turns say themselves.
//!
//! A template is rendered once for the text that is trained on, and once more per turn, with that turn
//! reduced to its role and a word that occurs nowhere else. What both texts have in common is the
//! template's (headers, an empty `<think>` block ...); what differs is what the row says: its content,
//! reasoning and tool calls, wherever the template writes them. Nothing is ever tokenised turn by turn.
//! This is how Axolotl finds turns.

use std::ops::Range;

use minijinja::Value;
use serde_json::json;

use super::conversation::{Conversation, Message, REASONING, TrainingDetail};
use super::template::TemplateProblem;
use super::tokenizer::Tokenizer;
use super::turns::{common_prefix, common_suffix};

/// A turn in the rendered text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LocatedTurn {
    /// Index of the message; `None` where the template's own tags mark the turn.
    pub(crate) message: Option<usize>,
    /// Bytes that the row says; empty if the template shows nothing of the turn.
    pub(crate) said: Range<usize>,
    /// The texts of which only some stretches are trained on, if the row marks such.
    pub(crate) detailed: Option<Vec<DetailedText>>,
    /// The place of the end-of-turn token.
    pub(crate) end: TurnEnd,
}

/// A text of a turn with the stretches that are, or are not, trained on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DetailedText {
    /// The bytes of it that the template shows.
    pub(crate) shown: Range<usize>,
    /// Characters before these, which the template does not show.
    pub(crate) skipped: usize,
    /// The stretches, in characters of the text.
    pub(crate) details: Vec<TrainingDetail>,
}

/// The place in which the token that ends a turn is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnEnd {
    /// Among the first tokens after what the turn says.
    After,
    /// Anywhere after the start of the turn, all of which is trained on up to it.
    Later,
    /// Inside the bytes, which the template's own tags mark with the end.
    Inside,
}

/// A conversation as text, with its turns, in order.
#[derive(Debug)]
pub(crate) struct LocatedText {
    pub(crate) text: String,
    pub(crate) turns: Vec<LocatedTurn>,
}

/// Renders `conversation` and finds the turns for which `wanted` is true.
///
/// `use_tags` lets the template's own `{% generation %}` tags decide instead.
pub(crate) fn located_text(
    tokenizer: &Tokenizer,
    conversation: &Conversation,
    wanted: &[bool],
    use_tags: bool,
) -> Result<LocatedText, TemplateProblem> {
    let tools = conversation.tools.as_ref();
    let messages: Vec<Value> = conversation.messages.iter().map(|message| tokenizer.to_jinja(message, tools)).collect();
    let render =
        |messages: &[Value], prompt: bool| tokenizer.render_values(messages, tools, prompt, &conversation.variables);
    let rendered = render(&messages, false)?;
    let text = rendered.text;
    if use_tags {
        let turn = |said| LocatedTurn { message: None, said, detailed: None, end: TurnEnd::Inside };
        return Ok(LocatedText { text, turns: rendered.generated.into_iter().map(turn).collect() });
    }
    let search = Search { tokenizer, tools, messages, word: unused_word(&text), text: &text, render: &render };
    let mut turns = Vec::new();
    for (index, message) in conversation.messages.iter().enumerate() {
        if wanted.get(index).copied().unwrap_or(false) {
            turns.push(search.turn(index, message)?);
        }
    }
    Ok(LocatedText { text, turns })
}

type Render<'a> = &'a dyn Fn(&[Value], bool) -> Result<super::template::Rendered, TemplateProblem>;

/// The search for turns in one rendered conversation.
struct Search<'a> {
    tokenizer: &'a Tokenizer,
    tools: Option<&'a serde_json::Value>,
    messages: Vec<Value>,
    word: String,
    text: &'a str,
    render: Render<'a>,
}

impl Search<'_> {
    fn turn(&self, index: usize, message: &Message) -> Result<LocatedTurn, TemplateProblem> {
        let reduced = Message::new(message.role.clone(), self.word.clone());
        let (said, end) = match self.with(index, &reduced) {
            Ok(other) => {
                self.check_header(&other, message)?;
                (difference(self.text, &other), TurnEnd::After)
            }
            Err(_) => self.turn_of_strict_template(index, message)?,
        };
        let detailed = match (&message.content_details, &message.reasoning_details) {
            (None, None) => None,
            (content, reasoning) => {
                let content = content.as_ref().map(|details| self.detailed(index, message, None, details));
                let reasoning =
                    reasoning.as_ref().map(|details| self.detailed(index, message, Some(REASONING), details));
                Some([content, reasoning].into_iter().flatten().collect::<Result<_, _>>()?)
            }
        };
        Ok(LocatedTurn { message: Some(index), said, detailed, end })
    }

    /// The text with another message at `index`.
    fn with(&self, index: usize, message: &Message) -> Result<String, TemplateProblem> {
        let mut messages = self.messages.clone();
        messages[index] = self.tokenizer.to_jinja(message, self.tools);
        (self.render)(&messages, false).map(|rendered| rendered.text)
    }

    /// Fails if the header of a turn that is content alone depends on that content, as one with a length would.
    fn check_header(&self, other: &str, message: &Message) -> Result<(), TemplateProblem> {
        let text = message.text();
        let is_plain = message.extra.is_empty() && !text.trim().is_empty() && !text.contains("</");
        match other.find(&self.word).filter(|_| is_plain) {
            Some(header) if common_prefix(self.text, other) < header => Err(TemplateProblem::Failed(format!(
                "it writes what precedes the {} turn differently depending on that turn, so the turn cannot be \
                 located; `{{% generation %}}` tags in the template would mark it",
                message.role
            ))),
            _ => Ok(()),
        }
    }

    /// The turn in a template that refuses the conversation with the turn reduced: one that wants an answer for each
    /// tool call, for example. It begins where the template asks for it, else where its texts do.
    fn turn_of_strict_template(
        &self,
        index: usize,
        message: &Message,
    ) -> Result<(Range<usize>, TurnEnd), TemplateProblem> {
        let changed = substitutes(message, &self.word)
            .iter()
            .filter_map(|substitute| self.with(index, substitute).ok())
            .map(|other| difference(self.text, &other))
            .filter(|span| !span.is_empty())
            .reduce(|one, other| one.start.min(other.start)..one.end.max(other.end));
        let Some(span) = changed else { return Ok((0..0, TurnEnd::After)) };
        if !message.calls_tools() {
            return Ok((span, TurnEnd::After));
        }
        let asked = (self.render)(&self.messages[..index], true).ok().map(|rendered| rendered.text);
        let header = asked.filter(|asked| self.text.starts_with(asked.as_str()) && asked.len() <= span.start);
        Ok((header.map_or(span.start, |asked| asked.len())..span.end, TurnEnd::Later))
    }

    /// The place of a text of which only some stretches are trained on: the content, or the property `key`.
    fn detailed(
        &self,
        index: usize,
        message: &Message,
        key: Option<&str>,
        details: &[TrainingDetail],
    ) -> Result<DetailedText, TemplateProblem> {
        let mut other = message.clone();
        let (name, text) = match key {
            None => ("content", std::mem::replace(&mut other.content, json!(self.word))),
            Some(key) => (key, other.extra.insert(key.to_owned(), json!(self.word)).unwrap_or_default()),
        };
        let text = text.as_str().unwrap_or_default();
        let place = self.with(index, &other).map(|other| difference(self.text, &other))?;
        let shown = &self.text[place.clone()];
        let details = details.to_vec();
        if let Some(start) = text.find(shown) {
            return Ok(DetailedText { shown: place, skipped: text[..start].chars().count(), details });
        }
        if let Some(start) = shown.find(text).filter(|_| !text.is_empty()) {
            let start = place.start + start;
            return Ok(DetailedText { shown: start..start + text.len(), skipped: 0, details });
        }
        Err(TemplateProblem::Failed(format!(
            "it changes the {name} of a message of the {}, of which only some parts are trained on, so that they cannot \
             be located",
            message.role
        )))
    }
}

/// The message with one of its texts replaced by `word`: the content, the reasoning, or those of tool calls.
fn substitutes(message: &Message, word: &str) -> Vec<Message> {
    let with = |change: &dyn Fn(&mut Message)| {
        let mut substitute = message.clone();
        change(&mut substitute);
        substitute
    };
    let mut substitutes = vec![with(&|message| message.content = json!(word))];
    if message.extra.contains_key(REASONING) {
        substitutes.push(with(&|message| {
            message.extra.insert(REASONING.to_owned(), json!(word));
        }));
    }
    if message.calls_tools() {
        let named = |message: &mut Message| -> Option<()> {
            for call in message.extra.get_mut("tool_calls")?.as_array_mut()? {
                let is_nested = call.get("function").is_some_and(serde_json::Value::is_object);
                let function = if is_nested { call.get_mut("function")? } else { call };
                *function.get_mut("name")? = json!(word);
            }
            Some(())
        };
        substitutes.push(with(&|message| {
            named(message);
        }));
    }
    substitutes
}

/// The bytes of `text` in which it differs from `other`.
fn difference(text: &str, other: &str) -> Range<usize> {
    let start = common_prefix(text, other);
    start..text.len() - common_suffix(&text[start..], &other[start..])
}

/// A word that does not occur in `text`, and whose outer characters do not either, so that nothing of it can be taken
/// for the text's.
pub(crate) fn unused_word(text: &str) -> String {
    let mut plain = ('0'..='9').chain('a'..='z').chain('\u{a000}'..='\u{a48c}');
    let edge = plain.find(|edge| !text.contains(*edge)).unwrap_or('\u{a48c}');
    let mut word = format!("{edge}tuneTurn{edge}");
    while text.contains(&word) {
        word.push(edge);
    }
    word
}
