//! One step of Adam (Kingma and Ba 2015, arXiv:1412.6980) with decoupled decay (Loshchilov and Hutter 2017,
//! arXiv:1711.05101), in one pass over the values of each parameter.

mod eight_bit;
#[cfg(feature = "cube")]
mod kernel;

pub use eight_bit::{EightBitMoment, EightBitState, EightBitWork, adam_eight_bit};

use burn::backend::Flex;
use burn::tensor::Tensor;
use rayon::prelude::*;

#[cfg(feature = "cube")]
use crate::cube::on_cube;
use crate::gradient::square_sum;
use crate::host::{contiguous, is_host, values, values_mut};
use crate::threads::{PIECE, for_each};
use crate::vector::vectorised;

/// A parameter and what its optimizer remembers of it, all of one length.
#[derive(Debug, Clone)]
pub struct AdamState {
    /// The parameter.
    pub value: Tensor<1>,
    /// Mean of its gradients.
    pub first: Tensor<1>,
    /// Mean of their squares.
    pub second: Tensor<1>,
}

/// The constants of a step.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// Factor on the gradient.
    pub factor: f32,
    /// The share of the first moment that stays.
    pub beta1: f32,
    /// The share of the second moment that stays.
    pub beta2: f32,
    /// The share of the gradient that enters the first moment, `1 - beta1`.
    pub enters1: f32,
    /// The share of its square that enters the second moment, `1 - beta2`.
    pub enters2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// The root of the second moment's bias correction.
    pub correction2: f32,
    /// The learning rate over the first moment's bias correction.
    pub rate: f32,
    /// The share of the parameter that weight decay leaves, `1 - learning rate * decay`.
    pub kept: f32,
}

/// A parameter's state, its gradient, and the step to take; tensors of f32 outside autodiff.
#[derive(Debug, Clone)]
pub struct AdamWork {
    /// The state before.
    pub state: AdamState,
    /// The gradient.
    pub gradient: Tensor<1>,
    /// Its constants; rate and kept may differ between the parameters of one call, the others are the first's.
    pub step: AdamStep,
}

/// The states after a step each, of parameters on one device. On a GPU this is one operation for all of them.
pub fn adam_all(work: Vec<AdamWork>) -> Vec<AdamState> {
    #[cfg(feature = "cube")]
    if work.first().is_some_and(|work| on_cube(&work.gradient.device())) {
        return kernel::adam_on_cube(work);
    }
    work.into_iter().map(|AdamWork { state, gradient, step }| adam(state, gradient, step)).collect()
}

/// The sum of the squares of all values of f32 `tensors` outside autodiff, `[1]` each; on a GPU one for all of them.
pub fn square_sums(tensors: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
    #[cfg(feature = "cube")]
    if tensors.first().is_some_and(|tensor| on_cube(&tensor.device())) {
        return kernel::square_sum_on_cube(tensors).into_iter().collect();
    }
    tensors.into_iter().map(square_sum).collect()
}

/// `value` after a step in the direction of `gradient`, with both moments.
fn adam(state: AdamState, gradient: Tensor<1>, step: AdamStep) -> AdamState {
    if ![&state.value, &state.first, &state.second, &gradient].into_iter().all(is_host) {
        return composed(state, gradient, step);
    }
    let take = |tensor: Tensor<1>| contiguous(tensor.try_into_primitive::<Flex>().expect("on this backend"));
    let [mut value, mut first, mut second] = [state.value, state.first, state.second].map(take);
    let gradient = take(gradient);
    let pieces = (values_mut(&mut value).par_chunks_mut(PIECE))
        .zip(values_mut(&mut first).par_chunks_mut(PIECE))
        .zip(values_mut(&mut second).par_chunks_mut(PIECE))
        .zip(values(&gradient).par_chunks(PIECE));
    for_each(pieces, |(((value, first), second), gradient)| {
        vectorised(
            #[inline(always)]
            || {
                for (((value, first), second), gradient) in value.iter_mut().zip(first).zip(second).zip(gradient) {
                    let gradient = gradient * step.factor;
                    *first = *first * step.beta1 + gradient * step.enters1;
                    *second = *second * step.beta2 + gradient * gradient * step.enters2;
                    let denominator = second.sqrt() / step.correction2 + step.epsilon;
                    *value = *value * step.kept - *first / denominator * step.rate;
                }
            },
        );
    });
    let give = |primitive| Tensor::from_primitive::<Flex>(primitive);
    AdamState { value: give(value), first: give(first), second: give(second) }
}

/// The same of burn's operations.
fn composed(state: AdamState, gradient: Tensor<1>, step: AdamStep) -> AdamState {
    let gradient = if step.factor == 1.0 { gradient } else { gradient.mul_scalar(step.factor) };
    let first = state.first.mul_scalar(step.beta1) + gradient.clone().mul_scalar(step.enters1);
    let second = state.second.mul_scalar(step.beta2) + gradient.square().mul_scalar(step.enters2);
    let denominator = second.clone().sqrt().div_scalar(step.correction2).add_scalar(step.epsilon);
    let change = (first.clone() / denominator).mul_scalar(step.rate);
    let value = if step.kept == 1.0 { state.value } else { state.value.mul_scalar(step.kept) };
    AdamState { value: value - change, first, second }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, device, draw};

    fn step(rate: f32) -> AdamStep {
        AdamStep {
            factor: 0.5,
            beta1: 0.9,
            beta2: 0.999,
            enters1: 0.1,
            enters2: 0.001,
            epsilon: 1e-8,
            correction2: 0.05,
            rate,
            kept: 1.0 - rate,
        }
    }

    /// Parameters of every size class, each with a rate of its own.
    fn work() -> Vec<AdamWork> {
        let lengths = [70_001, 64, 3, 1024, 5000];
        let all = (0..20).map(|index| {
            let (length, seed) = (lengths[index % lengths.len()], 10 * index as u64);
            let state = AdamState {
                value: draw(seed + 1, [length], 1.0),
                first: draw(seed + 2, [length], 0.1),
                second: draw(seed + 3, [length], 0.1).square(),
            };
            AdamWork { state, gradient: draw(seed + 4, [length], 1.0), step: step(0.01 + 0.001 * index as f32) }
        });
        all.collect()
    }

    fn there(AdamWork { state, gradient, step }: AdamWork) -> AdamWork {
        let there = |tensor: Tensor<1>| tensor.to_device(&device());
        let AdamState { value, first, second } = state;
        let state = AdamState { value: there(value), first: there(first), second: there(second) };
        AdamWork { state, gradient: there(gradient), step }
    }

    #[test]
    fn steps_of_many_parameters_equal_the_composed_operation() {
        let got = adam_all(work().into_iter().map(there).collect());
        assert_eq!(got.len(), work().len());
        for (got, AdamWork { state, gradient, step }) in got.iter().zip(work()) {
            let expected = composed(state, gradient, step);
            assert_close(&got.value, &expected.value, 1e-6);
            assert_close(&got.first, &expected.first, 1e-6);
            assert_close(&got.second, &expected.second, 1e-6);
        }
    }

    #[test]
    fn what_else_holds_the_tensors_of_a_step_is_not_changed() {
        let work: Vec<AdamWork> = work().into_iter().take(2).map(there).collect();
        let held = |work: &[AdamWork]| {
            let of = |work: &AdamWork| {
                let AdamState { value, first, second } = &work.state;
                [value, first, second, &work.gradient].map(|tensor| tensor.clone().into_data())
            };
            work.iter().map(of).collect::<Vec<_>>()
        };
        let before = held(&work);
        let after = adam_all(work.clone());
        assert_ne!(after[0].value.clone().into_data(), before[0][0]);
        assert_eq!(held(&work), before);
    }

    #[test]
    fn sums_of_squares_equal_the_composed_operation() {
        let tensors: Vec<Tensor<1>> = work().into_iter().map(|work| work.gradient).collect();
        let sum =
            |tensors: Vec<Tensor<1>>| tensors.into_iter().map(|sum| f64::from(sum.into_scalar::<f32>())).sum::<f64>();
        let expected = sum(tensors.iter().map(|tensor| tensor.clone().square().sum()).collect());
        let got = sum(square_sums(tensors.into_iter().map(|tensor| tensor.to_device(&device())).collect()));
        assert!((got - expected).abs() < 1e-5 * expected, "{got} instead of {expected}");
        assert!(square_sums(Vec::new()).is_empty());
    }
}
