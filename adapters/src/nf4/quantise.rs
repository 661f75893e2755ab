//! From values to NF4: blocks of 64 share a scale, scales in blocks of 256 share one in turn.
//!
//! Bit for bit what bitsandbytes writes: the largest magnitude of a block is its scale, values times its
//! inverse go to the nearest code, one exactly between two to the lower.

use burn::tensor::FloatDType;
use rayon::prelude::*;

use super::tables::{CODES, dynamic_map, middles};
use super::{BLOCK, Nf4, SCALE_BLOCK, Scales};

/// Below this a scale counts as zero for the inverse.
const TINY: f32 = 1e-38;

impl Nf4 {
    /// `values` in 4 bits; with `double`, their scales in 8. They decode to numbers of type `dtype`, which is that
    /// of the values where they come from.
    pub fn quantise(values: &[f32], double: bool, dtype: FloatDType) -> Self {
        let mut codes = vec![0; values.len().div_ceil(2)];
        let mut scales = vec![0.0; values.len().div_ceil(BLOCK)];
        // Whole blocks to a job: enough of them that handing out costs nothing.
        let job = 1024;
        codes
            .par_chunks_mut(job * BLOCK / 2)
            .zip(scales.par_chunks_mut(job))
            .zip(values.par_chunks(job * BLOCK))
            .for_each(|((codes, scales), values)| quantise_blocks(values, codes, scales));
        let scales = if double { quantise_scales(&scales) } else { Scales::Plain(scales) };
        Self { codes, scales, count: values.len(), dtype }
    }
}

fn quantise_blocks(values: &[f32], codes: &mut [u8], scales: &mut [f32]) {
    let blocks = values.chunks(BLOCK).zip(codes.chunks_mut(BLOCK / 2)).zip(scales);
    for ((values, codes), scale) in blocks {
        *scale = quantise_block(values, codes);
    }
}

/// Writes the codes of at most [`BLOCK`] values and returns their scale.
fn quantise_block(values: &[f32], packed: &mut [u8]) -> f32 {
    const MIDDLES: usize = CODES.len() - 1;
    // A tail is filled up with zeros, whose code is that of a missing last value.
    let mut block = [0.0; BLOCK];
    block[..values.len()].copy_from_slice(values);
    let scale = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let inverse = 1.0 / scale.max(TINY);
    let middles: [f32; MIDDLES] = middles(&CODES);
    let scaled = block.map(|value| (value * inverse).clamp(-1.0, 1.0));
    let mut codes = [0i32; BLOCK];
    for middle in middles {
        for (code, value) in codes.iter_mut().zip(&scaled) {
            *code += i32::from(*value > middle);
        }
    }
    for (byte, pair) in packed.iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    scale
}

fn quantise_scales(scales: &[f32]) -> Scales {
    let offset = sum(scales) / scales.len().max(1) as f32;
    let middles: [f32; 255] = middles(dynamic_map());
    let mut codes = Vec::with_capacity(scales.len());
    let mut blocks = Vec::with_capacity(scales.len().div_ceil(SCALE_BLOCK));
    for block in scales.chunks(SCALE_BLOCK) {
        let largest = block.iter().fold(0.0f32, |largest, scale| largest.max((scale - offset).abs()));
        let inverse = 1.0 / largest.max(TINY);
        let code = |scale: &f32| {
            let scaled = ((scale - offset) * inverse).clamp(-1.0, 1.0);
            middles.partition_point(|middle| *middle < scaled) as u8
        };
        codes.extend(block.iter().map(code));
        blocks.push(largest);
    }
    Scales::Double { codes, blocks, offset }
}

/// Lanes of torch's vectors.
const LANES: usize = 8;
/// Vectors that it adds side by side.
const WIDTH: usize = 4 * LANES;

/// The sum in the order of torch's CPU kernel with 8 lanes, so that the mean of the scales has its last bit too. (Above
/// 32768 scales torch cuts the sum by its number of threads; from there on the last bit may differ.)
fn sum(values: &[f32]) -> f32 {
    let (rows, rest) = values.as_chunks::<WIDTH>();
    let sums = cascade(rows);
    let (vectors, tail) = rest.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (lane, sum) in lanes.iter_mut().enumerate() {
        *sum = vectors.iter().fold(sums[lane], |sum, vector| sum + vector[lane]);
        for others in sums.chunks(LANES).skip(1) {
            *sum += others[lane];
        }
    }
    tail.iter().chain(&lanes).fold(0.0, |sum, value| sum + value)
}

/// The sum of rows through four levels, each of which takes over from the one below after a power of two of rows.
fn cascade(rows: &[[f32; WIDTH]]) -> [f32; WIDTH] {
    const LEVELS: usize = 4;
    fn add(sum: &mut [f32; WIDTH], row: &[f32; WIDTH]) {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let power = (rows.len().next_power_of_two().ilog2() as usize / LEVELS).max(4);
    let mut levels = [[0.0; WIDTH]; LEVELS];
    for (step, group) in rows.chunks(1 << power).enumerate() {
        group.iter().for_each(|row| add(&mut levels[0], row));
        if group.len() < 1 << power {
            break;
        }
        for level in 1..LEVELS {
            let below = std::mem::replace(&mut levels[level - 1], [0.0; WIDTH]);
            add(&mut levels[level], &below);
            if (step + 1) % (1 << ((level) * power)) != 0 {
                break;
            }
        }
    }
    let mut sum = levels[0];
    levels[1..].iter().for_each(|level| add(&mut sum, level));
    sum
}
