//! The learning rate of a step, as transformers' schedules compute it.

/// How the learning rate moves after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Stays.
    Constant,
    /// Falls to 0 in a straight line.
    Linear,
    /// Falls along half a cosine to `floor` times the peak.
    Cosine {
        /// Share of the peak at the end.
        floor: f64,
    },
}

/// A warm-up from 0, then a shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The highest learning rate.
    pub peak: f64,
    /// Steps of linear warm-up; the first of them has learning rate 0.
    pub warmup_steps: usize,
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
    /// What follows the warm-up.
    pub shape: Shape,
}

impl Schedule {
    /// The learning rate of `step`, from 0.
    pub fn learning_rate(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps.max(1) as f64;
        }
        let after = (step - self.warmup_steps) as f64;
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = (after / span).min(1.0);
        let share = match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => 1.0 - progress,
            Shape::Cosine { floor } => {
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                floor + (1.0 - floor) * cosine
            }
        };
        self.peak * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_warmup_step_has_learning_rate_zero_and_the_last_step_almost() {
        let schedule = Schedule { peak: 4e-3, warmup_steps: 4, total_steps: 20, shape: Shape::Cosine { floor: 0.0 } };
        assert_eq!(schedule.learning_rate(0), 0.0);
        assert!((schedule.learning_rate(1) - 1e-3).abs() < 1e-15);
        assert_eq!(schedule.learning_rate(4), 4e-3);
        assert!(schedule.learning_rate(19) < 5e-5);
        assert_eq!(schedule.learning_rate(20), 0.0);
    }

    #[test]
    fn a_floor_is_never_crossed_and_a_line_ends_at_zero() {
        let cosine = Schedule { peak: 1.0, warmup_steps: 0, total_steps: 10, shape: Shape::Cosine { floor: 0.1 } };
        assert!((0..=10).all(|step| cosine.learning_rate(step) >= 0.1 - 1e-12));
        let line = Schedule { shape: Shape::Linear, ..cosine };
        assert_eq!(line.learning_rate(10), 0.0);
        assert!((line.learning_rate(5) - 0.5).abs() < 1e-12);
    }
}
