//! The factor on the loss that keeps gradients within the range of f16 (Micikevicius et al. 2018, arXiv:1710.03740).
//!
//! It moves as torch's GradScaler moves its own: from 2^16, doubled after 2000 steps without overflow, halved at one.
//! A step that overflowed, which torch skips, is run again with the smaller factor here, so that every batch is
//! trained on. Being a power of two, the factor changes nothing but what would overflow or vanish.

use burn::tensor::FloatDType;
use serde::{Deserialize, Serialize};

/// The factor at first.
const FIRST: f64 = 65_536.0;
/// The factor below which overflows have another cause.
const LEAST: f64 = 1.0 / 65_536.0;
/// Steps without overflow after which the factor is doubled.
const INTERVAL: usize = 2000;

/// The factor on the loss; 1 for types that have the range of f32.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct LossScale {
    factor: f64,
    /// Steps since it last changed; none where it never does.
    since: Option<usize>,
}

impl LossScale {
    /// The loss scale of a run that computes in `dtype`.
    pub(super) fn of(dtype: FloatDType) -> Self {
        match dtype {
            FloatDType::F16 => Self { factor: FIRST, since: Some(0) },
            _ => Self { factor: 1.0, since: None },
        }
    }

    /// The factor that the loss is multiplied by, and gradients have to be divided by.
    pub(super) fn factor(&self) -> f64 {
        self.factor
    }

    /// Notes that a step's gradients were finite.
    pub(super) fn held(&mut self) {
        let Some(since) = &mut self.since else { return };
        *since += 1;
        if *since == INTERVAL {
            *self = Self { factor: 2.0 * self.factor, since: Some(0) };
        }
    }

    /// Notes that a step's gradients overflowed; returns true if a smaller factor can help.
    pub(super) fn overflowed(&mut self) -> bool {
        let can_help = self.since.is_some() && self.factor > LEAST;
        if can_help {
            *self = Self { factor: self.factor / 2.0, since: Some(0) };
        }
        can_help
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_halved_at_an_overflow_and_doubled_after_2000_steps_without_one() {
        let mut scale = LossScale::of(FloatDType::F16);
        assert_eq!(scale.factor(), 65_536.0);
        assert!(scale.overflowed() && scale.overflowed());
        assert_eq!(scale.factor(), 16_384.0);
        (0..1999).for_each(|_| scale.held());
        assert_eq!(scale.factor(), 16_384.0);
        scale.held();
        assert_eq!(scale.factor(), 32_768.0);
    }

    #[test]
    fn types_with_the_range_of_f32_are_not_scaled_and_f16_not_without_end() {
        for dtype in [FloatDType::F32, FloatDType::BF16] {
            let mut scale = LossScale::of(dtype);
            scale.held();
            assert!(!scale.overflowed());
            assert_eq!(scale.factor(), 1.0);
        }
        let mut scale = LossScale::of(FloatDType::F16);
        assert_eq!((0..100).take_while(|_| scale.overflowed()).count(), 32);
    }
}
