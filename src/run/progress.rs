//! The progress of a run beside its weights: evaluations, the best of them, figures from before the first step.
//!
//! Checkpoints hold it, so that a resumed run ends with the figures of one that never stopped.

use serde::{Deserialize, Serialize};

use super::summary::Measured;
use crate::plan::Steps;
use crate::report::Trained;
use crate::train::{Evaluation, StepReport, Verdict, Watchdog};

/// The progress of a run.
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
    /// Consecutive evaluations that were no better.
    no_better: usize,
    /// Counts steps whose loss is too high or not finite.
    watchdog: Watchdog,
    /// True if the watchdog ends the run.
    pub(super) stopped: bool,
    /// True if the last step was skipped.
    pub(super) skipped: bool,
    /// The settings that `auto` chose.
    pub(super) decided: Decided,
    /// The step of the best state that was saved.
    pub(super) best_saved: Option<usize>,
}

/// Settings that were chosen by the memory that was free, and are not chosen again.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Decided {
    /// Rows of a micro-batch.
    pub(super) micro_batch_size: usize,
    /// Micro-batches of a step.
    pub(super) accumulation: usize,
    /// If set, layers run again in the backward pass.
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
    /// The progress before the first step.
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

    /// True if held-out rows are to be evaluated now, after `step` steps.
    pub(super) fn evaluation_due(&self, step: usize, steps: &Steps) -> bool {
        let matters = step < steps.total() || steps.load_best || steps.patience.is_some();
        steps.evaluate.due(step) && self.evaluated != step && matters
    }

    /// Records an evaluation. As in transformers' early stopping only a lower loss is better.
    pub(super) fn note_evaluation(&mut self, step: usize, evaluation: &Evaluation) {
        self.evaluated = step;
        if self.best.is_none_or(|best| evaluation.loss < best.loss) {
            self.best = Some(Best { step, loss: evaluation.loss });
            self.no_better = 0;
        } else {
            self.no_better += 1;
        }
    }

    /// True if training has ended, after `step` steps.
    pub(super) fn is_over(&self, step: usize, steps: &Steps) -> bool {
        let out_of_patience = steps.patience.is_some_and(|patience| self.no_better >= patience);
        step >= steps.total() || out_of_patience || self.stopped
    }

    /// Records a step and returns the watchdog's verdict on it.
    pub(super) fn note_step(&mut self, step: &StepReport, steps: &Steps) -> Verdict {
        let verdict = self.watchdog.judge(step, &steps.watchdog);
        (self.stopped, self.skipped) = (verdict == Verdict::TooHigh, step.skipped);
        verdict
    }

    /// Records a checkpoint after `step` steps.
    pub(super) fn note_saved(&mut self, step: usize) {
        if self.best.is_some_and(|best| best.step == step) {
            self.best_saved = Some(step);
        }
    }

    /// The lowest held-out loss, and the step after which it was measured.
    pub(super) fn best(&self) -> Option<(usize, f64)> {
        self.best.map(|best| (best.step, best.loss))
    }
}
