//! The summary of a run: results on the held-out rows before and after, and the folders that were written.

use std::fmt::Write;

use anyhow::Result;
use datasets::{MicroBatch, PromptForm, Question, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answers::{Answers, answer};
use crate::export::{Divergence, Exported, FORMATS, ProbeDivergence, Prompt};
use crate::model::Decoder;
use crate::plan::Steps;
use crate::report::{Measurement, Report, Trained};
use crate::text::{self, counted, grouped, line, lines, shell_word};
use crate::train::{Evaluation, evaluate};

/// Held-out prompts that are shown with their answers.
const SHOWN: usize = 3;

/// The results of a model on the held-out rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Loss, if any row is held out.
    pub(super) evaluation: Option<Evaluation>,
    /// Answers, if the rows ask questions with short answers.
    pub(super) answers: Option<Answers>,
}

impl Measured {
    /// Evaluates `decoder` and asks it the held-out questions, as `steps` has it.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn of(
        decoder: &Decoder,
        tokenizer: &Tokenizer,
        questions: &[Question],
        held_out: &[MicroBatch],
        steps: &Steps,
        report: &mut Report,
    ) -> Result<Self> {
        let mut measured = Self { evaluation: None, answers: None };
        if !held_out.is_empty() {
            let objective = steps.train.objective.as_ref();
            report.begin("evaluate", held_out.len());
            measured.evaluation = Some(evaluate(decoder, objective, held_out, &mut |done| report.at(done))?);
            report.finish();
        }
        if let Some(asked) = steps.answers {
            report.begin("answer", asked.questions);
            measured.answers = Some(answer(decoder, tokenizer, questions, asked, &mut |done| report.at(done))?);
            report.finish();
        }
        Ok(measured)
    }
}

impl Measured {
    /// The same for the run's sinks, of a model that was trained for `step` steps.
    pub(super) fn at(&self, moment: &'static str, step: usize) -> Measurement<'_> {
        let exact_match = self.answers.as_ref().map(|answers| (answers.exact_match, answers.texts.len()));
        Measurement { moment, step, evaluation: self.evaluation.as_ref(), exact_match }
    }
}

/// The results of a run, reported at its end.
#[derive(Debug)]
pub(super) struct Summary {
    before: Measured,
    after: Measured,
    trained: Trained,
    memory: Option<u64>,
    /// The written folders.
    pub(super) exports: Vec<Exported>,
    /// True if the run ended before its last step because its loss was too high.
    pub(super) stopped: bool,
    /// What a person should know about the result, in lines.
    pub(super) look_at: Vec<String>,
}

impl Summary {
    /// The results of a run whose exports are still to be written.
    pub(super) fn new(before: Measured, after: Measured, trained: Trained, memory: Option<u64>) -> Self {
        Self { before, after, trained, memory, stopped: false, look_at: Vec::new(), exports: Vec::new() }
    }

    /// The losses on the held-out rows before and after training, if any are held out.
    pub(super) fn held_out_losses(&self) -> Option<(f64, f64)> {
        Some((self.before.evaluation.as_ref()?.loss, self.after.evaluation.as_ref()?.loss))
    }

    /// The figures, for other programs.
    pub(super) fn json(&self) -> Value {
        let loss = |measured: &Measured| measured.evaluation.as_ref().map(|evaluation| evaluation.loss);
        let exact = |measured: &Measured| measured.answers.as_ref().map(|answers| answers.exact_match);
        let mut json = json!({
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
        });
        for format in FORMATS {
            let exported = self.exports.iter().find(|exported| exported.format == *format);
            json[format.summary_key()] = json!(exported.map(|exported| exported.verification.difference));
        }
        let mut divergences = serde_json::Map::new();
        for Divergence { name, distance, .. } in self.divergences() {
            let distance = json!({ "logit": distance.difference, "nats": distance.nats });
            divergences.insert((*name).to_owned(), distance);
        }
        json["merge_divergence"] = divergences.into();
        json
    }

    /// The distance of each way to merge from the trained model, where a choice was made.
    fn divergences(&self) -> impl Iterator<Item = &Divergence> {
        self.exports.iter().flat_map(|exported| &exported.divergences)
    }

    /// The same for a person, with a few answers side by side and the next command to type.
    pub(super) fn text(&self, questions: &[Question], form: &PromptForm) -> String {
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
        if let Some((before, after)) = self.held_out_losses() {
            line(&mut text, "held-out loss", &format!("{before:.4} before, {after:.4} after"));
        }
        lines(&mut text, "look at", &self.look_at);
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
        for Exported { format, folder, verification, model, .. } in &self.exports {
            let (folder, difference) = (folder.display(), verification.difference);
            let checked = format!("{folder} (loaded again: logits within {difference:.1e} of {model})");
            line(&mut text, format.name, &checked);
        }
        for Divergence { way, distance, .. } in self.divergences() {
            let ProbeDivergence { difference, nats } = distance;
            let distance = format!("logits within {difference:.1e} of the trained model, {nats:.1e} nats per token");
            line(&mut text, "divergence", &format!("{way}: {distance}"));
        }
        if let Some(Exported { format, folder, .. }) = self.exports.first() {
            let question = questions.first();
            let system = question.and_then(|question| question.system_text.as_deref()).map(quoted);
            let plain = match (question, form) {
                (Some(question), _) => question.plain_prompt.clone(),
                (None, PromptForm::Text(form)) => Some(form.prompt("...")),
                (None, PromptForm::Chat) => None,
            };
            let shown = plain.as_deref().or(question.map(|question| question.prompt_text.as_str()));
            let prompt = quoted(shown.unwrap_or("..."));
            let folder = shell_word(&folder.display().to_string()).into_owned();
            let prompt = Prompt { folder: &folder, system: system.as_deref(), prompt: &prompt, raw: plain.is_some() };
            line(&mut text, "next", &(format.command)(&prompt));
        }
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
