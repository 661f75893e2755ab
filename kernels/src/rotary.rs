//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in one pass over the heads, keeping nothing but
//! the table: the backward pass turns the gradient back.

#[cfg(feature = "cube")]
mod kernel;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{FloatDType, Tensor};
use rayon::prelude::*;

use crate::cube::on_cube;
use crate::host::{contiguous, is_host, sizes, tensor, values};
use crate::threads::{PIECE, for_each};
use crate::vector::vectorised;

/// The pairs of a head's values that turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// One from the first half and one from the second: `(0, d/2), (1, d/2 + 1), ..`.
    Halves,
    /// Two neighbours: `(0, 1), (2, 3), ..`.
    Neighbours,
}

/// Cosine and sine of the angle of every token and pair, `[rows, width, 1, pairs]` each, f32.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Cosines, times whatever scales the result.
    pub cosine: Tensor<4>,
    /// Sines, times the same.
    pub sine: Tensor<4>,
    /// The values that turn together.
    pub pairs: RopePairs,
}

/// Turns the first `2 * pairs` values of every head of `x: [rows, width, heads, head_dim]`; the rest stays.
pub fn rotate(x: Tensor<4>, rotation: &Rotation) -> Tensor<4> {
    if on_cube(&x.device()) || is_host(&x) {
        let (cosine, sine) = (rotation.cosine.clone().into_dispatch(), rotation.sine.clone().into_dispatch());
        let neighbours = rotation.pairs == RopePairs::Neighbours;
        return Tensor::from_dispatch(Dispatch::rotate(x.into_dispatch(), cosine, sine, neighbours, 1.0));
    }
    composed(x, rotation)
}

/// The same of burn's operations.
fn composed(x: Tensor<4>, rotation: &Rotation) -> Tensor<4> {
    let [rows, width, heads, head_dim] = x.dims();
    let rotary_dim = 2 * rotation.cosine.dims()[3];
    let part = |x: &Tensor<4>, range| x.clone().slice([0..rows, 0..width, 0..heads, range]);
    if rotary_dim < head_dim {
        let turned = turn(part(&x, 0..rotary_dim), rotation);
        return Tensor::cat(vec![turned, part(&x, rotary_dim..head_dim)], 3);
    }
    turn(x, rotation)
}

/// Turns all of `x: [rows, width, heads, rotary_dim]`.
fn turn(x: Tensor<4>, rotation: &Rotation) -> Tensor<4> {
    let [rows, width, heads, rotary_dim] = x.dims();
    let half = rotary_dim / 2;
    let like =
        |table: &Tensor<4>| if x.dtype() == table.dtype() { table.clone() } else { table.clone().cast(dtype(&x)) };
    let (cosine, sine) = (like(&rotation.cosine), like(&rotation.sine));
    let turned = |first: Tensor<4>, second: Tensor<4>| {
        let turned_first = first.clone() * cosine.clone() - second.clone() * sine.clone();
        (turned_first, second * cosine.clone() + first * sine.clone())
    };
    match rotation.pairs {
        RopePairs::Halves => {
            let part = |range| x.clone().slice([0..rows, 0..width, 0..heads, range]);
            let (first, second) = turned(part(0..half), part(half..rotary_dim));
            Tensor::cat(vec![first, second], 3)
        }
        RopePairs::Neighbours => {
            let paired = x.clone().reshape([rows, width, heads, half, 2]);
            let part = |index: usize| {
                let one = paired.clone().slice([0..rows, 0..width, 0..heads, 0..half, index..index + 1]);
                one.reshape([rows, width, heads, half])
            };
            let (first, second) = turned(part(0), part(1));
            let column = |part: Tensor<4>| part.reshape([rows, width, heads, half, 1]);
            Tensor::cat(vec![column(first), column(second)], 4).reshape([rows, width, heads, rotary_dim])
        }
    }
}

fn dtype(x: &Tensor<4>) -> FloatDType {
    match x.dtype() {
        burn::tensor::DType::BF16 => FloatDType::BF16,
        burn::tensor::DType::F16 => FloatDType::F16,
        _ => FloatDType::F32,
    }
}

/// Backends with [`rotate`] as one operation; a `direction` of -1 turns back.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff, Fusion: cfg(feature = "cube"))]
pub(crate) trait RotaryBackend: Backend {
    #[fusion(dtype = x, shape = x)]
    fn rotate(
        x: FloatTensor<Self>,
        cosine: FloatTensor<Self>,
        sine: FloatTensor<Self>,
        neighbours: bool,
        direction: f32,
    ) -> FloatTensor<Self>;
}

impl RotaryBackend for Flex {
    fn rotate(
        x: FloatTensor<Self>,
        cosine: FloatTensor<Self>,
        sine: FloatTensor<Self>,
        neighbours: bool,
        direction: f32,
    ) -> FloatTensor<Self> {
        let (x, cosine, sine) = (contiguous(x), contiguous(cosine), contiguous(sine));
        let shape @ [_, _, heads, head_dim] = sizes::<4>(&x);
        let pairs = sizes::<4>(&cosine)[3];
        let mut turned = vec![0.0; values(&x).len()];
        let width = heads * head_dim;
        let some = (PIECE / width).max(1);
        let tokens = values(&x).par_chunks(some * width).zip(turned.par_chunks_mut(some * width));
        let table = values(&cosine).par_chunks(some * pairs).zip(values(&sine).par_chunks(some * pairs));
        for_each(tokens.zip(table), |((tokens, turned), (cosines, sines))| {
            vectorised(
                #[inline(always)]
                || {
                    let tokens = tokens.chunks_exact(width).zip(turned.chunks_exact_mut(width));
                    let table = cosines.chunks_exact(pairs).zip(sines.chunks_exact(pairs));
                    for ((token, out), (cosine, sine)) in tokens.zip(table) {
                        for (head, out) in token.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
                            turn_head(head, out, cosine, sine, neighbours, direction);
                        }
                    }
                },
            );
        });
        tensor(turned, &shape)
    }
}

#[inline(always)]
fn turn_head(head: &[f32], out: &mut [f32], cosine: &[f32], sine: &[f32], neighbours: bool, direction: f32) {
    let pairs = cosine.len();
    let table = cosine.iter().zip(sine);
    if neighbours {
        let cells = head.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<2>().0);
        for (([first, second], out), (cosine, sine)) in cells.zip(table) {
            let sine = direction * sine;
            *out = [first * cosine - second * sine, second * cosine + first * sine];
        }
    } else {
        let (firsts, seconds) = head[..2 * pairs].split_at(pairs);
        let (out_firsts, out_seconds) = out[..2 * pairs].split_at_mut(pairs);
        let cells = firsts.iter().zip(seconds).zip(out_firsts.iter_mut().zip(out_seconds));
        for (((first, second), (out_first, out_second)), (cosine, sine)) in cells.zip(table) {
            let sine = direction * sine;
            *out_first = first * cosine - second * sine;
            *out_second = second * cosine + first * sine;
        }
    }
    out[2 * pairs..].copy_from_slice(&head[2 * pairs..]);
}

impl<B: RotaryBackend, C: CheckpointStrategy> RotaryBackend for Autodiff<B, C> {
    fn rotate(
        x: FloatTensor<Self>,
        cosine: FloatTensor<Self>,
        sine: FloatTensor<Self>,
        neighbours: bool,
        direction: f32,
    ) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let (cosine, sine) = (cosine.into_primitive(), sine.into_primitive());
        let turned = B::rotate(x, cosine.clone(), sine.clone(), neighbours, direction);
        match Rotary.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((cosine, sine, neighbours, direction), turned),
            OpsKind::UnTracked(prepared) => prepared.finish(turned),
        }
    }
}

#[derive(Debug)]
struct Rotary;

impl<B: RotaryBackend> Backward<B, 1> for Rotary {
    type State = (FloatTensor<B>, FloatTensor<B>, bool, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (cosine, sine, neighbours, direction) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| {
            B::rotate(gradient, cosine, sine, neighbours, -direction)
        });
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{assert_close, device, draw, gradients, half};

    fn rotation(rotated: usize, pairs: RopePairs, device: &Device) -> Rotation {
        let table = |seed| draw(seed, [2, 5, 1, rotated], 1.0).to_device(device);
        Rotation { cosine: table(7), sine: table(8), pairs }
    }

    #[test]
    fn rotate_and_its_gradient_equal_the_composed_operation() {
        for pairs in [RopePairs::Halves, RopePairs::Neighbours] {
            for (rotated, head_dim) in [(6, 12), (4, 12), (8, 16)] {
                let shape = [2, 5, 3, head_dim];
                let run = |device: &Device, operation: fn(Tensor<4>, &Rotation) -> Tensor<4>| {
                    let [x, weights] = [draw(1, shape, 2.0), draw(2, shape, 1.0)].map(|input| input.to_device(device));
                    gradients([x], weights, |[x]| operation(x, &rotation(rotated, pairs, device)))
                };
                let (expected, expected_gradients) = run(&Device::flex(), composed);
                let (got, got_gradients) = run(&device(), rotate);
                assert_close(&got, &expected, 1e-6);
                assert_close(&got_gradients[0], &expected_gradients[0], 1e-6);
            }
        }
    }

    #[test]
    fn heads_among_others_are_turned_where_they_are() {
        let run = |device: &Device, operation: fn(Tensor<4>, &Rotation) -> Tensor<4>| {
            let shape = [2, 5, 3, 64];
            let [x, weights] =
                [draw(1, [2, 5, 384, 1], 2.0).reshape([2, 5, 384, 1]), draw(2, shape, 1.0).reshape([2, 5, 192, 1])]
                    .map(|input| input.to_device(device));
            gradients([x], weights, |[x]| {
                let heads = x.slice([0..2, 0..5, 128..320, 0..1]).reshape(shape);
                operation(heads, &rotation(32, RopePairs::Halves, device)).reshape([2, 5, 192, 1])
            })
        };
        let (expected, expected_gradients) = run(&Device::flex(), composed);
        let (got, got_gradients) = run(&device(), rotate);
        assert_close(&got, &expected, 1e-6);
        assert_close(&got_gradients[0], &expected_gradients[0], 1e-6);
    }

    #[test]
    fn heads_in_16_bits_are_turned_in_f32() {
        let Some((device, dtype, step)) = half() else { return };
        let shape = [2, 5, 3, 16];
        let half = |seed| draw(seed, shape, 2.0).to_device(&device).cast(dtype);
        let rotation = rotation(8, RopePairs::Halves, &device);
        let wide = [half(1)].map(|half| half.cast(FloatDType::F32));
        let (expected, expected_gradients) =
            gradients(wide, half(2).cast(FloatDType::F32), |[x]| composed(x, &rotation));
        let (got, got_gradients) = gradients([half(1)], half(2), |[x]| rotate(x, &rotation));
        assert_close(&got.cast(FloatDType::F32), &expected, step);
        assert_close(&got_gradients[0].clone().cast(FloatDType::F32), &expected_gradients[0], step);
    }
}
