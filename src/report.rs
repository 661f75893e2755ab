//! The user's view of a run: messages and progress on stderr, results on stdout, and the figures of every step and
//! evaluation in the run's sinks.

mod card;
mod memory;
mod printable;
mod sinks;
mod wrap;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::time::Instant;

use anyhow::Result;
use datasets::LoadProgress;
use serde::{Deserialize, Serialize};

pub use card::{Card, card, plan_for_others};
pub use memory::memory_bytes;
pub use printable::{bounded, printable};
pub use sinks::{Measurement, Positions, ResumePoint, SinkState, sink_files, wanted_files};
pub use wrap::wrapped_help;

use crate::hint::hinted;
use crate::hub::Progress;
use crate::run_dir::RunDir;
use crate::train::{Evaluation, StepReport};
use sinks::{Opening, SINKS, Sink, SinkKind, StepRecord, Terminal};

/// Steps at the end of a run whose mean loss is compared with the first one's.
const LAST_LOSSES: usize = 4;

/// The settings that decide which sinks a run has and how often they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportSettings {
    /// Steps between records of a step.
    pub log_every: usize,
    /// Steps between lines on the terminal; unset, they are as rare as is good to read.
    pub show_every: Option<usize>,
}

/// The user's view of a run.
#[derive(Debug)]
pub struct Report {
    terminal: Terminal,
    /// The sinks of the run that trains.
    sinks: Vec<(&'static SinkKind, Box<dyn Sink>)>,
    log_every: usize,
    total_steps: usize,
    started: Instant,
    trained: Trained,
    /// The loss of the first step of this process, and those of the last ones after it.
    first_loss: Option<f64>,
    last_losses: VecDeque<f64>,
    /// The first error of printing results.
    unprinted: OnceCell<std::io::Error>,
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
    /// Steps that changed nothing, because their loss or gradient was not finite.
    pub skipped: usize,
    /// Wall time from the program's start to its first step, summed over every process that the run resumed in: data,
    /// weights, a first evaluation.
    pub seconds_before: f64,
}

impl Report {
    /// A report to stderr.
    pub fn new() -> Self {
        Self {
            terminal: Terminal::new(),
            sinks: Vec::new(),
            log_every: 1,
            total_steps: 0,
            started: Instant::now(),
            trained: Trained::default(),
            first_loss: None,
            last_losses: VecDeque::new(),
            unprinted: OnceCell::new(),
        }
    }

    /// Prints a message to stderr.
    pub fn say(&self, text: &str) {
        self.terminal.say(text);
    }

    /// Prints results for other programs or for reading to stdout. A reader that went away is no error; any other is
    /// kept for [`Report::check_printed`].
    pub fn print(&self, text: &str) {
        if self.unprinted.get().is_some() {
            return;
        }
        let mut stdout = std::io::stdout().lock();
        let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        if let Err(error) = printed
            && error.kind() != ErrorKind::BrokenPipe
        {
            // The first one tells why.
            let _ = self.unprinted.set(error);
        }
    }

    /// Prints a table to stdout, with lines that fit the terminal.
    pub fn print_table(&self, text: &str) {
        self.print(&wrap::wrapped(text, wrap::columns(&console::Term::stdout())));
    }

    /// Reports results that could not be printed.
    ///
    /// # Errors
    /// When stdout could not be written, and not because its reader went away.
    pub fn check_printed(&mut self) -> Result<()> {
        match self.unprinted.take() {
            Some(error) => {
                Err(hinted("stdout cannot be written", "check that the disk has room").caused_by(error).into())
            }
            None => Ok(()),
        }
    }

    /// Begins a bar of `total` units.
    pub fn begin(&mut self, what: &str, total: usize) {
        self.terminal.begin(what, total);
    }

    /// Moves the bar.
    pub fn at(&self, done: usize) {
        self.terminal.at(done);
    }

    /// Ends the bar.
    pub fn finish(&mut self) {
        self.terminal.finish();
    }

    /// Shows how far reading and tokenising are.
    pub fn loading(&mut self, progress: &LoadProgress) {
        self.terminal.loading(progress);
    }

    /// Shows how far loading weights is, in parameters.
    pub fn weights(&mut self, done: usize, total: usize) {
        if done == 0 {
            self.begin("load", total);
        }
        self.at(done);
        if done == total {
            self.finish();
        }
    }

    /// Shows how far a download from the hub is.
    pub fn download(&mut self, progress: Progress) {
        self.terminal.download(progress);
    }

    /// Opens the run's sinks: training begins, or resumes at `resumed` after what was `trained`.
    ///
    /// # Errors
    /// When a sink cannot be opened, or cannot go back to its position.
    pub fn training(
        &mut self,
        run_dir: &RunDir,
        settings: &ReportSettings,
        total_steps: usize,
        trained: Trained,
        resumed: Option<&ResumePoint>,
    ) -> Result<()> {
        for kind in SINKS.iter().filter(|kind| (kind.wanted)(settings)) {
            let resumed = resumed.map(|point| (point.checkpoint.as_path(), point.positions.get(kind.key)));
            let opening = Opening { run_dir, resumed, warn: &|text| self.terminal.say(text) };
            let sink = (kind.open)(&opening)?;
            self.sinks.push((kind, sink));
        }
        (self.log_every, self.total_steps) = (settings.log_every, total_steps);
        let seconds_before = trained.seconds_before + self.started.elapsed().as_secs_f64();
        self.trained = Trained { seconds_before, ..trained };
        self.terminal.begin_training(trained.steps, total_steps, settings.show_every);
        Ok(())
    }

    /// Reports a step that was done; sinks other than the terminal record those that the settings choose.
    ///
    /// # Errors
    /// When a sink cannot be written.
    pub fn step(&mut self, step: &StepReport, memory_bytes: Option<u64>) -> Result<()> {
        self.trained.steps += 1;
        self.trained.tokens += step.tokens;
        self.trained.seconds += step.seconds;
        self.trained.skipped += usize::from(step.skipped);
        self.note_loss(step.loss);
        let record = StepRecord {
            step,
            tokens_per_second: step.tokens as f64 / step.seconds.max(1e-9),
            memory_bytes,
            trained: &self.trained,
        };
        self.terminal.step(&record)?;
        if step.step.is_multiple_of(self.log_every) || step.step == self.total_steps || step.skipped {
            self.sinks.iter_mut().try_for_each(|(_, sink)| sink.step(&record))?;
        }
        Ok(())
    }

    /// Reports an evaluation of the held-out rows after `step` steps.
    ///
    /// # Errors
    /// When a sink cannot be written.
    pub fn evaluation(&mut self, step: usize, evaluation: &Evaluation) -> Result<()> {
        self.every_sink(|sink| sink.evaluation(step, evaluation))
    }

    /// Records what a model was measured to be before or after training, as it was after `step` steps.
    ///
    /// # Errors
    /// When a sink cannot be written.
    pub fn measured(&mut self, measurement: &Measurement) -> Result<()> {
        self.every_sink(|sink| sink.measured(measurement))
    }

    /// Reports something else that happened after `step` steps, in words.
    ///
    /// # Errors
    /// When a sink cannot be written.
    pub fn event(&mut self, step: usize, text: &str) -> Result<()> {
        self.every_sink(|sink| sink.event(step, text))
    }

    /// Returns the positions of the run's sinks, for a checkpoint to keep.
    ///
    /// # Errors
    /// When a sink does not know its position.
    pub fn sink_state(&mut self) -> Result<SinkState> {
        let mut state = SinkState::default();
        for (kind, sink) in &mut self.sinks {
            if let Some(position) = sink.position()? {
                state.add(kind.key, position);
            }
        }
        Ok(state)
    }

    /// The sums over the run so far.
    pub fn trained(&self) -> Trained {
        self.trained
    }

    /// The loss of the first step of this process, and the mean of the last ones, if it took more than one.
    pub fn losses(&self) -> Option<(f64, f64)> {
        let last = &self.last_losses;
        let mean = last.iter().sum::<f64>() / last.len().max(1) as f64;
        self.first_loss.filter(|_| !last.is_empty()).map(|first| (first, mean))
    }

    fn note_loss(&mut self, loss: f64) {
        if self.first_loss.is_none() {
            self.first_loss = Some(loss);
            return;
        }
        if self.last_losses.len() == LAST_LOSSES {
            self.last_losses.pop_front();
        }
        self.last_losses.push_back(loss);
    }

    fn every_sink(&mut self, mut tell: impl FnMut(&mut dyn Sink) -> Result<()>) -> Result<()> {
        tell(&mut self.terminal)?;
        self.sinks.iter_mut().try_for_each(|(_, sink)| tell(sink.as_mut()))
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}
