//! The forward pass: one tile of queries at a time, over its visible keys tile by tile.

use rayon::prelude::*;

use super::{Inputs, Sizes};
use crate::exponential::exp;
use crate::host::values;
use crate::product::{Accumulate, Matrix, MatrixMut, product};
use crate::threads::for_each;
use crate::vector::{exp_and_sum, largest, scale, vectorised};

/// A logit that weighs nothing.
pub(in crate::attention) const NOTHING: f32 = -1e30;

/// The mix, `[rows * width, heads * value_dim]`, and the logarithms of the denominators, `[rows * width, heads]`.
pub(super) fn run(inputs: &Inputs, sinks: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let sizes = inputs.sizes;
    let mut mixed = vec![0.0; sizes.rows * sizes.width * sizes.heads * sizes.value_dim];
    let mut log_sums = vec![0.0; sizes.rows * sizes.width * sizes.heads];
    let row_mixed = mixed.par_chunks_mut((sizes.width * sizes.heads * sizes.value_dim).max(1));
    let row_log_sums = log_sums.par_chunks_mut((sizes.width * sizes.heads).max(1));
    let tile = sizes.tile_queries();
    let tiles = row_mixed.zip(row_log_sums).enumerate().flat_map_iter(|(row, (mixed, log_sums))| {
        let mixed = mixed.chunks_mut(tile * sizes.heads * sizes.value_dim);
        let log_sums = log_sums.chunks_mut(tile * sizes.heads);
        mixed.zip(log_sums).enumerate().map(move |(index, (mixed, log_sums))| (row, index * tile, mixed, log_sums))
    });
    let tiles: Vec<_> = tiles.collect();
    for_each(tiles.into_par_iter(), |(row, first, mixed, log_sums)| {
        let tile = Tile { row, queries: first..(first + tile).min(sizes.width) };
        tile.run(inputs, sinks, mixed, log_sums);
    });
    (mixed, log_sums)
}

/// Neighbouring queries of one row.
pub(super) struct Tile {
    pub(super) row: usize,
    pub(super) queries: std::ops::Range<usize>,
}

impl Tile {
    fn run(&self, inputs: &Inputs, sinks: &[f32], mixed: &mut [f32], log_sums: &mut [f32]) {
        let sizes = &inputs.sizes;
        let Sizes { heads, kv_heads, group, query_dim, value_dim, .. } = *sizes;
        let rows = group * self.queries.len();
        let mut query = vec![0.0; rows * query_dim];
        let mut scores = vec![0.0; rows * sizes.tile_keys()];
        let mut sum = vec![0.0; rows * value_dim];
        let (mut best, mut total) = (vec![0.0; rows], vec![0.0; rows]);
        for kv_head in 0..kv_heads {
            self.gather(sizes, values(&inputs.query), kv_head, query_dim, inputs.form.scale, &mut query);
            best.fill(f32::NEG_INFINITY);
            total.fill(0.0);
            sum.fill(0.0);
            for keys in self.key_tiles(inputs) {
                let count = keys.len();
                let scores = &mut scores[..rows * count];
                let key = self.keys(sizes, values(&inputs.key), kv_head, &keys, query_dim);
                let target = MatrixMut::new(scores, rows, count);
                product(target, Accumulate::Replace, 1.0, Matrix::new(&query, rows, query_dim), key.transposed());
                vectorised(
                    #[inline(always)]
                    || {
                        for (index, scores) in scores.chunks_exact_mut(count).enumerate() {
                            let seen = self.seen(inputs, index, &keys);
                            scores[..seen.start].fill(0.0);
                            scores[seen.end..].fill(0.0);
                            let scores = &mut scores[seen];
                            if scores.is_empty() {
                                continue;
                            }
                            let new_best = best[index].max(largest(scores));
                            let kept = exp(best[index] - new_best);
                            total[index] = total[index] * kept + exp_and_sum(scores, new_best);
                            if kept != 1.0 {
                                scale(&mut sum[index * value_dim..(index + 1) * value_dim], kept);
                            }
                            best[index] = new_best;
                        }
                    },
                );
                let value = self.keys(sizes, values(&inputs.value), kv_head, &keys, value_dim);
                let target = MatrixMut::new(&mut sum, rows, value_dim);
                product(target, Accumulate::Add, 1.0, Matrix::new(scores, rows, count), value);
            }
            for (index, sum) in sum.chunks_exact_mut(value_dim).enumerate() {
                let (query, head) = (index % self.queries.len(), kv_head * group + index / self.queries.len());
                let new_best = best[index].max(sinks[head]);
                let kept = exp(best[index] - new_best);
                let total = total[index] * kept + exp(sinks[head] - new_best);
                log_sums[query * heads + head] = new_best + total.ln();
                let out = &mut mixed[(query * heads + head) * value_dim..][..value_dim];
                for (out, sum) in out.iter_mut().zip(sum) {
                    *out = *sum * (kept / total);
                }
            }
        }
    }

    /// The rows of one group of heads, one head after the other, times `factor`; `source: [tokens, heads, dim]`.
    pub(super) fn gather(
        &self,
        sizes: &Sizes,
        source: &[f32],
        kv_head: usize,
        dim: usize,
        factor: f32,
        out: &mut [f32],
    ) {
        let count = self.queries.len();
        for (index, out) in out.chunks_exact_mut(dim).enumerate() {
            let (token, head) = (self.token(sizes, index % count), kv_head * sizes.group + index / count);
            let source = &source[(token * sizes.heads + head) * dim..][..dim];
            for (out, value) in out.iter_mut().zip(source) {
                *out = value * factor;
            }
        }
    }

    /// The token of the tile's query `query`, all rows counted.
    pub(super) fn token(&self, sizes: &Sizes, query: usize) -> usize {
        self.row * sizes.width + self.queries.start + query
    }

    /// `keys` of one head; `source: [rows, keys, kv_heads, dim]`.
    pub(super) fn keys<'a>(
        &self,
        sizes: &Sizes,
        source: &'a [f32],
        kv_head: usize,
        keys: &std::ops::Range<usize>,
        dim: usize,
    ) -> Matrix<'a> {
        let begin = ((self.row * sizes.keys + keys.start) * sizes.kv_heads + kv_head) * dim;
        Matrix::strided(&source[begin..], keys.len(), dim, sizes.kv_heads * dim)
    }

    /// Tiles of all keys that some query of this tile sees.
    pub(super) fn key_tiles(&self, inputs: &Inputs) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let seen = |query: usize| inputs.seen(self.row, query);
        let first = self.queries.clone().map(|query| seen(query).start).min().unwrap_or(0);
        let end = self.queries.clone().next_back().map_or(0, |query| seen(query).end);
        let keys = inputs.sizes.tile_keys();
        (first..end).step_by(keys).map(move |begin| begin..(begin + keys).min(end))
    }

    /// The part of `keys` that the row `index` of stacked queries sees, counted from the first of them.
    pub(super) fn seen(&self, inputs: &Inputs, index: usize, keys: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        let seen = inputs.seen(self.row, self.queries.start + index % self.queries.len());
        let begin = seen.start.clamp(keys.start, keys.end);
        begin - keys.start..seen.end.clamp(begin, keys.end) - keys.start
    }
}
