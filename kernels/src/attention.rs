//! Attention without stored scores: a softmax over tiles of keys that keeps two numbers of each row (Dao et al.
//! 2022, arXiv:2205.14135; Rabe and Staats 2021, arXiv:2112.05682), and a backward pass that makes each tile of
//! scores again. Memory grows with the number of tokens, not with its square.
//!
//! Query heads that share a key head read the same keys and values, which are never repeated.

#[cfg(feature = "cube")]
mod device;
mod differentiable;
mod host;
#[cfg(test)]
mod tests;

use std::sync::Arc;

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

/// The keys that each query sees: all from a first one up to its own.
#[derive(Debug, Clone)]
pub struct Visible {
    /// The column of the first visible key for each query, `[distinct rows * width]`.
    first: Arc<[i32]>,
    /// The same on the device.
    on_device: Tensor<1, Int>,
    /// Queries of a row.
    width: usize,
    /// Keys that come before the first query's own.
    past: usize,
}

impl Visible {
    /// From the column of each query's first visible key, `first: [distinct rows, width]`; rows take one after the
    /// other and then the first again. `past` keys come before the first query's own.
    pub fn new(first: Vec<i32>, width: usize, past: usize, device: &Device) -> Self {
        let on_device = Tensor::from_data(TensorData::new(first.clone(), [first.len()]), (device, DType::I32));
        Self { first: first.into(), on_device, width, past }
    }
}

/// The methods of a GPU; the results are the same but for the order of sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionMethod {
    /// One kernel with tiles of scores in its units' registers and in shared memory.
    Tiles,
    /// The device's own matrix products, some queries at a time.
    Blocks {
        /// Bytes that the scores of these queries may take in f32.
        scores_bytes: usize,
    },
}

/// Bytes that the scores of a block may take in f32 where a GPU takes [`AttentionMethod::Blocks`], for so many queries of all rows:
/// memory grows with the number of tokens, and the number of blocks with that of keys. The backward pass holds three times
/// as many for a moment, four times in f32.
pub fn block_scores_bytes(queries: usize) -> usize {
    const LEAST: usize = 64 << 20;
    const EACH: usize = 32 << 10;
    (queries * EACH).max(LEAST)
}

/// Softmax attention of `query: [rows, width, heads, d]` on `key: [rows, keys, kv_heads, d]` and
/// `value: [rows, keys, kv_heads, e]`, all three in one dtype, `[rows * width, heads * e]`; `sinks: [heads]` are logits
/// that take part in the softmax and have no value. `scale` is a factor on the scores. Scores, softmax and sums in f32.
pub fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    sinks: Option<Tensor<1>>,
    scale: f32,
    visible: &Visible,
) -> Tensor<2> {
    attention_by(None, query, key, value, sinks, scale, visible)
}

/// As [`attention`], on a GPU in a certain way, or in the one that suits it.
pub fn attention_by(
    way: Option<AttentionMethod>,
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    sinks: Option<Tensor<1>>,
    scale: f32,
    visible: &Visible,
) -> Tensor<2> {
    let sinks = match sinks {
        Some(sinks) if sinks.dtype() == DType::F32 => sinks,
        Some(sinks) => sinks.cast(FloatDType::F32),
        // A sink of minus infinity, nearly, weighs nothing.
        None => Tensor::full([query.dims()[2]], host::NOTHING, (&query.device().inner(), DType::F32)),
    };
    let Visible { first, on_device, past, .. } = visible.clone();
    debug_assert_eq!(visible.width, query.dims()[1], "queries are those that the mask was made for");
    let form = Form { scale, past, first, way };
    let (mixed, _) = Dispatch::attend(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        sinks.into_dispatch(),
        on_device.into_dispatch(),
        form,
    );
    Tensor::from_dispatch(mixed)
}

/// Numbers of one attention.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    scale: f32,
    past: usize,
    first: Arc<[i32]>,
    #[cfg_attr(not(feature = "cube"), expect(dead_code, reason = "the CPU has one way"))]
    way: Option<AttentionMethod>,
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
    fn of<T: TensorMetadata>(query: &T, key: &T, value: &T) -> Self {
        let [rows, width, heads, query_dim] = query.shape().dims();
        let [_, keys, kv_heads, value_dim] = value.shape().dims();
        debug_assert_eq!(key.shape().dims(), [rows, keys, kv_heads, query_dim]);
        Self { rows, width, keys, heads, kv_heads, group: heads / kv_heads, query_dim, value_dim }
    }
}

/// Gradients of queries, keys and values in their shapes, and of each query and head the sum of the products of the
/// mix with its gradient, `[rows * width, heads]`, f32.
pub(crate) type Gradients<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// Backends with [`attention`] as one operation.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff, Fusion: cfg(feature = "cube"))]
pub(crate) trait AttentionBackend: Backend {
    /// The mix, `[rows * width, heads * value_dim]`, and the logarithms of the softmax's denominators,
    /// `[rows * width, heads]`, f32.
    #[fusion(meta = forward_results)]
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        first: IntTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// [`Gradients`] where the mix's is `gradient`; `mixed` and `log_sums` are what [`AttentionBackend::attend`] found.
    #[fusion(meta = backward_results)]
    #[allow(clippy::too_many_arguments, reason = "the macro takes tensors one by one")]
    fn attend_back(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mixed: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: IntTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

#[cfg(feature = "cube")]
fn forward_results(
    query: &TensorSpec,
    _key: &TensorSpec,
    value: &TensorSpec,
    _sinks: &TensorSpec,
    _first: &TensorSpec,
    _form: &Form,
) -> (TensorSpec, TensorSpec) {
    let [rows, width, heads, _] = query.shape.dims();
    let [_, _, _, value_dim] = value.shape.dims();
    let mixed = TensorSpec::new([rows * width, heads * value_dim].into(), query.dtype);
    (mixed, TensorSpec::new([rows * width, heads].into(), DType::F32))
}

#[cfg(feature = "cube")]
#[expect(clippy::too_many_arguments, reason = "one for each argument of the operation")]
fn backward_results(
    query: &TensorSpec,
    key: &TensorSpec,
    value: &TensorSpec,
    _mixed: &TensorSpec,
    log_sums: &TensorSpec,
    _gradient: &TensorSpec,
    _first: &TensorSpec,
    _form: &Form,
) -> (TensorSpec, TensorSpec, TensorSpec, TensorSpec) {
    (query.clone(), key.clone(), value.clone(), log_sums.clone())
}
