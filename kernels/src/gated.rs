//! The middle of a gated perceptron, `act(gate) * up` (Shazeer 2020, arXiv:2002.05202), keeping its two
//! inputs alone.

#[cfg(feature = "cube")]
mod kernel;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, sigmoid, silu};
use rayon::prelude::*;

use crate::cube::on_cube;
use crate::exponential;
use crate::host::{contiguous, is_host, sizes, tensor, values};
use crate::threads::{PIECE, for_each};
use crate::vector::vectorised;

/// Factor inside the tanh of GELU's approximation, sqrt(2 / pi).
const GELU_FACTOR: f32 = 0.797_884_6;
/// Weight of the cube there.
const GELU_CUBIC: f32 = 0.044_715;

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
    if on_cube(&gate.device()) || is_host(&gate) && is_host(&up) {
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
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff, Fusion: cfg(feature = "cube"))]
pub(crate) trait GatedBackend: Backend {
    #[fusion(dtype = gate, shape = gate)]
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;
}

/// The gradients of [`gated`].
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"))]
pub(crate) trait GatedGradients: Backend {
    /// To the gate and to the other.
    #[fusion(meta = |gate, up, _gradient, _activation| (gate.clone(), up.clone()))]
    fn gated_gradients(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl GatedBackend for Flex {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let (gate, up) = (contiguous(gate), contiguous(up));
        let mut mixed = vec![0.0; values(&gate).len()];
        let inputs = values(&gate).par_chunks(PIECE).zip(values(&up).par_chunks(PIECE));
        for_each(inputs.zip(mixed.par_chunks_mut(PIECE)), |((gate, up), mixed)| {
            vectorised(
                #[inline(always)]
                || forward(activation, gate, up, mixed),
            );
        });
        tensor(mixed, &sizes::<2>(&gate))
    }
}

impl GatedGradients for Flex {
    fn gated_gradients(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (gate, up, gradient) = (contiguous(gate), contiguous(up), contiguous(gradient));
        let shape = sizes::<2>(&gate);
        let (mut to_gate, mut to_up) = (vec![0.0; values(&gate).len()], vec![0.0; values(&gate).len()]);
        let inputs = values(&gate).par_chunks(PIECE).zip(values(&up).par_chunks(PIECE));
        let inputs = inputs.zip(values(&gradient).par_chunks(PIECE));
        let gradients = to_gate.par_chunks_mut(PIECE).zip(to_up.par_chunks_mut(PIECE));
        for_each(inputs.zip(gradients), |(((gate, up), gradient), gradients)| {
            vectorised(
                #[inline(always)]
                || backward(activation, gate, up, gradient, gradients),
            );
        });
        (tensor(to_gate, &shape), tensor(to_up, &shape))
    }
}

impl<B: GatedBackend + GatedGradients, C: CheckpointStrategy> GatedBackend for Autodiff<B, C> {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        match Gated.prepare::<C>([gate_node, up_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((activation, gate.clone(), up.clone()), B::gated(gate, up, activation))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::gated(gate, up, activation)),
        }
    }
}

#[derive(Debug)]
struct Gated;

impl<B: GatedGradients> Backward<B, 2> for Gated {
    type State = (Activation, FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [gate_node, up_node] = ops.parents;
        let (activation, gate, up) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let (to_gate, to_up) = B::gated_gradients(gate, up, gradient, activation);
        if let Some(node) = gate_node {
            grads.register::<B>(node.id, to_gate);
        }
        if let Some(node) = up_node {
            grads.register::<B>(node.id, to_up);
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
    let tanh = exponential::tanh(GELU_FACTOR * (x + GELU_CUBIC * x * x * x));
    let inner = GELU_FACTOR * (1.0 + 3.0 * GELU_CUBIC * x * x);
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
    use burn::tensor::FloatDType;

    use super::*;
    use crate::testing::{assert_close, device, draw, gradients, half};

    const ACTIVATIONS: [Activation; 3] =
        [Activation::Silu, Activation::GeluTanh, Activation::ClampedSwish { alpha: 1.702, limit: 2.0 }];

    #[test]
    fn gated_and_its_gradients_equal_the_composed_operation() {
        for (activation, columns) in ACTIVATIONS.into_iter().zip([37, 40, 64]) {
            let inputs = || [draw(1, [7, columns], 3.0), draw(2, [7, columns], 3.0)];
            let weights = draw(3, [7, columns], 1.0);
            let (expected, expected_gradients) =
                gradients(inputs(), weights.clone(), |[gate, up]| composed(activation, gate, up));
            let there = inputs().map(|input| input.to_device(&device()));
            let (got, got_gradients) =
                gradients(there, weights.to_device(&device()), |[gate, up]| gated(activation, gate, up));
            assert_close(&got, &expected, 1e-5);
            for (got, expected) in got_gradients.iter().zip(&expected_gradients) {
                assert_close(got, expected, 1e-5);
            }
        }
    }

    #[test]
    fn no_tokens_give_no_values_and_no_gradients() {
        let none = || Tensor::<2>::zeros([0, 40], &device());
        let (got, got_gradients) = gradients([none(), none()], none(), |[gate, up]| gated(Activation::Silu, gate, up));
        assert_eq!(got.dims(), [0, 40]);
        assert!(got_gradients.iter().all(|gradient| gradient.dims() == [0, 40]));
    }

    #[test]
    fn halves_of_one_matrix_are_gated_where_they_are() {
        let run = |device: &burn::tensor::Device, operation: fn(Activation, Tensor<2>, Tensor<2>) -> Tensor<2>| {
            let [both, weights] = [draw(1, [3, 128], 3.0), draw(2, [3, 64], 1.0)].map(|input| input.to_device(device));
            gradients([both], weights, |[both]| {
                let half = |begin| both.clone().slice([0..3, begin..begin + 64]);
                operation(Activation::Silu, half(0), half(64))
            })
        };
        let (expected, expected_gradients) = run(&burn::tensor::Device::flex(), composed);
        let (got, got_gradients) = run(&device(), gated);
        assert_close(&got, &expected, 1e-5);
        assert_close(&got_gradients[0], &expected_gradients[0], 1e-5);
    }

    #[test]
    fn gated_numbers_in_16_bits_differ_by_their_rounding_alone() {
        let Some((device, dtype, step)) = half() else { return };
        for activation in ACTIVATIONS {
            let half = |seed| draw::<2>(seed, [7, 40], 3.0).to_device(&device).cast(dtype);
            let wide = |seed| half(seed).cast(FloatDType::F32);
            let (expected, expected_gradients) =
                gradients([wide(1), wide(2)], wide(3), |[gate, up]| composed(activation, gate, up));
            let (got, got_gradients) = gradients([half(1), half(2)], half(3), |[gate, up]| gated(activation, gate, up));
            assert_close(&got.cast(FloatDType::F32), &expected, step);
            for (got, expected) in got_gradients.into_iter().zip(&expected_gradients) {
                assert_close(&got.cast(FloatDType::F32), expected, step);
            }
        }
    }
}
