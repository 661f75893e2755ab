//! When a run ends early: its loss is too high, or no number, for so many steps in a row.

use serde::{Deserialize, Serialize};

use super::trainer::StepReport;

/// What a run is watched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WatchdogSettings {
    /// The loss above which a step counts; none for never.
    pub threshold: Option<f64>,
    /// Steps in a row that end the run, at least 1: too high ones, or those whose loss or gradient is not finite.
    pub patience: usize,
}

/// What follows from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The run goes on.
    GoOn,
    /// The loss has been above the threshold: the run ends with what it has learnt, as Axolotl's does.
    TooHigh,
    /// Nothing has been learnt, since loss or gradient were not finite: the run fails.
    NotFinite,
}

/// Counts steps in a row that are not as they should be; by default it has seen none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watchdog {
    high: usize,
    not_finite: usize,
}

impl Watchdog {
    /// Looks at the next step.
    pub fn judge(&mut self, step: &StepReport, settings: &WatchdogSettings) -> Verdict {
        self.not_finite = if step.skipped { self.not_finite + 1 } else { 0 };
        // A loss that is no number is above nothing.
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
    fn only_steps_in_a_row_end_a_run() {
        use Verdict::{GoOn, NotFinite, TooHigh};
        assert_eq!(verdicts(Some(5.0), 2, &[6.0, 4.0, 6.0, 5.0, 6.0, 7.0]), [GoOn, GoOn, GoOn, GoOn, GoOn, TooHigh]);
        assert_eq!(verdicts(Some(5.0), 1, &[5.0, 5.1]), [GoOn, TooHigh]);
        assert_eq!(verdicts(None, 2, &[1e9, 1e9, f64::NAN, 1e9, f64::NAN, f64::NAN])[4..], [GoOn, NotFinite]);
        assert_eq!(verdicts(Some(5.0), 2, &[6.0, f64::NAN, 6.0]), [GoOn, GoOn, GoOn]);
        assert_eq!(verdicts(Some(5.0), 3, &[f64::INFINITY; 3])[2], NotFinite, "skipped, and so not a high loss");
    }
}
