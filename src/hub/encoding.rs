//! Weights that a checkpoint stores in fewer bits, with scales in a tensor beside them.
//!
//! FP8: `X` in F8_E4M3 and `X_scale_inv`, one factor for each block of 128 x 128. MXFP4 (Open Compute
//! Project, Microscaling Formats 1.0): `X_blocks`, two E2M1 numbers a byte in blocks of 32, and
//! `X_scales`, a power of two for each block; stored as `[experts, out, in]`, used as `[experts, in, out]`.

use std::collections::BTreeMap;

use half::bf16;

use super::header::Dtype;
use super::weights::TensorInfo;

/// Rows and columns that share a factor in FP8.
const FP8_BLOCK: usize = 128;
/// Numbers that share a power of two in MXFP4.
const MXFP4_BLOCK: usize = 32;
/// The magnitudes of E2M1; the fourth bit is the sign.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The encoding of a tensor's values in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoding {
    /// As its dtype says.
    Plain,
    /// 8-bit numbers, and a factor for each block.
    Fp8 {
        /// The factors.
        scales: Box<TensorInfo>,
    },
    /// 4-bit numbers, and a power of two for each block.
    Mxfp4 {
        /// The powers.
        scales: Box<TensorInfo>,
    },
    /// 4-bit codes as bitsandbytes writes them.
    Nf4 {
        /// The tensors beside the codes.
        parts: Box<Nf4Infos>,
    },
}

/// The tensors beside the codes of an NF4 weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nf4Infos {
    /// Scales of blocks.
    pub scales: TensorInfo,
    /// Code book of the weights.
    pub book: TensorInfo,
    /// Scales of scales, and their code book.
    pub nested: Option<[TensorInfo; 2]>,
    /// The rest, a JSON text.
    pub state: TensorInfo,
}

/// Endings of the tensors beside the codes, after the name of the weight.
const NF4_ENDINGS: [&str; 5] = [NF4_STATE, ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];
/// Ending of the JSON text.
const NF4_STATE: &str = ".quant_state.bitsandbytes__nf4";

/// True if `name` is that of a tensor that only describes another.
pub(crate) fn is_beside(name: &str) -> bool {
    name.ends_with("_scale_inv") || name.ends_with("_scales") || NF4_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Puts scales with what they belong to: afterwards a tensor of `tensors` is one that a model computes with.
pub(super) fn pair(tensors: &mut BTreeMap<String, TensorInfo>) {
    let names: Vec<String> = tensors.keys().cloned().collect();
    for name in names {
        if let Some(base) = name.strip_suffix("_scale_inv")
            && fits_fp8(tensors.get(base), &tensors[&name])
        {
            let scales = Box::new(remove(tensors, &name));
            if let Some(info) = tensors.get_mut(base) {
                info.encoding = Encoding::Fp8 { scales };
            }
        } else if let Some(base) = name.strip_suffix("_blocks")
            && let Some(shape) = mxfp4_shape(&tensors[&name], tensors.get(&format!("{base}_scales")))
        {
            let scales = Box::new(remove(tensors, &format!("{base}_scales")));
            let mut info = remove(tensors, &name);
            (info.shape, info.encoding) = (shape, Encoding::Mxfp4 { scales });
            tensors.insert(base.to_owned(), info);
        } else if let Some(base) = name.strip_suffix(NF4_STATE)
            && let Some(parts) = nf4_parts(tensors, base)
            && let Some(info) = tensors.get_mut(base)
        {
            info.encoding = Encoding::Nf4 { parts: Box::new(parts) };
        }
    }
}

fn remove(tensors: &mut BTreeMap<String, TensorInfo>, name: &str) -> TensorInfo {
    tensors.remove(name).expect("the name was just looked up")
}

/// The tensors beside the codes `base`, taken out if all are there that must be.
fn nf4_parts(tensors: &mut BTreeMap<String, TensorInfo>, base: &str) -> Option<Nf4Infos> {
    let beside = |ending: &str| format!("{base}{ending}");
    let [state, scales, book, nested_scales, nested_book] = NF4_ENDINGS.map(beside);
    let is_nested = tensors.contains_key(&nested_scales);
    let is = |name: &str, dtype: Dtype| tensors.get(name).is_some_and(|info| info.dtype == dtype);
    let whole = is(base, Dtype::U8)
        && is(&state, Dtype::U8)
        && is(&scales, if is_nested { Dtype::U8 } else { Dtype::F32 })
        && is(&book, Dtype::F32)
        && (!is_nested || (is(&nested_scales, Dtype::F32) && is(&nested_book, Dtype::F32)));
    whole.then(|| Nf4Infos {
        scales: remove(tensors, &scales),
        book: remove(tensors, &book),
        nested: is_nested.then(|| [remove(tensors, &nested_scales), remove(tensors, &nested_book)]),
        state: remove(tensors, &state),
    })
}

/// The shape that the JSON text of an NF4 weight gives.
pub(super) fn nf4_shape(state: &[u8]) -> Option<Vec<usize>> {
    let state: serde_json::Value = serde_json::from_slice(state).ok()?;
    state["shape"].as_array()?.iter().map(|size| usize::try_from(size.as_u64()?).ok()).collect()
}

fn fits_fp8(values: Option<&TensorInfo>, scales: &TensorInfo) -> bool {
    let Some(values) = values.filter(|values| values.dtype == Dtype::F8_E4M3) else { return false };
    let blocks: Vec<usize> = values.shape.iter().map(|size| size.div_ceil(FP8_BLOCK)).collect();
    scales.dtype.is_decodable() && scales.shape == blocks && values.shape.len() == 2
}

/// `[experts, in, out]` of blocks `[experts, out, in / 32, 16]`, if these are blocks.
fn mxfp4_shape(blocks: &TensorInfo, scales: Option<&TensorInfo>) -> Option<Vec<usize>> {
    let &[experts, outputs, groups, bytes] = blocks.shape.as_slice() else { return None };
    let fits = blocks.dtype == Dtype::U8
        && 2 * bytes == MXFP4_BLOCK
        && scales.is_some_and(|scales| scales.dtype == Dtype::U8 && scales.shape == [experts, outputs, groups]);
    fits.then(|| vec![experts, groups * MXFP4_BLOCK, outputs])
}

/// The values of F8_E4M3 `bytes`, `[rows, columns]`, with their factors.
pub(super) fn decode_fp8(bytes: &[u8], shape: &[usize], scales: &[f32]) -> Vec<f32> {
    let table: Vec<f32> = (0..=u8::MAX).map(e4m3).collect();
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let across = columns.div_ceil(FP8_BLOCK);
    let mut values = Vec::with_capacity(bytes.len());
    for (row, bytes) in bytes.chunks(columns).enumerate() {
        let factors = &scales[row / FP8_BLOCK * across..][..across];
        for (block, factor) in bytes.chunks(FP8_BLOCK).zip(factors) {
            values.extend(block.iter().map(|&byte| table[usize::from(byte)] * factor));
        }
    }
    values
}

/// The values of MXFP4 `blocks`, rounded to bf16 as the reference does, in the order of `shape`, `[experts, in, out]`.
pub(super) fn decode_mxfp4(blocks: &[u8], shape: &[usize], scales: &[u8]) -> Vec<f32> {
    let (inputs, outputs) = (shape[1], shape[2]);
    let mut values = vec![0.0; shape.iter().product()];
    for (index, (block, &scale)) in blocks.chunks(MXFP4_BLOCK / 2).zip(scales).enumerate() {
        let groups = inputs / MXFP4_BLOCK;
        let (row, group) = (index / groups, index % groups);
        let (expert, output) = (row / outputs, row % outputs);
        let power = (f32::from(scale) - 127.0).exp2();
        for (place, byte) in block.iter().enumerate() {
            let input = group * MXFP4_BLOCK + 2 * place;
            // The lower half of a byte comes first.
            for (offset, code) in [(0, byte & 0xf), (1, byte >> 4)] {
                let at = (expert * inputs + input + offset) * outputs + output;
                values[at] = bf16::from_f32(e2m1(code) * power).to_f32();
            }
        }
    }
    values
}

/// Sign, 3 bits of magnitude.
fn e2m1(code: u8) -> f32 {
    let magnitude = E2M1[usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// Sign, 4 bits of exponent with a bias of 7, 3 bits of fraction; no infinity, and NaN where all bits are set.
fn e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(byte >> 3 & 0xf), f32::from(byte & 7));
    match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * fraction / 8.0 * 2f32.powi(-6),
        _ => sign * (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_numbers_have_their_published_values() {
        for (byte, value) in [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x07, 0.013671875),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0x7e, 448.0),
            (0xbc, -1.5),
        ] {
            assert_eq!(e4m3(byte), value, "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }

    #[test]
    fn factors_hold_for_blocks_of_rows_and_columns() {
        let (rows, columns) = (130, 129);
        let values = decode_fp8(&vec![0x38; rows * columns], &[rows, columns], &[1.0, 2.0, 3.0, 4.0]);
        let at = |row: usize, column: usize| values[row * columns + column];
        assert_eq!([at(0, 0), at(127, 127), at(0, 128), at(129, 0), at(129, 128)], [1.0, 1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn four_bit_numbers_are_turned_from_rows_of_outputs_to_columns() {
        // One expert, two outputs, 32 inputs: codes 0, 1, 2 .. along the first row, the second row all 6.0 * 2.
        let mut blocks: Vec<u8> = (0..16).map(|pair| (2 * pair % 16) | ((2 * pair + 1) % 16) << 4).collect();
        blocks.extend([0x77; 16]);
        let values = decode_mxfp4(&blocks, &[1, 32, 2], &[127, 128]);
        let first: Vec<f32> = values.iter().step_by(2).copied().take(16).collect();
        assert_eq!(first[..8], E2M1);
        assert_eq!(first[8..], E2M1.map(|value| -value));
        assert!(values.iter().skip(1).step_by(2).all(|value| *value == 12.0));
    }
}
