//! A linear map with LoRA (Hu et al. 2021, arXiv:2106.09685), `x Wᵀ + s (x Aᵀ) Bᵀ`, in one operation: both terms, and
//! both terms of the gradient of `x`, go into one buffer. It keeps the narrow `x Aᵀ` and `x`, or what `x` can be made from again.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::gated::Activation;
use crate::host::{contiguous, sizes, tensor, values, values_mut};
use crate::product::{Accumulate, Matrix, MatrixMut, new_product, product};

/// The values that [`crate::gated`] made an input from, `[tokens, in]` each.
#[derive(Debug, Clone)]
pub struct GatedOrigin {
    /// The function on the gate.
    pub activation: Activation,
    /// The gate.
    pub gate: Tensor<2>,
    /// The values that the gate acts on.
    pub up: Tensor<2>,
}

/// A frozen linear map, however its matrix `[out, in]` is kept.
pub trait FrozenMap: Debug + Send + Sync {
    /// `x Wᵀ`: `[tokens, in]` to `[tokens, out]`, outside the graph.
    fn forward(&self, x: Tensor<2>) -> Tensor<2>;

    /// `y W`: `[tokens, out]` to `[tokens, in]`, outside the graph.
    fn back(&self, y: Tensor<2>) -> Tensor<2>;
}

/// LoRA's addition to a linear map, all of one dtype.
#[derive(Debug, Clone)]
pub struct LowRankTerm {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    /// Factor on `(x Aᵀ) Bᵀ`.
    pub scaling: f32,
    /// Its own input, `[tokens, in]`, where that is not the map's (after dropout).
    pub input: Option<Tensor<2>>,
    /// The values that its input was made from: it is made again for the backward pass and not kept, since the operation
    /// that made it keeps these anyway.
    pub origin: Option<GatedOrigin>,
}

/// `x Wᵀ + s (x Aᵀ) Bᵀ` for `x: [tokens, in]`, as one operation on tensors for which [`crate::on_host`] holds.
pub fn linear_with_low_rank(base: Arc<dyn FrozenMap>, x: &Tensor<2>, term: &LowRankTerm) -> Tensor<2> {
    let LowRankTerm { a, b, scaling, input, origin } = term.clone();
    let input = input.unwrap_or_else(|| x.clone());
    let origin = origin.map(|GatedOrigin { activation, gate, up }| {
        let [gate, up] = [gate, up].map(|tensor| tensor.inner());
        GatedOrigin { activation, gate, up }
    });
    let [x, input, a, b] = [x.clone(), input, a, b].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::linear_with_low_rank(x, input, a, b, Map { base, origin, scaling }))
}

/// The operation's inputs beside the tensors that may be in the graph.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    base: Arc<dyn FrozenMap>,
    origin: Option<GatedOrigin>,
    scaling: f32,
}

/// Backends with [`linear_with_low_rank`] as one operation.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LowRankBackend: Backend {
    fn linear_with_low_rank(
        x: FloatTensor<Self>,
        input: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        map: Map,
    ) -> FloatTensor<Self>;
}

impl LowRankBackend for Flex {
    fn linear_with_low_rank(
        x: FloatTensor<Self>,
        input: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        map: Map,
    ) -> FloatTensor<Self> {
        forward(x, &contiguous(input), &contiguous(a), &contiguous(b), &map).0
    }
}

/// The sum, and `x Aᵀ`, `[tokens, rank]`.
fn forward(
    x: FloatTensor<Flex>,
    input: &FloatTensor<Flex>,
    a: &FloatTensor<Flex>,
    b: &FloatTensor<Flex>,
    map: &Map,
) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let ([tokens, inputs], [outputs, rank]) = (sizes(input), sizes(b));
    let mut y = contiguous(through(x, |x| map.base.forward(x)));
    let (input, a) = (Matrix::new(values(input), tokens, inputs), Matrix::new(values(a), rank, inputs));
    let narrow = new_product(1.0, input, a.transposed());
    let target = MatrixMut::new(values_mut(&mut y), tokens, outputs);
    let b = Matrix::new(values(b), outputs, rank);
    product(target, Accumulate::Add, map.scaling, Matrix::new(&narrow, tokens, rank), b.transposed());
    (y, tensor(narrow, &[tokens, rank]))
}

/// `work` on a tensor of this backend.
fn through(x: FloatTensor<Flex>, work: impl FnOnce(Tensor<2>) -> Tensor<2>) -> FloatTensor<Flex> {
    let y = work(Tensor::from_primitive::<Flex>(x));
    y.try_into_primitive::<Flex>().expect("a map's result is where its input is")
}

impl<C: CheckpointStrategy> LowRankBackend for Autodiff<Flex, C> {
    fn linear_with_low_rank(
        x: FloatTensor<Self>,
        input: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        map: Map,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (input, input_node)) = (x.into_parts(), input.into_parts());
        let ((a, a_node), (b, b_node)) = (a.into_parts(), b.into_parts());
        let (input, a, b) = (contiguous(input), contiguous(a), contiguous(b));
        let (sum, narrow) = forward(x, &input, &a, &b, &map);
        match LinearWithLowRank.prepare::<C>([x_node, input_node, a_node, b_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let input = map.origin.is_none().then_some(input);
                prepared.finish(Saved { input, narrow, a, b, map }, sum)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(sum),
        }
    }
}

/// The state that is kept for the backward pass.
#[derive(Debug, Clone)]
struct Saved {
    /// The input of A, unless it is made again.
    input: Option<FloatTensor<Flex>>,
    /// `x Aᵀ`.
    narrow: FloatTensor<Flex>,
    a: FloatTensor<Flex>,
    b: FloatTensor<Flex>,
    map: Map,
}

impl Saved {
    /// The input of A.
    fn input(&self) -> FloatTensor<Flex> {
        match (&self.input, &self.map.origin) {
            (None, Some(GatedOrigin { activation, gate, up })) => {
                let up = up.clone();
                let gate = gate.clone().try_into_primitive::<Flex>().expect("the tensor is on this backend");
                through(up.try_into_primitive::<Flex>().expect("the tensor is on this backend"), |up| {
                    crate::gated(*activation, Tensor::from_primitive::<Flex>(gate), up)
                })
            }
            (kept, _) => kept.clone().expect("an input without an origin is kept"),
        }
    }
}

#[derive(Debug)]
struct LinearWithLowRank;

impl Backward<Flex, 4> for LinearWithLowRank {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, input_node, a_node, b_node] = ops.parents;
        let saved = ops.state;
        let Saved { narrow, a, b, map, .. } = &saved;
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let ([tokens, outputs], [rank, inputs]) = (sizes(&gradient), sizes(a));
        let to_sum = Matrix::new(values(&gradient), tokens, outputs);
        let to_narrow = new_product(map.scaling, to_sum, Matrix::new(values(b), outputs, rank));
        let to_narrow = Matrix::new(&to_narrow, tokens, rank);
        if let Some(node) = b_node {
            let narrow = Matrix::new(values(narrow), tokens, rank);
            let to_b = new_product(map.scaling, to_sum.transposed(), narrow);
            grads.register::<Flex>(node.id, tensor(to_b, &[outputs, rank]));
        }
        if let Some(node) = a_node {
            let input = saved.input();
            let to_a = new_product(1.0, to_narrow.transposed(), Matrix::new(values(&input), tokens, inputs));
            grads.register::<Flex>(node.id, tensor(to_a, &[rank, inputs]));
        }
        let a = Matrix::new(values(a), rank, inputs);
        let apart = x_node.as_ref().map(|node| node.id) != input_node.as_ref().map(|node| node.id);
        if let Some(node) = input_node.filter(|_| apart) {
            grads.register::<Flex>(node.id, tensor(new_product(1.0, to_narrow, a), &[tokens, inputs]));
        }
        if let Some(node) = x_node {
            let mut to_x = contiguous(through(gradient.clone(), |gradient| map.base.back(gradient)));
            if !apart {
                product(MatrixMut::new(values_mut(&mut to_x), tokens, inputs), Accumulate::Add, 1.0, to_narrow, a);
            }
            grads.register::<Flex>(node.id, to_x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, draw};

    const SIZES: (usize, usize, usize, usize) = (9, 21, 17, 4);

    /// A matrix `[out, in]`.
    #[derive(Debug)]
    struct Dense(Tensor<2>);

    impl FrozenMap for Dense {
        fn forward(&self, x: Tensor<2>) -> Tensor<2> {
            crate::linear(x, self.0.clone())
        }

        fn back(&self, y: Tensor<2>) -> Tensor<2> {
            crate::linear_back(y, self.0.clone())
        }
    }

    /// The result and the gradients of `leaves`, `x: [tokens, in]` (two of them), `a`, and `b`.
    fn run(operation: impl FnOnce(&[Tensor<2>; 4], Tensor<2>) -> Tensor<2>) -> (Tensor<2>, [Tensor<2>; 4]) {
        let (tokens, inputs, outputs, rank) = SIZES;
        let shapes = [[tokens, inputs], [tokens, inputs], [rank, inputs], [outputs, rank]];
        let leaves = [0, 1, 2, 3].map(|index| draw(index as u64 + 1, shapes[index], 1.0).autodiff().require_grad());
        let sum = operation(&leaves, draw(7, [outputs, inputs], 1.0));
        let mut graph = (sum.clone() * draw(9, [tokens, outputs], 1.0)).backward();
        (sum.inner(), leaves.map(|leaf| leaf.grad_remove(&mut graph).unwrap_or_else(|| draw(1, [1, 1], 1.0))))
    }

    fn composed(x: &Tensor<2>, weight: Tensor<2>, input: &Tensor<2>, a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
        let term = input.clone().matmul(a.clone().transpose()).matmul(b.clone().transpose());
        x.clone().matmul(weight.transpose()) + term * 0.75
    }

    fn fused(x: &Tensor<2>, weight: Tensor<2>, term: LowRankTerm) -> Tensor<2> {
        linear_with_low_rank(Arc::new(Dense(weight)), x, &term)
    }

    #[test]
    fn the_sum_and_its_gradients_equal_the_composed_operation_with_one_input_and_with_two() {
        for apart in [false, true] {
            let expected = run(|[x, dropped, a, b], weight| composed(x, weight, if apart { dropped } else { x }, a, b));
            let got = run(|[x, dropped, a, b], weight| {
                let input = apart.then(|| dropped.clone());
                fused(x, weight, LowRankTerm { a: a.clone(), b: b.clone(), scaling: 0.75, input, origin: None })
            });
            assert_close(&got.0, &expected.0, 1e-5);
            for (got, expected) in got.1.iter().zip(&expected.1) {
                assert_close(got, expected, 1e-5);
            }
        }
    }

    #[test]
    fn an_input_made_again_gives_the_gradients_of_one_that_was_kept() {
        let run = |again: bool| {
            run(|[gate, up, a, b], weight| {
                let x = crate::gated(Activation::Silu, gate.clone(), up.clone());
                let [gate, up] = [gate, up].map(Clone::clone);
                let origin = again.then_some(GatedOrigin { activation: Activation::Silu, gate, up });
                fused(&x, weight, LowRankTerm { a: a.clone(), b: b.clone(), scaling: 0.75, input: None, origin })
            })
        };
        for (again, kept) in run(true).1.into_iter().zip(run(false).1) {
            assert_close(&again, &kept, 1e-6);
        }
    }
}
