//! From queries, keys and values to their mix, and the keys and values that generation keeps.

use adapters::Parameter;
use burn::tensor::Tensor;
use kernels::{Visible, attention};

/// Keys and values of the tokens before, `[1, tokens, kv_heads, width of a head]` each.
#[derive(Debug, Clone)]
pub(crate) struct KeyValues {
    keys: Tensor<4>,
    values: Tensor<4>,
}

/// The rules by which queries and keys make weights.
pub(crate) struct Attend<'a> {
    /// Factor on the scores.
    pub(crate) scale: f32,
    /// Who sees whom.
    pub(crate) mask: &'a Visible,
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
        attention(query, key, value, sinks, self.scale, self.mask)
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
