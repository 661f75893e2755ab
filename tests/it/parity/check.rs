//! Comparisons of one case: collected, so that a report names every part that is wrong and the first
//! layer comes first.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::{fixture, say};

/// What was compared so far in one case.
pub(crate) struct Check {
    case: String,
    /// Largest error and its bound by kind of value.
    worst: BTreeMap<&'static str, (f64, f64)>,
    wrong: Vec<String>,
}

impl Check {
    pub(crate) fn new(case: impl Display) -> Self {
        Self { case: case.to_string(), worst: BTreeMap::new(), wrong: Vec::new() }
    }

    /// Notes that `what`, a value of `kind`, is off by `error` where `bound` is allowed.
    pub(crate) fn within(&mut self, kind: &'static str, what: impl Display, error: f64, bound: f64) {
        let worst = self.worst.entry(kind).or_insert((error, bound));
        if error.is_nan() || error > worst.0 {
            *worst = (error, bound);
        }
        // A NaN is within nothing.
        if error.is_nan() || error > bound {
            self.wrong.push(format!("{}: {what} is off by {error:.3e}, allowed {bound:.1e}", self.case));
        }
    }

    /// Compares value by value; `bound` is absolute.
    pub(crate) fn close(
        &mut self,
        kind: &'static str,
        what: impl Display,
        ours: &[f32],
        reference: &[f32],
        bound: f64,
    ) {
        self.within(kind, what, largest_difference(ours, reference), bound);
    }

    /// Compares value by value; `bound` is relative to the largest value of `reference`, or to `least` if that is more.
    pub(crate) fn close_to_scale(
        &mut self,
        kind: &'static str,
        what: impl Display,
        ours: &[f32],
        reference: &[f32],
        least: f64,
        bound: f64,
    ) {
        self.within(kind, what, largest_difference(ours, reference) / largest(reference).max(least), bound);
    }

    /// Compares two numbers; `bound` is relative to `reference`, or to `least` if that is more.
    pub(crate) fn relative(
        &mut self,
        kind: &'static str,
        what: impl Display,
        ours: f64,
        reference: f64,
        least: f64,
        bound: f64,
    ) {
        self.within(kind, what, (ours - reference).abs() / reference.abs().max(least), bound);
    }

    /// Notes something wrong that is no number.
    pub(crate) fn fail(&mut self, what: impl Display) {
        self.wrong.push(format!("{}: {what}", self.case));
    }

    /// Says the largest errors and hands over what was wrong.
    pub(crate) fn done(self, wrong: &mut Vec<String>) {
        let worst = self.worst.iter().map(|(kind, (error, bound))| format!("{kind} {error:.1e} of {bound:.0e}"));
        let worst: Vec<String> = worst.collect();
        say(&format!("{}: {}", self.case, worst.join(", ")));
        wrong.extend(self.wrong);
    }
}

/// Fails with everything that was wrong. `cases` must not be none, unless `TUNE_FIXTURES` names a folder that has other
/// cases, none of them of the test's kind; that is said aloud.
pub(crate) fn settle(wrong: &[String], cases: usize) {
    if cases == 0 && fixture::are_others() {
        say(&format!("SKIPPED: no case of this kind in {}", fixture::root().display()));
        return;
    }
    assert!(cases > 0, "no case was run: the fixtures are missing (TUNE_FIXTURES names their folder)");
    assert!(wrong.is_empty(), "{} wrong in {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// The largest difference in absolute value; NaN if any is, infinite if the lengths differ.
pub(crate) fn largest_difference(ours: &[f32], reference: &[f32]) -> f64 {
    if ours.len() != reference.len() {
        return f64::INFINITY;
    }
    let differences = ours.iter().zip(reference).map(|(a, b)| f64::from((a - b).abs()));
    differences.fold(0.0, |largest: f64, x| if x.is_nan() || largest.is_nan() { f64::NAN } else { largest.max(x) })
}

/// The largest absolute value.
pub(crate) fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |largest: f64, value| largest.max(f64::from(value.abs())))
}

/// The L2 norm.
pub(crate) fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}
