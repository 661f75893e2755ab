//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in half-rotation order: the first half
//! of a head turns with its second half.

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use super::input::TokenRows;
use super::spec::RopeSpec;

/// Cosine and sine of every token, f32, `[rows, width, 1, head_dim / 2]`.
#[derive(Debug, Clone)]
pub(crate) struct RotaryTable {
    cosine: Tensor<4>,
    sine: Tensor<4>,
}

/// The table of `spec` for the positions of `rows`, angles in f32 as the reference computes them.
pub(crate) fn table(spec: &RopeSpec, rows: TokenRows, device: &Device) -> RotaryTable {
    let half = spec.inv_freq.len();
    let angles = rows.positions.iter().flat_map(|&position| spec.inv_freq.iter().map(move |f| position as f32 * f));
    let (cosine, sine): (Vec<f32>, Vec<f32>) =
        angles.map(|angle| (angle.cos() * spec.attention_scaling, angle.sin() * spec.attention_scaling)).unzip();
    let tensor = |values: Vec<f32>| {
        Tensor::<4>::from_data(TensorData::new(values, [rows.rows, rows.width, 1, half]), (device, DType::F32))
    };
    RotaryTable { cosine: tensor(cosine), sine: tensor(sine) }
}

impl RotaryTable {
    /// Rotates `x: [rows, width, heads, head_dim]`.
    pub(crate) fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [rows, width, heads, head_dim] = x.dims();
        let half = head_dim / 2;
        let (cosine, sine) = (self.like(&x, &self.cosine), self.like(&x, &self.sine));
        let first = x.clone().slice([0..rows, 0..width, 0..heads, 0..half]);
        let second = x.slice([0..rows, 0..width, 0..heads, half..head_dim]);
        let turned_first = first.clone() * cosine.clone() - second.clone() * sine.clone();
        let turned_second = second * cosine + first * sine;
        Tensor::cat(vec![turned_first, turned_second], 3)
    }

    fn like(&self, x: &Tensor<4>, table: &Tensor<4>) -> Tensor<4> {
        match x.dtype() {
            DType::BF16 => table.clone().cast(FloatDType::BF16),
            DType::F16 => table.clone().cast(FloatDType::F16),
            _ => table.clone(),
        }
    }
}
