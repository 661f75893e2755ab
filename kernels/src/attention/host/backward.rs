//! The backward pass: every tile of weights is made again from the scores and their row's denominator.
//!
//! With weights P, mix O and the mix's gradient dO: dV = Pᵀ dO; dP = dO Vᵀ; dS = P (dP - rowsum(dO O));
//! dQ = s dS K; dK = s dSᵀ Q.

use std::ops::Range;

use rayon::prelude::*;

use super::forward::Tile;
use super::{Inputs, Sizes};
use crate::exponential::exp;
use crate::host::values;
use crate::product::{Accumulate, Matrix, MatrixMut, product};
use crate::threads::{threads, with_threads};
use crate::vector::{dot, vectorised};

/// The forward pass's inputs and results, and the gradient of its mix.
pub(super) struct BackwardInputs<'a> {
    pub(super) mixed: &'a [f32],
    pub(super) log_sums: &'a [f32],
    pub(super) gradient: &'a [f32],
}

/// Gradients in the shapes of their inputs, and the sums of products of the mix with its gradient.
pub(super) struct InputGradients {
    pub(super) query: Vec<f32>,
    pub(super) key: Vec<f32>,
    pub(super) value: Vec<f32>,
    pub(super) row_sums: Vec<f32>,
}

/// The gradients of all inputs.
pub(super) fn run(inputs: &Inputs, given: &BackwardInputs) -> InputGradients {
    let sizes = inputs.sizes;
    let Sizes { rows, width, keys, heads, kv_heads, group, query_dim, value_dim, .. } = sizes;
    let mut found = InputGradients {
        query: vec![0.0; rows * width * heads * query_dim],
        key: vec![0.0; rows * keys * kv_heads * query_dim],
        value: vec![0.0; rows * keys * kv_heads * value_dim],
        row_sums: vec![0.0; rows * width * heads],
    };
    let threads = threads();
    // As many shares of a head's queries as there are threads, unless whole heads keep all of them busy.
    let shares = if (rows * kv_heads).is_multiple_of(threads) { 1 } else { threads };
    let of_row = |row| (0..kv_heads).flat_map(move |head| (0..shares).map(move |share| (row, head, share)));
    let all: Vec<Head> = (0..rows)
        .flat_map(of_row)
        .map(|(row, kv_head, share)| Head { row, kv_head, queries: share_of(&sizes, share, shares) })
        // A row of few tiles has no more shares than these.
        .filter(|head| !head.queries.is_empty())
        .collect();
    // As many at a time as there are threads, so that little is held twice.
    for some in all.chunks(threads) {
        let done: Vec<InputGradients> = match some {
            [one] => vec![one.run(inputs, given)],
            some => some.par_iter().map(|head| with_threads(1, || head.run(inputs, given))).collect(),
        };
        for (head, part) in some.iter().zip(done) {
            let scatter = |target: &mut [f32], source: &[f32], dim: usize| {
                let count = head.queries.len();
                for (index, source) in source.chunks_exact(dim).enumerate() {
                    let token = head.row * width + head.queries.start + index % count;
                    let place = token * heads + head.kv_head * group + index / count;
                    target[place * dim..][..dim].copy_from_slice(source);
                }
            };
            scatter(&mut found.query, &part.query, query_dim);
            scatter(&mut found.row_sums, &part.row_sums, 1);
            let add = |target: &mut [f32], source: &[f32], dim: usize| {
                for (key, source) in source.chunks_exact(dim).enumerate() {
                    let place = (head.row * keys + key) * kv_heads + head.kv_head;
                    for (target, source) in target[place * dim..][..dim].iter_mut().zip(source) {
                        *target += source;
                    }
                }
            };
            add(&mut found.key, &part.key, query_dim);
            add(&mut found.value, &part.value, value_dim);
        }
    }
    found
}

/// The queries of one of as many `shares` that are equal work: a query sees as many keys as there are tokens up to it.
fn share_of(sizes: &Sizes, share: usize, shares: usize) -> Range<usize> {
    let tile = sizes.tile_queries();
    let bound = |share: usize| {
        let begin = (share as f64 / shares as f64).sqrt() * sizes.width as f64;
        (begin as usize).next_multiple_of(tile).min(sizes.width)
    };
    bound(share)..bound(share + 1)
}

/// Some queries of one key head of one row.
struct Head {
    row: usize,
    kv_head: usize,
    queries: Range<usize>,
}

impl Head {
    /// `query: [group, queries, query_dim]`, `key: [keys, query_dim]`, `value: [keys, value_dim]`, `row_sums: [group, queries]`.
    fn run(&self, inputs: &Inputs, given: &BackwardInputs) -> InputGradients {
        let sizes = &inputs.sizes;
        let Sizes { keys, group, query_dim, value_dim, .. } = *sizes;
        let count = self.queries.len();
        let mut found = InputGradients {
            query: vec![0.0; group * count * query_dim],
            key: vec![0.0; keys * query_dim],
            value: vec![0.0; keys * value_dim],
            row_sums: vec![0.0; group * count],
        };
        let queries = sizes.tile_queries();
        for first in self.queries.clone().step_by(queries) {
            let tile = Tile { row: self.row, queries: first..(first + queries).min(self.queries.end) };
            self.tile(&tile, inputs, given, &mut found);
        }
        found
    }

    fn tile(&self, tile: &Tile, inputs: &Inputs, given: &BackwardInputs, found: &mut InputGradients) {
        let sizes = &inputs.sizes;
        let scale = inputs.form.scale;
        let Sizes { heads, group, query_dim, value_dim, .. } = *sizes;
        let count = tile.queries.len();
        let rows = group * count;
        let (mut query, mut to_mix) = (vec![0.0; rows * query_dim], vec![0.0; rows * value_dim]);
        tile.gather(sizes, values(&inputs.query), self.kv_head, query_dim, scale, &mut query);
        tile.gather(sizes, given.gradient, self.kv_head, value_dim, 1.0, &mut to_mix);
        let mut mixed = vec![0.0; rows * value_dim];
        tile.gather(sizes, given.mixed, self.kv_head, value_dim, 1.0, &mut mixed);
        let place = |index: usize| tile.token(sizes, index % count) * heads + self.kv_head * group + index / count;
        let log_sums: Vec<f32> = (0..rows).map(|index| given.log_sums[place(index)]).collect();
        let row_sums: Vec<f32> =
            to_mix.chunks_exact(value_dim).zip(mixed.chunks_exact(value_dim)).map(|(a, b)| dot(a, b)).collect();
        let first = tile.queries.start - self.queries.start;
        let of_query = |index: usize| index / count * self.queries.len() + first + index % count;
        for (index, row_sum) in row_sums.iter().enumerate() {
            found.row_sums[of_query(index)] = *row_sum;
        }
        let mut to_query = vec![0.0; rows * query_dim];
        let (mut weights, mut to_weights) = (vec![0.0; rows * sizes.tile_keys()], vec![0.0; rows * sizes.tile_keys()]);
        for keys in tile.key_tiles(inputs) {
            let columns = keys.len();
            let (weights, to_weights) = (&mut weights[..rows * columns], &mut to_weights[..rows * columns]);
            let key = tile.keys(sizes, values(&inputs.key), self.kv_head, &keys, query_dim);
            let value = tile.keys(sizes, values(&inputs.value), self.kv_head, &keys, value_dim);
            let (query, to_mix) = (Matrix::new(&query, rows, query_dim), Matrix::new(&to_mix, rows, value_dim));
            product(MatrixMut::new(weights, rows, columns), Accumulate::Replace, 1.0, query, key.transposed());
            product(MatrixMut::new(to_weights, rows, columns), Accumulate::Replace, 1.0, to_mix, value.transposed());
            vectorised(
                #[inline(always)]
                || {
                    let both = weights.chunks_exact_mut(columns).zip(to_weights.chunks_exact_mut(columns));
                    for (index, (weights, to_weights)) in both.enumerate() {
                        let seen = tile.seen(inputs, index, &keys);
                        for hidden in [0..seen.start, seen.end..columns] {
                            weights[hidden.clone()].fill(0.0);
                            to_weights[hidden].fill(0.0);
                        }
                        let (log_sum, row_sum) = (log_sums[index], row_sums[index]);
                        for (weight, to_weight) in weights[seen.clone()].iter_mut().zip(&mut to_weights[seen]) {
                            *weight = exp(*weight - log_sum);
                            *to_weight = *weight * (*to_weight - row_sum);
                        }
                    }
                },
            );
            let (weights, to_scores) = (Matrix::new(weights, rows, columns), Matrix::new(to_weights, rows, columns));
            let to_value = &mut found.value[keys.start * value_dim..keys.end * value_dim];
            let to_key = &mut found.key[keys.start * query_dim..keys.end * query_dim];
            product(MatrixMut::new(to_value, columns, value_dim), Accumulate::Add, 1.0, weights.transposed(), to_mix);
            product(MatrixMut::new(to_key, columns, query_dim), Accumulate::Add, 1.0, to_scores.transposed(), query);
            product(MatrixMut::new(&mut to_query, rows, query_dim), Accumulate::Add, scale, to_scores, key);
        }
        for (index, to_query) in to_query.chunks_exact(query_dim).enumerate() {
            found.query[of_query(index) * query_dim..][..query_dim].copy_from_slice(to_query);
        }
    }
}
