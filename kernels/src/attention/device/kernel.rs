//! The kernels: a cube owns neighbouring queries of a head, or neighbouring keys, and goes over what they see.
//!
//! The backward pass is one kernel for the queries' gradient and one for the keys' or the values', each of which
//! makes the weights again; every number is written by one unit, so results do not change from run to run.

use cubecl::prelude::*;

use super::tile::{Rows, Tiles, add_weighted, column, multiply, own_row, write};

/// Sizes that a model has once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Query heads for each key head.
    pub(super) group: usize,
    pub(super) query_dim: usize,
    pub(super) value_dim: usize,
}

/// Sizes that change from call to call.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Lengths {
    /// Queries of a row.
    pub(super) width: u32,
    /// Keys of a row.
    pub(super) keys: u32,
    /// Keys before the first query's own.
    pub(super) past: u32,
    /// Rows of first visible columns; row after row takes the next, and the first again.
    pub(super) distinct: u32,
}

/// A logit that weighs nothing.
pub(super) const NOTHING: f32 = -1e30;

/// The gradient that the kernel over keys makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Gradient {
    Key,
    Value,
}

/// The beginning of the first visible columns of `row`.
#[cube]
fn first_of(row: usize, lengths: &Lengths) -> usize {
    (row % lengths.distinct as usize) * lengths.width as usize
}

/// `count` tokens from `start` of `row` in a tensor `[rows, length, heads, dim]`.
#[cube]
fn tokens(row: usize, length: usize, start: usize, count: usize, head: usize, heads: usize, dim: usize) -> Rows {
    Rows { base: ((row * length + start) * heads + head) * dim, step: heads * dim, count }
}

/// The beginning of this cube's tile of `width` queries: the last see the most keys, so their cubes begin first.
#[cube]
fn from_the_end(width: usize, #[comptime] tiles: Tiles) -> usize {
    (width.div_ceil(tiles.own) - 1 - CUBE_POS_X as usize) * tiles.own
}

/// The smallest of `count` first visible columns from `start` on.
#[cube]
fn least(first: &[i32], start: usize, count: usize) -> usize {
    let mut least = first[start];
    for index in 1..count {
        least = least.min(first[start + index]);
    }
    least as usize
}

/// Attention of a tile of queries: the mix, and the logarithm of the softmax's denominator.
#[cube(launch)]
pub(super) fn forward<F: Float>(
    query: &[F],
    key: &[F],
    value: &[F],
    sinks: &[f32],
    first: &[i32],
    mixed: &mut [F],
    log_sums: &mut [f32],
    scale: f32,
    lengths: Lengths,
    #[comptime] heads: Heads,
    #[comptime] value_rows: usize,
    #[comptime] tiles: Tiles,
    #[define(F)] _dtype: ElemType,
) {
    let rows = comptime!(tiles.rows());
    let columns = comptime!(tiles.columns());
    let (width, keys, past) = (lengths.width as usize, lengths.keys as usize, lengths.past as usize);
    let start = from_the_end(width, tiles);
    let head = CUBE_POS_Y as usize;
    let row = CUBE_POS_Z as usize;
    let kv_head = head / heads.group;
    let count = (width - start).min(tiles.own);
    let own = tokens(row, width, start, count, head, heads.heads, heads.query_dim);
    let first_row = first_of(row, &lengths);

    let mut part = Shared::<[f32]>::new_slice(comptime!(tiles.part()));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(tiles.weights()));
    let mut scores = Array::<f32>::new(comptime!(rows * columns));
    let mut sums = Array::<f32>::new(comptime!(rows * tiles.sums(heads.value_dim)));
    let mut from = Array::<u32>::new(rows);
    let mut best = Array::<f32>::new(rows);
    let mut total = Array::<f32>::new(rows);
    #[unroll(tiles.unrolled)]
    for i in 0..rows {
        best[i] = NOTHING;
        total[i] = 0.0f32;
        from[i] = 0u32;
        if own_row(i, tiles) < count {
            from[i] = first[first_row + start + own_row(i, tiles)] as u32;
        }
    }
    #[unroll(tiles.unrolled)]
    for index in 0..comptime!(rows * tiles.sums(heads.value_dim)) {
        sums[index] = 0.0f32;
    }

    let end = past + start + count;
    let mut begin = least(first, first_row + start, count);
    while begin < end {
        let there = (keys - begin).min(tiles.other);
        let other = tokens(row, keys, begin, there, kv_head, heads.kv_heads, heads.query_dim);
        multiply::<F>(query, &own, key, &other, &mut scores, &mut part, heads.query_dim, tiles);
        #[unroll(tiles.unrolled)]
        for i in 0..rows {
            let mut largest = NOTHING.runtime();
            let last = past + start + own_row(i, tiles);
            #[unroll(tiles.unrolled)]
            for j in 0..columns {
                let place = begin + column(j, tiles);
                let seen = place >= from[i] as usize && place <= last;
                scores[i * columns + j] = select(seen, scores[i * columns + j] * scale, NOTHING);
                largest = max(largest, scores[i * columns + j]);
            }
            part[own_row(i, tiles) * tiles.units_x + UNIT_POS_X as usize] = largest;
        }
        sync_cube();
        #[unroll(tiles.unrolled)]
        for i in 0..rows {
            let mut new_best = best[i];
            for x in 0..tiles.units_x {
                new_best = max(new_best, part[own_row(i, tiles) * tiles.units_x + x]);
            }
            let kept = (best[i] - new_best).exp();
            best[i] = new_best;
            let mut sum = total[i] * kept;
            #[unroll(tiles.unrolled)]
            for j in 0..columns {
                let score = scores[i * columns + j];
                let weight = select(score > NOTHING, (score - new_best).exp(), 0.0f32);
                weights[own_row(i, tiles) * comptime!(tiles.other + 1) + column(j, tiles)] = weight;
                sum += weight;
            }
            total[i] = sum;
            #[unroll(tiles.unrolled)]
            for j in 0..comptime!(tiles.sums(heads.value_dim)) {
                sums[i * comptime!(tiles.sums(heads.value_dim)) + j] *= kept;
            }
        }
        sync_cube();
        let other = tokens(row, keys, begin, there, kv_head, heads.kv_heads, heads.value_dim);
        add_weighted::<F>(&weights, value, &other, &mut sums, &mut part, value_rows, heads.value_dim, tiles);
        begin += tiles.other;
    }

    #[unroll(tiles.unrolled)]
    for i in 0..rows {
        part[own_row(i, tiles) * tiles.units_x + UNIT_POS_X as usize] = total[i];
    }
    sync_cube();
    let sink = sinks[head];
    #[unroll(tiles.unrolled)]
    for i in 0..rows {
        let mut sum = 0.0f32;
        for x in 0..tiles.units_x {
            sum += part[own_row(i, tiles) * tiles.units_x + x];
        }
        let new_best = max(best[i], sink);
        let kept = (best[i] - new_best).exp();
        let denominator = sum * kept + (sink - new_best).exp();
        #[unroll(tiles.unrolled)]
        for j in 0..comptime!(tiles.sums(heads.value_dim)) {
            sums[i * comptime!(tiles.sums(heads.value_dim)) + j] *= kept / denominator;
        }
        if own_row(i, tiles) < count && UNIT_POS_X == 0 {
            log_sums[(row * width + start + own_row(i, tiles)) * heads.heads + head] = new_best + denominator.ln();
        }
    }
    let own = tokens(row, width, start, count, head, heads.heads, heads.value_dim);
    write::<F>(&sums, 1.0f32, mixed, &own, heads.value_dim, tiles);
    // Where cubes share memory one after the other, the next must not begin before all have read.
    sync_cube();
}

/// Of each query and head, the sum of the products of the mix with its gradient; one unit each.
#[cube(launch)]
pub(super) fn row_sums<F: Float>(
    mixed: &[F],
    gradient: &[F],
    out: &mut [f32],
    count: u32,
    #[comptime] dim: usize,
    #[define(F)] _dtype: ElemType,
) {
    let place = ABSOLUTE_POS;
    if place < count as usize {
        let mut sum = 0.0f32;
        for index in 0..dim {
            sum += f32::cast_from(mixed[place * dim + index]) * f32::cast_from(gradient[place * dim + index]);
        }
        out[place] = sum;
    }
}

/// The gradient of a tile of queries.
#[cube(launch)]
pub(super) fn to_query<F: Float>(
    query: &[F],
    key: &[F],
    value: &[F],
    gradient: &[F],
    log_sums: &[f32],
    row_sums: &[f32],
    first: &[i32],
    out: &mut [F],
    scale: f32,
    lengths: Lengths,
    #[comptime] heads: Heads,
    #[comptime] key_rows: usize,
    #[comptime] tiles: Tiles,
    #[define(F)] _dtype: ElemType,
) {
    let rows = comptime!(tiles.rows());
    let columns = comptime!(tiles.columns());
    let (width, keys, past) = (lengths.width as usize, lengths.keys as usize, lengths.past as usize);
    let start = from_the_end(width, tiles);
    let head = CUBE_POS_Y as usize;
    let row = CUBE_POS_Z as usize;
    let kv_head = head / heads.group;
    let count = (width - start).min(tiles.own);
    let own = tokens(row, width, start, count, head, heads.heads, heads.query_dim);
    let own_gradient = tokens(row, width, start, count, head, heads.heads, heads.value_dim);
    let first_row = first_of(row, &lengths);

    let mut part = Shared::<[f32]>::new_slice(comptime!(tiles.part()));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(tiles.weights()));
    let mut scores = Array::<f32>::new(comptime!(rows * columns));
    let mut to_weights = Array::<f32>::new(comptime!(rows * columns));
    let mut sums = Array::<f32>::new(comptime!(rows * tiles.sums(heads.query_dim)));
    let mut from = Array::<u32>::new(rows);
    let mut log_sum = Array::<f32>::new(rows);
    let mut row_sum = Array::<f32>::new(rows);
    #[unroll(tiles.unrolled)]
    for i in 0..rows {
        log_sum[i] = 0.0f32;
        row_sum[i] = 0.0f32;
        from[i] = 0u32;
        if own_row(i, tiles) < count {
            let query = start + own_row(i, tiles);
            from[i] = first[first_row + query] as u32;
            log_sum[i] = log_sums[(row * width + query) * heads.heads + head];
            row_sum[i] = row_sums[(row * width + query) * heads.heads + head];
        }
    }
    #[unroll(tiles.unrolled)]
    for index in 0..comptime!(rows * tiles.sums(heads.query_dim)) {
        sums[index] = 0.0f32;
    }

    let end = past + start + count;
    let mut begin = least(first, first_row + start, count);
    while begin < end {
        let there = (keys - begin).min(tiles.other);
        let other = tokens(row, keys, begin, there, kv_head, heads.kv_heads, heads.query_dim);
        let other_value = tokens(row, keys, begin, there, kv_head, heads.kv_heads, heads.value_dim);
        multiply::<F>(query, &own, key, &other, &mut scores, &mut part, heads.query_dim, tiles);
        multiply::<F>(gradient, &own_gradient, value, &other_value, &mut to_weights, &mut part, heads.value_dim, tiles);
        #[unroll(tiles.unrolled)]
        for i in 0..rows {
            let last = past + start + own_row(i, tiles);
            #[unroll(tiles.unrolled)]
            for j in 0..columns {
                let place = begin + column(j, tiles);
                let seen = place >= from[i] as usize && place <= last && own_row(i, tiles) < count;
                let weight = (scores[i * columns + j] * scale - log_sum[i]).exp();
                let to_score = weight * (to_weights[i * columns + j] - row_sum[i]);
                weights[own_row(i, tiles) * comptime!(tiles.other + 1) + column(j, tiles)] =
                    select(seen, to_score, 0.0f32);
            }
        }
        add_weighted::<F>(&weights, key, &other, &mut sums, &mut part, key_rows, heads.query_dim, tiles);
        begin += tiles.other;
    }
    write::<F>(&sums, scale, out, &own, heads.query_dim, tiles);
    sync_cube();
}

/// The gradient of a tile of keys or of values.
#[cube(launch)]
pub(super) fn to_keys<F: Float>(
    query: &[F],
    key: &[F],
    value: &[F],
    gradient: &[F],
    log_sums: &[f32],
    row_sums: &[f32],
    first: &[i32],
    out: &mut [F],
    scale: f32,
    lengths: Lengths,
    #[comptime] which: Gradient,
    #[comptime] heads: Heads,
    #[comptime] other_rows: usize,
    #[comptime] tiles: Tiles,
    #[define(F)] _dtype: ElemType,
) {
    let rows = comptime!(tiles.rows());
    let columns = comptime!(tiles.columns());
    let of_key = comptime!(which == Gradient::Key);
    let dim = comptime!(if which == Gradient::Key { heads.query_dim } else { heads.value_dim });
    let (width, keys, past) = (lengths.width as usize, lengths.keys as usize, lengths.past as usize);
    // The first keys are seen by the most queries.
    let start = CUBE_POS_X as usize * tiles.own;
    let kv_head = CUBE_POS_Y as usize;
    let row = CUBE_POS_Z as usize;
    let count = (keys - start).min(tiles.own);
    let own = tokens(row, keys, start, count, kv_head, heads.kv_heads, heads.query_dim);
    let own_value = tokens(row, keys, start, count, kv_head, heads.kv_heads, heads.value_dim);
    let first_row = first_of(row, &lengths);

    let mut part = Shared::<[f32]>::new_slice(comptime!(tiles.part()));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(tiles.weights()));
    let mut scores = Array::<f32>::new(comptime!(rows * columns));
    let mut to_weights = Array::<f32>::new(comptime!(if of_key { rows * columns } else { 1 }));
    let mut sums = Array::<f32>::new(comptime!(rows * tiles.sums(dim)));
    #[unroll(tiles.unrolled)]
    for index in 0..comptime!(rows * tiles.sums(dim)) {
        sums[index] = 0.0f32;
    }

    for member in 0..heads.group {
        let head = kv_head * heads.group + member;
        // Queries before the first key of the tile see none of it.
        let mut begin = 0usize;
        if start > past {
            begin = start - past;
        }
        begin = next_seeing(first, first_row, begin, start + count, width, tiles);
        while begin < width {
            let there = (width - begin).min(tiles.other);
            let other = tokens(row, width, begin, there, head, heads.heads, heads.query_dim);
            let other_gradient = tokens(row, width, begin, there, head, heads.heads, heads.value_dim);
            multiply::<F>(key, &own, query, &other, &mut scores, &mut part, heads.query_dim, tiles);
            if of_key {
                multiply::<F>(
                    value,
                    &own_value,
                    gradient,
                    &other_gradient,
                    &mut to_weights,
                    &mut part,
                    heads.value_dim,
                    tiles,
                );
            }
            #[unroll(tiles.unrolled)]
            for j in 0..columns {
                let query = begin + column(j, tiles);
                let there = query < width;
                let mut from = 0usize;
                let mut log_sum = 0.0f32;
                let mut row_sum = 0.0f32;
                if there {
                    from = first[first_row + query] as usize;
                    log_sum = log_sums[(row * width + query) * heads.heads + head];
                    if of_key {
                        row_sum = row_sums[(row * width + query) * heads.heads + head];
                    }
                }
                #[unroll(tiles.unrolled)]
                for i in 0..rows {
                    let place = start + own_row(i, tiles);
                    let seen = there && place >= from && place <= past + query;
                    let mut weight = (scores[i * columns + j] * scale - log_sum).exp();
                    if of_key {
                        weight *= to_weights[i * columns + j] - row_sum;
                    }
                    weights[own_row(i, tiles) * comptime!(tiles.other + 1) + column(j, tiles)] =
                        select(seen, weight, 0.0f32);
                }
            }
            if of_key {
                add_weighted::<F>(&weights, query, &other, &mut sums, &mut part, other_rows, dim, tiles);
            } else {
                add_weighted::<F>(&weights, gradient, &other_gradient, &mut sums, &mut part, other_rows, dim, tiles);
            }
            begin = next_seeing(first, first_row, begin + tiles.other, start + count, width, tiles);
        }
    }
    if of_key {
        write::<F>(&sums, scale, out, &own, dim, tiles);
    } else {
        write::<F>(&sums, 1.0f32, out, &own_value, dim, tiles);
    }
    sync_cube();
}

/// The beginning of the next tile of queries, at `begin` or whole tiles after it, of which one sees a key before `end`.
#[cube]
fn next_seeing(
    first: &[i32],
    first_row: usize,
    begin: usize,
    end: usize,
    width: usize,
    #[comptime] tiles: Tiles,
) -> usize {
    let mut begin = begin;
    let mut hidden = true;
    while hidden && begin < width {
        hidden = least(first, first_row + begin, (width - begin).min(tiles.other)) >= end;
        if hidden {
            begin += tiles.other;
        }
    }
    begin
}
