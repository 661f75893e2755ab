//! The CPU's products: some rows of the matrix are unpacked into a buffer, then multiplied as f32.
//!
//! The buffer is a part of the matrix, large enough that what a product prepares for each call costs little. How
//! rows are cut changes the order of a sum in `y W` alone, and not with the number of threads. For a few tokens, as
//! generation has them, rows are unpacked into a buffer that stays in the cache, and every number is used at once.

use std::cell::Cell;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata, ops::FloatTensorOps};
use burn::tensor::{DType, FloatDType, TensorData};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use kernels::product::{Accumulate, HalfMatrix, Matrix, MatrixMut, new_half_product, product as multiply};
use kernels::vector::{dot, vectorised};
use rayon::prelude::*;

use super::{FrozenProducts, NESTED, Nf4Form, Side};
use crate::dtype::float_dtype;
use crate::nf4::{BLOCK, CODES, Packed, PackedScales};

/// Numbers that a thread unpacks at a time, about, of a matrix on the CPU that is kept in fewer bits than it is multiplied in.
pub const UNPACKED_VALUES: usize = 4 << 20;
/// Numbers that one thread unpacks at a time: whole blocks.
const PIECE: usize = 256 * BLOCK;
/// Tokens up to which each row of the matrix is multiplied as soon as it is unpacked.
const FEW_TOKENS: usize = 8;

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
        // Rows of a larger matrix are read where they are.
        let weight = if weight.layout().is_contiguous() { weight } else { weight.to_contiguous() };
        let shape = weight.shape();
        let sizes = [shape[0], shape[1]];
        match weight.dtype() {
            DType::BF16 => {
                let values = weight.as_slice::<bf16>().expect("they are in order");
                if let Some(y) = direct(&x, values, sizes, side) {
                    return y;
                }
                product(x, sizes, side, &|start, out| {
                    for (out, value) in out.iter_mut().zip(&values[start..]) {
                        *out = f32::from_bits(u32::from(value.to_bits()) << 16);
                    }
                })
            }
            DType::F16 => {
                let values = weight.as_slice::<f16>().expect("they are in order");
                product(x, sizes, side, &|start, out| {
                    values[start..start + out.len()].convert_to_f32_slice(out);
                })
            }
            other => unreachable!("a matrix of {other:?} is no matrix of 16-bit numbers"),
        }
    }
}

/// The product with a matrix of bf16 numbers where the machine can read them as they are.
fn direct(x: &FloatTensor<Flex>, weight: &[bf16], sizes: [usize; 2], side: Side) -> Option<FloatTensor<Flex>> {
    if x.dtype() != DType::F32 {
        return None;
    }
    let x = x.to_contiguous();
    let values = x.as_slice::<f32>().expect("contiguous f32");
    let [outputs, inputs] = sizes;
    let (tokens, columns) = (x.shape()[0], side.columns(outputs, inputs));
    let matrix = HalfMatrix::new(weight, outputs, inputs);
    let (inner, matrix) = match side {
        Side::Inputs => (inputs, matrix.transposed()),
        Side::Outputs => (outputs, matrix),
    };
    let y = new_half_product(Matrix::new(values, tokens, inner), matrix)?;
    Some(FloatTensor::<Flex>::from_data(TensorData::new(y, [tokens, columns])))
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
    let [outputs, inputs] = sizes;
    let columns = side.columns(outputs, inputs);
    let y = match side {
        Side::Inputs if tokens <= FEW_TOKENS => product_of_few(values, tokens, sizes, decode),
        _ => product_of_many(values, tokens, sizes, side, decode),
    };
    let y = FloatTensor::<Flex>::from_data(TensorData::new(y, [tokens, columns]));
    if dtype == DType::F32 { y } else { Flex::float_cast(y, float_dtype(dtype)) }
}

/// `x Wᵀ` of a few rows `x`, `[tokens, out]`: some rows of the matrix are unpacked and multiplied while they are in
/// the cache.
fn product_of_few(x: &[f32], tokens: usize, [outputs, inputs]: [usize; 2], decode: Decode) -> Vec<f32> {
    let rows_at_a_time = (PIECE / inputs.max(1)).max(1);
    let mut turned = vec![0.0; outputs * tokens]; // [out, tokens]
    let pieces = turned.par_chunks_mut(rows_at_a_time * tokens.max(1)).enumerate();
    kernels::for_each(pieces, |(index, turned)| {
        with_tile(turned.len() / tokens * inputs, |tile| {
            decode(index * rows_at_a_time * inputs, tile);
            vectorised(
                #[inline(always)]
                || {
                    for (row, turned) in tile.chunks_exact(inputs).zip(turned.chunks_exact_mut(tokens)) {
                        for (x, out) in x.chunks_exact(inputs).zip(turned) {
                            *out = dot(x, row);
                        }
                    }
                },
            );
        });
    });
    if tokens == 1 {
        return turned;
    }
    (0..tokens * outputs).map(|place| turned[place % outputs * tokens + place / outputs]).collect()
}

/// The product from `side` of rows `values`, for which a large part of the matrix is unpacked at a time.
fn product_of_many(
    values: &[f32],
    tokens: usize,
    [outputs, inputs]: [usize; 2],
    side: Side,
    decode: Decode,
) -> Vec<f32> {
    let mut y = vec![0.0; tokens * side.columns(outputs, inputs)];
    let rows_at_a_time = (UNPACKED_VALUES / inputs.max(1)).max(1);
    for first in (0..outputs).step_by(rows_at_a_time) {
        let rows = rows_at_a_time.min(outputs - first);
        with_tile(rows * inputs, |tile| {
            let pieces = tile.par_chunks_mut(PIECE).enumerate();
            kernels::for_each(pieces, |(index, piece)| decode(first * inputs + index * PIECE, piece));
            let tile = Matrix::new(tile, rows, inputs);
            match side {
                // [tokens, in] by [in, rows] into the columns of these rows of [tokens, out]
                Side::Inputs => {
                    let target = MatrixMut::strided(&mut y[first..], tokens, rows, outputs);
                    multiply(target, Accumulate::Replace, 1.0, Matrix::new(values, tokens, inputs), tile.transposed());
                }
                // [tokens, rows] by [rows, in] onto [tokens, in]
                Side::Outputs => {
                    let left = Matrix::strided(&values[first..], tokens, rows, outputs);
                    let target = MatrixMut::new(&mut y, tokens, inputs);
                    multiply(target, if first == 0 { Accumulate::Replace } else { Accumulate::Add }, 1.0, left, tile);
                }
            }
        });
    }
    y
}

/// Lends this thread's buffer of `length` numbers.
fn with_tile(length: usize, work: impl FnOnce(&mut [f32])) {
    thread_local! {
        static TILE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }
    let mut tile = TILE.take();
    if tile.len() < length {
        tile.resize(length, 0.0);
    }
    work(&mut tile[..length]);
    TILE.set(tile);
}
