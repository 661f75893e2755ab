//! RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467): normalised in f32, and scaled by its weight
//! before or after the cast to the input's dtype, as the family has it.

use adapters::Parameter;
use burn::tensor::{DType, FloatDType, Tensor};
use kernels::{NormForm, rms_norm};

use super::spec::NormSpec;

/// A norm over the last dimension.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    name: String,
    weight: Parameter,
    spec: NormSpec,
}

impl Norm {
    /// A norm whose weight is the checkpoint tensor `name`.
    pub(crate) fn new(name: String, weight: Parameter, spec: NormSpec) -> Self {
        Self { name, weight, spec }
    }

    /// `x: [.., features]`, same shape out.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let NormSpec { epsilon, offset, scale_in_f32 } = self.spec;
        let dtype = x.dtype();
        let weight = if scale_in_f32 { self.weight.vector_in(&x, FloatDType::F32) } else { self.weight.vector(&x) };
        if let Some(y) = rms_norm(&x, &weight, NormForm { epsilon: epsilon as f32, offset, scale_in_f32 }) {
            return y;
        }
        let normalised = in_f32(x, self.spec.epsilon);
        if self.spec.scale_in_f32 {
            let scaled = self.scaled(normalised);
            return if dtype == DType::F32 { scaled } else { scaled.cast(compute(dtype)) };
        }
        self.scaled(if dtype == DType::F32 { normalised } else { normalised.cast(compute(dtype)) })
    }

    fn scaled<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.vector(&x);
        let weight = if self.spec.offset == 0.0 { weight } else { weight.add_scalar(self.spec.offset) };
        x * weight.unsqueeze::<D>()
    }

    /// Calls `visit` with the weight.
    pub(crate) fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        visit(&self.name, &mut self.weight);
    }
}

/// RMSNorm without a weight, in the dtype of `x: [.., features]`.
pub(crate) fn weightless<const D: usize>(x: Tensor<D>, epsilon: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let normalised = in_f32(x, epsilon);
    if dtype == DType::F32 { normalised } else { normalised.cast(compute(dtype)) }
}

fn in_f32<const D: usize>(x: Tensor<D>, epsilon: f64) -> Tensor<D> {
    let x = if x.dtype() == DType::F32 { x } else { x.cast(FloatDType::F32) };
    let mean_square = x.clone().square().mean_dim(D - 1);
    let inverse = mean_square.add_scalar(epsilon).sqrt().recip(); // [.., 1]
    x * inverse
}

/// The float dtype behind a tensor's dtype.
pub(crate) fn compute(dtype: DType) -> FloatDType {
    match dtype {
        DType::BF16 => FloatDType::BF16,
        DType::F16 => FloatDType::F16,
        _ => FloatDType::F32,
    }
}
