//! Products of f32 matrices on the matrix units of x86 servers (AMX), which multiply 16-bit numbers (bf16).
//!
//! A number of f32 is the sum of three of bf16, its first, second and third eight bits; of the nine products of
//! such parts the six largest are added up in f32 (Henry, Tang and Heinecke 2019, arXiv:1904.06376). What is left
//! out is below 2^-23 of a product, so the result is as exact as that of f32 arithmetic, in less than half its time.
//! If the second matrix holds bf16 numbers to begin with, as weights do, three of the six are zero and left out.

mod pack;
mod tiles;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::{Accumulate, HalfMatrix, Matrix, MatrixMut};
use crate::threads::threads;
use crate::vector::{add_scaled, vectorised};
use pack::{Line, Order, Source, Values, pack_panel, prefetch};

/// Rows, or columns, that the innermost loop takes at a time.
const PANEL: usize = 32;
/// Values of the inner index in a tile.
const DEPTH: usize = 32;
/// Parts of a number.
const PARTS: usize = 3;
/// Steps of [`DEPTH`] that are taken of all panels before the next ones: what they hold of two panels stays in the first cache.
const STEPS: usize = 6;
/// Rows whose packed form, with [`INNER`] values each, stays in the second cache.
const ROWS: usize = 448;
/// Columns that are packed at a time: of a matrix whose rows lie in memory as they are, enough of each row.
const GROUP: usize = 8 * PANEL;
/// Values of the inner index that are packed at a time.
const INNER: usize = 384;

/// True if this machine and this system have the units, asked once.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(tiles::request)
}

/// True if a product is large enough to be worth packing its operands, and lies so that they can be packed.
pub(super) fn suits(a: &Matrix, b: Second) -> bool {
    let [columns, outer_stride, inner_stride] = match b {
        Second::Full(b) => [b.columns, b.column_stride, b.row_stride],
        Second::Half(b) => [b.columns, b.column_stride, b.row_stride],
    };
    let unit = |strides: [usize; 2]| strides.contains(&1);
    let large = a.rows >= 48 && columns >= 48 && a.columns >= 64;
    large && unit([a.row_stride, a.column_stride]) && unit([outer_stride, inner_stride])
}

/// The second operand.
#[derive(Clone, Copy)]
pub(super) enum Second<'a> {
    Full(Matrix<'a>),
    Half(HalfMatrix<'a>),
}

impl<'a> Second<'a> {
    fn source(&self) -> Source<'a> {
        let (values, outer_stride, inner_stride) = match self {
            Self::Full(b) => (Values::Full(b.values), b.column_stride, b.row_stride),
            Self::Half(b) => (Values::Half(b.values), b.column_stride, b.row_stride),
        };
        Source { values, outer_stride, inner_stride }
    }
}

/// The target, which threads share out among themselves.
#[derive(Clone, Copy)]
struct Target {
    values: *mut f32,
    row_stride: usize,
    add: bool,
    factor: f32,
}

#[expect(unsafe_code, reason = "threads write disjoint blocks of one matrix")]
// SAFETY: every thread gets rows or columns of its own, and the matrix is borrowed alone until all are done.
unsafe impl Sync for Target {}

/// `out = factor * a b`, or `out += factor * a b`; sizes as checked by the caller.
pub(super) fn multiply(out: MatrixMut, accumulate: Accumulate, factor: f32, a: Matrix, b: Second) {
    let b = b.source();
    let target = Target { values: out.values, row_stride: out.row_stride, add: accumulate == Accumulate::Add, factor };
    // What is not shared out is packed by every thread, so the longer side is shared out. Either way a number is the same
    // sum in the same order.
    let by_rows = a.rows > out.columns;
    let extent = if by_rows { a.rows } else { out.columns };
    let threads = threads().min(extent / 128).max(1);
    if threads == 1 {
        return multiply_block(&target, &a, &b, 0..a.rows, 0..out.columns);
    }
    let width = extent.div_ceil(threads).next_multiple_of(PANEL);
    let target = &target;
    (0..extent).into_par_iter().step_by(width).for_each(|first| {
        let share = first..(first + width).min(extent);
        match by_rows {
            true => multiply_block(target, &a, &b, share, 0..out.columns),
            false => multiply_block(target, &a, &b, 0..a.rows, share),
        }
    });
}

/// Buffers of a thread, kept from one product to the next.
#[derive(Default)]
struct Packed {
    a: Vec<Line>,
    b: Vec<Line>,
}

fn multiply_block(target: &Target, a: &Matrix, b: &Source, all_rows: Range<usize>, columns: Range<usize>) {
    thread_local! {
        static PACKED: RefCell<Packed> = RefCell::default();
    }
    let rows = all_rows.len().div_ceil(all_rows.len().div_ceil(ROWS)).next_multiple_of(PANEL);
    let all_inner = a.columns;
    let depth = all_inner.div_ceil(all_inner.div_ceil(INNER)).next_multiple_of(DEPTH);
    let steps = depth / DEPTH;
    let a_source = Source { values: Values::Full(a.values), outer_stride: a.row_stride, inner_stride: a.column_stride };
    PACKED.with_borrow_mut(|packed| {
        let tiles = tiles::Configured::new();
        // Lines of 64 bytes: a step takes 32 of a panel for each part of its numbers.
        make_room(&mut packed.a, rows / PANEL * steps * PARTS * PANEL);
        make_room(&mut packed.b, GROUP / PANEL * steps * PARTS * PANEL);
        // Until a number of the second operand proves to need more.
        let mut parts = 1;
        for first_row in all_rows.clone().step_by(rows) {
            let rows = first_row..(first_row + rows).min(all_rows.end);
            for first_inner in (0..all_inner).step_by(depth) {
                let inner = first_inner..(first_inner + depth).min(all_inner);
                let steps = inner.len().div_ceil(DEPTH);
                let lines = steps * PARTS * PANEL;
                for (first, panel) in rows.clone().step_by(PANEL).zip(packed.a.chunks_exact_mut(lines)) {
                    let outer = first..(first + PANEL).min(rows.end);
                    pack_panel(&a_source, outer, inner.clone(), Order::ByOuter, PARTS, panel);
                }
                for group in columns.clone().step_by(GROUP) {
                    let group = group..(group + GROUP).min(columns.end);
                    if pack_group(b, group.clone(), inner.clone(), parts, &mut packed.b) && parts == 1 {
                        parts = PARTS;
                        pack_group(b, group.clone(), inner.clone(), parts, &mut packed.b);
                    }
                    let next = (group.end < columns.end).then(|| group.end..(group.end + GROUP).min(columns.end));
                    let b_lines = steps * parts * PANEL;
                    let (panels, groups) = (rows.len().div_ceil(PANEL), group.len().div_ceil(PANEL));
                    let mut share = 0;
                    let shares = steps.div_ceil(STEPS) * panels * groups;
                    for step in (0..steps).step_by(STEPS) {
                        let steps = step..(step + STEPS).min(steps);
                        for (row, a_panel) in packed.a.chunks_exact(lines).take(panels).enumerate() {
                            let first = rows.start + row * PANEL;
                            let rows = first..(first + PANEL).min(rows.end);
                            for (column, b_panel) in packed.b.chunks_exact(b_lines).take(groups).enumerate() {
                                // Weights come from main memory; what the next group needs is on its way meanwhile.
                                if let Some(next) = &next {
                                    prefetch(b, next.clone(), inner.clone(), share, shares);
                                }
                                share += 1;
                                let first = group.start + column * PANEL;
                                let columns = first..(first + PANEL).min(group.end);
                                let square = Square { rows: rows.clone(), columns };
                                let begun = first_inner > 0 || step > 0;
                                target.take(
                                    &tiles,
                                    of_steps(a_panel, &steps, PARTS),
                                    of_steps(b_panel, &steps, parts),
                                    parts,
                                    square,
                                    begun,
                                );
                            }
                        }
                    }
                }
            }
        }
    });
}

/// The lines of some steps of a panel.
fn of_steps<'a>(panel: &'a [Line], steps: &Range<usize>, parts: usize) -> &'a [Line] {
    &panel[steps.start * parts * PANEL..steps.end * parts * PANEL]
}

/// Packs the second operand's columns `group`, panel after panel, in the order in which they lie in memory; whether the
/// second parts would hold anything but zeros.
fn pack_group(source: &Source, group: Range<usize>, inner: Range<usize>, parts: usize, room: &mut [Line]) -> bool {
    let lines = inner.len().div_ceil(DEPTH) * parts * PANEL;
    let depth = if source.inner_stride == 1 { inner.len() } else { DEPTH };
    let mut more = false;
    for (step, begin) in inner.clone().step_by(depth).enumerate() {
        let inner = begin..(begin + depth).min(inner.end);
        for (first, panel) in group.clone().step_by(PANEL).zip(room.chunks_exact_mut(lines)) {
            let outer = first..(first + PANEL).min(group.end);
            let panel = &mut panel[step * parts * PANEL..];
            more |= pack_panel(source, outer, inner.clone(), Order::ByPair, parts, panel);
        }
    }
    more
}

/// Buffers only grow, so that what is in them need not be cleared again.
fn make_room(buffer: &mut Vec<Line>, lines: usize) {
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; 32]));
    }
}

/// At most 32 rows and columns of the target.
struct Square {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Target {
    /// Adds the product of two panels to a square of the target, or puts it there unless something is there already.
    #[expect(unsafe_code, reason = "other threads hold the rest of the matrix")]
    fn take(&self, tiles: &tiles::Configured, a: &[Line], b: &[Line], b_parts: usize, square: Square, begun: bool) {
        let Square { rows, columns } = square;
        let add = self.add || begun;
        let place = |row: usize| self.values.wrapping_add(row * self.row_stride + columns.start);
        if self.factor == 1.0 && rows.len() == PANEL && columns.len() == PANEL {
            // SAFETY: the square lies in the matrix, and no other thread has it.
            return unsafe { tiles.multiply(a, b, b_parts, place(rows.start), self.row_stride, add) };
        }
        let mut result = [0.0; PANEL * PANEL];
        // SAFETY: the result is such a square.
        unsafe { tiles.multiply(a, b, b_parts, result.as_mut_ptr(), PANEL, false) };
        vectorised(
            #[inline(always)]
            || {
                for (row, result) in rows.zip(result.as_chunks::<PANEL>().0) {
                    // SAFETY: the row and its columns lie in the matrix, and no other thread has that part of it.
                    let out = unsafe { std::slice::from_raw_parts_mut(place(row), columns.len()) };
                    if !add {
                        out.fill(0.0);
                    }
                    add_scaled(out, result, self.factor);
                }
            },
        );
    }
}
