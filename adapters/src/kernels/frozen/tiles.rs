//! The CPU's products: a tile of the matrix is unpacked into a buffer that stays in cache, then multiplied.
//!
//! Tiles are shared out among the cores, each product within one is on one core: micro-batches that run side by
//! side already keep the cores busy, and where they do not, tiles do. How tiles are cut never changes a sum.

use std::cell::RefCell;
use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata, ops::FloatTensorOps};
use burn::tensor::{DType, FloatDType, TensorData};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::{FrozenProducts, NESTED, Nf4Form, Side};
use crate::nf4::{BLOCK, CODES, Packed, PackedScales};
use crate::parameter::float_dtype;

/// Rows of a tile of `x Wᵀ`: a multiple of what the product's innermost loop takes at a time.
const ROWS: usize = 96;
/// Rows of a tile of `y W`, over which that product sums.
const DEPTH: usize = 256;
/// Columns of a tile of `y W`, at most.
const COLUMNS: usize = 512;

impl FrozenProducts for Flex {
    fn nf4_product(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scale_values: FloatTensor<Self>,
        form: Nf4Form,
        side: Side,
    ) -> FloatTensor<Self> {
        let (codes, scale_codes) = (codes.to_contiguous(), scale_codes.to_contiguous());
        let scale_values = scale_values.to_contiguous();
        let values = scale_values.storage::<f32>();
        let scales = match form.double {
            false => PackedScales::Plain(&values[CODES.len()..]),
            true => PackedScales::Double {
                codes: scale_codes.bytes(),
                blocks: &values[NESTED..],
                offset: values[NESTED - 1],
            },
        };
        let packed = Packed { codes: codes.bytes(), scales, dtype: form.dtype };
        product(x, [form.outputs, form.inputs], side, &|start, out| packed.decode(start, out))
    }

    fn half_product(x: FloatTensor<Self>, weight: FloatTensor<Self>, side: Side) -> FloatTensor<Self> {
        let weight = weight.to_contiguous();
        let shape = weight.shape();
        let sizes = [shape[0], shape[1]];
        match weight.dtype() {
            DType::BF16 => {
                let values = weight.storage::<bf16>();
                product(x, sizes, side, &|start, out| {
                    for (out, value) in out.iter_mut().zip(&values[start..]) {
                        *out = f32::from_bits(u32::from(value.to_bits()) << 16);
                    }
                })
            }
            DType::F16 => {
                let values = weight.storage::<f16>();
                product(x, sizes, side, &|start, out| {
                    values[start..start + out.len()].convert_to_f32_slice(out);
                })
            }
            other => unreachable!("a matrix of {other:?} is no matrix of 16-bit numbers"),
        }
    }
}

/// Writes the numbers of a matrix from a place on, rows one after the other.
type Decode<'a> = &'a (dyn Fn(usize, &mut [f32]) + Sync);

/// The product of `x` with a matrix of these sizes from `side`, in the dtype of `x`.
fn product(x: FloatTensor<Flex>, sizes: [usize; 2], side: Side, decode: Decode) -> FloatTensor<Flex> {
    let dtype = x.dtype();
    let x = if dtype == DType::F32 { x } else { Flex::float_cast(x, FloatDType::F32) };
    let x = x.to_contiguous();
    let values = x.as_slice::<f32>().expect("contiguous f32");
    let tokens = x.shape()[0];
    let columns = side.columns(sizes[0], sizes[1]);
    let mut y = vec![0.0; tokens * columns];
    match side {
        Side::Inputs => by_rows(values, tokens, sizes, &mut y, decode),
        Side::Outputs => by_columns(values, tokens, sizes, &mut y, decode),
    }
    let y = FloatTensor::<Flex>::from_data(TensorData::new(y, [tokens, columns]));
    if dtype == DType::F32 { y } else { Flex::float_cast(y, float_dtype(dtype)) }
}

/// `y = x Wᵀ`, a tile of whole rows of the matrix after the other.
fn by_rows(x: &[f32], tokens: usize, [outputs, inputs]: [usize; 2], y: &mut [f32], decode: Decode) {
    let y = Shared(y.as_mut_ptr());
    kernels::for_each(pieces(outputs, ROWS).into_par_iter(), |rows| {
        with_tile(rows.len() * inputs, |tile| {
            decode(rows.start * inputs, tile);
            // [tokens, in] by [in, rows] into the columns `rows` of [tokens, out]
            let left = Matrix { start: x.as_ptr(), rows: tokens, columns: inputs, strides: [inputs, 1] };
            let right = Matrix { start: tile.as_ptr(), rows: inputs, columns: rows.len(), strides: [1, inputs] };
            multiply(left, right, y.at(rows.start), outputs, false);
        });
    });
}

/// `z = y W`: for a strip of columns, one tile of rows of the matrix after the other is added.
fn by_columns(y: &[f32], tokens: usize, [outputs, inputs]: [usize; 2], z: &mut [f32], decode: Decode) {
    let z = Shared(z.as_mut_ptr());
    let strips = inputs.div_ceil(COLUMNS).max(kernels::threads());
    let width = inputs.div_ceil(strips).next_multiple_of(BLOCK);
    kernels::for_each(pieces(inputs, width).into_par_iter(), |columns| {
        for rows in pieces(outputs, DEPTH) {
            with_tile(rows.len() * columns.len(), |tile| {
                for (row, part) in rows.clone().zip(tile.chunks_mut(columns.len())) {
                    decode(row * inputs + columns.start, part);
                }
                // [tokens, rows] by [rows, columns] onto the columns of [tokens, in]
                let left = &y[rows.start..];
                let left = Matrix { start: left.as_ptr(), rows: tokens, columns: rows.len(), strides: [outputs, 1] };
                let right = Matrix {
                    start: tile.as_ptr(),
                    rows: rows.len(),
                    columns: columns.len(),
                    strides: [columns.len(), 1],
                };
                multiply(left, right, z.at(columns.start), inputs, rows.start > 0);
            });
        }
    });
}

/// `0..length` in pieces of `size`, the last maybe shorter.
fn pieces(length: usize, size: usize) -> Vec<Range<usize>> {
    (0..length).step_by(size).map(|start| start..(start + size).min(length)).collect()
}

/// Lends this thread's buffer of `length` numbers.
fn with_tile(length: usize, work: impl FnOnce(&mut [f32])) {
    thread_local! {
        static TILE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    TILE.with_borrow_mut(|tile| {
        if tile.len() < length {
            tile.resize(length, 0.0);
        }
        work(&mut tile[..length]);
    });
}

/// A result that several threads write, each columns of its own.
struct Shared(*mut f32);

#[expect(unsafe_code, reason = "threads write disjoint columns of one array")]
// SAFETY: no two tiles have a column in common, and nobody reads before all are done.
unsafe impl Sync for Shared {}

impl Shared {
    /// Where a column begins.
    fn at(&self, column: usize) -> *mut f32 {
        self.0.wrapping_add(column)
    }
}

/// An operand: number of rows and columns, and the steps from one to the next.
#[derive(Clone, Copy)]
struct Matrix {
    start: *const f32,
    rows: usize,
    columns: usize,
    strides: [usize; 2],
}

/// `left right` into (or, with `add`, onto) the matrix at `result`, whose rows are `stride` apart.
#[expect(unsafe_code, reason = "the product's strides are beyond what slices can say")]
fn multiply(left: Matrix, right: Matrix, result: *mut f32, stride: usize, add: bool) {
    debug_assert_eq!(left.columns, right.rows);
    let step = |stride: usize| stride as isize;
    // SAFETY: the callers' slices hold both operands and the result, whose columns nobody else writes; sizes and
    // strides were taken from those slices.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            result,
            1,
            step(stride),
            add,
            left.start,
            step(left.strides[1]),
            step(left.strides[0]),
            right.start,
            step(right.strides[1]),
            step(right.strides[0]),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::super::reference;
    use super::*;
    use crate::nf4::{Nf4, Nf4Weight};
    use crate::parameter::Parameter;
    use crate::random::normal;
    use crate::weight::Weight;

    fn tensor(values: &[f32], sizes: [usize; 2]) -> Tensor<2> {
        // Backends are chosen in the root package's device file; a test of the CPU's kernel names the CPU.
        Tensor::from_data(TensorData::new(values.to_vec(), sizes), &Device::flex())
    }

    fn numbers(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_to_vec::<f32>().unwrap()
    }

    /// Products from both sides and both gradients of `weight`, whose numbers are `matrix`, against three loops.
    fn check(name: &str, weight: &Weight, matrix: &[f32], tokens: usize) {
        let sizes = weight.sizes();
        let [outputs, inputs] = sizes;
        let close = |what: &str, found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len(), "{name} {what}");
            let scale = expected.iter().fold(1e-6f32, |largest, value| largest.max(value.abs()));
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 2e-6 * scale, "{name} {what} {sizes:?}: {worst} of {scale}");
        };
        let x = normal(1, tokens * inputs, 1.0);
        let y = normal(2, tokens * outputs, 1.0);
        let forward = reference::product(&x, matrix, sizes, Side::Inputs);
        let back = reference::product(&y, matrix, sizes, Side::Outputs);
        close("forward", &numbers(weight.multiply(tensor(&x, [tokens, inputs]))), &forward);
        close("back", &numbers(weight.multiply_back(tensor(&y, [tokens, outputs]))), &back);

        let leaf = tensor(&x, [tokens, inputs]).autodiff().require_grad();
        let result = weight.multiply(leaf.clone());
        close("recorded", &numbers(result.clone().inner()), &forward);
        let gradients = (result * tensor(&y, [tokens, outputs])).backward();
        close("gradient", &numbers(leaf.grad(&gradients).unwrap()), &back);

        let leaf = tensor(&y, [tokens, outputs]).autodiff().require_grad();
        let gradients = (weight.multiply_back(leaf.clone()) * tensor(&x, [tokens, inputs])).backward();
        close("gradient of back", &numbers(leaf.grad(&gradients).unwrap()), &forward);
    }

    /// Sizes below, at and above those of tiles; rows that end within blocks.
    const SIZES: [([usize; 2], usize); 6] =
        [([1, 64], 1), ([48, 64], 3), ([37, 19], 5), ([97, 130], 7), ([300, 576], 33), ([513, 1100], 20)];

    #[test]
    fn nf4_products_and_gradients_equal_three_loops_over_the_decoded_matrix() {
        for (sizes, tokens) in SIZES {
            for (double, dtype) in [(false, FloatDType::F32), (true, FloatDType::F32), (true, FloatDType::BF16)] {
                let packed = Nf4::quantise(&normal(3, sizes[0] * sizes[1], 0.05), double, dtype);
                let weight = Weight::Nf4(Nf4Weight::new(&packed, sizes, &Device::flex()));
                check("nf4", &weight, &packed.dequantise(), tokens);
            }
        }
    }

    #[test]
    fn products_with_16_bit_numbers_equal_three_loops_over_them() {
        for (sizes, tokens) in SIZES {
            for dtype in [FloatDType::BF16, FloatDType::F16] {
                let values = normal(4, sizes[0] * sizes[1], 0.05);
                let weight = Weight::Dense(Parameter::from_host(values, &sizes, dtype, &Device::flex()));
                let matrix = numbers(weight.dense());
                check("half", &weight, &matrix, tokens);
            }
        }
    }

    #[test]
    fn what_is_unpacked_again_is_what_was_packed() {
        let packed = Nf4::quantise(&normal(5, 37 * 19, 1.0), true, FloatDType::BF16);
        assert_eq!(Nf4Weight::new(&packed, [37, 19], &Device::flex()).to_host(), packed);
    }
}
