//! What LoRA (Hu et al. 2021, arXiv:2106.09685) adds to a linear map: `y + s (x Aᵀ) Bᵀ` in one operation, added in
//! place, keeping the narrow `x Aᵀ` and `x`, or what `x` can be made from again.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::gated::{Activation, GatedBackend};
use crate::host::{contiguous, is_host, sizes, tensor, values, values_mut};
use crate::product::{Into, Matrix, MatrixMut, product};

/// What an input was made from by [`crate::gated`], `[tokens, in]` each.
#[derive(Debug, Clone)]
pub struct GatedOrigin {
    /// The function on the gate.
    pub activation: Activation,
    /// The gate.
    pub gate: Tensor<2>,
    /// What it acts on.
    pub up: Tensor<2>,
}

/// `y + scaling (x Aᵀ) Bᵀ` for `y: [tokens, out]`, `x: [tokens, in]`, `a: [rank, in]`, `b: [out, rank]`, all of one dtype.
/// With the `origin` of `x`, which the operation that made it keeps anyway, `x` itself is not kept.
pub fn add_low_rank(
    y: Tensor<2>,
    x: Tensor<2>,
    origin: Option<GatedOrigin>,
    a: Tensor<2>,
    b: Tensor<2>,
    scaling: f32,
) -> Tensor<2> {
    if ![&y, &x, &a, &b].into_iter().all(is_host) {
        return composed(y, x, a, b, scaling);
    }
    let [y, x, a, b] = [y, x, a, b].map(Tensor::into_dispatch);
    Tensor::from_dispatch(match origin {
        None => Dispatch::add_low_rank(y, x, a, b, scaling),
        Some(GatedOrigin { activation, gate, up }) => {
            let [gate, up] = [gate, up].map(|tensor| tensor.inner().into_dispatch());
            Dispatch::add_low_rank_of_gated(y, x, gate, up, activation, a, b, scaling)
        }
    })
}

/// The same of burn's operations.
fn composed(y: Tensor<2>, x: Tensor<2>, a: Tensor<2>, b: Tensor<2>, scaling: f32) -> Tensor<2> {
    // Scaling the narrow product touches rank values per token instead of `out`.
    y + x.matmul(a.transpose()).mul_scalar(scaling).matmul(b.transpose())
}

/// Backends with [`add_low_rank`] as one operation.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LowRankBackend: Backend {
    fn add_low_rank(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: f32,
    ) -> FloatTensor<Self>;

    /// The same where `x` is [`crate::gated`] of `gate` and `up`.
    #[allow(
        clippy::too_many_arguments,
        reason = "tensors must stand alone; the macro repeats this where none is counted"
    )]
    fn add_low_rank_of_gated(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        activation: Activation,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: f32,
    ) -> FloatTensor<Self>;
}

impl LowRankBackend for Flex {
    fn add_low_rank(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: f32,
    ) -> FloatTensor<Self> {
        let (x, a, b) = (contiguous(x), contiguous(a), contiguous(b));
        forward(y, &x, &a, &b, scaling).0
    }

    fn add_low_rank_of_gated(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        _gate: FloatTensor<Self>,
        _up: FloatTensor<Self>,
        _activation: Activation,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: f32,
    ) -> FloatTensor<Self> {
        Flex::add_low_rank(y, x, a, b, scaling)
    }
}

/// The sum, and `x Aᵀ`, `[tokens, rank]`.
fn forward(
    y: FloatTensor<Flex>,
    x: &FloatTensor<Flex>,
    a: &FloatTensor<Flex>,
    b: &FloatTensor<Flex>,
    scaling: f32,
) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let ([tokens, inputs], [outputs, rank]) = (sizes(x), sizes(b));
    let mut narrow = vec![0.0; tokens * rank];
    let target = MatrixMut::new(&mut narrow, tokens, rank);
    let (x, a) = (Matrix::new(values(x), tokens, inputs), Matrix::new(values(a), rank, inputs));
    product(target, Into::Replace, 1.0, x, a.transposed());
    let mut y = contiguous(y);
    let target = MatrixMut::new(values_mut(&mut y), tokens, outputs);
    let b = Matrix::new(values(b), outputs, rank);
    product(target, Into::Add, scaling, Matrix::new(&narrow, tokens, rank), b.transposed());
    (y, tensor(narrow, &[tokens, rank]))
}

impl<C: CheckpointStrategy> LowRankBackend for Autodiff<Flex, C> {
    fn add_low_rank(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: f32,
    ) -> FloatTensor<Self> {
        recorded::<C>([y, x, a, b], Input::Kept, scaling)
    }

    fn add_low_rank_of_gated(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        activation: Activation,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: f32,
    ) -> FloatTensor<Self> {
        let [gate, up] = [gate, up].map(|tensor| tensor.into_primitive());
        recorded::<C>([y, x, a, b], |_| Input::Gated { activation, gate, up }, scaling)
    }
}

fn recorded<C: CheckpointStrategy>(
    [y, x, a, b]: [FloatTensor<Autodiff<Flex, C>>; 4],
    input: impl FnOnce(FloatTensor<Flex>) -> Input,
    scaling: f32,
) -> FloatTensor<Autodiff<Flex, C>> {
    let ((y, y_node), (x, x_node)) = (y.into_parts(), x.into_parts());
    let ((a, a_node), (b, b_node)) = (a.into_parts(), b.into_parts());
    let (x, a, b) = (contiguous(x), contiguous(a), contiguous(b));
    let (sum, narrow) = forward(y, &x, &a, &b, scaling);
    match AddLowRank.prepare::<C>([y_node, x_node, a_node, b_node]).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(Saved { input: input(x), narrow, a, b, scaling }, sum),
        OpsKind::UnTracked(prepared) => prepared.finish(sum),
    }
}

/// The operation's input, or what it is made from.
#[derive(Debug, Clone)]
enum Input {
    Kept(FloatTensor<Flex>),
    Gated { activation: Activation, gate: FloatTensor<Flex>, up: FloatTensor<Flex> },
}

/// What is kept for the backward pass.
#[derive(Debug, Clone)]
struct Saved {
    input: Input,
    /// `x Aᵀ`.
    narrow: FloatTensor<Flex>,
    a: FloatTensor<Flex>,
    b: FloatTensor<Flex>,
    scaling: f32,
}

#[derive(Debug)]
struct AddLowRank;

impl Backward<Flex, 4> for AddLowRank {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [y_node, x_node, a_node, b_node] = ops.parents;
        let Saved { input, narrow, a, b, scaling } = ops.state;
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let ([tokens, outputs], [rank, inputs]) = (sizes(&gradient), sizes(&a));
        let to_sum = Matrix::new(values(&gradient), tokens, outputs);
        let mut to_narrow = vec![0.0; tokens * rank];
        let target = MatrixMut::new(&mut to_narrow, tokens, rank);
        product(target, Into::Replace, scaling, to_sum, Matrix::new(values(&b), outputs, rank));
        let to_narrow = Matrix::new(&to_narrow, tokens, rank);
        if let Some(node) = b_node {
            let mut to_b = vec![0.0; outputs * rank];
            let narrow = Matrix::new(values(&narrow), tokens, rank);
            product(MatrixMut::new(&mut to_b, outputs, rank), Into::Replace, scaling, to_sum.transposed(), narrow);
            grads.register::<Flex>(node.id, tensor(to_b, &[outputs, rank]));
        }
        if let Some(node) = a_node {
            let mut to_a = vec![0.0; rank * inputs];
            let x = match input {
                Input::Kept(x) => x,
                Input::Gated { activation, gate, up } => Flex::gated(gate, up, activation),
            };
            let x = Matrix::new(values(&x), tokens, inputs);
            product(MatrixMut::new(&mut to_a, rank, inputs), Into::Replace, 1.0, to_narrow.transposed(), x);
            grads.register::<Flex>(node.id, tensor(to_a, &[rank, inputs]));
        }
        if let Some(node) = x_node {
            let mut to_x = vec![0.0; tokens * inputs];
            let a = Matrix::new(values(&a), rank, inputs);
            product(MatrixMut::new(&mut to_x, tokens, inputs), Into::Replace, 1.0, to_narrow, a);
            grads.register::<Flex>(node.id, tensor(to_x, &[tokens, inputs]));
        }
        if let Some(node) = y_node {
            grads.register::<Flex>(node.id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, draw};

    #[test]
    fn add_low_rank_and_its_gradients_equal_the_composed_operation() {
        let (tokens, inputs, outputs, rank) = (9, 21, 17, 4);
        type Operation = fn(Tensor<2>, Tensor<2>, Tensor<2>, Tensor<2>, f32) -> Tensor<2>;
        let run = |operation: Operation| {
            let shapes = [[tokens, outputs], [tokens, inputs], [rank, inputs], [outputs, rank]];
            let leaves = [0, 1, 2, 3].map(|index| draw(index as u64 + 1, shapes[index], 1.0).autodiff().require_grad());
            let [y, x, a, b] = leaves.clone();
            let sum = operation(y, x, a, b, 0.75);
            let mut graph = (sum.clone() * draw(9, [tokens, outputs], 1.0)).backward();
            let gradients = leaves.map(|leaf| leaf.grad_remove(&mut graph).unwrap());
            (sum.inner(), gradients)
        };
        let (expected, expected_gradients) = run(composed);
        let (got, got_gradients) = run(|y, x, a, b, scaling| add_low_rank(y, x, None, a, b, scaling));
        assert_close(&got, &expected, 1e-6);
        for (got, expected) in got_gradients.iter().zip(&expected_gradients) {
            assert_close(got, expected, 1e-5);
        }
    }

    #[test]
    fn an_input_made_again_gives_the_gradients_of_one_that_was_kept() {
        let (tokens, inputs, outputs, rank) = (9, 21, 17, 4);
        let run = |again: bool| {
            let shapes = [[tokens, inputs], [tokens, inputs], [rank, inputs], [outputs, rank]];
            let leaves = [0, 1, 2, 3].map(|index| draw(index as u64 + 1, shapes[index], 1.0).autodiff().require_grad());
            let [gate, up, a, b] = leaves.clone();
            let x = crate::gated(Activation::Silu, gate.clone(), up.clone());
            let origin = again.then_some(GatedOrigin { activation: Activation::Silu, gate, up });
            let sum = add_low_rank(draw(8, [tokens, outputs], 1.0).autodiff(), x, origin, a, b, 0.75);
            let mut graph = (sum * draw(9, [tokens, outputs], 1.0)).backward();
            leaves.map(|leaf| leaf.grad_remove(&mut graph).unwrap())
        };
        for (again, kept) in run(true).into_iter().zip(run(false)) {
            assert_close(&again, &kept, 1e-6);
        }
    }

    #[test]
    fn what_else_holds_the_sum_is_not_changed() {
        let y = draw(1, [3, 4], 1.0);
        let before = y.clone().into_data();
        let _ = add_low_rank(y.clone(), draw(2, [3, 5], 1.0), None, draw(3, [2, 5], 1.0), draw(4, [4, 2], 1.0), 1.0);
        y.into_data().assert_eq(&before, true);
    }
}
