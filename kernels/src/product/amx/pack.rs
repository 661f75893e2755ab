//! Operands in the form that the matrix units read: tiles of 16 lines, each number in parts of bf16.

#![expect(unsafe_code, reason = "vector instructions, used after the machine was asked for them")]

use std::arch::x86_64::*;

use half::bf16;

use super::{DEPTH, PANEL};

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

/// What a line of a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// All 32 inner values of one outer index: the first operand.
    ByOuter,
    /// Two inner values of 16 outer indices: the second operand.
    ByPair,
}

/// Packs the outer indices `outer` and the inner ones `inner` of `source` into `panel`, [`PANEL`] lines of each of the first
/// `parts` parts for every [`DEPTH`] of the inner index, zeros where there is nothing. Returns whether the second part holds,
/// or would have held, anything but zeros.
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
    assert!(parts == 1 || matches!(source.values, Values::Full(_)), "numbers of bf16 have one part");
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
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
                        let second_parts = match natural {
                            Order::ByOuter => by_outer(begin, source.outer_stride, sizes, parts, tile),
                            Order::ByPair => by_pair(begin, source.inner_stride, sizes, parts, tile),
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
/// parts.
///
/// # Safety
/// That many values can be read from `begin` on, and `parts` tiles be written to.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn by_outer(begin: *const f32, stride: usize, [count, depth]: [usize; 2], parts: usize, tile: Tile) -> __m512i {
    let masks = [mask(depth.min(16)), mask(depth.saturating_sub(16))];
    let mut rests = _mm512_setzero_si512();
    for index in 0..TILE_LINES {
        let row = begin.wrapping_add(index * stride);
        let masks = if index < count { masks } else { [0; 2] };
        // SAFETY: the masks leave `depth` values of `count` rows.
        let [mut low, mut high] =
            unsafe { [_mm512_maskz_loadu_ps(masks[0], row), _mm512_maskz_loadu_ps(masks[1], row.wrapping_add(16))] };
        for part in 0..parts {
            // SAFETY: both are 512 bits without invalid patterns.
            let both = unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) };
            // SAFETY: the caller has as many tiles.
            unsafe { tile.part(part).store(index, both) };
            low = _mm512_sub_ps(low, widened(_mm512_castsi512_si256(both)));
            high = _mm512_sub_ps(high, widened(_mm512_extracti64x4_epi64::<1>(both)));
            if part == 0 {
                rests = _mm512_or_si512(rests, _mm512_or_si512(_mm512_castps_si512(low), _mm512_castps_si512(high)));
            }
        }
    }
    rests
}

/// One line for each pair of `depth` inner indices, `count` outer ones in it, and lines of zeros; returns the bits of all
/// second parts.
///
/// # Safety
/// That many values can be read from `begin` on, and `parts` tiles be written to.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn by_pair(begin: *const f32, stride: usize, [count, depth]: [usize; 2], parts: usize, tile: Tile) -> __m512i {
    let mut rests = _mm512_setzero_si512();
    for pair in 0..TILE_LINES {
        let row = begin.wrapping_add(2 * pair * stride);
        let masks = [mask(count * usize::from(2 * pair < depth)), mask(count * usize::from(2 * pair + 1 < depth))];
        // SAFETY: the masks leave `count` values of rows below `depth`.
        let [mut even, mut odd] = unsafe {
            [_mm512_maskz_loadu_ps(masks[0], row), _mm512_maskz_loadu_ps(masks[1], row.wrapping_add(stride))]
        };
        for part in 0..parts {
            let (first, second) = (rounded(even), rounded(odd));
            let second_high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(second));
            // SAFETY: the caller has as many tiles.
            unsafe { tile.part(part).store(pair, _mm512_or_si512(_mm512_cvtepu16_epi32(first), second_high)) };
            even = _mm512_sub_ps(even, widened(first));
            odd = _mm512_sub_ps(odd, widened(second));
            if part == 0 {
                rests = _mm512_or_si512(rests, _mm512_or_si512(_mm512_castps_si512(even), _mm512_castps_si512(odd)));
            }
        }
    }
    rests
}

/// One line for each of `count` outer indices, `depth` inner ones in it, and lines of zeros.
///
/// # Safety
/// That many values can be read from `begin` on.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn half_by_outer(begin: *const bf16, stride: usize, [count, depth]: [usize; 2]) -> [__m512i; TILE_LINES] {
    let present = if depth == DEPTH { !0 } else { (1_u32 << depth) - 1 };
    let mut rows = [_mm512_setzero_si512(); TILE_LINES];
    for (index, line) in rows.iter_mut().enumerate() {
        let present = if index < count { present } else { 0 };
        // SAFETY: the mask leaves `depth` values of `count` rows.
        *line = unsafe { _mm512_maskz_loadu_epi16(present, begin.wrapping_add(index * stride).cast()) };
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
    for (pair, line) in rows.iter_mut().enumerate() {
        let row = begin.wrapping_add(2 * pair * stride);
        let masks = [mask(count * usize::from(2 * pair < depth)), mask(count * usize::from(2 * pair + 1 < depth))];
        // SAFETY: the masks leave `count` values of rows below `depth`.
        let [even, odd] = unsafe {
            [
                _mm256_maskz_loadu_epi16(masks[0], row.cast()),
                _mm256_maskz_loadu_epi16(masks[1], row.wrapping_add(stride).cast()),
            ]
        };
        let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
        *line = _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd);
    }
    rows
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(values: __m512) -> __m256i {
    // SAFETY: both are 256 bits without invalid patterns.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values)) }
}

#[target_feature(enable = "avx512f")]
fn widened(values: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(values)))
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
