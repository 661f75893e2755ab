//! A linear map, `x Wᵀ`, with the matrix as checkpoints store it; it keeps `x` only where the matrix is trained.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::host::{contiguous, is_host, sizes, tensor, values};
use crate::product::{Matrix, new_product};

/// `x Wᵀ`: `x: [tokens, in]`, `weight: [out, in]` to `[tokens, out]`, both of one dtype.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    match is_host(&x) && is_host(&weight) {
        true => Tensor::from_dispatch(Dispatch::linear(x.into_dispatch(), weight.into_dispatch())),
        false => x.matmul(weight.transpose()),
    }
}

/// `y W`: `y: [tokens, out]`, `weight: [out, in]` to `[tokens, in]`, both of one dtype.
pub fn linear_back(y: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let plain = !y.is_autodiff() && !weight.is_autodiff();
    if !(plain && is_host(&y) && is_host(&weight)) {
        return y.matmul(weight);
    }
    let [y, weight] =
        [y, weight].map(|tensor| tensor.try_into_primitive::<Flex>().expect("the tensor is on this backend"));
    Tensor::from_primitive::<Flex>(back(&contiguous(y), &contiguous(weight)))
}

/// Backends with [`linear`] as one operation.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LinearBackend: Backend {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl LinearBackend for Flex {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let ([tokens, inputs], [outputs, _]) = (sizes(&x), sizes(&weight));
        let (x, weight) = (Matrix::new(values(&x), tokens, inputs), Matrix::new(values(&weight), outputs, inputs));
        tensor(new_product(1.0, x, weight.transposed()), &[tokens, outputs])
    }
}

/// `y W`.
fn back(y: &FloatTensor<Flex>, weight: &FloatTensor<Flex>) -> FloatTensor<Flex> {
    let ([tokens, outputs], [_, inputs]) = (sizes(y), sizes(weight));
    let (y, weight) = (Matrix::new(values(y), tokens, outputs), Matrix::new(values(weight), outputs, inputs));
    tensor(new_product(1.0, y, weight), &[tokens, inputs])
}

impl<C: CheckpointStrategy> LinearBackend for Autodiff<Flex, C> {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let trainable = weight.is_tracked();
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (x, weight) = (contiguous(x), contiguous(weight));
        let y = Flex::linear(x.clone(), weight.clone());
        match Linear.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((trainable.then_some(x), weight), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[derive(Debug)]
struct Linear;

impl Backward<Flex, 2> for Linear {
    type State = (Option<FloatTensor<Flex>>, FloatTensor<Flex>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let (x, weight) = ops.state;
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, back(&gradient, &weight));
        }
        if let (Some(node), Some(x)) = (weight_node, x) {
            let ([tokens, inputs], [outputs, _]) = (sizes(&x), sizes(&weight));
            let (y, x) = (Matrix::new(values(&gradient), tokens, outputs), Matrix::new(values(&x), tokens, inputs));
            grads.register::<Flex>(node.id, tensor(new_product(1.0, y.transposed(), x), &[outputs, inputs]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, draw, gradients};

    #[test]
    fn linear_and_its_gradients_equal_a_matrix_product() {
        for size in [[9, 21], [70, 96]] {
            let (x, weights) = (draw(1, size, 1.0), draw(3, [size[0], size[0]], 1.0));
            let weight = draw(2, size, 1.0);
            let run = |operation: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
                gradients([x.clone(), weight.clone()], weights.clone(), |[x, weight]| operation(x, weight))
            };
            let (expected, expected_gradients) = run(|x, weight| x.matmul(weight.transpose()));
            let (got, got_gradients) = run(linear);
            assert_close(&got, &expected, 1e-5);
            for (got, expected) in got_gradients.iter().zip(&expected_gradients) {
                assert_close(got, expected, 1e-5);
            }
            assert_close(&linear_back(weights.clone(), weight.clone()), &weights.matmul(weight), 1e-5);
        }
    }
}
