//! Attention without stored scores: a softmax over tiles of keys that keeps two numbers of each row (Dao et al.
//! 2022, arXiv:2205.14135; Rabe and Staats 2021, arXiv:2112.05682), and a backward pass that makes each tile of
//! scores again. Memory grows with the number of tokens, not with its square.
//!
//! Query heads that share a key head are stacked, so that keys and values are never repeated.

mod backward;
mod forward;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Tensor};

use crate::host::{contiguous, is_host, sizes, tensor, values};

/// Which keys each query sees: all from a first one up to its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// The column of the first visible key for each query, `[distinct rows, width]`.
    pub first: Vec<u32>,
    /// Queries of a row.
    pub width: usize,
    /// Keys that come before the first query's own.
    pub past: usize,
}

impl Visible {
    /// The keys that query `query` of row `row` sees.
    pub fn of(&self, row: usize, query: usize) -> std::ops::Range<usize> {
        let place = (row * self.width + query) % self.first.len();
        self.first[place] as usize..self.past + query + 1
    }
}

/// What attention needs to know beside its tensors.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Factor on the scores.
    pub scale: f32,
    /// Who sees whom.
    pub visible: Arc<Visible>,
}

/// Softmax attention of `query: [rows, width, heads, d]` on `key: [rows, keys, kv_heads, d]` and
/// `value: [rows, keys, kv_heads, e]`, `[rows * width, heads * e]`; `sinks: [heads]` are logits that take part in the
/// softmax and have no value. `None` where this is not one operation (off the CPU, or in another type).
pub fn attention(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    sinks: Option<Tensor<1>>,
    attention: Attention,
) -> Option<Tensor<2>> {
    if !(is_host(query) && is_host(key) && is_host(value)) {
        return None;
    }
    // A sink of minus infinity, nearly, weighs nothing.
    let no_sinks = || Tensor::full([query.dims()[2]], forward::NOTHING, (&query.device().inner(), DType::F32));
    let sinks = sinks.unwrap_or_else(no_sinks).into_dispatch();
    let [query, key, value] = [query, key, value].map(|tensor| tensor.clone().into_dispatch());
    Some(Tensor::from_dispatch(Dispatch::attend(query, key, value, sinks, attention)))
}

/// The sizes of one attention.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    width: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    /// Query heads for each key head.
    group: usize,
    query_dim: usize,
    value_dim: usize,
}

impl Sizes {
    fn of(query: &FloatTensor<Flex>, key: &FloatTensor<Flex>, value: &FloatTensor<Flex>) -> Self {
        let [rows, width, heads, query_dim] = sizes(query);
        let [_, keys, kv_heads, _] = sizes::<4>(key);
        let [_, _, _, value_dim] = sizes::<4>(value);
        Self { rows, width, keys, heads, kv_heads, group: heads / kv_heads, query_dim, value_dim }
    }

    /// Queries of a tile: with their group stacked, enough rows for an efficient product.
    fn tile_queries(&self) -> usize {
        (192 / self.group).clamp(16, 96)
    }
}

/// Keys of a tile.
const TILE_KEYS: usize = 128;

/// Backends with [`attention`] as one operation.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait AttentionBackend: Backend {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        attention: Attention,
    ) -> FloatTensor<Self>;
}

impl AttentionBackend for Flex {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        attention: Attention,
    ) -> FloatTensor<Self> {
        let inputs = Inputs::of(query, key, value, sinks);
        let (mixed, _) = forward::run(&inputs, &attention);
        inputs.output(mixed)
    }
}

/// Contiguous inputs.
#[derive(Debug, Clone)]
struct Inputs {
    query: FloatTensor<Flex>,
    key: FloatTensor<Flex>,
    value: FloatTensor<Flex>,
    sinks: FloatTensor<Flex>,
}

impl Inputs {
    fn of(
        query: FloatTensor<Flex>,
        key: FloatTensor<Flex>,
        value: FloatTensor<Flex>,
        sinks: FloatTensor<Flex>,
    ) -> Self {
        let [query, key, value, sinks] = [query, key, value, sinks].map(contiguous);
        Self { query, key, value, sinks }
    }

    fn sizes(&self) -> Sizes {
        Sizes::of(&self.query, &self.key, &self.value)
    }

    fn output(&self, mixed: Vec<f32>) -> FloatTensor<Flex> {
        let sizes = self.sizes();
        tensor(mixed, &[sizes.rows * sizes.width, sizes.heads * sizes.value_dim])
    }
}

impl<C: CheckpointStrategy> AttentionBackend for Autodiff<Flex, C> {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        attention: Attention,
    ) -> FloatTensor<Self> {
        let ((query, query_node), (key, key_node)) = (query.into_parts(), key.into_parts());
        let ((value, value_node), (sinks, sinks_node)) = (value.into_parts(), sinks.into_parts());
        let inputs = Inputs::of(query, key, value, sinks);
        let (mixed, log_sums) = forward::run(&inputs, &attention);
        let mixed = inputs.output(mixed);
        match Attend.prepare::<C>([query_node, key_node, value_node, sinks_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let saved = Saved { inputs, mixed: mixed.clone(), log_sums: log_sums.into(), attention };
                prepared.finish(saved, mixed)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(mixed),
        }
    }
}

/// What is kept for the backward pass.
#[derive(Debug, Clone)]
struct Saved {
    inputs: Inputs,
    mixed: FloatTensor<Flex>,
    /// Logarithm of the softmax's denominator, `[rows * width, heads]`.
    log_sums: Arc<[f32]>,
    attention: Attention,
}

#[derive(Debug)]
struct Attend;

impl Backward<Flex, 4> for Attend {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let saved = ops.state;
        let found = backward::run(&saved, values(&gradient));
        let Sizes { rows, width, keys, heads, kv_heads, query_dim, value_dim, .. } = saved.inputs.sizes();
        let [query, key, value, sinks] = ops.parents;
        let gradients = [
            (query, found.query, vec![rows, width, heads, query_dim]),
            (key, found.key, vec![rows, keys, kv_heads, query_dim]),
            (value, found.value, vec![rows, keys, kv_heads, value_dim]),
            (sinks, found.sinks, vec![heads]),
        ];
        for (node, gradient, shape) in gradients {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, tensor(gradient, &shape));
            }
        }
    }
}
