//! Who sees whom: additive attention masks from reach, order and documents.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::input::TokenRows;
use super::spec::Reach;

/// Added to a hidden score; finite, so that no computation on it can make a NaN.
const HIDDEN: f32 = -1e30;

/// The mask of `reach` for `rows`, f32, `[1 or rows, 1, width, past + width]`; `None` where every query sees all keys.
///
/// Rows share one mask unless a row holds several documents. `past` keys of a single row come before the tokens.
pub(crate) fn additive(reach: Reach, rows: TokenRows, past: usize, device: &Device) -> Option<Tensor<4>> {
    let keys = past + rows.width;
    if rows.width == 1 && first_seen(reach, past, past) == 0 {
        return None;
    }
    let packed = rows.packed();
    let distinct = if packed { rows.rows } else { 1 };
    let mut values = vec![HIDDEN; distinct * rows.width * keys];
    for row in 0..distinct {
        let of_row = |values: &'_ [i32], column: usize| values[row * rows.width + column];
        for query in 0..rows.width {
            let line = &mut values[(row * rows.width + query) * keys..][..keys];
            let last = past + query;
            // Without other documents in its row, a token's position is its column.
            let position = if packed { of_row(rows.positions, query) as usize } else { last };
            let first = first_seen(reach, last, position);
            for (key, value) in line.iter_mut().enumerate().take(last + 1).skip(first) {
                if !packed || of_row(rows.documents, key) == of_row(rows.documents, query) {
                    *value = 0.0;
                }
            }
        }
    }
    Some(Tensor::from_data(TensorData::new(values, [distinct, 1, rows.width, keys]), (device, DType::F32)))
}

/// The first column that a query in column `last` at `position` of its document sees, documents aside.
fn first_seen(reach: Reach, last: usize, position: usize) -> usize {
    match reach {
        Reach::Full => 0,
        Reach::Window(tokens) => (last + 1).saturating_sub(tokens),
        Reach::Chunk(tokens) => last - position % tokens,
    }
}
