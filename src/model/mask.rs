//! Who sees whom, from reach, order and documents: each query sees all keys from a first one up to its own.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::Visible;

use super::input::TokenRows;
use super::spec::Reach;

/// Added to a hidden score; finite, so that no computation on it can make a NaN.
const HIDDEN: f32 = -1e30;

/// The keys that are visible to the tokens of a micro-batch.
#[derive(Debug, Clone)]
pub(crate) struct Mask {
    pub(crate) visible: Arc<Visible>,
    /// The same as numbers to add to scores, f32, `[1 or rows, 1, width, past + width]`; `None` where every query sees all
    /// keys, and where attention runs without stored scores.
    pub(crate) additive: Option<Tensor<4>>,
}

impl Mask {
    /// The mask of `reach` for `rows`; `past` keys of a single row come before the tokens. Only with a `device` that
    /// adds to scores are there numbers to add.
    pub(crate) fn new(reach: Reach, rows: TokenRows, past: usize, device: Option<&Device>) -> Self {
        let visible = visible(reach, rows, past);
        let additive = device.and_then(|device| additive(&visible, device));
        Self { visible: Arc::new(visible), additive }
    }
}

/// Rows share one mask unless a row holds several documents, whose tokens lie side by side.
fn visible(reach: Reach, rows: TokenRows, past: usize) -> Visible {
    let packed = rows.packed();
    let distinct = if packed { rows.rows } else { 1 };
    let mut first = Vec::with_capacity(distinct * rows.width);
    for row in 0..distinct {
        let row_of = |values: &'_ [i32], column: usize| values[row * rows.width + column];
        let mut begin = 0;
        for query in 0..rows.width {
            let last = past + query;
            if !packed {
                // Without other documents in its row, a token's position is its column.
                first.push(first_seen(reach, last, last) as u32);
                continue;
            }
            if query > 0 && row_of(rows.documents, query) != row_of(rows.documents, query - 1) {
                begin = query;
            }
            let position = row_of(rows.positions, query) as usize;
            first.push(first_seen(reach, last, position).max(begin) as u32);
        }
    }
    Visible { first, width: rows.width, past }
}

/// The first column that a query in column `last` at `position` of its document sees, documents aside.
fn first_seen(reach: Reach, last: usize, position: usize) -> usize {
    match reach {
        Reach::Full => 0,
        Reach::Window(tokens) => (last + 1).saturating_sub(tokens),
        Reach::Chunk(tokens) => last - position % tokens,
    }
}

fn additive(visible: &Visible, device: &Device) -> Option<Tensor<4>> {
    let (width, keys) = (visible.width, visible.past + visible.width);
    if width == 1 && visible.first.iter().all(|&first| first == 0) {
        return None;
    }
    let distinct = visible.first.len() / width;
    let mut values = vec![HIDDEN; distinct * width * keys];
    for (index, line) in values.chunks_mut(keys).enumerate() {
        line[visible.of(index / width, index % width)].fill(0.0);
    }
    Some(Tensor::from_data(TensorData::new(values, [distinct, 1, width, keys]), (device, DType::F32)))
}
