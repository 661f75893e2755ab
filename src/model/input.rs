//! The input of a forward pass as tensors: ids, rotary tables, masks.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use kernels::{Rotation, Visible};

use super::mask::visible;
use super::positions::PositionRules;
use super::rope;
use super::spec::TemperatureSpec;
use super::token_rows::TokenRows;

/// The rows as tensors, made once per micro-batch and shared by all layers.
#[derive(Debug, Clone)]
pub struct DecoderInput {
    /// Number of rows.
    pub rows: usize,
    /// Tokens per row.
    pub width: usize,
    /// Token ids, `[rows * width]`.
    pub tokens: Tensor<1, Int>,
    /// One table for each distinct rotary embedding of the decoder.
    pub(crate) rotary: Vec<Rotation>,
    /// One mask for each distinct reach of the decoder.
    pub(crate) masks: Vec<Visible>,
    /// Factors on queries for each distinct temperature of the decoder, `[rows, width, 1, 1]`, f32.
    pub(crate) temperatures: Vec<Tensor<4>>,
}

impl DecoderInput {
    /// Tensors for `rows` on `device`; `past` tokens of a single row came before (their keys are kept elsewhere).
    pub(crate) fn new(rows: TokenRows, past: usize, rules: &PositionRules, device: &Device) -> Self {
        let length = rows.rows * rows.width;
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(rows.tokens.to_vec(), [length]), (device, DType::I32));
        Self {
            rows: rows.rows,
            width: rows.width,
            tokens,
            rotary: rules.ropes.iter().map(|spec| rope::table(spec, rows, device)).collect(),
            masks: rules.reaches.iter().map(|&reach| visible(reach, rows, past, device)).collect(),
            temperatures: rules.temperatures.iter().map(|spec| temperature(*spec, rows, device)).collect(),
        }
    }
}

/// Factors on the queries of `rows` by their positions, `[rows, width, 1, 1]`, f32.
fn temperature(spec: TemperatureSpec, rows: TokenRows, device: &Device) -> Tensor<4> {
    let factor = |&position: &i32| {
        let steps = ((f64::from(position) + 1.0) / spec.floor).floor();
        (1.0 + spec.scale * steps.ln_1p()) as f32
    };
    let values: Vec<f32> = rows.positions.iter().map(factor).collect();
    Tensor::from_data(TensorData::new(values, [rows.rows, rows.width, 1, 1]), (device, DType::F32))
}
