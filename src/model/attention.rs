//! Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245); scores and softmax in f32.
//!
//! Query heads that share a key head are stacked along the sequence, so that keys and values are never
//! repeated.

use adapters::{Parameter, Projection};
use burn::tensor::{DType, FloatDType, Tensor};

use super::input::DecoderInput;
use super::layer::Pass;
use super::norm::{Norm, compute};

/// Keys and values of the tokens before, `[1, kv_heads, tokens, head_dim]` each.
#[derive(Debug, Clone)]
pub struct KeyValues {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl KeyValues {
    /// Tokens kept.
    pub fn tokens(&self) -> usize {
        self.keys.dims()[2]
    }
}

/// Attention whose query heads share key and value heads.
#[derive(Debug, Clone)]
pub(crate) struct GroupedAttention {
    pub(crate) query: Projection,
    pub(crate) key: Projection,
    pub(crate) value: Projection,
    pub(crate) output: Projection,
    /// On queries and keys before the rotary embedding.
    pub(crate) qk_norm: Option<(Norm, Norm)>,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) scale: f32,
    /// Index into the input's rotary tables.
    pub(crate) rotary: usize,
    /// Index into the input's masks.
    pub(crate) mask: usize,
}

impl GroupedAttention {
    /// `x: [rows * width, hidden]`, same shape out; with `past`, continues that row and extends it.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        input: &DecoderInput,
        pass: Pass,
        past: Option<&mut Option<KeyValues>>,
    ) -> Tensor<2> {
        let (rows, width) = (input.rows, input.width);
        let (kv_heads, head_dim) = (self.kv_heads, self.head_dim);
        let group = self.heads / kv_heads;
        let split = |y: Tensor<2>, heads: usize| y.reshape([rows, width, heads, head_dim]);
        let query = split(self.query.forward(x.clone(), pass.dropout), self.heads);
        let key = split(self.key.forward(x.clone(), pass.dropout), kv_heads);
        let value = split(self.value.forward(x, pass.dropout), kv_heads);
        let (query, key) = match &self.qk_norm {
            Some((query_norm, key_norm)) => (query_norm.forward(query), key_norm.forward(key)),
            None => (query, key),
        };
        let rotary = &input.rotary[self.rotary];
        let query = rotary.rotate(query).reshape([rows, width, kv_heads, group, head_dim]);
        let query = query.permute([0, 2, 3, 1, 4]).reshape([rows, kv_heads, group * width, head_dim]);
        let key = rotary.rotate(key).swap_dims(1, 2); // [rows, kv_heads, width, head_dim]
        let value = value.swap_dims(1, 2);
        let (key, value) = match past {
            Some(kept) => extend(kept, key, value),
            None => (key, value),
        };
        let keys = key.dims()[2];
        let dtype = query.dtype();
        let scores = query.mul_scalar(self.scale).matmul(key.swap_dims(2, 3)); // [rows, kv_heads, group * width, keys]
        let scores = if dtype == DType::F32 { scores } else { scores.cast(FloatDType::F32) };
        let scores = scores.reshape([rows, self.heads, width, keys]);
        let scores = match &input.masks[self.mask] {
            Some(mask) => scores + mask.clone(),
            None => scores,
        };
        // Softmax, normalised after the product with the values: one score-sized array less to keep and to divide.
        // The shift by the largest score cancels out, so it needs no gradient.
        let largest = scores.clone().inner().max_dim(3); // [rows, heads, width, 1]
        let weights = (scores - largest).exp();
        let total = weights.clone().sum_dim(3); // [rows, heads, width, 1]
        let weights = if dtype == DType::F32 { weights } else { weights.cast(compute(dtype)) };
        let mixed = weights.reshape([rows, kv_heads, group * width, keys]).matmul(value);
        let mixed = mixed.reshape([rows, kv_heads, group, width, head_dim]);
        let total = total.reshape([rows, kv_heads, group, width, 1]);
        let total = if dtype == DType::F32 { total } else { total.cast(compute(dtype)) };
        let mixed = (mixed / total).permute([0, 3, 1, 2, 4]); // [rows, width, kv_heads, group, head_dim]
        self.output.forward(mixed.reshape([rows * width, self.heads * head_dim]), pass.dropout)
    }

    /// The projections, in the checkpoint's order.
    pub(crate) fn projections(&mut self) -> Vec<&mut Projection> {
        vec![&mut self.query, &mut self.key, &mut self.value, &mut self.output]
    }

    /// Calls `visit` with every parameter.
    pub(crate) fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        for projection in self.projections() {
            projection.visit(visit);
        }
        if let Some((query, key)) = &mut self.qk_norm {
            query.visit(visit);
            key.visit(visit);
        }
    }
}

fn extend(kept: &mut Option<KeyValues>, key: Tensor<4>, value: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let (key, value) = match kept.take() {
        Some(past) => (Tensor::cat(vec![past.keys, key], 2), Tensor::cat(vec![past.values, value], 2)),
        None => (key, value),
    };
    *kept = Some(KeyValues { keys: key.clone(), values: value.clone() });
    (key, value)
}
