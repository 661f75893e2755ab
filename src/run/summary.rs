//! What a run achieved: the held-out rows before and after, and where everything is.

use std::fmt::Write;

use anyhow::Result;
use datasets::{MicroBatch, Question, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answers::{AnswerSettings, Answers, answer};
use crate::export::{Divergence, Verification};
use crate::model::Decoder;
use crate::plan::Plan;
use crate::report::{Report, Trained};
use crate::run_dir::{ADAPTER, BNB_4BIT, MERGED, RunDir};
use crate::text::{self, counted, grouped, line};
use crate::train::{Evaluation, evaluate};

/// Held-out prompts that are shown with their answers.
const SHOWN: usize = 3;

/// How a model does on the held-out rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Loss, if any row is held out.
    pub evaluation: Option<Evaluation>,
    /// Answers, if the rows ask something that can be answered shortly.
    pub answers: Option<Answers>,
}

impl Measured {
    /// Evaluates `decoder` and asks it the held-out questions that `asked` allows.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of(
        decoder: &Decoder,
        tokenizer: &Tokenizer,
        questions: &[Question],
        held_out: &[MicroBatch],
        asked: Option<AnswerSettings>,
        report: &mut Report,
    ) -> Result<Self> {
        let mut measured = Self { evaluation: None, answers: None };
        if !held_out.is_empty() {
            report.begin("evaluate", held_out.len());
            measured.evaluation = Some(evaluate(decoder, held_out, &mut |done| report.at(done))?);
            report.finish();
        }
        if let Some(asked) = asked {
            report.begin("answer", asked.questions);
            measured.answers = Some(answer(decoder, tokenizer, questions, asked, &mut |done| report.at(done))?);
            report.finish();
        }
        Ok(measured)
    }
}

/// Everything that is told at the end.
#[derive(Debug)]
pub struct Outcome {
    before: Measured,
    after: Measured,
    trained: Trained,
    memory: Option<u64>,
    /// The written folders, and how far what they hold is from the model that they are to hold.
    pub exports: Vec<(&'static str, Verification)>,
    /// Whether the run ended before its last step, since its loss was too high.
    pub stopped: bool,
    /// Ways to merge into other weights than training saw, and how far they are from the trained model.
    pub divergences: Vec<(&'static str, Divergence)>,
}

impl Outcome {
    /// An outcome whose exports are still to be written.
    pub fn new(before: Measured, after: Measured, trained: Trained, memory: Option<u64>) -> Self {
        Self { before, after, trained, memory, stopped: false, exports: Vec::new(), divergences: Vec::new() }
    }

    /// The figures, for other programs.
    pub fn json(&self) -> Value {
        let loss = |measured: &Measured| measured.evaluation.map(|evaluation| evaluation.loss);
        let exact = |measured: &Measured| measured.answers.as_ref().map(|answers| answers.exact_match);
        let export =
            |folder: &str| self.exports.iter().find(|(name, _)| *name == folder).map(|(_, check)| check.difference);
        let divergence = |(name, found): &(&str, Divergence)| {
            ((*name).to_owned(), json!({ "logit": found.difference, "nats": found.nats }))
        };
        let divergences: serde_json::Map<String, Value> = self.divergences.iter().map(divergence).collect();
        json!({
            "steps": self.trained.steps,
            "skipped_steps": self.trained.skipped,
            "stopped_by_watchdog": self.stopped,
            "tokens": self.trained.tokens,
            "seconds": self.trained.seconds,
            "seconds_before_training": self.trained.seconds_before,
            "tokens_per_second": self.trained.tokens as f64 / self.trained.seconds.max(1e-9),
            "memory_bytes": self.memory,
            "loss_before": loss(&self.before),
            "loss_after": loss(&self.after),
            "exact_match_before": exact(&self.before),
            "exact_match_after": exact(&self.after),
            "adapter_logit_difference": export(ADAPTER),
            "merged_logit_difference": export(MERGED),
            "bnb_4bit_logit_difference": export(BNB_4BIT),
            "merge_divergence": divergences,
        })
    }

    /// The same for a person, with a few answers side by side and the next command to type.
    pub fn text(&self, questions: &[Question], plan: &Plan, run_dir: &RunDir) -> String {
        let mut text = "\n".to_owned();
        let trained = &self.trained;
        let rate = trained.tokens as f64 / trained.seconds.max(1e-9);
        let memory = self.memory.map_or(String::new(), |bytes| format!(", peak memory {}", text::bytes(bytes)));
        line(
            &mut text,
            "trained",
            &format!(
                "{}, {} tokens in {} ({rate:.0} tokens/s){memory}",
                counted(trained.steps, "step"),
                grouped(trained.tokens),
                text::duration(trained.seconds),
            ),
        );
        if trained.skipped > 0 {
            let skipped = counted(trained.skipped, "step");
            line(&mut text, "skipped", &format!("{skipped}: the loss or the gradient was not finite"));
        }
        if self.stopped {
            line(&mut text, "stopped", "before the last step: the loss stayed above loss_watchdog_threshold");
        }
        if let (Some(before), Some(after)) = (self.before.evaluation, self.after.evaluation) {
            line(&mut text, "held-out loss", &format!("{:.4} before, {:.4} after", before.loss, after.loss));
        }
        if let (Some(before), Some(after)) = (&self.before.answers, &self.after.answers) {
            line(
                &mut text,
                "exact match",
                &format!(
                    "{:.1} % before, {:.1} % after, of {}",
                    100.0 * before.exact_match,
                    100.0 * after.exact_match,
                    counted(after.texts.len(), "held-out prompt"),
                ),
            );
            let shown = questions.iter().zip(&before.texts).zip(&after.texts).take(SHOWN);
            // Writing to a String cannot fail.
            for ((question, before), after) in shown {
                let _ = writeln!(text, "\n  prompt  {}", one_line(&question.prompt_text));
                let _ = writeln!(text, "  before  {}", one_line(before));
                let _ = writeln!(text, "  after   {}", one_line(after));
                let _ = writeln!(text, "  wanted  {}", one_line(&question.expected));
            }
        }
        text.push('\n');
        for (name, check) in &self.exports {
            let folder = run_dir.join(name);
            let meant = match name {
                &ADAPTER => "the trained model",
                _ if self.divergences.is_empty() => "the trained model",
                _ => "the merged model",
            };
            line(
                &mut text,
                name,
                &format!("{} (loaded again: logits within {:.1e} of {meant})", folder.display(), check.difference),
            );
        }
        for (name, found) in &self.divergences {
            let what = if *name == BNB_4BIT { "quantised again".to_owned() } else { format!("merged into {name}") };
            line(
                &mut text,
                "divergence",
                &format!(
                    "{what}: logits within {:.1e} of the trained model, {:.1e} nats a token",
                    found.difference, found.nats
                ),
            );
        }
        let model = if plan.export.adapter { ADAPTER } else { self.exports.first().map_or(MERGED, |(name, _)| name) };
        let question = questions.first();
        let system = question.and_then(|question| question.system_text.as_deref());
        let system = system.map_or(String::new(), |system| format!(" --system {}", quoted(system)));
        let prompt = quoted(question.map_or("...", |question| &question.prompt_text));
        line(&mut text, "next", &format!("tune generate {}{system} --prompt {prompt}", run_dir.join(model).display()));
        text.truncate(text.trim_end().len());
        text
    }
}

/// The text on one line, cut where it would be too long to read.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 160;
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &flat[..cut]),
        None => flat,
    }
}

/// The text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
