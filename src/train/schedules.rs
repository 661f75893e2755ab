//! Learning-rate schedules: the learning rate of each step, as transformers computes it.
//!
//! A schedule is a row in [`SCHEDULES`] and a function of the step; recipes and the plan read the row.

use std::f64::consts::PI;

/// Every schedule; the first is that of recipes that name none.
pub const SCHEDULES: &[ScheduleKind] = &[
    ScheduleKind {
        name: "cosine",
        no_warmup: None,
        has_floor: true,
        share: |schedule, step| {
            let cosine = 0.5 * (1.0 + (PI * schedule.progress(step)).cos());
            schedule.floor + (1.0 - schedule.floor) * cosine
        },
        describe: |schedule| format!("cosine to {}", schedule.floor * schedule.peak),
    },
    ScheduleKind {
        name: "linear",
        no_warmup: None,
        has_floor: false,
        share: |schedule, step| 1.0 - schedule.progress(step),
        describe: |_| "linear to 0".to_owned(),
    },
    ScheduleKind {
        name: "constant",
        no_warmup: Some("`lr_scheduler: constant` has no warm-up; `constant_with_warmup` has"),
        has_floor: false,
        share: |_, _| 1.0,
        describe: |_| "constant".to_owned(),
    },
    ScheduleKind {
        name: "constant_with_warmup",
        no_warmup: None,
        has_floor: false,
        share: |_, _| 1.0,
        describe: |_| "constant".to_owned(),
    },
];

/// A schedule that recipes can name.
#[derive(Debug)]
pub struct ScheduleKind {
    /// Its name in recipes.
    pub name: &'static str,
    /// The reason why a warm-up has no effect, if it has none.
    pub no_warmup: Option<&'static str>,
    /// True if it ends at [`Schedule::floor`].
    pub has_floor: bool,
    /// The learning rate of a step after the warm-up, as a share of the peak.
    share: fn(&Schedule, usize) -> f64,
    /// Its course after the warm-up in words.
    pub describe: fn(&Schedule) -> String,
}

impl Default for &ScheduleKind {
    /// The first of [`SCHEDULES`].
    fn default() -> Self {
        &SCHEDULES[0]
    }
}

/// The schedule called `name` in recipes.
pub fn named(name: &str) -> Option<&'static ScheduleKind> {
    SCHEDULES.iter().find(|kind| kind.name == name)
}

/// The learning rate of a run: a warm-up from 0, then a course that depends on the kind.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The course after the warm-up.
    pub kind: &'static ScheduleKind,
    /// The highest learning rate.
    pub peak: f64,
    /// Steps of linear warm-up; the first of them has learning rate 0.
    pub warmup_steps: usize,
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
    /// Share of the peak at the end, for kinds that have one.
    pub floor: f64,
}

impl Schedule {
    /// The learning rate of `step`, from 0.
    pub fn learning_rate(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps.max(1) as f64;
        }
        self.peak * (self.kind.share)(self, step)
    }

    /// The share of the steps after the warm-up that lies before `step`.
    fn progress(&self, step: usize) -> f64 {
        let after = (step - self.warmup_steps) as f64;
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        (after / span).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(name: &str, floor: f64, warmup_steps: usize, total_steps: usize) -> Schedule {
        Schedule { kind: named(name).expect("a schedule"), peak: 4e-3, warmup_steps, total_steps, floor }
    }

    #[test]
    fn the_first_warmup_step_has_learning_rate_zero_and_the_last_step_almost() {
        let schedule = schedule("cosine", 0.0, 4, 20);
        assert_eq!(schedule.learning_rate(0), 0.0);
        assert!((schedule.learning_rate(1) - 1e-3).abs() < 1e-15);
        assert_eq!(schedule.learning_rate(4), 4e-3);
        assert!(schedule.learning_rate(19) < 5e-5);
        assert_eq!(schedule.learning_rate(20), 0.0);
    }

    #[test]
    fn a_floor_is_never_crossed_and_a_line_ends_at_zero() {
        let cosine = schedule("cosine", 0.1, 0, 10);
        assert!((0..=10).all(|step| cosine.learning_rate(step) >= 4e-4 - 1e-12));
        let line = schedule("linear", 0.0, 0, 10);
        assert_eq!(line.learning_rate(10), 0.0);
        assert!((line.learning_rate(5) - 2e-3).abs() < 1e-12);
    }
}
