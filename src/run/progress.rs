//! How a run stands beside its weights: what was evaluated, what was best, what was measured before the first step.
//!
//! A checkpoint keeps it, so that a run that goes on ends with the figures of one that never stopped.

use serde::{Deserialize, Serialize};

use super::summary::Measured;
use crate::plan::Steps;
use crate::report::Trained;
use crate::train::{Evaluation, StepReport, Verdict, Watchdog};

/// Where a run stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The base model on the held-out rows.
    pub(super) before: Measured,
    /// Steps, tokens and seconds so far.
    pub(super) trained: Trained,
    /// The step after which held-out rows were evaluated last.
    evaluated: usize,
    /// The lowest held-out loss so far.
    best: Option<Best>,
    /// Evaluations in a row that were no better.
    no_better: usize,
    /// Counts steps that are not as they should be.
    watchdog: Watchdog,
    /// Whether the watchdog ends the run.
    pub(super) stopped: bool,
    /// Whether the last step learnt nothing.
    pub(super) skipped: bool,
    /// What `auto` came to.
    pub(super) decided: Decided,
    /// The step of the best state that was saved.
    pub(super) best_saved: Option<usize>,
}

/// What was decided by the memory that was free, and is not decided again.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Decided {
    /// Rows of a micro-batch.
    pub(super) micro_batch_size: usize,
    /// Micro-batches of a step.
    pub(super) accumulation: usize,
    /// Whether layers run again in the backward pass.
    pub(super) recompute: bool,
}

/// The lowest held-out loss.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Best {
    step: usize,
    #[serde(with = "crate::exact")]
    loss: f64,
}

impl Progress {
    /// Before the first step.
    pub(super) fn new(before: Measured) -> Self {
        Self {
            before,
            trained: Trained::default(),
            evaluated: 0,
            best: None,
            no_better: 0,
            watchdog: Watchdog::default(),
            stopped: false,
            skipped: false,
            decided: Decided::default(),
            best_saved: None,
        }
    }

    /// Whether held-out rows are to be evaluated now, after `step` steps.
    pub(super) fn evaluation_due(&self, step: usize, steps: &Steps) -> bool {
        let matters = step < steps.total() || steps.load_best || steps.patience.is_some();
        steps.evaluate.due(step) && self.evaluated != step && matters
    }

    /// Takes note of an evaluation, as transformers' early stopping counts: only a lower loss is better.
    pub(super) fn note(&mut self, step: usize, evaluation: &Evaluation) {
        self.evaluated = step;
        if self.best.is_none_or(|best| evaluation.loss < best.loss) {
            self.best = Some(Best { step, loss: evaluation.loss });
            self.no_better = 0;
        } else {
            self.no_better += 1;
        }
    }

    /// Whether training has ended, after `step` steps.
    pub(super) fn is_over(&self, step: usize, steps: &Steps) -> bool {
        let out_of_patience = steps.patience.is_some_and(|patience| self.no_better >= patience);
        step >= steps.total() || out_of_patience || self.stopped
    }

    /// Takes note of a step, and says what follows from it.
    pub(super) fn note_step(&mut self, step: &StepReport, steps: &Steps) -> Verdict {
        let verdict = self.watchdog.judge(step, &steps.watchdog);
        (self.stopped, self.skipped) = (verdict == Verdict::TooHigh, step.skipped);
        verdict
    }

    /// Takes note of a checkpoint after `step` steps, which is the best so far or is not.
    pub(super) fn note_saved(&mut self, step: usize) {
        if self.best.is_some_and(|best| best.step == step) {
            self.best_saved = Some(step);
        }
    }

    /// The lowest held-out loss, and the step after which it was.
    pub(super) fn best(&self) -> Option<(usize, f64)> {
        self.best.map(|best| (best.step, best.loss))
    }
}
