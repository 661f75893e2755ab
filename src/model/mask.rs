//! Who sees whom, from reach, order and documents: each query sees all keys from a first one up to its own.

use burn::tensor::Device;
use kernels::Visible;

use super::spec::Reach;
use super::token_rows::TokenRows;

/// The keys that are visible to the tokens of `rows` within `reach`; `past` keys of a single row come before the tokens.
/// Rows share one mask unless a row holds several documents, whose tokens lie side by side.
pub(super) fn visible(reach: Reach, rows: TokenRows, past: usize, device: &Device) -> Visible {
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
                first.push(first_seen(reach, last, last) as i32);
                continue;
            }
            if query > 0 && row_of(rows.documents, query) != row_of(rows.documents, query - 1) {
                begin = query;
            }
            let position = row_of(rows.positions, query) as usize;
            first.push(first_seen(reach, last, position).max(begin) as i32);
        }
    }
    Visible::new(first, rows.width, past, device)
}

/// The first column that a query in column `last` at `position` of its document sees, documents aside.
fn first_seen(reach: Reach, last: usize, position: usize) -> usize {
    match reach {
        Reach::Full => 0,
        Reach::Window(tokens) => (last + 1).saturating_sub(tokens),
        Reach::Chunk(tokens) => last - position % tokens,
    }
}
