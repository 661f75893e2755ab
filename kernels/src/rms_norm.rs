//! RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467): `x / sqrt(mean(x²) + epsilon) * (weight + offset)` with
//! arithmetic in f32, keeping its input alone.

#[cfg(feature = "cube")]
mod kernel;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::cube::on_cube;
use crate::host::{contiguous, is_host, tensor, values};
use crate::threads::{PIECE, for_each};
use crate::vector::{dot, vectorised};

/// The definition of a norm beside its weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormForm {
    /// Added to the mean square.
    pub epsilon: f32,
    /// Added to the weight.
    pub offset: f32,
    /// Scale before rounding to the type of the input instead of after it.
    pub scale_in_f32: bool,
}

/// The norm over the last dimension of `x: [.., features]` with `weight: [features]`; `None` where this is not
/// one operation (on the CPU in another type than f32).
pub fn rms_norm<const D: usize>(x: &Tensor<D>, weight: &Tensor<1>, form: NormForm) -> Option<Tensor<D>> {
    (on_cube(&x.device()) || is_host(x) && is_host(weight)).then(|| {
        let (x, weight) = (x.clone().into_dispatch(), weight.clone().into_dispatch());
        Tensor::from_dispatch(Dispatch::rms_norm(x, weight, form))
    })
}

/// Backends with [`rms_norm`] as one operation.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff, Fusion: cfg(feature = "cube"))]
pub(crate) trait RmsNormBackend: Backend {
    #[fusion(dtype = x, shape = x)]
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, form: NormForm) -> FloatTensor<Self>;
}

/// The gradients of [`rms_norm`].
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"))]
pub(crate) trait RmsNormGradients: Backend {
    /// To the input, in its type.
    #[fusion(dtype = x, shape = x)]
    fn rms_norm_to_input(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        form: NormForm,
    ) -> FloatTensor<Self>;

    /// To the weight, `[features]` in f32.
    #[fusion(meta = |x, _gradient, _form| {
        TensorSpec::new([x.shape[x.shape.num_dims() - 1]].into(), burn::tensor::DType::F32)
    })]
    fn rms_norm_to_weight(x: FloatTensor<Self>, gradient: FloatTensor<Self>, form: NormForm) -> FloatTensor<Self>;
}

impl RmsNormBackend for Flex {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, form: NormForm) -> FloatTensor<Self> {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let (source, weight) = (values(&x), values(&weight));
        let mut normalised = vec![0.0; source.len()];
        let features = weight.len();
        let piece = piece(features);
        for_each(source.par_chunks(piece).zip(normalised.par_chunks_mut(piece)), |(source, normalised)| {
            vectorised(
                #[inline(always)]
                || {
                    for (row, out) in source.chunks_exact(features).zip(normalised.chunks_exact_mut(features)) {
                        let inverse = inverse_root(row, form.epsilon);
                        for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
                            *out = x * inverse * (weight + form.offset);
                        }
                    }
                },
            );
        });
        tensor(normalised, &x.shape().to_vec())
    }
}

impl RmsNormGradients for Flex {
    fn rms_norm_to_input(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        form: NormForm,
    ) -> FloatTensor<Self> {
        let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
        let (source, weight, gradient) = (values(&x), values(&weight), values(&gradient));
        let mut to_input = vec![0.0; source.len()];
        let features = weight.len();
        let piece = piece(features);
        let inputs = source.par_chunks(piece).zip(gradient.par_chunks(piece));
        for_each(inputs.zip(to_input.par_chunks_mut(piece)), |((source, gradient), to_input)| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = source.chunks_exact(features).zip(gradient.chunks_exact(features));
                    for ((row, gradient), out) in rows.zip(to_input.chunks_exact_mut(features)) {
                        let inverse = inverse_root(row, form.epsilon);
                        // With n = x / rms: dx = (g w - n mean(g w n)) / rms.
                        for ((out, gradient), weight) in out.iter_mut().zip(gradient).zip(weight) {
                            *out = gradient * (weight + form.offset);
                        }
                        let mean = dot(out, row) * inverse * inverse / features as f32;
                        for (out, x) in out.iter_mut().zip(row) {
                            *out = (*out - x * mean) * inverse;
                        }
                    }
                },
            );
        });
        tensor(to_input, &x.shape().to_vec())
    }

    fn rms_norm_to_weight(x: FloatTensor<Self>, gradient: FloatTensor<Self>, form: NormForm) -> FloatTensor<Self> {
        let (x, gradient) = (contiguous(x), contiguous(gradient));
        let features = x.shape().to_vec().last().copied().expect("a norm is over a dimension");
        let mut to_weight = vec![0.0; features];
        vectorised(
            #[inline(always)]
            || {
                for (row, gradient) in values(&x).chunks_exact(features).zip(values(&gradient).chunks_exact(features)) {
                    let inverse = inverse_root(row, form.epsilon);
                    for ((sum, gradient), x) in to_weight.iter_mut().zip(gradient).zip(row) {
                        *sum += gradient * x * inverse;
                    }
                }
            },
        );
        tensor(to_weight, &[features])
    }
}

impl<B: RmsNormBackend + RmsNormGradients, C: CheckpointStrategy> RmsNormBackend for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, form: NormForm) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        match RmsNorm.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((x.clone(), weight.clone(), form), B::rms_norm(x, weight, form))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::rms_norm(x, weight, form)),
        }
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: RmsNormGradients> Backward<B, 2> for RmsNorm {
    type State = (FloatTensor<B>, FloatTensor<B>, NormForm);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let (x, weight, form) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        if let Some(node) = weight_node {
            let to_weight = B::rms_norm_to_weight(x.clone(), gradient.clone(), form);
            grads.register::<B>(node.id, B::float_cast(to_weight, weight.dtype().into()));
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::rms_norm_to_input(x, weight, gradient, form));
        }
    }
}

/// Values of a piece of work: whole rows.
fn piece(features: usize) -> usize {
    (PIECE / features).max(1) * features
}

#[inline(always)]
fn inverse_root(row: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + epsilon).sqrt()
}

#[cfg(test)]
mod tests {
    use burn::tensor::FloatDType;

    use super::*;
    use crate::testing::{assert_close, device, draw, half};

    fn composed(x: Tensor<3>, weight: Tensor<1>, form: NormForm) -> Tensor<3> {
        let inverse = x.clone().square().mean_dim(2).add_scalar(form.epsilon).sqrt().recip();
        x * inverse * weight.add_scalar(form.offset).unsqueeze::<3>()
    }

    /// The norm of `x` and the gradients of `x` and `weight`, f32.
    fn run(
        [x, weights]: [Tensor<3>; 2],
        weight: Tensor<1>,
        operation: impl Fn(Tensor<3>, Tensor<1>) -> Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>, Tensor<1>) {
        let (x, weight) = (x.autodiff().require_grad(), weight.autodiff().require_grad());
        let y = operation(x.clone(), weight.clone());
        let mut graph = (y.clone() * weights).backward();
        let gradients = (x.grad_remove(&mut graph).unwrap(), weight.grad_remove(&mut graph).unwrap());
        (y.inner().cast(FloatDType::F32), gradients.0.cast(FloatDType::F32), gradients.1.cast(FloatDType::F32))
    }

    fn is_close(got: (Tensor<3>, Tensor<3>, Tensor<1>), expected: &(Tensor<3>, Tensor<3>, Tensor<1>), tolerance: f32) {
        assert_close(&got.0, &expected.0, tolerance);
        assert_close(&got.1, &expected.1, tolerance);
        assert_close(&got.2, &expected.2, tolerance);
    }

    #[test]
    fn rms_norm_and_its_gradients_equal_the_composed_operation() {
        let device = device();
        for (features, offset, scale_in_f32) in [(5, 0.0, true), (64, 1.0, true), (37, 0.0, false), (1320, 0.0, false)]
        {
            let form = NormForm { epsilon: 1e-5, offset, scale_in_f32 };
            let inputs = || [draw(1, [2, 3, features], 2.0), draw(3, [2, 3, features], 1.0)];
            let weight = draw(2, [features], 1.0);
            let expected = run(inputs(), weight.clone(), |x, weight| composed(x, weight, form));
            let inputs = inputs().map(|input| input.to_device(&device));
            let got = run(inputs, weight.to_device(&device), |x, weight| rms_norm(&x, &weight, form).unwrap());
            is_close(got, &expected, 1e-5);
        }
    }

    #[test]
    fn rms_norm_of_numbers_in_16_bits_differs_by_their_rounding_alone() {
        let Some((device, dtype, step)) = half() else { return };
        for (offset, scale_in_f32) in [(0.0, false), (1.0, true)] {
            let form = NormForm { epsilon: 1e-5, offset, scale_in_f32 };
            let half = |seed| draw::<3>(seed, [2, 3, 64], 2.0).to_device(&device).cast(dtype);
            let weight = draw::<1>(2, [64], 1.0).to_device(&device).cast(dtype);
            let wide = [half(1), half(3)].map(|half| half.cast(FloatDType::F32));
            let wide_weight = weight.clone().cast(FloatDType::F32);
            let expected = run(wide, wide_weight, |x, weight| composed(x, weight, form));
            let got = run([half(1), half(3)], weight, |x, weight| rms_norm(&x, &weight, form).unwrap());
            is_close(got, &expected, 2.0 * step);
        }
    }

    #[cfg(feature = "cube")]
    #[test]
    fn rows_that_lie_apart_are_normalised_where_they_are() {
        let device = device();
        let form = NormForm { epsilon: 1e-5, offset: 0.0, scale_in_f32: true };
        let columns = |x: Tensor<3>| x.slice([0..2, 0..3, 64..128]);
        let (x, weights) = (draw(1, [2, 3, 192], 2.0), draw(3, [2, 3, 64], 1.0));
        let weight = draw(2, [64], 1.0);
        let expected =
            run([x.clone(), weights.clone()], weight.clone(), |x, weight| composed(columns(x), weight, form));
        let inputs = [x, weights].map(|input| input.to_device(&device));
        let got = run(inputs, weight.to_device(&device), |x, weight| rms_norm(&columns(x), &weight, form).unwrap());
        is_close(got, &expected, 1e-5);
    }
}
