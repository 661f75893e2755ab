//! One step of Adam (Kingma and Ba 2015, arXiv:1412.6980) with decoupled decay (Loshchilov and Hutter 2017,
//! arXiv:1711.05101) for one parameter, in one pass over its values.

use burn::backend::Flex;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::host::{contiguous, is_host, values, values_mut};
use crate::threads::for_each;
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
    /// What the first moment keeps.
    pub beta1: f32,
    /// What the second moment keeps.
    pub beta2: f32,
    /// What enters the first moment, `1 - beta1`.
    pub enters1: f32,
    /// What enters the second moment, `1 - beta2`.
    pub enters2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// The root of the second moment's bias correction.
    pub correction2: f32,
    /// The learning rate over the first moment's bias correction.
    pub rate: f32,
    /// What the parameter keeps, `1 - learning rate * decay`.
    pub kept: f32,
}

/// `value` after a step in the direction of `gradient`, with both moments.
pub fn adam(state: AdamState, gradient: Tensor<1>, step: AdamStep) -> AdamState {
    if ![&state.value, &state.first, &state.second, &gradient].into_iter().all(is_host) {
        return composed(state, gradient, step);
    }
    let take = |tensor: Tensor<1>| contiguous(tensor.try_into_primitive::<Flex>().expect("on this backend"));
    let [mut value, mut first, mut second] = [state.value, state.first, state.second].map(take);
    let gradient = take(gradient);
    /// Values of one piece of work.
    const PIECE: usize = 1 << 16;
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
    use crate::testing::{assert_close, draw};

    #[test]
    fn a_step_equals_the_composed_operation() {
        let count = 70_001;
        let state = AdamState {
            value: draw(1, [count], 1.0),
            first: draw(2, [count], 0.1),
            second: draw(3, [count], 0.1).square(),
        };
        let step = AdamStep {
            factor: 0.5,
            beta1: 0.9,
            beta2: 0.999,
            enters1: 0.1,
            enters2: 0.001,
            epsilon: 1e-8,
            correction2: 0.05,
            rate: 0.01,
            kept: 0.99,
        };
        let expected = composed(state.clone(), draw(4, [count], 1.0), step);
        let got = adam(state, draw(4, [count], 1.0), step);
        assert_close(&got.value, &expected.value, 1e-6);
        assert_close(&got.first, &expected.first, 1e-6);
        assert_close(&got.second, &expected.second, 1e-6);
    }
}
