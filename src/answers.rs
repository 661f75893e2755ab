//! Answers to held-out prompts: how often the model says exactly what the row says.

use datasets::{Question, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::generate::{GenerateSettings, generate};
use crate::model::{Decoder, DeviceFailure};

/// Which questions are asked and how much may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSettings {
    /// How many of the held-out questions, from the first.
    pub questions: usize,
    /// Tokens of an answer at most: half as many again as the longest that is wanted.
    pub max_tokens: usize,
}

/// What a model answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answers {
    /// One text for each question asked, in order.
    pub texts: Vec<String>,
    /// Share of answers equal to the row's, surrounding white space aside.
    #[serde(with = "crate::exact")]
    pub exact_match: f64,
}

/// Asks `decoder` the first questions; the most likely token is taken every time.
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
