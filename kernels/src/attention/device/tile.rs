//! The kernels' work on a tile: rows that a cube owns against other rows, a product in registers at a time.
//!
//! The units of a cube form a grid. A unit has every `units_y`-th row that the cube owns, and every `units_x`-th
//! column of a product, so that neighbours read neighbouring words of shared memory.

use cubecl::prelude::*;

/// The cut of a cube's work; everything here is known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::attention) struct Tiles {
    /// Units along the columns of a product.
    pub(in crate::attention) units_x: usize,
    /// Units along its rows.
    pub(in crate::attention) units_y: usize,
    /// Rows that a cube owns, a multiple of `units_y`.
    pub(in crate::attention) own: usize,
    /// Other rows at a time, a multiple of `units_x`.
    pub(in crate::attention) other: usize,
    /// Columns of both that lie in shared memory at a time.
    pub(in crate::attention) depth: usize,
    /// If set, the loops over a unit's numbers are written out, which keeps these in registers.
    pub(in crate::attention) unrolled: bool,
}

impl Tiles {
    /// Rows of a unit.
    pub(super) const fn rows(&self) -> usize {
        self.own / self.units_y
    }

    /// Columns of a unit in a product of own and other rows.
    pub(super) const fn columns(&self) -> usize {
        self.other / self.units_x
    }

    /// Columns of a unit in a sum over other rows of width `dim`.
    pub(super) const fn sums(&self, dim: usize) -> usize {
        dim.div_ceil(self.units_x)
    }

    /// Numbers of shared memory for parts of rows.
    pub(super) const fn part(&self) -> usize {
        let scores = (self.own + self.other) * (self.depth + 1);
        let exchange = self.own * self.units_x;
        if scores > exchange { scores } else { exchange }
    }

    /// Numbers of shared memory for the weights between own and other rows.
    pub(super) const fn weights(&self) -> usize {
        self.own * (self.other + 1)
    }

    /// Other rows, all columns wide, that fit where parts of rows lie: a power of two, or `None` if not even one.
    pub(in crate::attention) fn whole_rows(&self, dim: usize) -> Option<usize> {
        let fit = (self.part() / (self.sums(dim) * self.units_x)).min(self.other);
        fit.checked_ilog2().map(|log| 1 << log)
    }

    /// Bytes of shared memory.
    pub(in crate::attention) const fn shared_bytes(&self) -> usize {
        4 * (self.part() + self.weights())
    }
}

/// The place of rows in a tensor.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Rows {
    /// The first number of the first row.
    pub(super) base: usize,
    /// From a row to the next.
    pub(super) step: usize,
    /// Number of rows; reads beyond them give zero.
    pub(super) count: usize,
}

/// The unit's row number `index` among those that the cube owns.
#[cube]
pub(super) fn own_row(index: usize, #[comptime] tiles: Tiles) -> usize {
    UNIT_POS_Y as usize + index * tiles.units_y
}

/// The unit's column number `index`, of a product or of a sum.
#[cube]
pub(super) fn column(index: usize, #[comptime] tiles: Tiles) -> usize {
    UNIT_POS_X as usize + index * tiles.units_x
}

/// Copies `height` rows, `width` columns from `first` on, to shared memory, where a row takes `step` numbers.
#[cube]
fn copy<F: Float>(
    source: &[F],
    rows: &Rows,
    first: usize,
    shared: &mut Shared<[f32]>,
    start: usize,
    #[comptime] size: [usize; 2],
    #[comptime] step: usize,
    #[comptime] dim: usize,
    #[comptime] tiles: Tiles,
) {
    let [height, width] = size;
    let units = comptime!(tiles.units_x * tiles.units_y);
    let mut place = UNIT_POS as usize;
    while place < comptime!(height * width) {
        let row = place / width;
        let column = place % width;
        let mut value = 0.0f32;
        if row < rows.count && first + column < dim {
            value = f32::cast_from(source[rows.base + row * rows.step + first + column]);
        }
        shared[start + row * step + column] = value;
        place += units;
    }
}

/// Products of each own row of `left` with each other row of `right`, `dim` numbers long, into `products`:
/// `[rows, columns]` of the unit. No unit may still be reading `part`.
#[cube]
pub(super) fn multiply<F: Float>(
    left: &[F],
    own: &Rows,
    right: &[F],
    other: &Rows,
    products: &mut Array<f32>,
    part: &mut Shared<[f32]>,
    #[comptime] dim: usize,
    #[comptime] tiles: Tiles,
) {
    let step = comptime!(tiles.depth + 1);
    let right_start = comptime!(tiles.own * (tiles.depth + 1));
    let rows = comptime!(tiles.rows());
    let columns = comptime!(tiles.columns());
    let mut a = Array::<f32>::new(rows);
    #[unroll(tiles.unrolled)]
    for index in 0..comptime!(rows * columns) {
        products[index] = 0.0f32;
    }
    let mut first = 0usize;
    while first < dim {
        copy::<F>(left, own, first, part, 0usize, comptime!([tiles.own, tiles.depth]), step, dim, tiles);
        copy::<F>(right, other, first, part, right_start, comptime!([tiles.other, tiles.depth]), step, dim, tiles);
        sync_cube();
        for place in 0..tiles.depth {
            #[unroll(tiles.unrolled)]
            for i in 0..rows {
                a[i] = part[own_row(i, tiles) * step + place];
            }
            #[unroll(tiles.unrolled)]
            for j in 0..columns {
                let b = part[right_start + column(j, tiles) * step + place];
                #[unroll(tiles.unrolled)]
                for i in 0..rows {
                    products[i * columns + j] += a[i] * b;
                }
            }
        }
        sync_cube();
        first += tiles.depth;
    }
}

/// Adds to `sums`, `[rows, sums]` of the unit, the other rows of `source` times what they weigh for the own rows.
/// All `weights` have to be written, and no unit may still be reading `part`; a barrier in between is not needed.
#[cube]
pub(super) fn add_weighted<F: Float>(
    weights: &Shared<[f32]>,
    source: &[F],
    other: &Rows,
    sums: &mut Array<f32>,
    part: &mut Shared<[f32]>,
    #[comptime] height: usize,
    #[comptime] dim: usize,
    #[comptime] tiles: Tiles,
) {
    let rows = comptime!(tiles.rows());
    let width = comptime!(tiles.sums(dim) * tiles.units_x);
    let step = comptime!(tiles.other + 1);
    let mut a = Array::<f32>::new(rows);
    let mut first = 0usize;
    while first < tiles.other {
        let mut count = 0usize;
        if other.count > first {
            count = other.count - first;
        }
        let rows_of_part = Rows { base: other.base + first * other.step, step: other.step, count };
        copy::<F>(source, &rows_of_part, 0usize, part, 0usize, comptime!([height, width]), width, dim, tiles);
        sync_cube();
        for place in 0..height {
            #[unroll(tiles.unrolled)]
            for i in 0..rows {
                a[i] = weights[own_row(i, tiles) * step + first + place];
            }
            #[unroll(tiles.unrolled)]
            for j in 0..comptime!(tiles.sums(dim)) {
                let b = part[place * width + column(j, tiles)];
                #[unroll(tiles.unrolled)]
                for i in 0..rows {
                    sums[i * comptime!(tiles.sums(dim)) + j] += a[i] * b;
                }
            }
        }
        sync_cube();
        first += height;
    }
}

/// Writes `sums` times `factor` to the own rows of `out`.
#[cube]
pub(super) fn write<F: Float>(
    sums: &Array<f32>,
    factor: f32,
    out: &mut [F],
    own: &Rows,
    #[comptime] dim: usize,
    #[comptime] tiles: Tiles,
) {
    #[unroll(tiles.unrolled)]
    for i in 0..comptime!(tiles.rows()) {
        let row = own_row(i, tiles);
        #[unroll(tiles.unrolled)]
        for j in 0..comptime!(tiles.sums(dim)) {
            let column = column(j, tiles);
            if row < own.count && column < dim {
                out[own.base + row * own.step + column] =
                    F::cast_from(sums[i * comptime!(tiles.sums(dim)) + j] * factor);
            }
        }
    }
}
