//! Attention on the CPU: loops over host memory and products of tiles, in f32.

mod backward;
mod forward;

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType};

pub(super) use self::forward::NOTHING;
use super::{AttentionBackend, Form, Gradients, Sizes};
use crate::host::{contiguous, tensor, values};

impl Sizes {
    /// Queries of a tile: with their group stacked, enough rows for an efficient product. In long rows twice as many, since
    /// each product prepares both of its operands; in short ones that would be lost on pairs that do not see each other.
    fn tile_queries(&self) -> usize {
        (self.longer(192) / self.group).clamp(16, self.longer(96))
    }

    /// Keys of a tile.
    fn tile_keys(&self) -> usize {
        self.longer(128)
    }

    fn longer(&self, size: usize) -> usize {
        if self.keys >= 1024 { 2 * size } else { size }
    }
}

/// Contiguous inputs in f32.
struct Inputs {
    query: FloatTensor<Flex>,
    key: FloatTensor<Flex>,
    value: FloatTensor<Flex>,
    sizes: Sizes,
    form: Form,
}

impl Inputs {
    fn of([query, key, value]: [FloatTensor<Flex>; 3], form: Form) -> Self {
        let sizes = Sizes::of(&query, &key, &value);
        let [query, key, value] = [query, key, value].map(in_f32);
        Self { query, key, value, sizes, form }
    }

    /// The keys that query `query` of row `row` sees.
    fn seen(&self, row: usize, query: usize) -> std::ops::Range<usize> {
        let place = (row * self.sizes.width + query) % self.form.first.len();
        self.form.first[place] as usize..self.form.past + query + 1
    }
}

/// `x` contiguous and in f32.
fn in_f32(x: FloatTensor<Flex>) -> FloatTensor<Flex> {
    contiguous(if x.dtype() == DType::F32 { x } else { Flex::float_cast(x, FloatDType::F32) })
}

/// `values` in `shape` as numbers of type `dtype`.
fn in_dtype(values: Vec<f32>, shape: &[usize], dtype: DType) -> FloatTensor<Flex> {
    let found = tensor(values, shape);
    if dtype == DType::F32 { found } else { Flex::float_cast(found, FloatDType::from(dtype)) }
}

impl AttentionBackend for Flex {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        _first: IntTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let dtype = query.dtype();
        let inputs = Inputs::of([query, key, value], form);
        let (mixed, log_sums) = forward::run(&inputs, values(&contiguous(sinks)));
        let Sizes { rows, width, heads, value_dim, .. } = inputs.sizes;
        (in_dtype(mixed, &[rows * width, heads * value_dim], dtype), tensor(log_sums, &[rows * width, heads]))
    }

    fn attend_back(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mixed: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        _first: IntTensor<Self>,
        form: Form,
    ) -> Gradients<Self> {
        let dtype = query.dtype();
        let inputs = Inputs::of([query, key, value], form);
        let [mixed, gradient, log_sums] = [mixed, gradient, log_sums].map(in_f32);
        let given = backward::BackwardInputs {
            mixed: values(&mixed),
            log_sums: values(&log_sums),
            gradient: values(&gradient),
        };
        let found = backward::run(&inputs, &given);
        let Sizes { rows, width, keys, heads, kv_heads, query_dim, value_dim, .. } = inputs.sizes;
        (
            in_dtype(found.query, &[rows, width, heads, query_dim], dtype),
            in_dtype(found.key, &[rows, keys, kv_heads, query_dim], dtype),
            in_dtype(found.value, &[rows, keys, kv_heads, value_dim], dtype),
            tensor(found.row_sums, &[rows * width, heads]),
        )
    }
}
