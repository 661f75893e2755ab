//! The spans of a rendered conversation that are trained on.
//!
//! A template is rendered once for the text that is trained on, and once more per turn with that
//! turn's content replaced by a word that occurs nowhere else: the text before and after the word is
//! the template's, the text between them in the real rendering is the turn. Nothing is ever tokenised
//! turn by turn. An assistant's turn begins where the generation prompt ends, so that text which the
//! template puts before the answer (`<think>` ...) is trained on with it.

use std::ops::Range;

use minijinja::Value;
use serde_json::json;

use super::conversation::{Conversation, Message};
use super::template::{TemplateProblem, to_jinja};
use super::tokenizer::Tokenizer;
use super::turns::common_prefix;

/// One turn that is trained on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrainedTurn {
    /// Index of the message; `None` where the template's own tags mark the turn.
    pub(crate) message: Option<usize>,
    /// Bytes of the content.
    pub(crate) content: Range<usize>,
    /// The place of the end-of-turn token.
    pub(crate) end: TurnEnd,
}

/// The place in which the token that ends a turn is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnEnd {
    /// Right after the content, whitespace aside.
    After,
    /// Anywhere after the content's start: tool calls may follow the content.
    Later,
    /// Inside the content, which the template's own tags mark with its end.
    Inside,
}

/// A conversation as text, with the turns to train on, in order.
#[derive(Debug)]
pub(crate) struct TrainedText {
    pub(crate) text: String,
    pub(crate) turns: Vec<TrainedTurn>,
}

/// Renders `conversation` and finds the turns for which `trained` is true.
///
/// `use_tags` lets the template's own `{% generation %}` tags decide instead.
pub(crate) fn trained_text(
    tokenizer: &Tokenizer,
    conversation: &Conversation,
    trained: &[bool],
    use_tags: bool,
) -> Result<TrainedText, TemplateProblem> {
    let value = |message: &Message| to_jinja(&message.to_value(tokenizer.turns().reads_parts));
    let messages: Vec<Value> = conversation.messages.iter().map(value).collect();
    let render = |messages: &[Value]| {
        tokenizer.render_values(messages, conversation.tools.as_ref(), false, &conversation.variables)
    };
    let rendered = render(&messages)?;
    let text = rendered.text;
    if use_tags {
        let turns = rendered
            .generated
            .into_iter()
            .map(|content| TrainedTurn { message: None, content, end: TurnEnd::Inside })
            .collect();
        return Ok(TrainedText { text, turns });
    }

    let word = unused_word(&text);
    let mut turns = Vec::new();
    for (index, message) in conversation.messages.iter().enumerate() {
        if !trained.get(index).copied().unwrap_or(false) {
            continue;
        }
        let mut marked = messages.clone();
        for substitute in substitutes(message, &word) {
            marked[index] = value(&substitute);
            let Ok(rendered) = render(&marked) else {
                continue;
            };
            if let Some((before, after)) = rendered.text.split_once(&word) {
                let turn = locate(tokenizer, &text, before, after, message)?;
                turns.push(TrainedTurn { message: Some(index), ..turn });
                break;
            }
        }
    }
    Ok(TrainedText { text, turns })
}

/// The message with its content replaced by `word`, or, should the template not show that, with
/// the name of its first tool call replaced.
fn substitutes(message: &Message, word: &str) -> Vec<Message> {
    let mut content = message.clone();
    content.content = match &message.content {
        serde_json::Value::Array(_) => json!([{"type": "text", "text": word}]),
        _ => json!(word),
    };
    let mut substitutes = vec![content];
    if message.calls_tools() {
        let mut call = message.clone();
        let first = call.extra.get_mut("tool_calls").and_then(|calls| calls.get_mut(0));
        let named = first.and_then(|first| {
            let is_nested = first.get("function").is_some();
            if is_nested { first.get_mut("function")?.get_mut("name") } else { first.get_mut("name") }
        });
        if let Some(name) = named {
            *name = json!(word);
            substitutes.push(call);
        }
    }
    substitutes
}

/// Finds the turn in `text`, given what the template puts before and after its content.
fn locate(
    tokenizer: &Tokenizer,
    text: &str,
    before: &str,
    after: &str,
    message: &Message,
) -> Result<TrainedTurn, TemplateProblem> {
    let shared = common_prefix(text, before);
    let header = match message.role.as_str() {
        "assistant" => header_end(tokenizer, before),
        _ => before.len(),
    };
    if header > shared {
        return Err(TemplateProblem::Failed(format!(
            "it writes what precedes the {} turn differently depending on that turn, so the turn cannot be located; \
             `{{% generation %}}` tags in the template would mark it",
            message.role
        )));
    }
    let exact_end = text.len().checked_sub(after.len()).filter(|end| *end >= header && text.ends_with(after));
    let (end, kind) = match exact_end {
        Some(end) if !message.calls_tools() => (end, TurnEnd::After),
        _ => (header, TurnEnd::Later),
    };
    Ok(TrainedTurn { message: None, content: header..end, end: kind })
}

/// The end of the header of an assistant's turn in `before`, the text up to its content.
///
/// That is the end of the last generation prompt, unless a turn ends in between: some templates
/// ask for an answer to a tool's result without one.
fn header_end(tokenizer: &Tokenizer, before: &str) -> usize {
    let prompt = &tokenizer.turns().prompt;
    if prompt.is_empty() {
        return before.len();
    }
    let Some(start) = before.rfind(prompt.as_str()) else {
        return before.len();
    };
    let end = start + prompt.len();
    let between = &before[end..];
    let turn_ends = tokenizer
        .end_of_turn_ids()
        .iter()
        .filter_map(|id| tokenizer.token_text(*id))
        .any(|token| between.contains(&token));
    if turn_ends { before.len() } else { end }
}

/// A word that does not occur in `text`.
fn unused_word(text: &str) -> String {
    let mut word = "tuneTurnContent".to_owned();
    while text.contains(&word) {
        word.push('Q');
    }
    word
}
