//! Kernels over stored rows of scores, `[rows * kv_heads, queries * group, keys]`: the softmax, for which they are read
//! twice, and its gradient, for which they are read once.

use cubecl::prelude::*;

use super::kernel::{Heads, NOTHING};

/// The queries and keys of a block of scores.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Block {
    /// The first query.
    query_start: u32,
    /// Queries.
    queries: u32,
    /// The first key.
    key_start: u32,
    /// Keys.
    keys: u32,
    /// Queries of a row in all.
    width: u32,
    /// Keys before the first query's own.
    past: u32,
    /// Rows of first visible columns.
    distinct: u32,
}

/// A row of scores.
#[derive(CubeType, Clone, Copy)]
struct Row {
    /// True if it is there.
    exists: bool,
    /// Its first score.
    base: usize,
    /// Place of its query and head in `[rows * width, heads]`.
    place: usize,
    head: usize,
    /// The first visible key, counted from the block's.
    from: usize,
    /// After the last visible key, counted from the block's.
    to: usize,
}

/// The row of this unit.
#[cube]
fn row(first: &[i32], block: &Block, #[comptime] heads: Heads) -> Row {
    let index = (CUBE_POS_X * CUBE_DIM_Y + UNIT_POS_Y) as usize;
    let matrix = CUBE_POS_Y as usize;
    let in_block = index / heads.group;
    let exists = in_block < block.queries as usize;
    let query = block.query_start as usize + in_block;
    let token_row = matrix / heads.kv_heads;
    let head = (matrix % heads.kv_heads) * heads.group + index % heads.group;
    let mut from = 0usize;
    let mut to = 0usize;
    if exists {
        let place = (token_row % block.distinct as usize) * block.width as usize + query;
        from = first[place] as usize - block.key_start as usize;
        to = block.past as usize + query + 1 - block.key_start as usize;
    }
    let base = (matrix * block.queries as usize * heads.group + index) * block.keys as usize;
    Row { exists, base, place: (token_row * block.width as usize + query) * heads.heads + head, head, from, to }
}

/// The largest value, or the sum of the values, of the units of a row.
#[cube]
fn combine(value: f32, shared: &mut Shared<[f32]>, #[comptime] largest: bool) -> f32 {
    let start = UNIT_POS_Y as usize * CUBE_DIM_X as usize;
    let unit = UNIT_POS_X as usize;
    shared[start + unit] = value;
    sync_cube();
    let mut half = CUBE_DIM_X as usize / 2;
    while half > 0 {
        if unit < half {
            let (a, b) = (shared[start + unit], shared[start + unit + half]);
            if largest {
                shared[start + unit] = max(a, b);
            } else {
                shared[start + unit] = a + b;
            }
        }
        sync_cube();
        half /= 2;
    }
    let found = shared[start];
    sync_cube();
    found
}

/// The softmax of scores with a sink, and the logarithm of its denominator.
#[cube(launch)]
pub(super) fn weigh<F: Float>(
    scores: &[f32],
    sinks: &[f32],
    first: &[i32],
    weights: &mut [F],
    log_sums: &mut [f32],
    scale: f32,
    block: Block,
    #[comptime] heads: Heads,
    #[comptime] units: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = row(first, &block, heads);
    let unit = UNIT_POS_X as usize;
    let step = CUBE_DIM_X as usize;
    let mut shared = Shared::<[f32]>::new_slice(units);
    // What this unit has seen: its largest score, and the sum of exponentials below it.
    let mut best = NOTHING.runtime();
    let mut sum = 0.0f32;
    let mut column = row.from + unit;
    while column < row.to {
        let score = scores[row.base + column] * scale;
        if score > best {
            sum *= (best - score).exp();
            best = score;
        }
        sum += (score - best).exp();
        column += step;
    }
    let sink = sinks[row.head];
    let largest = max(combine(best, &mut shared, true), sink);
    let sum = combine(sum * (best - largest).exp(), &mut shared, false);
    let log_sum = largest + (sum + (sink - largest).exp()).ln();
    if row.exists {
        if unit == 0 {
            log_sums[row.place] = log_sum;
        }
        let mut column = unit;
        while column < block.keys as usize {
            let mut weight = 0.0f32;
            if column >= row.from && column < row.to {
                weight = (scores[row.base + column] * scale - log_sum).exp();
            }
            weights[row.base + column] = F::cast_from(weight);
            column += step;
        }
    }
}

/// The softmax again, and the gradient of the scores before `scale` from that of the weights.
#[cube(launch)]
pub(super) fn weigh_back<F: Float>(
    scores: &[f32],
    to_weights: &[f32],
    log_sums: &[f32],
    row_sums: &[f32],
    first: &[i32],
    weights: &mut [F],
    to_scores: &mut [F],
    scale: f32,
    block: Block,
    #[comptime] heads: Heads,
    #[define(F)] _dtype: ElemType,
) {
    let row = row(first, &block, heads);
    if row.exists {
        let (log_sum, row_sum) = (log_sums[row.place], row_sums[row.place]);
        let mut column = UNIT_POS_X as usize;
        while column < block.keys as usize {
            let mut weight = 0.0f32;
            let mut to_score = 0.0f32;
            if column >= row.from && column < row.to {
                weight = (scores[row.base + column] * scale - log_sum).exp();
                to_score = scale * weight * (to_weights[row.base + column] - row_sum);
            }
            weights[row.base + column] = F::cast_from(weight);
            to_scores[row.base + column] = F::cast_from(to_score);
            column += CUBE_DIM_X as usize;
        }
    }
}

/// Neighbouring rows of each matrix of a tensor.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct RowSlice {
    /// Their numbers, of all matrices.
    count: u32,
    /// Their numbers in a matrix.
    some: u32,
    /// Numbers of a matrix.
    all: u32,
    /// The first of theirs.
    start: u32,
}

/// Adds number `place` of `source` to its place in the rows `part` of `target`.
#[cube]
fn add_to(source: &[f32], target: &mut [f32], part: &RowSlice, place: usize) {
    let matrix = place / part.some as usize;
    target[matrix * part.all as usize + part.start as usize + place % part.some as usize] += source[place];
}

/// Adds keys' and values' gradients to rows of those of all blocks.
#[cube(launch)]
pub(super) fn add(
    keys: &[f32],
    to_keys: &mut [f32],
    of_keys: RowSlice,
    values: &[f32],
    to_values: &mut [f32],
    of_values: RowSlice,
) {
    let place = ABSOLUTE_POS;
    let before = of_keys.count as usize;
    if place < before {
        add_to(keys, to_keys, &of_keys, place);
    } else if place - before < of_values.count as usize {
        add_to(values, to_values, &of_values, place - before);
    }
}
