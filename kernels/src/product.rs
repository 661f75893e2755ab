//! Products of matrices in host memory, into memory that is already there.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;

use std::marker::PhantomData;

use half::bf16;

use crate::threads::threads;

/// A matrix that lies in a slice: element `(row, column)` at `row * row_stride + column * column_stride`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row without gaps.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows that begin `row_stride` values apart.
    ///
    /// # Panics
    /// When the slice ends before the matrix.
    pub fn strided(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        check(values.len(), rows, columns, row_stride);
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same values with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix of bf16 numbers, as [`Matrix`].
#[derive(Debug, Clone, Copy)]
pub struct HalfMatrix<'a> {
    values: &'a [bf16],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> HalfMatrix<'a> {
    /// Row after row without gaps.
    ///
    /// # Panics
    /// When the slice ends before the matrix.
    pub fn new(values: &'a [bf16], rows: usize, columns: usize) -> Self {
        check(values.len(), rows, columns, columns);
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The same values with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix to write to, each row without gaps.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    values: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

impl<'a> MatrixMut<'a> {
    /// Row after row without gaps.
    pub fn new(values: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows that begin `row_stride` values apart.
    ///
    /// # Panics
    /// When the slice ends before the matrix.
    pub fn strided(values: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        check(values.len(), rows, columns, row_stride);
        assert!(columns <= row_stride || rows <= 1, "rows do not overlap");
        Self { values: values.as_mut_ptr(), rows, columns, row_stride, borrowed: PhantomData }
    }
}

fn check(length: usize, rows: usize, columns: usize, row_stride: usize) {
    let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns };
    assert!(needed <= length, "a matrix of {rows} x {columns} every {row_stride} ends after {length} values");
}

/// The use of the values that are already in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = factor * a b`, or `out += factor * a b`.
///
/// Runs on as many threads as [`crate::with_threads`] leaves to it, if it is large enough.
///
/// # Panics
/// When the sizes do not fit.
pub fn product(out: MatrixMut, accumulate: Accumulate, factor: f32, a: Matrix, b: Matrix) {
    assert_eq!((a.rows, b.columns), (out.rows, out.columns), "the product has the target's size");
    assert_eq!(a.columns, b.rows, "inner sizes agree");
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if amx::suits(&a, amx::Second::Full(b)) && amx::available() {
        return amx::multiply(out, accumulate, factor, a, amx::Second::Full(b));
    }
    let large = a.rows * a.columns * b.columns >= 1 << 23;
    let parallelism = match threads() {
        threads if threads > 1 && large => gemm::Parallelism::Rayon(threads),
        _ => gemm::Parallelism::None,
    };
    let (add, kept) = (accumulate == Accumulate::Add, if accumulate == Accumulate::Add { 1.0 } else { 0.0 });
    #[expect(unsafe_code, reason = "the crate takes pointers")]
    // SAFETY: the constructors of `Matrix` and `MatrixMut` checked that every element lies in its slice, the sizes
    // agree, and the target is borrowed alone.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.values,
            1,
            out.row_stride as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            kept,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `factor * a b` as a new matrix, row after row.
///
/// # Panics
/// When the inner sizes do not agree.
pub fn new_product(factor: f32, a: Matrix, b: Matrix) -> Vec<f32> {
    filled(a.rows, b.columns, |out| product(out, Accumulate::Replace, factor, a, b))
}

/// `a b` as a new matrix, row after row, the second matrix read as it is; `None` where it must be made a matrix of f32 first.
///
/// # Panics
/// When the inner sizes do not agree.
pub fn new_half_product(a: Matrix, b: HalfMatrix) -> Option<Vec<f32>> {
    assert_eq!(a.columns, b.rows, "inner sizes agree");
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if amx::suits(&a, amx::Second::Half(b)) && amx::available() {
        let fill = |out: MatrixMut| amx::multiply(out, Accumulate::Replace, 1.0, a, amx::Second::Half(b));
        return Some(filled(a.rows, b.columns, fill));
    }
    None
}

/// A new matrix that `product` replaces every value of; memory is not cleared first.
fn filled(rows: usize, columns: usize, product: impl FnOnce(MatrixMut)) -> Vec<f32> {
    let count = rows * columns;
    let mut values = Vec::with_capacity(count);
    product(MatrixMut { values: values.as_mut_ptr(), rows, columns, row_stride: columns, borrowed: PhantomData });
    #[expect(unsafe_code, reason = "the values are there now")]
    // SAFETY: the capacity is `count`, and a product in place of the target's values writes each and reads none.
    unsafe {
        values.set_len(count);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_with_bf16_numbers_equal_those_with_the_same_numbers_in_f32() {
        let (rows, inner, columns) = (70, 450, 141);
        let a = numbers(rows * inner, 1, false);
        let b: Vec<bf16> = numbers(inner * columns, 2, false).into_iter().map(bf16::from_f32).collect();
        let same: Vec<f32> = b.iter().map(|value| value.to_f32()).collect();
        let a = Matrix::new(&a, rows, inner);
        for turned in [false, true] {
            let (b, same) = match turned {
                false => (HalfMatrix::new(&b, inner, columns), Matrix::new(&same, inner, columns)),
                true => {
                    let (b, same) = (HalfMatrix::new(&b, columns, inner), Matrix::new(&same, columns, inner));
                    (b.transposed(), same.transposed())
                }
            };
            if let Some(half) = new_half_product(a, b) {
                assert_eq!(half, new_product(1.0, a, same));
            }
        }
    }

    /// Numbers in `[-1, 1)`; with eight bits each, if `short`.
    fn numbers(count: usize, seed: u64, short: bool) -> Vec<f32> {
        let values = crate::testing::draw(seed, [count], 1.0).into_data().try_to_vec::<f32>().unwrap();
        values.into_iter().map(|value| if short { (value * 128.0).round() / 128.0 } else { value }).collect()
    }

    #[test]
    fn large_products_are_as_exact_as_f32_arithmetic_however_their_operands_lie() {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        let on_matrix_units = amx::available();
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        let on_matrix_units = false;
        for (rows, inner, columns) in [(48, 64, 48), (65, 97, 71), (500, 450, 130), (130, 450, 500), (33, 800, 300)] {
            for (a_turned, b_turned, short) in
                [(false, false, false), (true, false, false), (false, true, true), (true, true, false)]
            {
                let (a, b) = (numbers(rows * inner, 1, false), numbers(inner * columns, 2, short));
                let view = |values, rows, columns, turned| match turned {
                    false => Matrix::new(values, rows, columns),
                    true => Matrix::new(values, columns, rows).transposed(),
                };
                let (a, b) = (view(&a, rows, inner, a_turned), view(&b, inner, columns, b_turned));
                let start = numbers(rows * columns, 3, false);
                let mut results = Vec::new();
                for threads in [1, 2] {
                    let mut out = start.clone();
                    let target = MatrixMut::new(&mut out, rows, columns);
                    crate::with_threads(threads, || product(target, Accumulate::Add, 0.5, a, b));
                    let at = |matrix: &Matrix, row: usize, column: usize| {
                        f64::from(matrix.values[row * matrix.row_stride + column * matrix.column_stride])
                    };
                    let mut worst = 0.0_f64;
                    for (place, value) in out.iter().enumerate() {
                        let (row, column) = (place / columns, place % columns);
                        let sum: f64 = (0..inner).map(|k| at(&a, row, k) * at(&b, k, column)).sum();
                        worst = worst.max((f64::from(*value) - f64::from(start[place]) - 0.5 * sum).abs());
                    }
                    // Sums of `inner` products of about 1/3 each, of random sign: a few units in their last place, some more
                    // where a processor without matrix units adds them up one after the other.
                    let unit = if on_matrix_units { 5e-7 } else { 1.2e-6 };
                    let bound = unit * (inner as f64).sqrt();
                    assert!(worst < bound, "{rows} {inner} {columns} {a_turned} {b_turned}: {worst} above {bound}");
                    results.push(out);
                }
                assert!(results[0] == results[1], "{rows} {inner} {columns}: two threads give other sums than one");
            }
        }
    }

    #[test]
    fn products_of_views_equal_the_sum_over_the_inner_index() {
        let (rows, inner, columns) = (5, 7, 6);
        let a: Vec<f32> = (0..rows * 9).map(|i| (i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..columns * inner).map(|i| (i % 7) as f32 - 3.0).collect();
        for (accumulate, start) in [(Accumulate::Replace, 0.0), (Accumulate::Add, 2.0)] {
            let mut out = vec![2.0; rows * 8];
            let target = MatrixMut::strided(&mut out, rows, columns, 8);
            product(
                target,
                accumulate,
                0.5,
                Matrix::strided(&a, rows, inner, 9),
                Matrix::new(&b, columns, inner).transposed(),
            );
            for row in 0..rows {
                for column in 0..columns {
                    let sum: f32 = (0..inner).map(|k| a[row * 9 + k] * b[column * inner + k]).sum();
                    assert_eq!(out[row * 8 + column], start + 0.5 * sum);
                }
                assert_eq!(out[row * 8 + columns..][..2], [2.0, 2.0]);
            }
        }
    }
}
