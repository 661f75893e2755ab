//! The watchdog: ends a run early whose loss is too high, or not finite, for several consecutive steps.

use serde::{Deserialize, Serialize};

use super::trainer::StepReport;

/// The limits that a run is watched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WatchdogSettings {
    /// The loss above which a step counts; none for never.
    pub threshold: Option<f64>,
    /// Consecutive steps that end the run, at least 1: with a loss that is too high, or with a loss or gradient that is not
    /// finite.
    pub patience: usize,
}

/// The consequence of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The run continues.
    GoOn,
    /// The loss has been above the threshold: the run ends with the weights that it has, as Axolotl's does.
    TooHigh,
    /// Nothing was updated, since loss or gradient were not finite: the run fails.
    NotFinite,
}

/// Counts consecutive bad steps; by default it has seen none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watchdog {
    high: usize,
    not_finite: usize,
}

impl Watchdog {
    /// Looks at the next step.
    pub fn judge(&mut self, step: &StepReport, settings: &WatchdogSettings) -> Verdict {
        self.not_finite = if step.skipped { self.not_finite + 1 } else { 0 };
        // A loss that is not a number is above nothing.
        let high = settings.threshold.is_some_and(|threshold| step.loss > threshold);
        self.high = if high { self.high + 1 } else { 0 };
        match settings.patience {
            patience if self.not_finite >= patience => Verdict::NotFinite,
            patience if self.high >= patience => Verdict::TooHigh,
            _ => Verdict::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(threshold: Option<f64>, patience: usize, losses: &[f64]) -> Vec<Verdict> {
        let (mut watchdog, settings) = (Watchdog::default(), WatchdogSettings { threshold, patience });
        let step = |loss: &f64| StepReport { loss: *loss, skipped: !loss.is_finite(), ..StepReport::default() };
        losses.iter().map(|loss| watchdog.judge(&step(loss), &settings)).collect()
    }

    #[test]
    fn only_consecutive_steps_end_a_run() {
        use Verdict::{GoOn, NotFinite, TooHigh};
        assert_eq!(verdicts(Some(5.0), 2, &[6.0, 4.0, 6.0, 5.0, 6.0, 7.0]), [GoOn, GoOn, GoOn, GoOn, GoOn, TooHigh]);
        assert_eq!(verdicts(Some(5.0), 1, &[5.0, 5.1]), [GoOn, TooHigh]);
        assert_eq!(verdicts(None, 2, &[1e9, 1e9, f64::NAN, 1e9, f64::NAN, f64::NAN])[4..], [GoOn, NotFinite]);
        assert_eq!(verdicts(Some(5.0), 2, &[6.0, f64::NAN, 6.0]), [GoOn, GoOn, GoOn]);
        assert_eq!(verdicts(Some(5.0), 3, &[f64::INFINITY; 3])[2], NotFinite, "skipped, and so not a high loss");
    }
}
