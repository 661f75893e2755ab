//! A held-out row as a question: the prompt for the model, and the answer that is expected.
//!
//! The prompt is the conversation up to the last assistant turn with the generation prompt, and what the template inserts
//! before the text that is trained on, such as an empty `<think>` block. So answers before and after training can be put
//! side by side and compared with the row's.

use serde_json::{Map, Value};

use super::example::Example;
use super::sample::Sample;
use crate::text::{Conversation, Message, Tokenizer};

/// A prompt and the answer that the row gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Token ids to generate from.
    pub prompt: Vec<u32>,
    /// The answer as the row has it.
    pub answer: String,
    /// The answer as the model should write it, without special tokens: as the template renders it
    /// (`<think>` ...).
    pub expected: String,
    /// The number of tokens of the answer and its end.
    pub answer_tokens: usize,
    /// The last user text, for people.
    pub prompt_text: String,
    /// The text of the prompt, if it is plain text and no conversation.
    pub plain_prompt: Option<String>,
    /// The system message, if the conversation has one.
    pub system_text: Option<String>,
    /// Index of the row in [`Dataset::held_out`](crate::Dataset::held_out).
    pub row: usize,
}

/// The question of a row; `None` for plain text and for conversations without an answer.
pub(crate) fn question(tokenizer: &Tokenizer, sample: &Sample, example: &Example, row: usize) -> Option<Question> {
    let system_text = match sample {
        Sample::Chat(Conversation { messages, .. }) => {
            messages.first().filter(|message| message.role == "system").map(Message::text)
        }
        _ => None,
    };
    let plain_prompt = match sample {
        Sample::Answer { prompt, .. } => Some(prompt.clone()),
        _ => None,
    };
    let (mut prompt, answer, prompt_text) = match sample {
        Sample::Chat(conversation) => chat_question(tokenizer, conversation)?,
        Sample::Answer { prompt, completion, shown, .. } => {
            (tokenizer.encode(prompt, true).ok()?, completion.clone(), shown.clone())
        }
        _ => return None,
    };
    let mut after: &[u32] = example.tokens.strip_prefix(prompt.as_slice()).unwrap_or_default();
    let ends = |id: &u32| tokenizer.end_of_turn_ids().contains(id);
    let trained = &example.trained[example.tokens.len() - after.len()..];
    if let Some(first) = trained.iter().position(|trained| *trained)
        && !after[..=first].iter().any(ends)
    {
        prompt.extend(&after[..first]);
        after = &after[first..];
    }
    let answered = &after[..after.iter().position(ends).unwrap_or(after.len())];
    let expected = match answered {
        [] => answer.clone(),
        answered => tokenizer.decode_without_special(answered).ok()?,
    };
    let plain = tokenizer.encode(&answer, false).ok()?.len();
    Some(Question {
        prompt,
        answer,
        expected,
        answer_tokens: plain.max(answered.len()) + 1,
        prompt_text,
        plain_prompt,
        system_text,
        row,
    })
}

fn chat_question(tokenizer: &Tokenizer, conversation: &Conversation) -> Option<(Vec<u32>, String, String)> {
    let messages = &conversation.messages;
    let last = messages.iter().rposition(|message| message.role == "assistant")?;
    let answer = messages[last].text();
    if answer.is_empty() {
        return None;
    }
    let asked = messages[..last].iter().rfind(|message| message.role == "user");
    let variables: &Map<String, Value> = &conversation.variables;
    let text = tokenizer.render(&messages[..last], conversation.tools.as_ref(), true, variables).ok()?;
    let prompt = tokenizer.encode(&text, false).ok()?;
    Some((prompt, answer, asked.map(Message::text).unwrap_or_default()))
}
