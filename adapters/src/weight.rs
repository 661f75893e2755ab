//! The frozen or trainable matrix of a linear map, `[out, in]`, and how to multiply by it.
//!
//! Everything that multiplies goes through [`Weight::multiply`]: how the numbers are kept is known here alone.

use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Tensor};
use kernels::FrozenMap;

use crate::nf4_weight::Nf4Weight;
use crate::parameter::Parameter;

/// A matrix `[out, in]`.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there are some hundreds of these, beside numbers of gigabytes")]
pub enum Weight {
    /// Numbers one by one; may be trained.
    Dense(Parameter),
    /// 4-bit codes and scales (Dettmers et al. 2023, arXiv:2305.14314); frozen.
    Nf4(Nf4Weight),
}

impl Weight {
    /// Output and input features.
    pub fn sizes(&self) -> [usize; 2] {
        match self {
            Self::Dense(parameter) => [parameter.shape()[0], parameter.shape()[1]],
            Self::Nf4(packed) => packed.sizes(),
        }
    }

    /// `x Wᵀ`: `x: [tokens, in]` to `[tokens, out]`; recorded if `x` is.
    pub fn multiply(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Dense(parameter) => parameter.multiply(x),
            Self::Nf4(packed) => packed.multiply(x),
        }
    }

    /// `y W`: `y: [tokens, out]` to `[tokens, in]`; recorded if `y` is.
    pub fn multiply_back(&self, y: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Dense(parameter) => parameter.multiply_back(y),
            Self::Nf4(packed) => packed.multiply_back(y),
        }
    }

    /// The same matrix as a map outside the graph, unless it is trained.
    pub(crate) fn frozen(&self) -> Option<Arc<dyn FrozenMap>> {
        match self {
            Self::Dense(parameter) if parameter.is_trainable() => None,
            _ => Some(Arc::new(self.clone())),
        }
    }

    /// All numbers in f32, `[out, in]`, outside the graph: a whole matrix, for a moment.
    pub fn dense(&self) -> Tensor<2> {
        match self {
            Self::Dense(parameter) => parameter.plain().cast(FloatDType::F32).reshape(self.sizes()),
            Self::Nf4(packed) => packed.dense(),
        }
    }

    /// The device that holds it, outside the graph.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(parameter) => parameter.plain().device(),
            Self::Nf4(packed) => packed.device(),
        }
    }

    /// The matrix as a parameter, if it is one.
    pub fn parameter_mut(&mut self) -> Option<&mut Parameter> {
        match self {
            Self::Dense(parameter) => Some(parameter),
            Self::Nf4(_) => None,
        }
    }
}

impl FrozenMap for Weight {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.multiply(x)
    }

    fn back(&self, y: Tensor<2>) -> Tensor<2> {
        self.multiply_back(y)
    }
}
