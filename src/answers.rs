//! Answers to held-out prompts: how often the model says exactly what the row says.

use datasets::{Question, Tokenizer};

use crate::generate::{GenerateSettings, generate};
use crate::model::Decoder;
use crate::train::TrainError;

/// Held-out prompts that are answered at most.
const MOST_QUESTIONS: usize = 100;

/// What a model answered.
#[derive(Debug, Clone)]
pub struct Answers {
    /// One text for each question asked, in order.
    pub texts: Vec<String>,
    /// Share of answers equal to the row's, surrounding white space aside.
    pub exact_match: f64,
}

/// Asks `decoder` the first questions, greedily; an answer may be half as long again as the longest reference.
///
/// # Errors
/// When the device fails.
pub fn answer(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    questions: &[Question],
    longest: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Answers, TrainError> {
    let asked = &questions[..questions.len().min(MOST_QUESTIONS)];
    let settings = GenerateSettings::greedy(longest + longest / 2);
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
