//! What LoRA (Hu et al. 2021, arXiv:2106.09685) adds to a linear map: `y + s (x Aᵀ) Bᵀ` in one operation, added in
//! place, keeping `x` and the narrow `x Aᵀ`.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::host::{contiguous, is_host, sizes, tensor, values, values_mut};
use crate::product::{Into, Matrix, MatrixMut, product};

/// `y + scaling (x Aᵀ) Bᵀ` for `y: [tokens, out]`, `x: [tokens, in]`, `a: [rank, in]`, `b: [out, rank]`, all of one dtype.
pub fn add_low_rank(y: Tensor<2>, x: Tensor<2>, a: Tensor<2>, b: Tensor<2>, scaling: f32) -> Tensor<2> {
    if [&y, &x, &a, &b].into_iter().all(is_host) {
        let [y, x, a, b] = [y, x, a, b].map(Tensor::into_dispatch);
        return Tensor::from_dispatch(Dispatch::add_low_rank(y, x, a, b, scaling));
    }
    composed(y, x, a, b, scaling)
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
        let ((y, y_node), (x, x_node)) = (y.into_parts(), x.into_parts());
        let ((a, a_node), (b, b_node)) = (a.into_parts(), b.into_parts());
        let (x, a, b) = (contiguous(x), contiguous(a), contiguous(b));
        let (sum, narrow) = forward(y, &x, &a, &b, scaling);
        match AddLowRank.prepare::<C>([y_node, x_node, a_node, b_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(Saved { x, narrow, a, b, scaling }, sum),
            OpsKind::UnTracked(prepared) => prepared.finish(sum),
        }
    }
}

/// What is kept for the backward pass.
#[derive(Debug, Clone)]
struct Saved {
    x: FloatTensor<Flex>,
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
        let Saved { x, narrow, a, b, scaling } = ops.state;
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let ([tokens, inputs], [outputs, rank]) = (sizes(&x), sizes(&b));
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
        let ((expected, expected_gradients), (got, got_gradients)) = (run(composed), run(add_low_rank));
        assert_close(&got, &expected, 1e-6);
        for (got, expected) in got_gradients.iter().zip(&expected_gradients) {
            assert_close(got, expected, 1e-5);
        }
    }

    #[test]
    fn what_else_holds_the_sum_is_not_changed() {
        let y = draw(1, [3, 4], 1.0);
        let before = y.clone().into_data();
        let _ = add_low_rank(y.clone(), draw(2, [3, 5], 1.0), draw(3, [2, 5], 1.0), draw(4, [4, 2], 1.0), 1.0);
        y.into_data().assert_eq(&before, true);
    }
}
