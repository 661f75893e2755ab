//! Rotary tables: the angles of every token, for each distinct rotary embedding of the decoder.

use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::Rotation;

use super::spec::RopeSpec;
use super::token_rows::TokenRows;

/// The table of `spec` for the positions of `rows`, angles in f32 as the reference computes them.
pub(crate) fn table(spec: &RopeSpec, rows: TokenRows, device: &Device) -> Rotation {
    let inv_freq = match &spec.long {
        Some(long) if rows.span > long.beyond => &long.inv_freq,
        _ => &spec.inv_freq,
    };
    let angles = rows.positions.iter().flat_map(|&position| inv_freq.iter().map(move |f| position as f32 * f));
    let (cosine, sine): (Vec<f32>, Vec<f32>) =
        angles.map(|angle| (angle.cos() * spec.attention_scaling, angle.sin() * spec.attention_scaling)).unzip();
    let shape = [rows.rows, rows.width, 1, inv_freq.len()];
    let tensor = |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, shape), (device, DType::F32));
    Rotation { cosine: tensor(cosine), sine: tensor(sine), pairs: spec.pairs }
}
