//! What the user sees of a run: bars on a terminal, plain lines elsewhere, and `metrics.jsonl`.
//!
//! Data go to files and stdout, talk goes to stderr.

mod card;
mod memory;
mod printable;

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use datasets::LoadProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use card::{Card, card};
pub use memory::memory_bytes;
pub use printable::{bounded, printable};

use crate::hub::Progress;
use crate::run_dir::{METRICS, RunDir};
use crate::text;
use crate::train::{Evaluation, StepReport};

/// Time between plain progress lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The user's view of a run.
#[derive(Debug)]
pub struct Report {
    terminal: bool,
    bar: Option<ProgressBar>,
    metrics: Option<File>,
    last_line: Option<Instant>,
    download_bytes: u64,
    total_steps: usize,
    log_every: usize,
    /// Steps that were done when this process began.
    first_step: usize,
    started: Instant,
    trained: Trained,
}

/// Training in sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Optimizer steps.
    pub steps: usize,
    /// Tokens without padding.
    pub tokens: usize,
    /// Wall time of the steps, evaluations and checkpoints aside.
    pub seconds: f64,
    /// Steps that learnt nothing, since their loss or gradient was not finite.
    pub skipped: usize,
    /// Wall time from the program's start to its first step, once for each time that the run went on: data, weights, a
    /// first evaluation.
    pub seconds_before: f64,
}

impl Report {
    /// A report to stderr.
    pub fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
            bar: None,
            metrics: None,
            last_line: None,
            download_bytes: 0,
            total_steps: 0,
            log_every: 1,
            first_step: 0,
            started: Instant::now(),
            trained: Trained::default(),
        }
    }

    /// A line of talk.
    #[expect(clippy::print_stderr, reason = "the report is where talk goes out")]
    pub fn say(&self, text: &str) {
        let text = printable(text);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Data for other programs or for reading: to stdout. A reader that went away is no error.
    pub fn print(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes());
        let _ = stdout.flush();
    }

    /// Begins a bar of `total` units.
    pub fn begin(&mut self, what: &str, total: usize) {
        self.finish();
        self.last_line = None;
        if self.terminal {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix:<10} [{bar:30}] {percent:>3} % {msg} {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(what.to_owned());
            self.bar = Some(bar);
        }
    }

    /// Moves the bar.
    pub fn at(&self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }

    /// Ends the bar.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Progress of reading and tokenising.
    pub fn loading(&mut self, progress: &LoadProgress) {
        match progress {
            LoadProgress::Read { .. } => {}
            LoadProgress::Tokenised { done, total } => {
                if self.bar.is_none() {
                    self.begin("tokenise", *total);
                }
                self.at(*done);
                if done == total {
                    self.finish();
                }
            }
        }
    }

    /// Files come from the hub.
    pub fn download(&mut self, progress: Progress) {
        match progress {
            Progress::Begin { what, files, bytes, kept } => {
                let kept = match kept {
                    0 => String::new(),
                    kept => format!(", {} of them from an earlier try", text::bytes(kept)),
                };
                self.finish();
                self.say(&format!("downloading {what}: {files} files, {}{kept}", text::bytes(bytes)));
                self.begin("download", usize::try_from(bytes).unwrap_or(usize::MAX));
                self.download_bytes = bytes;
                self.last_line = Some(Instant::now());
            }
            Progress::At { bytes } => {
                let message = format!("{} of {}", text::bytes(bytes), text::bytes(self.download_bytes));
                if let Some(bar) = &self.bar {
                    bar.set_message(message);
                    bar.set_position(bytes);
                } else if self.last_line.is_some_and(|last| last.elapsed() >= LINE_INTERVAL) {
                    self.say(&format!("downloaded {message}"));
                    self.last_line = Some(Instant::now());
                }
            }
            Progress::Waiting { seconds } => {
                self.say(&format!("the hub is busy or the connection broke: trying again in {seconds:.1} s"));
            }
            Progress::End => self.finish(),
        }
    }

    /// Training begins, or goes on after what was `trained`; lines are added to `metrics.jsonl`.
    ///
    /// # Errors
    /// When `metrics.jsonl` cannot be opened.
    pub fn training(&mut self, run_dir: &RunDir, total_steps: usize, log_every: usize, trained: Trained) -> Result<()> {
        let path = run_dir.join(METRICS);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        self.metrics = Some(file.with_context(|| format!("{} cannot be opened", path.display()))?);
        self.total_steps = total_steps;
        self.log_every = log_every;
        let seconds_before = trained.seconds_before + self.started.elapsed().as_secs_f64();
        self.started = Instant::now();
        self.first_step = trained.steps;
        self.trained = Trained { seconds_before, ..trained };
        self.begin("train", total_steps);
        self.at(trained.steps);
        Ok(())
    }

    /// One step was done.
    ///
    /// # Errors
    /// When `metrics.jsonl` cannot be written.
    pub fn step(&mut self, step: &StepReport, memory: Option<u64>) -> Result<()> {
        self.trained.steps += 1;
        self.trained.tokens += step.tokens;
        self.trained.seconds += step.seconds;
        if step.skipped {
            self.trained.skipped += 1;
            self.say(&format!(
                "step {}: skipped, its loss is {} and its gradient norm {}",
                step.step, step.loss, step.gradient_norm
            ));
        }
        let tokens_per_second = step.tokens as f64 / step.seconds.max(1e-9);
        if step.step.is_multiple_of(self.log_every) || step.step == self.total_steps || step.skipped {
            self.metric(json!({
                "step": step.step,
                "epoch": step.epoch,
                "loss": step.loss,
                "learning_rate": step.learning_rate,
                "gradient_norm": step.gradient_norm,
                "skipped": step.skipped,
                "micro_batches": step.micro_batches,
                "tokens": step.tokens,
                "trained_tokens": step.trained_tokens,
                "seconds": step.seconds,
                "tokens_per_second": tokens_per_second,
                "memory_bytes": memory,
            }))?;
        }
        let average = self.trained.tokens as f64 / self.trained.seconds.max(1e-9);
        let memory = memory.map_or(String::new(), |bytes| format!(", {}", text::bytes(bytes)));
        let message = format!("loss {:.4}, {average:.0} tokens/s{memory}", step.loss);
        match &self.bar {
            Some(bar) => {
                bar.set_message(message);
                bar.set_position(step.step as u64);
            }
            None => {
                let due =
                    self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) || step.step == self.total_steps;
                if due {
                    let here = step.step.saturating_sub(self.first_step).max(1);
                    let left = self.started.elapsed().as_secs_f64() / here as f64
                        * (self.total_steps - step.step.min(self.total_steps)) as f64;
                    self.say(&format!(
                        "step {}/{}: {message}, lr {:.3e}, gradient norm {:.3}, {left:.0} s left",
                        step.step, self.total_steps, step.learning_rate, step.gradient_norm
                    ));
                    self.last_line = Some(Instant::now());
                }
            }
        }
        Ok(())
    }

    /// `metrics.jsonl` and its length now.
    ///
    /// # Errors
    /// When the system does not say it, or training has not begun.
    pub fn metrics_file(&self) -> Result<(File, u64)> {
        let file = self.metrics.as_ref().context("metrics.jsonl is not open")?;
        let unknown = "the length of metrics.jsonl is not known";
        Ok((file.try_clone().context(unknown)?, file.metadata().context(unknown)?.len()))
    }

    /// What has been trained so far.
    pub fn trained(&self) -> Trained {
        self.trained
    }

    /// Held-out rows were evaluated after `step` steps.
    ///
    /// # Errors
    /// When `metrics.jsonl` cannot be written.
    pub fn evaluation(&mut self, step: usize, evaluation: &Evaluation) -> Result<()> {
        self.say(&format!("step {step}: held-out loss {:.4} over {} tokens", evaluation.loss, evaluation.tokens));
        self.metric(json!({ "step": step, "eval_loss": evaluation.loss, "eval_tokens": evaluation.tokens }))
    }

    fn metric(&mut self, line: Value) -> Result<()> {
        match &mut self.metrics {
            Some(file) => {
                writeln!(file, "{line}").context("metrics.jsonl cannot be written\nhint: check that the disk has room")
            }
            None => Ok(()),
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}
