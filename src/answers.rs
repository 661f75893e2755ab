//! Answers to held-out prompts, and the share of those that equal the row's.

use datasets::{Question, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::generate::{GenerateSettings, generate};
use crate::model::{Decoder, DeviceFailure};

/// The questions that are asked, and the length of their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSettings {
    /// Number of held-out questions, counted from the first.
    pub questions: usize,
    /// Maximum tokens of an answer: 1.5 times the longest expected one.
    pub max_tokens: usize,
}

/// The answers of a model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answers {
    /// One text for each question asked, in order.
    pub texts: Vec<String>,
    /// Share of answers equal to the row's, but for surrounding white space.
    #[serde(with = "crate::exact")]
    pub exact_match: f64,
}

/// Answers the first questions with `decoder`, greedily.
///
/// # Errors
/// When the device fails.
pub fn answer(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    questions: &[Question],
    settings: AnswerSettings,
    progress: &mut dyn FnMut(usize),
) -> Result<Answers, DeviceFailure> {
    let asked = &questions[..questions.len().min(settings.questions)];
    let settings = GenerateSettings::greedy(settings.max_tokens);
    let mut texts = Vec::with_capacity(asked.len());
    let mut equal = 0;
    for (done, question) in asked.iter().enumerate() {
        let tokens = generate(decoder, &question.prompt, tokenizer.end_of_turn_ids(), &settings, &mut |_| {})?;
        let text = tokenizer.decode_without_special(&tokens).unwrap_or_default();
        equal += usize::from(text.trim() == question.expected.trim());
        texts.push(text);
        progress(done + 1);
    }
    Ok(Answers { exact_match: equal as f64 / asked.len().max(1) as f64, texts })
}
