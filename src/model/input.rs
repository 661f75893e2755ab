//! What a forward pass needs to know of its tokens, as tensors: ids, rotary tables, masks.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::mask;
use super::rope::{self, RotaryTable};
use super::spec::{Reach, RopeSpec};

/// Rows of token ids on the host, all slices `[rows * width]` row-major.
#[derive(Debug, Clone, Copy)]
pub struct TokenRows<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Tokens per row, padding included.
    pub width: usize,
    /// Token ids; anything in range on padding.
    pub tokens: &'a [i32],
    /// Position of each token in its document, from 0.
    pub positions: &'a [i32],
    /// Which document of its row a token belongs to; negative on padding, which is at the end.
    pub documents: &'a [i32],
}

/// The same as tensors, made once per micro-batch and shared by all layers.
#[derive(Debug, Clone)]
pub struct DecoderInput {
    /// Number of rows.
    pub rows: usize,
    /// Tokens per row.
    pub width: usize,
    /// Token ids, `[rows * width]`.
    pub tokens: Tensor<1, Int>,
    /// One table for each distinct rotary embedding of the decoder.
    pub(crate) rotary: Vec<RotaryTable>,
    /// One additive mask for each distinct reach of the decoder, `[1 or rows, 1, width, keys]`; none where nothing is hidden.
    pub(crate) masks: Vec<Option<Tensor<4>>>,
}

impl DecoderInput {
    /// Tensors for `rows` on `device`; `past` tokens of a single row came before (their keys are kept elsewhere).
    pub(crate) fn new(rows: TokenRows, past: usize, ropes: &[RopeSpec], reaches: &[Reach], device: &Device) -> Self {
        let length = rows.rows * rows.width;
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(rows.tokens.to_vec(), [length]), (device, DType::I32));
        Self {
            rows: rows.rows,
            width: rows.width,
            tokens,
            rotary: ropes.iter().map(|spec| rope::table(spec, rows, device)).collect(),
            masks: reaches.iter().map(|&reach| mask::additive(reach, rows, past, device)).collect(),
        }
    }
}
