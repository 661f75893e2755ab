//! LoRA (Hu et al. 2021, arXiv:2106.09685) on the activation side: `y = x Wᵀ + s (x Aᵀ) Bᵀ`.
//!
//! Scaling is `alpha / r`, or `alpha / sqrt(r)` for rank-stabilised LoRA (Kalajdzievski 2023,
//! arXiv:2312.03732). A starts Kaiming-uniform with a = sqrt(5), B at zero, as PEFT does it.

use burn::tensor::{Device, FloatDType, Tensor};
use kernels::{GatedOrigin, LowRankTerm};

use crate::dropout::DropoutKey;
use crate::dtype::float_dtype;
use crate::parameter::Parameter;
use crate::random::{seed_of, uniform};
use crate::weight::Weight;

/// The settings of a low-rank update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRankSpec {
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scaling.
    pub alpha: f64,
    /// Probability with which an input value is dropped on the way into A, while training.
    pub dropout: f64,
    /// Divide alpha by the square root of the rank instead of the rank.
    pub rank_stabilised: bool,
}

impl LowRankSpec {
    /// The factor on the update.
    pub fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

/// A low-rank update of one projection.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[rank, in]`.
    pub a: Parameter,
    /// `[out, rank]`.
    pub b: Parameter,
    /// Rank, alpha, dropout.
    pub spec: LowRankSpec,
}

impl LowRank {
    /// A fresh update for a projection called `name`, drawn from `seed`; it changes nothing until trained.
    pub fn new(spec: LowRankSpec, name: &str, inputs: usize, outputs: usize, seed: u64, device: &Device) -> Self {
        // Kaiming-uniform with a = sqrt(5): gain sqrt(2 / (1 + 5)), bound gain * sqrt(3 / inputs) = 1 / sqrt(inputs).
        let bound = 1.0 / (inputs as f32).sqrt();
        let a = uniform(seed_of(seed, &format!("{name}.lora_A")), spec.rank * inputs, -bound, bound);
        Self::from_host(spec, a, vec![0.0; outputs * spec.rank], inputs, outputs, device)
    }

    /// An update with given values, `a: [rank, in]` and `b: [out, rank]` row-major.
    pub fn from_host(
        spec: LowRankSpec,
        a: Vec<f32>,
        b: Vec<f32>,
        inputs: usize,
        outputs: usize,
        device: &Device,
    ) -> Self {
        let mut a = Parameter::from_host(a, &[spec.rank, inputs], FloatDType::F32, device);
        let mut b = Parameter::from_host(b, &[outputs, spec.rank], FloatDType::F32, device);
        a.train();
        b.train();
        Self { a, b, spec }
    }

    /// `x Wᵀ + s (x Aᵀ) Bᵀ` for `x: [tokens, in]`; with a key, dropout on the way into A. Without dropout, `x` may say
    /// what it was made from.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        weight: &Weight,
        origin: Option<GatedOrigin>,
        name: &str,
        dropout: Option<DropoutKey>,
    ) -> Tensor<2> {
        let input = self.dropped(&x, name, dropout);
        // Elsewhere it is not one operation, and nothing has to be made ready for it.
        if kernels::on_host(&x.device(), x.dtype())
            && let Some(frozen) = weight.frozen()
        {
            let term = LowRankTerm {
                a: self.a.matrix(&x),
                b: self.b.matrix(&x),
                scaling: self.spec.scaling() as f32,
                origin: origin.filter(|_| input.is_none()),
                input,
            };
            return kernels::linear_with_low_rank(frozen, &x, &term);
        }
        let input = input.unwrap_or_else(|| x.clone());
        weight.multiply(x) + self.apply(input)
    }

    /// `x` after dropout, if there is any.
    pub(crate) fn dropped(&self, x: &Tensor<2>, name: &str, dropout: Option<DropoutKey>) -> Option<Tensor<2>> {
        let key = dropout.filter(|_| self.spec.dropout > 0.0)?;
        Some(key.apply(x.clone(), name, self.spec.dropout))
    }

    /// `s (x Aᵀ) Bᵀ` for `x: [tokens, in]`.
    pub(crate) fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let a = self.a.matrix(&x).transpose(); // [in, rank]
        // Scaled in f32 and then rounded to the dtype of `x`, which is one pass over B, as the rounding alone would be.
        let b = self.b.vector_in(&x, FloatDType::F32).mul_scalar(self.spec.scaling() as f32);
        let b = b.cast(float_dtype(x.dtype())).reshape([self.b.shape()[0], self.b.shape()[1]]);
        x.matmul(a).matmul(b.transpose())
    }

    /// `s B A` in f32, `[out, in]`.
    pub fn delta(&self) -> Tensor<2> {
        let a = self.a.plain().reshape([self.a.shape()[0], self.a.shape()[1]]);
        let b = self.b.plain().reshape([self.b.shape()[0], self.b.shape()[1]]);
        b.matmul(a).mul_scalar(self.spec.scaling() as f32)
    }
}
