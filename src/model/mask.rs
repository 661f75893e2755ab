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
    let window = match reach {
        Reach::Full => usize::MAX,
        Reach::Window(tokens) => tokens,
    };
    let keys = past + rows.width;
    if rows.width == 1 && keys <= window {
        return None;
    }
    let packed = rows.documents.iter().any(|&document| document > 0);
    let distinct = if packed { rows.rows } else { 1 };
    let mut values = vec![HIDDEN; distinct * rows.width * keys];
    for row in 0..distinct {
        let documents = &rows.documents[row * rows.width..(row + 1) * rows.width];
        for query in 0..rows.width {
            let line = &mut values[(row * rows.width + query) * keys..][..keys];
            let last = past + query;
            let first = last.saturating_sub(window - 1);
            for (key, value) in line.iter_mut().enumerate().take(last + 1).skip(first) {
                if !packed || documents[key] == documents[query] {
                    *value = 0.0;
                }
            }
        }
    }
    Some(Tensor::from_data(TensorData::new(values, [distinct, 1, rows.width, keys]), (device, DType::F32)))
}
