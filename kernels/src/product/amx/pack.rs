//! Operands in the form that the matrix units read: tiles of 16 lines, each number in parts of bf16.
//!
//! The units multiply pairs of inner values. Which two make a pair is up to us, as long as both operands agree: here
//! the values `i` and `i + 16` of the 32 of a tile, since two vectors of f32 become a line of such pairs without moving
//! anything across.

#![expect(unsafe_code, reason = "vector instructions, used after the machine was asked for them")]

use std::arch::x86_64::*;

use half::bf16;

use super::{DEPTH, PANEL, PARTS};

/// One line of a tile: 32 numbers of bf16.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u16; 32]);

/// Lines of a tile.
const TILE_LINES: usize = 16;

/// An operand's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values<'a> {
    /// Packed in three parts.
    Full(&'a [f32]),
    /// Packed as they are.
    Half(&'a [bf16]),
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Full(values) => values.len(),
            Self::Half(values) => values.len(),
        }
    }
}

/// An operand by its outer index (a row of the first, a column of the second) and the inner one; one stride is 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) values: Values<'a>,
    pub(super) outer_stride: usize,
    pub(super) inner_stride: usize,
}

/// The contents of a tile's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// All 32 inner values of one outer index, in pairs: the first operand.
    ByOuter,
    /// A pair of inner values of 16 outer indices: the second operand.
    ByPair,
}

/// Packs the outer indices `outer` and the inner ones `inner` of `source` into `panel`, [`PANEL`] lines of each of the first
/// `parts` parts (one or all) for every [`DEPTH`] of the inner index, zeros where there is nothing. Returns whether, of one
/// part, more parts would have held anything but zeros.
pub(super) fn pack_panel(
    source: &Source,
    outer: std::ops::Range<usize>,
    inner: std::ops::Range<usize>,
    order: Order,
    parts: usize,
    panel: &mut [Line],
) -> bool {
    let last = (outer.end - 1) * source.outer_stride + (inner.end - 1) * source.inner_stride;
    assert!(last < source.values.len() && outer.len() <= PANEL, "the panel lies in its operand");
    assert!(parts == 1 || parts == PARTS && matches!(source.values, Values::Full(_)), "one part or all");
    assert!(panel.len() >= inner.len().div_ceil(DEPTH) * parts * PANEL, "the buffer holds the panel");
    // SAFETY: `available` found these vector instructions; every place that is read lies at or before `last`, and
    // every line that is written lies in `panel`.
    unsafe { pack(source, outer, inner, order, parts, panel) }
}

/// Asks for a share, one of `shares`, of what a panel will be packed from.
pub(super) fn prefetch(
    source: &Source,
    outer: std::ops::Range<usize>,
    inner: std::ops::Range<usize>,
    share: usize,
    shares: usize,
) {
    // Bytes of a value, and values in what memory gives at a time.
    let (size, begin_of_all) = match source.values {
        Values::Full(values) => (4, values.as_ptr().cast::<i8>()),
        Values::Half(values) => (2, values.as_ptr().cast::<i8>()),
    };
    let line = 64 / size;
    let (rows, stride, first, length) = match source.inner_stride {
        1 => (outer.clone(), source.outer_stride, inner.start, inner.len()),
        stride => (inner.clone(), stride, outer.start * source.outer_stride, outer.len()),
    };
    let begin = rows.start + rows.len() * share / shares;
    let end = rows.start + rows.len() * (share + 1) / shares;
    for row in begin..end {
        for column in (0..length).step_by(line) {
            let place = begin_of_all.wrapping_add((row * stride + first + column) * size);
            // SAFETY: every x86 processor has this instruction, and it reads nothing that a program could notice.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(place) };
        }
    }
}

/// As [`pack_panel`].
///
/// # Safety
/// The ranges lie in the source, and the panel holds their lines.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pack(
    source: &Source,
    outer: std::ops::Range<usize>,
    inner: std::ops::Range<usize>,
    order: Order,
    parts: usize,
    panel: &mut [Line],
) -> bool {
    let natural = if source.inner_stride == 1 { Order::ByOuter } else { Order::ByPair };
    let mut rests = _mm512_setzero_si512();
    for (step, lines) in inner.clone().step_by(DEPTH).zip(panel.chunks_exact_mut(parts * PANEL)) {
        let depth = DEPTH.min(inner.end - step);
        for half in 0..2 {
            let first = (outer.start + TILE_LINES * half).min(outer.end);
            let sizes = [TILE_LINES.min(outer.end - first), depth];
            let begin = first * source.outer_stride + step * source.inner_stride;
            let tile = Tile(lines[half * TILE_LINES..].as_mut_ptr());
            // SAFETY: reads `sizes` places from the first of them on, and writes tiles of this step.
            unsafe {
                match source.values {
                    Values::Full(values) => {
                        let begin = values.as_ptr().wrapping_add(begin);
                        let second_parts = match (natural, parts) {
                            (Order::ByOuter, 1) => by_outer::<1>(begin, source.outer_stride, sizes, tile),
                            (Order::ByOuter, _) => by_outer::<PARTS>(begin, source.outer_stride, sizes, tile),
                            (Order::ByPair, 1) => by_pair::<1>(begin, source.inner_stride, sizes, tile),
                            (Order::ByPair, _) => by_pair::<PARTS>(begin, source.inner_stride, sizes, tile),
                        };
                        rests = _mm512_or_si512(rests, second_parts);
                        if order != natural {
                            for part in 0..parts {
                                let tile = tile.part(part);
                                let mut rows = tile.load_all();
                                transpose(&mut rows);
                                tile.store_all(&rows);
                            }
                        }
                    }
                    Values::Half(values) => {
                        let begin = values.as_ptr().wrapping_add(begin);
                        let mut rows = match natural {
                            Order::ByOuter => half_by_outer(begin, source.outer_stride, sizes),
                            Order::ByPair => half_by_pair(begin, source.inner_stride, sizes),
                        };
                        if order != natural {
                            transpose(&mut rows);
                        }
                        tile.store_all(&rows);
                    }
                }
            }
        }
    }
    _mm512_test_epi32_mask(rests, _mm512_set1_epi32(0x7fff_ffff)) != 0
}

/// The lines of the first part's tile; those of the next part begin [`PANEL`] lines later.
#[derive(Clone, Copy)]
struct Tile(*mut Line);

impl Tile {
    fn part(self, part: usize) -> Self {
        Self(self.0.wrapping_add(part * PANEL))
    }

    /// # Safety
    /// The tile exists.
    #[target_feature(enable = "avx512f")]
    unsafe fn load_all(self) -> [__m512i; TILE_LINES] {
        let mut rows = [_mm512_setzero_si512(); TILE_LINES];
        for (line, values) in rows.iter_mut().enumerate() {
            // SAFETY: a tile has as many lines, each of 64 bytes and aligned to as many.
            *values = unsafe { _mm512_load_si512(self.0.wrapping_add(line).cast()) };
        }
        rows
    }

    /// # Safety
    /// The line exists.
    #[target_feature(enable = "avx512f")]
    unsafe fn store(self, line: usize, values: __m512i) {
        // SAFETY: a line is 64 bytes and aligned to as many.
        unsafe { _mm512_store_si512(self.0.wrapping_add(line).cast(), values) };
    }

    /// # Safety
    /// The tile exists.
    #[target_feature(enable = "avx512f")]
    unsafe fn store_all(self, rows: &[__m512i; TILE_LINES]) {
        for (line, values) in rows.iter().enumerate() {
            // SAFETY: a tile has as many lines.
            unsafe { self.store(line, *values) };
        }
    }
}

/// One line for each of `count` outer indices, `depth` inner ones in it, and lines of zeros; returns the bits of all second
/// parts, of one part alone.
///
/// # Safety
/// That many values can be read from `begin` on, and `N` tiles be written to.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn by_outer<const N: usize>(
    begin: *const f32,
    stride: usize,
    [count, depth]: [usize; 2],
    tile: Tile,
) -> __m512i {
    let masks = [mask(depth.min(16)), mask(depth.saturating_sub(16))];
    let mut rests = _mm512_setzero_si512();
    for index in 0..TILE_LINES {
        let row = begin.wrapping_add(index * stride);
        let masks = if index < count { masks } else { [0; 2] };
        // SAFETY: the masks leave `depth` values of `count` rows, and the caller has the tiles.
        unsafe {
            let pair =
                [_mm512_maskz_loadu_ps(masks[0], row), _mm512_maskz_loadu_ps(masks[1], row.wrapping_add(TILE_LINES))];
            rests = _mm512_or_si512(rests, in_parts::<N>(pair, tile, index));
        }
    }
    rests
}

/// One line for each pair of `depth` inner indices, `count` outer ones in it, and lines of zeros; returns the bits of all
/// second parts, of one part alone.
///
/// # Safety
/// That many values can be read from `begin` on, and `N` tiles be written to.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn by_pair<const N: usize>(begin: *const f32, stride: usize, [count, depth]: [usize; 2], tile: Tile) -> __m512i {
    let mut rests = _mm512_setzero_si512();
    for index in 0..TILE_LINES {
        let row = begin.wrapping_add(index * stride);
        let masks = pair_masks(index, count, depth);
        // SAFETY: the masks leave `count` values of rows below `depth`, and the caller has the tiles.
        unsafe {
            let pair = [
                _mm512_maskz_loadu_ps(masks[0], row),
                _mm512_maskz_loadu_ps(masks[1], row.wrapping_add(TILE_LINES * stride)),
            ];
            rests = _mm512_or_si512(rests, in_parts::<N>(pair, tile, index));
        }
    }
    rests
}

/// Writes the `N` parts of numbers, pair beside pair, to a line of each part's tile. Returns the bits of the numbers that are
/// left of one part.
///
/// # Safety
/// The tiles exist.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn in_parts<const N: usize>(mut pair: [__m512; 2], tile: Tile, line: usize) -> __m512i {
    for part in 0..N {
        let [first, second] = [take_part(&mut pair[0]), take_part(&mut pair[1])];
        // SAFETY: the caller has as many tiles.
        unsafe { tile.part(part).store(line, _mm512_or_si512(_mm512_srli_epi32::<16>(first), second)) };
    }
    match N {
        1 => _mm512_or_si512(_mm512_castps_si512(pair[0]), _mm512_castps_si512(pair[1])),
        _ => _mm512_setzero_si512(),
    }
}

/// Takes the nearest number of bf16 away from each of some numbers; it is in the upper half of the bits returned. What is left
/// is exact, and nothing after three times.
#[inline]
#[target_feature(enable = "avx512f")]
fn take_part(values: &mut __m512) -> __m512i {
    let up = _mm512_add_epi32(_mm512_castps_si512(*values), _mm512_set1_epi32(0x8000));
    let part = _mm512_and_si512(up, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
    *values = _mm512_sub_ps(*values, _mm512_castsi512_ps(part));
    part
}

/// One line for each of `count` outer indices, `depth` inner ones in it, and lines of zeros.
///
/// # Safety
/// That many values can be read from `begin` on.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn half_by_outer(begin: *const bf16, stride: usize, [count, depth]: [usize; 2]) -> [__m512i; TILE_LINES] {
    /// The places of the two halves of each pair among 32 numbers in order.
    const PAIRS: [u16; DEPTH] = {
        let mut places = [0; DEPTH];
        let mut place = 0;
        while place < DEPTH {
            places[place] = (place / 2 + place % 2 * TILE_LINES) as u16;
            place += 1;
        }
        places
    };
    // SAFETY: they are as many bits.
    let pairs = unsafe { _mm512_loadu_si512(PAIRS.as_ptr().cast()) };
    let present = if depth == DEPTH { !0 } else { (1_u32 << depth) - 1 };
    let mut rows = [_mm512_setzero_si512(); TILE_LINES];
    for (index, line) in rows.iter_mut().enumerate() {
        let present = if index < count { present } else { 0 };
        // SAFETY: the mask leaves `depth` values of `count` rows.
        let values = unsafe { _mm512_maskz_loadu_epi16(present, begin.wrapping_add(index * stride).cast()) };
        *line = _mm512_permutexvar_epi16(pairs, values);
    }
    rows
}

/// One line for each pair of `depth` inner indices, `count` outer ones in it, and lines of zeros.
///
/// # Safety
/// That many values can be read from `begin` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn half_by_pair(begin: *const bf16, stride: usize, [count, depth]: [usize; 2]) -> [__m512i; TILE_LINES] {
    let mut rows = [_mm512_setzero_si512(); TILE_LINES];
    for (index, line) in rows.iter_mut().enumerate() {
        let row = begin.wrapping_add(index * stride);
        let masks = pair_masks(index, count, depth);
        // SAFETY: the masks leave `count` values of rows below `depth`.
        let [first, second] = unsafe {
            [
                _mm256_maskz_loadu_epi16(masks[0], row.cast()),
                _mm256_maskz_loadu_epi16(masks[1], row.wrapping_add(TILE_LINES * stride).cast()),
            ]
        };
        let second = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(second));
        *line = _mm512_or_si512(_mm512_cvtepu16_epi32(first), second);
    }
    rows
}

/// Masks of those of `count` outer values that exist of the two inner indices of a pair, of `depth`.
fn pair_masks(pair: usize, count: usize, depth: usize) -> [__mmask16; 2] {
    [mask(if pair < depth { count } else { 0 }), mask(if pair + TILE_LINES < depth { count } else { 0 })]
}

fn mask(count: usize) -> __mmask16 {
    ((1_u32 << count) - 1) as __mmask16
}

/// Exchanges rows and columns of 16 x 16 values of 32 bits.
#[target_feature(enable = "avx512f")]
fn transpose(rows: &mut [__m512i; 16]) {
    let before = *rows;
    let mut pairs = before;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(before[2 * i], before[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(before[2 * i], before[2 * i + 1]);
    }
    // Of four rows: quads[4 g + c] holds their values of the columns c, c + 4, c + 8, c + 12.
    let mut quads = pairs;
    for g in 0..4 {
        quads[4 * g] = _mm512_unpacklo_epi64(pairs[4 * g], pairs[4 * g + 2]);
        quads[4 * g + 1] = _mm512_unpackhi_epi64(pairs[4 * g], pairs[4 * g + 2]);
        quads[4 * g + 2] = _mm512_unpacklo_epi64(pairs[4 * g + 1], pairs[4 * g + 3]);
        quads[4 * g + 3] = _mm512_unpackhi_epi64(pairs[4 * g + 1], pairs[4 * g + 3]);
    }
    for c in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(quads[c], quads[4 + c]); // columns c, c + 8 of rows 0 to 7
        let odd = _mm512_shuffle_i32x4::<0xdd>(quads[c], quads[4 + c]); // columns c + 4, c + 12
        let even_below = _mm512_shuffle_i32x4::<0x88>(quads[8 + c], quads[12 + c]);
        let odd_below = _mm512_shuffle_i32x4::<0xdd>(quads[8 + c], quads[12 + c]);
        rows[c] = _mm512_shuffle_i32x4::<0x88>(even, even_below);
        rows[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even, even_below);
        rows[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd_below);
        rows[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_below);
    }
}
