//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864) of the first values of a head; the
//! rest of the head, if any, has no position.

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use super::input::TokenRows;
use super::norm::compute;
use super::spec::{RopePairs, RopeSpec};

/// Cosine and sine of every token, f32, `[rows, width, 1, pairs]`.
#[derive(Debug, Clone)]
pub(crate) struct RotaryTable {
    cosine: Tensor<4>,
    sine: Tensor<4>,
    pairs: RopePairs,
}

/// The table of `spec` for the positions of `rows`, angles in f32 as the reference computes them.
pub(crate) fn table(spec: &RopeSpec, rows: TokenRows, device: &Device) -> RotaryTable {
    let inv_freq = match &spec.long {
        Some(long) if rows.span > long.beyond => &long.inv_freq,
        _ => &spec.inv_freq,
    };
    let angles = rows.positions.iter().flat_map(|&position| inv_freq.iter().map(move |f| position as f32 * f));
    let (cosine, sine): (Vec<f32>, Vec<f32>) =
        angles.map(|angle| (angle.cos() * spec.attention_scaling, angle.sin() * spec.attention_scaling)).unzip();
    let shape = [rows.rows, rows.width, 1, inv_freq.len()];
    let tensor = |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, shape), (device, DType::F32));
    RotaryTable { cosine: tensor(cosine), sine: tensor(sine), pairs: spec.pairs }
}

impl RotaryTable {
    /// Rotates `x: [rows, width, heads, head_dim]`.
    pub(crate) fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [rows, width, heads, head_dim] = x.dims();
        let rotary_dim = 2 * self.cosine.dims()[3];
        let part = |x: &Tensor<4>, range| x.clone().slice([0..rows, 0..width, 0..heads, range]);
        if rotary_dim < head_dim {
            let turned = self.turn(part(&x, 0..rotary_dim));
            return Tensor::cat(vec![turned, part(&x, rotary_dim..head_dim)], 3);
        }
        self.turn(x)
    }

    /// Rotates all of `x: [rows, width, heads, rotary_dim]`.
    fn turn(&self, x: Tensor<4>) -> Tensor<4> {
        let [rows, width, heads, rotary_dim] = x.dims();
        let half = rotary_dim / 2;
        let (cosine, sine) = (like(&x, &self.cosine), like(&x, &self.sine));
        let turned = |first: Tensor<4>, second: Tensor<4>| {
            let turned_first = first.clone() * cosine.clone() - second.clone() * sine.clone();
            (turned_first, second * cosine.clone() + first * sine.clone())
        };
        match self.pairs {
            RopePairs::Halves => {
                let part = |range| x.clone().slice([0..rows, 0..width, 0..heads, range]);
                let (first, second) = turned(part(0..half), part(half..rotary_dim));
                Tensor::cat(vec![first, second], 3)
            }
            RopePairs::Neighbours => {
                let paired = x.reshape([rows, width, heads, half, 2]);
                let part = |index: usize| {
                    let one = paired.clone().slice([0..rows, 0..width, 0..heads, 0..half, index..index + 1]);
                    one.reshape([rows, width, heads, half])
                };
                let (first, second) = turned(part(0), part(1));
                let column = |part: Tensor<4>| part.reshape([rows, width, heads, half, 1]);
                Tensor::cat(vec![column(first), column(second)], 4).reshape([rows, width, heads, rotary_dim])
            }
        }
    }
}

fn like(x: &Tensor<4>, table: &Tensor<4>) -> Tensor<4> {
    match compute(x.dtype()) {
        FloatDType::F32 => table.clone(),
        dtype => table.clone().cast(dtype),
    }
}
