//! Packed codes back to numbers: a block's 16 possible values once, then 64 look-ups.
//!
//! The look-up is one permutation of a 16-lane register where AVX-512 is there, two of 8 lanes with AVX2, and a
//! table in memory elsewhere; which of them is decided at run time, and all give the same bits.

use burn::tensor::FloatDType;
use half::f16;

use super::tables::{CODES, dynamic_map};
use super::{BLOCK, SCALE_BLOCK};

/// Packed weights where they lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed<'a> {
    /// Two codes a byte, the first in its upper half.
    pub(crate) codes: &'a [u8],
    pub(crate) scales: PackedScales<'a>,
    /// The type that values are rounded to.
    pub(crate) dtype: FloatDType,
}

/// The scales of blocks of [`BLOCK`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum PackedScales<'a> {
    Plain(&'a [f32]),
    Double { codes: &'a [u8], blocks: &'a [f32], offset: f32 },
}

impl PackedScales<'_> {
    /// The scale of one block.
    pub(crate) fn of(&self, block: usize) -> f32 {
        match self {
            Self::Plain(scales) => scales[block],
            Self::Double { codes, blocks, offset } => {
                dynamic_map()[usize::from(codes[block])] * blocks[block / SCALE_BLOCK] + offset
            }
        }
    }
}

/// A way to look up the 64 values of whole blocks.
type LookUp = fn(&[[u8; BLOCK / 2]], &[[f32; 16]], &mut [[f32; BLOCK]]);

impl Packed<'_> {
    /// The values from `start` on, as many as fit into `out`.
    pub(crate) fn decode(&self, start: usize, out: &mut [f32]) {
        let head = start.next_multiple_of(BLOCK).min(start + out.len()) - start;
        let (first, rest) = out.split_at_mut(head);
        self.decode_one_by_one(start, first);
        let start = start + head;
        let (blocks, last) = rest.as_chunks_mut::<BLOCK>();
        self.decode_blocks(start / BLOCK, blocks, look_up());
        self.decode_one_by_one(start + blocks.len() * BLOCK, last);
    }

    /// As [`Packed::decode`], one value after the other.
    pub(crate) fn decode_one_by_one(&self, start: usize, out: &mut [f32]) {
        for (index, value) in (start..).zip(out) {
            let byte = self.codes[index / 2];
            let code = if index % 2 == 0 { byte >> 4 } else { byte & 15 };
            *value = round(CODES[usize::from(code)] * self.scales.of(index / BLOCK), self.dtype);
        }
    }

    fn decode_blocks(&self, first: usize, out: &mut [[f32; BLOCK]], look_up: LookUp) {
        /// Blocks whose tables are made at a time.
        const GROUP: usize = 32;
        let (codes, _) = self.codes[first * BLOCK / 2..].as_chunks::<{ BLOCK / 2 }>();
        let mut tables = [[0.0; 16]; GROUP];
        for (group, (codes, out)) in codes.chunks(GROUP).zip(out.chunks_mut(GROUP)).enumerate() {
            for (block, table) in tables[..out.len()].iter_mut().enumerate() {
                let scale = self.scales.of(first + group * GROUP + block);
                *table = CODES.map(|code| code * scale);
                if self.dtype != FloatDType::F32 {
                    *table = table.map(|value| round(value, self.dtype));
                }
            }
            look_up(&codes[..out.len()], &tables, out);
        }
    }
}

/// `value` as a number of type `dtype`.
pub(crate) fn round(value: f32, dtype: FloatDType) -> f32 {
    match dtype {
        // Codes times finite scales are finite, so that the usual bits do: to the nearest, the even one of two.
        FloatDType::BF16 => {
            let bits = value.to_bits();
            f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
        }
        FloatDType::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// The fastest way that this processor has.
fn look_up() -> LookUp {
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx512() {
            return x86::avx512;
        }
        if x86::has_avx2() {
            return x86::avx2;
        }
    }
    in_memory
}

fn in_memory(codes: &[[u8; BLOCK / 2]], tables: &[[f32; 16]], out: &mut [[f32; BLOCK]]) {
    for ((codes, table), out) in codes.iter().zip(tables).zip(out) {
        for (byte, pair) in codes.iter().zip(out.as_chunks_mut::<2>().0) {
            *pair = [table[usize::from(byte >> 4)], table[usize::from(byte & 15)]];
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions that are asked for at run time")]
mod x86 {
    use std::arch::x86_64::*;

    use super::BLOCK;

    pub(super) fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("ssse3")
    }

    pub(super) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2")
    }

    pub(super) fn avx512(codes: &[[u8; BLOCK / 2]], tables: &[[f32; 16]], out: &mut [[f32; BLOCK]]) {
        assert!(has_avx512(), "only chosen where it is there");
        // SAFETY: the processor has the instructions.
        unsafe { with_avx512(codes, tables, out) }
    }

    pub(super) fn avx2(codes: &[[u8; BLOCK / 2]], tables: &[[f32; 16]], out: &mut [[f32; BLOCK]]) {
        assert!(has_avx2(), "only chosen where it is there");
        // SAFETY: the processor has the instructions.
        unsafe { with_avx2(codes, tables, out) }
    }

    /// 8 bytes, each twice in a row: a lane for each code.
    #[target_feature(enable = "ssse3")]
    fn doubled(bytes: &[u8; 8]) -> __m128i {
        let twice = _mm_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        _mm_shuffle_epi8(_mm_cvtsi64_si128(i64::from_le_bytes(*bytes)), twice)
    }

    #[target_feature(enable = "avx512f,ssse3")]
    fn with_avx512(codes: &[[u8; BLOCK / 2]], tables: &[[f32; 16]], out: &mut [[f32; BLOCK]]) {
        // The first of two codes is in the upper half of its byte; the permutation ignores all but four bits.
        let shifts = _mm512_set4_epi32(0, 4, 0, 4);
        for ((codes, table), out) in codes.iter().zip(tables).zip(out) {
            // SAFETY: a table is 16 numbers.
            let table = unsafe { _mm512_loadu_ps(table.as_ptr()) };
            for (bytes, out) in codes.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<16>().0) {
                let lanes = _mm512_srlv_epi32(_mm512_cvtepu8_epi32(doubled(bytes)), shifts);
                // SAFETY: `out` is 16 numbers.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_permutexvar_ps(lanes, table)) };
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn with_avx2(codes: &[[u8; BLOCK / 2]], tables: &[[f32; 16]], out: &mut [[f32; BLOCK]]) {
        let shifts = _mm256_setr_epi32(4, 0, 4, 0, 4, 0, 4, 0);
        for ((codes, table), out) in codes.iter().zip(tables).zip(out) {
            let (below, above) = table.split_at(8);
            // SAFETY: both halves of a table are 8 numbers.
            let (below, above) = unsafe { (_mm256_loadu_ps(below.as_ptr()), _mm256_loadu_ps(above.as_ptr())) };
            for (bytes, out) in codes.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<16>().0) {
                let lanes = doubled(bytes);
                let halves = [lanes, _mm_srli_si128::<8>(lanes)];
                for (lanes, out) in halves.into_iter().zip(out.as_chunks_mut::<8>().0) {
                    let lanes = _mm256_srlv_epi32(_mm256_cvtepu8_epi32(lanes), shifts);
                    // The permutation sees three bits; the fourth, moved to the sign, chooses the half of the table.
                    let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(lanes));
                    let (low, high) = (_mm256_permutevar8x32_ps(below, lanes), _mm256_permutevar8x32_ps(above, lanes));
                    // SAFETY: `out` is 8 numbers.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_blendv_ps(low, high, upper)) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nf4::Nf4;
    use crate::random::normal;

    #[test]
    fn every_look_up_gives_the_bits_of_the_table_in_memory() {
        let values = normal(7, 70 * BLOCK, 0.02);
        for (double, dtype) in [(false, FloatDType::F32), (true, FloatDType::BF16), (true, FloatDType::F16)] {
            let packed = Nf4::quantise(&values, double, dtype);
            let mut expected = vec![0.0; values.len()];
            packed.view().decode_one_by_one(0, &mut expected);
            let mut ways: Vec<(&str, LookUp)> = vec![("memory", in_memory)];
            #[cfg(target_arch = "x86_64")]
            {
                ways.extend(x86::has_avx2().then_some(("avx2", x86::avx2 as LookUp)));
                ways.extend(x86::has_avx512().then_some(("avx512", x86::avx512 as LookUp)));
            }
            for (name, way) in ways {
                let mut found = vec![[0.0; BLOCK]; 70];
                packed.view().decode_blocks(0, &mut found, way);
                assert_eq!(found.concat(), expected, "{name}");
            }
        }
    }

    #[test]
    fn any_range_decodes_as_the_whole_does() {
        let values = normal(8, 1000, 1.0);
        let packed = Nf4::quantise(&values, true, FloatDType::F32);
        let whole = packed.dequantise();
        for (start, length) in
            [(0, 1000), (1, 62), (1, 63), (63, 65), (64, 64), (65, 300), (130, 1), (999, 1), (1000, 0)]
        {
            let mut found = vec![0.0; length];
            packed.view().decode(start, &mut found);
            assert_eq!(found, whole[start..start + length], "{start} {length}");
        }
    }
}
