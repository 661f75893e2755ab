//! RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) in f32: `x / sqrt(mean(x²) + epsilon) * (weight + offset)`,
//! keeping its input alone.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

use crate::host::{contiguous, is_host, tensor, values};
use crate::vector::{dot, vectorised};

/// The norm over the last dimension of `x: [.., features]` with `weight: [features]`, both f32; `None` where
/// this is not one operation (off the CPU, or in another type).
pub fn rms_norm<const D: usize>(x: &Tensor<D>, weight: &Tensor<1>, epsilon: f32, offset: f32) -> Option<Tensor<D>> {
    (is_host(x) && is_host(weight)).then(|| {
        let (x, weight) = (x.clone().into_dispatch(), weight.clone().into_dispatch());
        Tensor::from_dispatch(Dispatch::rms_norm(x, weight, epsilon, offset))
    })
}

/// Backends with [`rms_norm`] as one operation.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait RmsNormBackend: Backend {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32, offset: f32) -> FloatTensor<Self>;
}

impl RmsNormBackend for Flex {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32, offset: f32) -> FloatTensor<Self> {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let (source, weight) = (values(&x), values(&weight));
        let mut normalised = vec![0.0; source.len()];
        vectorised(
            #[inline(always)]
            || {
                let features = weight.len();
                for (row, out) in source.chunks_exact(features).zip(normalised.chunks_exact_mut(features)) {
                    let inverse = inverse_root(row, epsilon);
                    for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
                        *out = x * inverse * (weight + offset);
                    }
                }
            },
        );
        tensor(normalised, &x.shape().to_vec())
    }
}

impl<C: CheckpointStrategy> RmsNormBackend for Autodiff<Flex, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32, offset: f32) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (x, weight) = (contiguous(x), contiguous(weight));
        let normalised = Flex::rms_norm(x.clone(), weight.clone(), epsilon, offset);
        match RmsNorm.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, weight, epsilon, offset), normalised),
            OpsKind::UnTracked(prepared) => prepared.finish(normalised),
        }
    }
}

#[derive(Debug)]
struct RmsNorm;

impl Backward<Flex, 2> for RmsNorm {
    type State = (FloatTensor<Flex>, FloatTensor<Flex>, f32, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let (x, weight, epsilon, offset) = ops.state;
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let (source, scales, gradient) = (values(&x), values(&weight), values(&gradient));
        let features = scales.len();
        let mut to_x = vec![0.0; if x_node.is_some() { source.len() } else { 0 }];
        let mut to_weight = vec![0.0; features];
        vectorised(
            #[inline(always)]
            || {
                for (index, (row, gradient)) in
                    source.chunks_exact(features).zip(gradient.chunks_exact(features)).enumerate()
                {
                    let inverse = inverse_root(row, epsilon);
                    if let Some(out) = to_x.get_mut(index * features..(index + 1) * features) {
                        // With n = x / rms: dx = (g w - n mean(g w n)) / rms.
                        for ((out, gradient), weight) in out.iter_mut().zip(gradient).zip(scales) {
                            *out = gradient * (weight + offset);
                        }
                        let mean = dot(out, row) * inverse * inverse / features as f32;
                        for (out, x) in out.iter_mut().zip(row) {
                            *out = (*out - x * mean) * inverse;
                        }
                    }
                    if weight_node.is_some() {
                        for ((sum, gradient), x) in to_weight.iter_mut().zip(gradient).zip(row) {
                            *sum += gradient * x * inverse;
                        }
                    }
                }
            },
        );
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, tensor(to_x, &x.shape().to_vec()));
        }
        if let Some(node) = weight_node {
            grads.register::<Flex>(node.id, tensor(to_weight, &[features]));
        }
    }
}

#[inline(always)]
fn inverse_root(row: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + epsilon).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, draw};

    fn composed(x: Tensor<3>, weight: Tensor<1>, epsilon: f32, offset: f32) -> Tensor<3> {
        let inverse = x.clone().square().mean_dim(2).add_scalar(epsilon).sqrt().recip();
        x * inverse * weight.add_scalar(offset).unsqueeze::<3>()
    }

    #[test]
    fn rms_norm_and_its_gradients_equal_the_composed_operation() {
        for (features, offset) in [(5, 0.0), (64, 1.0), (37, 0.0)] {
            let shape = [2, 3, features];
            let run = |operation: &dyn Fn(Tensor<3>, Tensor<1>) -> Tensor<3>| {
                let x = draw(1, shape, 2.0).autodiff().require_grad();
                let weight = draw(2, [features], 1.0).autodiff().require_grad();
                let y = operation(x.clone(), weight.clone());
                let mut graph = (y.clone() * draw(3, shape, 1.0)).backward();
                let gradients = (x.grad_remove(&mut graph).unwrap(), weight.grad_remove(&mut graph).unwrap());
                (y.inner(), gradients)
            };
            let (expected, (expected_x, expected_weight)) = run(&|x, weight| composed(x, weight, 1e-5, offset));
            let (got, (x, weight)) = run(&|x, weight| rms_norm(&x, &weight, 1e-5, offset).unwrap());
            assert_close(&got, &expected, 1e-6);
            assert_close(&x, &expected_x, 1e-5);
            assert_close(&weight, &expected_weight, 1e-5);
        }
    }
}
