//! RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) as Llama computes it: normalised in f32, cast
//! to the input's dtype, then scaled.

use adapters::Parameter;
use burn::tensor::{DType, FloatDType, Tensor};

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
        let dtype = x.dtype();
        let weight = self.weight.vector(&x).unsqueeze::<D>();
        let x = if dtype == DType::F32 { x } else { x.cast(FloatDType::F32) };
        let mean_square = x.clone().square().mean_dim(D - 1);
        let inverse = mean_square.add_scalar(self.spec.epsilon).sqrt().recip(); // [.., 1]
        let normalised = x * inverse;
        let normalised = if dtype == DType::F32 { normalised } else { normalised.cast(compute(dtype)) };
        normalised * weight
    }

    /// Calls `visit` with the weight.
    pub(crate) fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        visit(&self.name, &mut self.weight);
    }
}

/// The float dtype behind a tensor's dtype.
pub(crate) fn compute(dtype: DType) -> FloatDType {
    match dtype {
        DType::BF16 => FloatDType::BF16,
        DType::F16 => FloatDType::F16,
        _ => FloatDType::F32,
    }
}
