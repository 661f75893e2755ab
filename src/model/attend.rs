//! From queries, keys and values to their mix, and the keys and values that generation keeps; scores
//! and softmax in f32.
//!
//! Where attention is one operation (see the package `kernels`), scores are never stored. Elsewhere it is composed
//! here; query heads that share a key head are stacked along the sequence, so that keys and values are never repeated.

use adapters::Parameter;
use burn::tensor::{DType, FloatDType, Tensor};
use kernels::{Attention, attention};

use super::mask::Mask;
use super::norm::compute;

/// Keys and values of the tokens before, `[1, tokens, kv_heads, width of a head]` each.
#[derive(Debug, Clone)]
pub(crate) struct KeyValues {
    keys: Tensor<4>,
    values: Tensor<4>,
}

/// How queries and keys make weights.
pub(crate) struct Attend<'a> {
    /// Factor on the scores.
    pub(crate) scale: f32,
    /// Who sees whom.
    pub(crate) mask: &'a Mask,
    /// A logit per query head that takes part in the softmax and has no value.
    pub(crate) sinks: Option<&'a Parameter>,
}

impl Attend<'_> {
    /// `query: [rows, width, heads, d]`, `key: [rows, width, kv_heads, d]`, `value: [rows, width, kv_heads, e]` to
    /// `[rows * width, heads * e]`; with `past`, continues that row and extends it.
    pub(crate) fn forward(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        past: Option<&mut Option<KeyValues>>,
    ) -> Tensor<2> {
        let (key, value) = match past {
            Some(kept) => extend(kept, key, value),
            None => (key, value),
        };
        let sinks = self.sinks.map(|sinks| sinks.vector(&query));
        let settings = Attention { scale: self.scale, visible: self.mask.visible.clone() };
        match attention(&query, &key, &value, sinks, settings) {
            Some(mixed) => mixed,
            None => self.composed(query, key, value),
        }
    }

    fn composed(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<2> {
        let [rows, width, heads, query_dim] = query.dims();
        let [_, keys, kv_heads, value_dim] = value.dims();
        let group = heads / kv_heads;
        let dtype = query.dtype();
        let query = query.reshape([rows, width, kv_heads, group, query_dim]);
        let query = query.permute([0, 2, 3, 1, 4]).reshape([rows, kv_heads, group * width, query_dim]);
        let (key, value) = (key.swap_dims(1, 2), value.swap_dims(1, 2)); // [rows, kv_heads, keys, ..]
        let scores = query.mul_scalar(self.scale).matmul(key.swap_dims(2, 3)); // [rows, kv_heads, group * width, keys]
        let scores = if dtype == DType::F32 { scores } else { scores.cast(FloatDType::F32) };
        let scores = scores.reshape([rows, heads, width, keys]);
        let scores = match &self.mask.additive {
            Some(mask) => scores + mask.clone(),
            None => scores,
        };
        let (weights, total) = self.weights(scores);
        let weights = if dtype == DType::F32 { weights } else { weights.cast(compute(dtype)) };
        let mixed = weights.reshape([rows, kv_heads, group * width, keys]).matmul(value);
        let mixed = mixed.reshape([rows, kv_heads, group, width, value_dim]);
        let total = total.reshape([rows, kv_heads, group, width, 1]);
        let total = if dtype == DType::F32 { total } else { total.cast(compute(dtype)) };
        let mixed = (mixed / total).permute([0, 3, 1, 2, 4]); // [rows, width, kv_heads, group, value_dim]
        mixed.reshape([rows * width, heads * value_dim])
    }

    /// Softmax in two parts: what each key weighs, and what to divide by after the product with the values, which is
    /// one score-sized array less to keep and to divide. `scores: [rows, heads, width, keys]`.
    fn weights(&self, scores: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [rows, heads, width, _] = scores.dims();
        // The shift by the largest score cancels out, so it needs no gradient.
        let largest = scores.clone().inner().max_dim(3); // [rows, heads, width, 1]
        let Some(sinks) = self.sinks else {
            let weights = (scores - largest).exp();
            let total = weights.clone().sum_dim(3);
            return (weights, total);
        };
        let sinks = sinks.vector(&scores).reshape([1, heads, 1, 1]).expand([rows, heads, width, 1]);
        let largest = largest.max_pair(sinks.clone().inner());
        let weights = (scores - largest.clone()).exp();
        let total = weights.clone().sum_dim(3) + (sinks - largest).exp();
        (weights, total)
    }
}

fn extend(kept: &mut Option<KeyValues>, key: Tensor<4>, value: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let (key, value) = match kept.take() {
        Some(past) => (Tensor::cat(vec![past.keys, key], 1), Tensor::cat(vec![past.values, value], 1)),
        None => (key, value),
    };
    *kept = Some(KeyValues { keys: key.clone(), values: value.clone() });
    (key, value)
}
