//! The objectives that there are, a row each.

mod supervised;

use std::sync::Arc;

pub use supervised::Supervised;

use super::objective::Objective;

/// Every objective; the first is that of a recipe that names none.
pub const OBJECTIVES: [fn() -> Arc<dyn Objective>; 1] = [|| Arc::new(Supervised)];

/// The objective of a recipe that names none.
pub fn default_objective() -> Arc<dyn Objective> {
    OBJECTIVES[0]()
}

#[cfg(test)]
mod tests {
    use super::super::objective::Document;
    use super::*;

    /// Trained tokens of each of the documents, two groups of up to four.
    const TOKENS: [usize; 8] = [3, 5, 2, 4, 1, 6, 3, 2];

    /// Log-probabilities of `count` tokens.
    fn draw(seed: usize, count: usize) -> Vec<f32> {
        (0..count).map(|place| -(((place + seed) * 7919 % 2003) as f32) / 1000.0 - 0.01).collect()
    }

    fn documents<'a>(tokens: &'a [i32], log_probabilities: &'a [f32], reference: &'a [f32]) -> Vec<Document<'a>> {
        let mut first = 0;
        let document = |count: usize| {
            let range = first..first + count;
            first += count;
            Document {
                tokens: &tokens[range.clone()],
                log_probabilities: &log_probabilities[range.clone()],
                reference: &reference[range],
            }
        };
        TOKENS.into_iter().map(document).collect()
    }

    #[test]
    fn weights_are_the_derivative_of_the_loss_by_log_probabilities() {
        const STEP: f32 = 1e-2;
        let count = TOKENS.iter().sum();
        let tokens: Vec<i32> = (0..count as i32).collect();
        let (log_probabilities, reference) = (draw(1, count), draw(2, count));
        for objective in OBJECTIVES {
            let objective = objective();
            assert_eq!(
                TOKENS.len() % objective.grouping().group(),
                0,
                "the test has whole groups of {}",
                objective.name()
            );
            let loss = |log_probabilities: &[f32]| objective.loss(&documents(&tokens, log_probabilities, &reference));
            let weights = loss(&log_probabilities).weights;
            assert_eq!(weights.len(), count);
            for (place, weight) in weights.iter().enumerate() {
                let moved = |by: f32| {
                    let mut moved = log_probabilities.clone();
                    moved[place] += by;
                    loss(&moved).loss
                };
                let slope = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
                let off = (f64::from(*weight) + slope).abs();
                assert!(off < 1e-3, "{}: weight {weight} of token {place}, slope {slope}", objective.name());
            }
        }
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<&str> = OBJECTIVES.iter().map(|objective| objective().name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OBJECTIVES.len());
    }
}
