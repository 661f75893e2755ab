//! Attention through the device's own matrix products, for devices with matrix units: some queries at a time against
//! all keys that one of them sees. The scores of a block exist for a moment; how many queries make a block follows
//! from the bytes that they may take, so that memory grows with the number of keys alone.
//!
//! Query heads that share a key head lie one after the other for each query, so that one product serves them all.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, FloatDType, Shape, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{CubeCount, CubeDim, calculate_cube_count_elemwise};

use super::row::{self, BlockLaunch, RowSliceLaunch};
use crate::attention::{Form, Sizes};
use crate::cube::{empty, gapless};

/// Blocks of queries and ranges of keys begin at a multiple of this, as products with matrix units like it.
const ALIGNED: usize = 64;

/// Units of a cube for rows of scores: for a row, and rows.
const UNITS: [usize; 2] = [32, 4];

/// Neighbouring queries of all rows, and the keys that one of them sees.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

/// All blocks, the last first: it needs the most memory, which the others then use again.
fn blocks(sizes: Sizes, form: &Form, scores_bytes: usize) -> Vec<Block> {
    let Sizes { rows, width, keys, heads, .. } = sizes;
    let fit = scores_bytes / (4 * rows * heads * keys).max(1);
    let count = if fit > ALIGNED { fit / ALIGNED * ALIGNED } else { fit.max(1) };
    let block = |start: usize| {
        let queries = start..(start + count).min(width);
        let first = form.first.chunks(width).flat_map(|row| &row[queries.clone()]).min().copied().unwrap_or(0);
        let end = form.past + queries.end;
        Block { queries, keys: first as usize / ALIGNED * ALIGNED..end }
    };
    (0..width).step_by(count).rev().map(block).collect()
}

/// `[rows, tokens, kv_heads * group, dim]` as `[rows * kv_heads, tokens * group, dim]`.
fn by_head(tensor: CubeTensor, sizes: Sizes) -> CubeTensor {
    let [rows, tokens, heads, dim] = tensor.shape().dims();
    let (kv_heads, group) = (sizes.kv_heads, heads / sizes.kv_heads);
    let split = CubeBackend::float_reshape(tensor, Shape::new([rows, tokens, kv_heads, group, dim]));
    let ordered = gapless(CubeBackend::float_permute(split, &[0, 2, 1, 3, 4]));
    CubeBackend::float_reshape(ordered, Shape::new([rows * kv_heads, tokens * group, dim]))
}

/// The other way.
fn by_token(tensor: CubeTensor, sizes: Sizes, heads: usize) -> CubeTensor {
    let [_, stacked, dim] = tensor.shape().dims();
    let Sizes { rows, kv_heads, .. } = sizes;
    let group = heads / kv_heads;
    let tokens = stacked / group;
    let split = CubeBackend::float_reshape(tensor, Shape::new([rows, kv_heads, tokens, group, dim]));
    let ordered = gapless(CubeBackend::float_permute(split, &[0, 2, 1, 3, 4]));
    CubeBackend::float_reshape(ordered, Shape::new([rows, tokens, heads, dim]))
}

/// Rows `range` of each matrix of `tensor: [matrices, rows, columns]`.
fn part(tensor: &CubeTensor, range: Range<usize>) -> CubeTensor {
    let [matrices, _, columns] = tensor.shape().dims::<3>();
    let ranges = [0..matrices, range, 0..columns].map(Slice::from);
    CubeBackend::float_slice(tensor.clone(), &ranges)
}

/// Writes `rows` to the place of `range` in each matrix of `target`.
fn put(target: CubeTensor, range: Range<usize>, rows: CubeTensor) -> CubeTensor {
    let [matrices, _, columns] = target.shape().dims::<3>();
    let ranges = [0..matrices, range, 0..columns].map(Slice::from);
    CubeBackend::float_slice_assign(target, &ranges, rows)
}

/// Products of matrices, summed in f32, as numbers of type `dtype`, without gaps.
fn product(left: CubeTensor, right: CubeTensor, dtype: DType) -> CubeTensor {
    let ([matrices, rows, _], [_, _, columns]) = (left.shape().dims::<3>(), right.shape().dims::<3>());
    let out = empty(&left, [matrices, rows, columns], dtype);
    matmul(left, right, Some(out), MatmulStrategy::default(), dtype).expect("one of burn's products takes any matrices")
}

fn transposed(tensor: CubeTensor) -> CubeTensor {
    CubeBackend::float_swap_dims(tensor, 1, 2)
}

/// The launch of a kernel over rows of scores.
struct RowLaunch {
    cubes: CubeCount,
    cube_dim: CubeDim,
    units: usize,
    heads: super::kernel::Heads,
}

impl RowLaunch {
    /// A row of units for each row of `scores: [matrices, rows, keys]`.
    fn of(scores: &CubeTensor, sizes: Sizes) -> Self {
        let [matrices, rows, _] = scores.shape().dims::<3>();
        let fits = scores.client.properties().hardware.max_units_per_cube as usize >= UNITS[0] * UNITS[1];
        let [units, side] = if fits { UNITS } else { [1, 1] };
        Self {
            cubes: CubeCount::Static(rows.div_ceil(side) as u32, matrices as u32, 1),
            cube_dim: CubeDim::new_2d(units as u32, side as u32),
            units: units * side,
            heads: sizes.heads(),
        }
    }
}

impl Block {
    fn stacked(&self, sizes: Sizes) -> Range<usize> {
        self.queries.start * sizes.group..self.queries.end * sizes.group
    }

    fn launch(&self, sizes: Sizes, form: &Form) -> BlockLaunch {
        BlockLaunch::new(
            self.queries.start as u32,
            self.queries.len() as u32,
            self.keys.start as u32,
            self.keys.len() as u32,
            sizes.width as u32,
            form.past as u32,
            (form.first.len() / sizes.width) as u32,
        )
    }
}

/// The mix and the logarithms of the denominators, as [`super::AttentionBackend::attend`].
pub(super) fn forward(
    [query, key, value]: [CubeTensor; 3],
    sinks: &CubeTensor,
    first: &CubeTensor,
    form: &Form,
    sizes: Sizes,
    scores_bytes: usize,
) -> (CubeTensor, CubeTensor) {
    let Sizes { rows, width, heads, kv_heads, group, value_dim, .. } = sizes;
    let (client, dtype) = (query.client.clone(), query.dtype);
    let log_sums = empty(&query, [rows * width, heads], DType::F32);
    let mut mixed = empty(&query, [rows * kv_heads, width * group, value_dim], dtype);
    let [query, key, value] = [query, key, value].map(|tensor| by_head(tensor, sizes));
    for block in blocks(sizes, form, scores_bytes) {
        let block_key = transposed(part(&key, block.keys.clone()));
        let scores = product(part(&query, block.stacked(sizes)), block_key, DType::F32);
        let weights = empty(&scores, scores.shape().dims::<3>(), dtype);
        let launch = RowLaunch::of(&scores, sizes);
        row::weigh::launch(
            &client,
            launch.cubes,
            launch.cube_dim,
            scores.into_buffer_arg(),
            sinks.clone().into_buffer_arg(),
            first.clone().into_buffer_arg(),
            weights.clone().into_buffer_arg(),
            log_sums.clone().into_buffer_arg(),
            form.scale,
            block.launch(sizes, form),
            launch.heads,
            launch.units,
            dtype_to_elem_type(dtype),
        );
        let block_value = part(&value, block.keys.clone());
        mixed = put(mixed, block.stacked(sizes), product(weights, block_value, dtype));
    }
    let mixed = by_token(mixed, sizes, heads);
    (CubeBackend::float_reshape(mixed, Shape::new([rows * width, heads * value_dim])), log_sums)
}

/// The inputs of the backward pass, without gaps.
pub(super) struct BackwardInputs {
    pub(super) query: CubeTensor,
    pub(super) key: CubeTensor,
    pub(super) value: CubeTensor,
    pub(super) gradient: CubeTensor,
    pub(super) log_sums: CubeTensor,
    pub(super) row_sums: CubeTensor,
    pub(super) first: CubeTensor,
}

/// The gradients of queries, keys and values.
pub(super) fn backward(given: BackwardInputs, form: &Form, sizes: Sizes, scores_bytes: usize) -> [CubeTensor; 3] {
    let Sizes { rows, width, keys, heads, kv_heads, group, query_dim, value_dim } = sizes;
    let BackwardInputs { query, key, value, gradient, log_sums, row_sums, first } = given;
    let (client, dtype) = (query.client.clone(), query.dtype);
    let gradient = CubeBackend::float_reshape(gradient, Shape::new([rows, width, heads, value_dim]));
    let [query, key, value, gradient] = [query, key, value, gradient].map(|tensor| by_head(tensor, sizes));
    let zeros =
        |dim: usize| CubeBackend::float_zeros(Shape::new([rows * kv_heads, keys, dim]), &key.device, FloatDType::F32);
    let (to_key, to_value) = (zeros(query_dim), zeros(value_dim));
    let mut to_query = empty(&query, [rows * kv_heads, width * group, query_dim], dtype);
    for block in blocks(sizes, form, scores_bytes) {
        let [block_query, block_gradient] = [&query, &gradient].map(|tensor| part(tensor, block.stacked(sizes)));
        let [block_key, block_value] = [&key, &value].map(|tensor| part(tensor, block.keys.clone()));
        let scores = product(block_query.clone(), transposed(block_key.clone()), DType::F32);
        let to_weights = product(block_gradient.clone(), transposed(block_value), DType::F32);
        let shape = scores.shape().dims::<3>();
        let (weights, to_scores) = (empty(&scores, shape, dtype), empty(&scores, shape, dtype));
        let launch = RowLaunch::of(&scores, sizes);
        row::weigh_back::launch(
            &client,
            launch.cubes,
            launch.cube_dim,
            scores.into_buffer_arg(),
            to_weights.into_buffer_arg(),
            log_sums.clone().into_buffer_arg(),
            row_sums.clone().into_buffer_arg(),
            first.clone().into_buffer_arg(),
            weights.clone().into_buffer_arg(),
            to_scores.clone().into_buffer_arg(),
            form.scale,
            block.launch(sizes, form),
            launch.heads,
            dtype_to_elem_type(dtype),
        );
        to_query = put(to_query, block.stacked(sizes), product(to_scores.clone(), block_key, dtype));
        let block_values = product(transposed(weights), block_gradient, DType::F32);
        let block_keys = product(transposed(to_scores), block_query, DType::F32);
        add([block_keys, block_values], [&to_key, &to_value], block.keys.start);
    }
    let [to_key, to_value] = [to_key, to_value].map(|gradient| {
        let gradient = if dtype == DType::F32 { gradient } else { CubeBackend::float_cast(gradient, dtype.into()) };
        by_token(gradient, sizes, kv_heads)
    });
    [by_token(to_query, sizes, heads), to_key, to_value]
}

/// Adds rows of keys' and of values' gradients, `[matrices, some, columns]`, in place to those of `targets`, `[matrices, all,
/// columns]`, from row `start` on.
fn add(rows: [CubeTensor; 2], targets: [&CubeTensor; 2], start: usize) {
    let [keys, values] = rows;
    let [to_keys, to_values] = targets;
    let part = |rows: &CubeTensor, target: &CubeTensor| {
        let ([_, all, columns], [_, some, _]) = (target.shape().dims::<3>(), rows.shape().dims::<3>());
        let count = rows.shape().num_elements();
        RowSliceLaunch::new(count as u32, (some * columns) as u32, (all * columns) as u32, (start * columns) as u32)
    };
    let (of_keys, of_values) = (part(&keys, to_keys), part(&values, to_values));
    let client = to_keys.client.clone();
    let count = keys.shape().num_elements() + values.shape().num_elements();
    let cube_dim = CubeDim::new(&client, count);
    row::add::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        keys.into_buffer_arg(),
        to_keys.clone().into_buffer_arg(),
        of_keys,
        values.into_buffer_arg(),
        to_values.clone().into_buffer_arg(),
        of_values,
    );
}
