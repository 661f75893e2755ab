//! The middle of a gated perceptron, `act(gate) * up` (Shazeer 2020, arXiv:2002.05202), keeping its two
//! inputs alone.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, sigmoid, silu};

use crate::exponential;
use crate::host::{contiguous, is_host, sizes, tensor, values};
use crate::vector::vectorised;

/// The function on the gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh approximation.
    GeluTanh,
    /// GPT-OSS: the gate at most `limit`, the other within it, `(up + 1) * gate * sigmoid(alpha * gate)`.
    ClampedSwish {
        /// Factor inside the sigmoid.
        alpha: f32,
        /// Bound on gate and up.
        limit: f32,
    },
}

/// `act(gate) * up`, all `[tokens, width]`.
pub fn gated(activation: Activation, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if is_host(&gate) && is_host(&up) {
        return Tensor::from_dispatch(Dispatch::gated(gate.into_dispatch(), up.into_dispatch(), activation));
    }
    composed(activation, gate, up)
}

/// The same of burn's operations.
fn composed(activation: Activation, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    match activation {
        Activation::Silu => silu(gate) * up,
        Activation::GeluTanh => gelu_approximate(gate) * up,
        Activation::ClampedSwish { alpha, limit } => {
            let (gate, up) = (gate.clamp_max(limit), up.clamp(-limit, limit));
            gate.clone() * sigmoid(gate.mul_scalar(alpha)) * up.add_scalar(1.0)
        }
    }
}

/// Backends with [`gated`] as one operation.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait GatedBackend: Backend {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;
}

impl GatedBackend for Flex {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let (gate, up) = (contiguous(gate), contiguous(up));
        let mut mixed = vec![0.0; values(&gate).len()];
        vectorised(
            #[inline(always)]
            || forward(activation, values(&gate), values(&up), &mut mixed),
        );
        tensor(mixed, &sizes::<2>(&gate))
    }
}

impl<C: CheckpointStrategy> GatedBackend for Autodiff<Flex, C> {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let (gate, up) = (contiguous(gate), contiguous(up));
        let mixed = Flex::gated(gate.clone(), up.clone(), activation);
        match Gated.prepare::<C>([gate_node, up_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((activation, gate, up), mixed),
            OpsKind::UnTracked(prepared) => prepared.finish(mixed),
        }
    }
}

#[derive(Debug)]
struct Gated;

impl Backward<Flex, 2> for Gated {
    type State = (Activation, FloatTensor<Flex>, FloatTensor<Flex>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [gate_node, up_node] = ops.parents;
        let (activation, gate, up) = ops.state;
        let mixed = contiguous(grads.consume::<Flex>(&ops.node));
        let shape = sizes::<2>(&gate);
        let (mut gate_gradient, mut up_gradient) = (vec![0.0; values(&gate).len()], vec![0.0; values(&gate).len()]);
        vectorised(
            #[inline(always)]
            || {
                let gradients = (gate_gradient.as_mut_slice(), up_gradient.as_mut_slice());
                backward(activation, values(&gate), values(&up), values(&mixed), gradients);
            },
        );
        if let Some(node) = gate_node {
            grads.register::<Flex>(node.id, tensor(gate_gradient, &shape));
        }
        if let Some(node) = up_node {
            grads.register::<Flex>(node.id, tensor(up_gradient, &shape));
        }
    }
}

#[inline(always)]
fn forward(activation: Activation, gate: &[f32], up: &[f32], mixed: &mut [f32]) {
    let cells = mixed.iter_mut().zip(gate).zip(up);
    match activation {
        Activation::Silu => cells.for_each(|((mixed, &gate), &up)| *mixed = gate * exponential::sigmoid(gate) * up),
        Activation::GeluTanh => cells.for_each(|((mixed, &gate), &up)| *mixed = gelu(gate).0 * up),
        Activation::ClampedSwish { alpha, limit } => cells.for_each(|((mixed, &gate), &up)| {
            let (gate, up) = (below(gate, limit), above(below(up, limit), -limit));
            *mixed = gate * exponential::sigmoid(alpha * gate) * (up + 1.0);
        }),
    }
}

#[inline(always)]
fn backward(
    activation: Activation,
    gate: &[f32],
    up: &[f32],
    gradient: &[f32],
    (gate_gradient, up_gradient): (&mut [f32], &mut [f32]),
) {
    let inputs = gate.iter().zip(up).zip(gradient).map(|((gate, up), gradient)| (*gate, *up, *gradient));
    let cells = inputs.zip(gate_gradient.iter_mut().zip(up_gradient));
    match activation {
        Activation::Silu => cells.for_each(|((gate, up, gradient), (to_gate, to_up))| {
            let sigmoid = exponential::sigmoid(gate);
            *to_up = gradient * gate * sigmoid;
            *to_gate = gradient * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
        }),
        Activation::GeluTanh => cells.for_each(|((gate, up, gradient), (to_gate, to_up))| {
            let (value, slope) = gelu(gate);
            *to_up = gradient * value;
            *to_gate = gradient * up * slope;
        }),
        Activation::ClampedSwish { alpha, limit } => {
            cells.for_each(|((gate, up, gradient), (to_gate, to_up))| {
                // Where a clamp acts, nothing comes through.
                let (gate_open, up_open) = (open(gate <= limit), open(up <= limit) * open(up >= -limit));
                let (gate, up) = (below(gate, limit), above(below(up, limit), -limit));
                let sigmoid = exponential::sigmoid(alpha * gate);
                *to_up = gradient * gate * sigmoid * up_open;
                *to_gate = gradient * (up + 1.0) * sigmoid * (1.0 + alpha * gate * (1.0 - sigmoid)) * gate_open;
            });
        }
    }
}

/// GELU's tanh approximation (Hendrycks and Gimpel 2016, arXiv:1606.08415) and its derivative.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    const FACTOR: f32 = 0.797_884_6; // sqrt(2 / pi)
    const CUBIC: f32 = 0.044_715;
    let tanh = exponential::tanh(FACTOR * (x + CUBIC * x * x * x));
    let inner = FACTOR * (1.0 + 3.0 * CUBIC * x * x);
    (0.5 * x * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner)
}

#[inline(always)]
fn below(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

#[inline(always)]
fn above(x: f32, limit: f32) -> f32 {
    if x < limit { limit } else { x }
}

#[inline(always)]
fn open(condition: bool) -> f32 {
    if condition { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, draw, gradients};

    #[test]
    fn gated_and_its_gradients_equal_the_composed_operation() {
        let shape = [7, 37];
        let (gate, up, weights) = (draw(1, shape, 3.0), draw(2, shape, 3.0), draw(3, shape, 1.0));
        for activation in
            [Activation::Silu, Activation::GeluTanh, Activation::ClampedSwish { alpha: 1.702, limit: 2.0 }]
        {
            let run = |operation: fn(Activation, Tensor<2>, Tensor<2>) -> Tensor<2>| {
                gradients([gate.clone(), up.clone()], weights.clone(), |[gate, up]| operation(activation, gate, up))
            };
            let (expected, expected_gradients) = run(composed);
            let (got, got_gradients) = run(gated);
            assert_close(&got, &expected, 1e-5);
            for (got, expected) in got_gradients.iter().zip(&expected_gradients) {
                assert_close(got, expected, 1e-5);
            }
        }
    }
}
