//! The user's terminal on stderr: a bar where there is one, plain lines every few seconds elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use anyhow::Result;
use console::Term;
use datasets::LoadProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Measurement, Sink, SinkPosition, StepRecord};
use crate::hub::Progress;
use crate::report::printable;
use crate::report::wrap::{columns, wrapped};
use crate::text::{self, counted, grouped};
use crate::train::Evaluation;

/// Time between plain progress lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Lines about steps that a terminal keeps of a run, about.
const USUAL_LINES: usize = 20;

/// The terminal, before and during a run.
#[derive(Debug)]
pub(in crate::report) struct Terminal {
    interactive: bool,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    download_bytes: u64,
    total_steps: usize,
    /// Steps between lines about steps, if the user set it.
    show_every: Option<usize>,
    /// Steps that were done when this process began to train.
    first_step: usize,
    /// The time at which it began to train.
    started: Instant,
}

impl Terminal {
    pub(in crate::report) fn new() -> Self {
        Self {
            interactive: stderr().is_terminal(),
            bar: None,
            last_line: None,
            download_bytes: 0,
            total_steps: 0,
            show_every: None,
            first_step: 0,
            started: Instant::now(),
        }
    }

    /// Prints a line, above the bar if there is one. A reader that went away, or a full disk under a log, ends nothing.
    pub(in crate::report) fn say(&self, text: &str) {
        let text = printable(text);
        let text = wrapped(&text, columns(&Term::stderr()));
        let print = || {
            let _ = stderr().write_all(format!("{text}\n").as_bytes());
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Begins a bar of `total` units.
    pub(in crate::report) fn begin(&mut self, what: &str, total: usize) {
        self.begin_as(what, total, "{prefix:<10} [{bar:30}] {percent:>3} % {msg} {eta} left");
    }

    fn begin_as(&mut self, what: &str, total: usize, template: &str) {
        self.finish();
        self.last_line = None;
        if self.interactive {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(what.to_owned());
            self.bar = Some(bar);
        }
    }

    /// Moves the bar.
    pub(in crate::report) fn at(&self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }

    /// Ends the bar.
    pub(in crate::report) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Begins the bar of training at `first_step` of `total_steps`.
    pub(in crate::report) fn begin_training(
        &mut self,
        first_step: usize,
        total_steps: usize,
        show_every: Option<usize>,
    ) {
        (self.first_step, self.total_steps, self.started) = (first_step, total_steps, Instant::now());
        self.show_every = show_every;
        // What matters comes first, and the bar takes what is left of the line.
        self.begin_as("train", total_steps, "{prefix} {pos}/{len}{msg}, {eta} left [{wide_bar}]");
        self.at(first_step);
    }

    /// True if `step` is to be a line that stays: as often as the user wants it. Without a wish a terminal shows about
    /// twenty, beside its bar, and a file one every few seconds.
    fn stays(&self, step: usize) -> bool {
        let every = match self.show_every {
            Some(every) => every,
            None if self.interactive => (self.total_steps / USUAL_LINES).max(1),
            None => return self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL),
        };
        step.is_multiple_of(every)
    }

    /// Shows how far reading and tokenising are.
    pub(in crate::report) fn loading(&mut self, progress: &LoadProgress) {
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

    /// Shows how far a download from the hub is.
    pub(in crate::report) fn download(&mut self, progress: Progress) {
        match progress {
            Progress::Begin { what, files, bytes, kept } => {
                let kept = match kept {
                    0 => String::new(),
                    kept => format!(", {} of them from an earlier attempt", text::bytes(kept)),
                };
                self.finish();
                self.say(&format!("downloading {what}: {}, {}{kept}", counted(files, "file"), text::bytes(bytes)));
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
                let wait = text::duration(seconds);
                self.say(&format!("the hub is busy or the connection was lost: retrying in {wait}"));
            }
            Progress::End => self.finish(),
        }
    }

    /// The time that the steps after `step` will take, at the pace of those of this process.
    fn time_left(&self, step: usize) -> f64 {
        let here = step.saturating_sub(self.first_step).max(1);
        self.started.elapsed().as_secs_f64() / here as f64 * self.total_steps.saturating_sub(step) as f64
    }
}

impl Sink for Terminal {
    fn step(&mut self, record: &StepRecord) -> Result<()> {
        let step = record.step;
        if step.skipped {
            self.say(&format!("step {}: skipped, loss {}, gradient norm {}", step.step, step.loss, step.gradient_norm));
        }
        let average = record.trained.tokens as f64 / record.trained.seconds.max(1e-9);
        let memory = record.memory_bytes.map_or(String::new(), |bytes| format!(", {}", text::bytes(bytes)));
        let figures: String = record.step.metrics.iter().map(|(name, value)| format!(", {name} {value:.4}")).collect();
        let message = format!("loss {:.4}{figures}, {average:.0} tokens/s", step.loss);
        if let Some(bar) = &self.bar {
            bar.set_message(format!(", epoch {:.2}, {message}", step.epoch));
            bar.set_position(step.step as u64);
        }
        let is_last = step.step == self.total_steps;
        if is_last || self.stays(step.step) {
            // The bar has it.
            let is_known = is_last || self.bar.is_some();
            let left =
                if is_known { String::new() } else { format!(", {} left", text::duration(self.time_left(step.step))) };
            self.say(&format!(
                "step {}/{}: {message}{memory}, lr {:.3e}, gradient norm {:.3}{left}",
                step.step, self.total_steps, step.learning_rate, step.gradient_norm
            ));
            self.last_line = Some(Instant::now());
        }
        Ok(())
    }

    fn evaluation(&mut self, step: usize, evaluation: &Evaluation) -> Result<()> {
        let tokens = grouped(evaluation.tokens);
        self.say(&format!("step {step}: held-out loss {:.4} over {tokens} tokens", evaluation.loss));
        Ok(())
    }

    fn measured(&mut self, _measurement: &Measurement) -> Result<()> {
        // The summary shows both sides by side.
        Ok(())
    }

    fn event(&mut self, step: usize, text: &str) -> Result<()> {
        self.say(&format!("step {step}: {text}"));
        Ok(())
    }

    fn position(&mut self) -> Result<Option<SinkPosition>> {
        Ok(None)
    }
}
