//! The products on CubeCL devices: one matrix is unpacked for a moment, then burn's own product takes it.
//!
//! The moment costs the matrix in the type of the activations, 112 MiB for 14336 x 4096 in bf16 (the largest of an 8B
//! model), 448 MiB for 28672 x 8192 (70B), and 4.5 bytes of memory traffic a weight: two written, two read again,
//! half a byte of codes.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use cubecl::{CubeDim, calculate_cube_count_elemwise};

use super::{FrozenProducts, Nf4Form, Side};
use crate::dtype::float_dtype;

/// Codes that one unit unpacks: those of a word.
const CODES_PER_WORD: usize = 8;

mod unpack {
    use cubecl::prelude::*;

    /// One unit a word of eight codes, written as vectors; see `Nf4Tensors` for what lies where.
    #[cube(launch)]
    pub(super) fn nf4<F: Float, N: Size>(
        codes: &[u32],
        scale_codes: &[u32],
        scale_values: &[f32],
        out: &mut [Vector<F, N>],
        #[comptime] double: bool,
        #[comptime] dropped: u32,
        #[define(F)] _dtype: ElemType,
    ) {
        let size = N::value();
        let vectors = comptime!(8 / size);
        if ABSOLUTE_POS * vectors >= out.len() {
            terminate!();
        }
        let word = codes[ABSOLUTE_POS];
        // Eight codes never straddle blocks of 64.
        let block = ABSOLUTE_POS / 8;
        let scale = if comptime!(double) {
            let byte = (scale_codes[block / 4] >> (8 * (block % 4) as u32)) & 255;
            scale_values[16 + byte as usize] * scale_values[273 + block / 256] + scale_values[272]
        } else {
            scale_values[16 + block]
        };
        #[unroll]
        for part in 0..vectors {
            let mut vector = Vector::<F, N>::new(F::new(0.0));
            #[unroll]
            for component in 0..size {
                // Bytes from the lowest, in each the upper half first.
                let place = comptime!((part * size + component) as u32);
                let code = (word >> comptime!(8 * (place / 2) + 4 * (1 - place % 2))) & 15;
                let mut value = scale_values[code as usize] * scale;
                if comptime!(dropped > 0) {
                    // To the nearest number with that many bits less, the even one of two.
                    let bits = u32::reinterpret(value);
                    let rounded = bits + comptime!((1u32 << (dropped - 1)) - 1) + ((bits >> dropped) & 1);
                    value = f32::reinterpret((rounded >> dropped) << dropped);
                }
                vector.insert(component, F::cast_from(value));
            }
            let index = ABSOLUTE_POS * vectors + part;
            if index < out.len() {
                out[index] = vector;
            }
        }
    }
}

impl FrozenProducts for CubeBackend {
    fn nf4_product(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scale_values: FloatTensor<Self>,
        form: Nf4Form,
        side: Side,
    ) -> FloatTensor<Self> {
        let (codes, scale_codes) = (into_contiguous(codes), into_contiguous(scale_codes));
        let scale_values = into_contiguous(scale_values);
        let count = form.outputs * form.inputs;
        let shape = Shape::new([form.outputs, form.inputs]);
        let matrix = empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, x.dtype);
        let units = count.div_ceil(CODES_PER_WORD);
        let fits = |size: &usize| CODES_PER_WORD.is_multiple_of(*size) && count.is_multiple_of(*size);
        let size = x.client.io_optimized_vector_sizes(x.elem_size()).find(fits).unwrap_or(1);
        let cube_dim = CubeDim::new(&x.client, units);
        let cube_count = calculate_cube_count_elemwise(&x.client, units, cube_dim);
        unpack::nf4::launch(
            &x.client,
            cube_count,
            cube_dim,
            size,
            codes.into_buffer_arg(),
            scale_codes.into_buffer_arg(),
            scale_values.into_buffer_arg(),
            matrix.clone().into_buffer_arg(),
            form.double,
            dropped_bits(form.dtype, x.dtype),
            dtype_to_elem_type(x.dtype),
        );
        multiply(x, matrix, side)
    }

    fn half_product(x: FloatTensor<Self>, weight: FloatTensor<Self>, side: Side) -> FloatTensor<Self> {
        let matrix = Self::float_cast(weight, float_dtype(x.dtype()));
        multiply(x, matrix, side)
    }
}

/// Bits of an f32 that a number of type `stored` lacks, unless the type that is written lacks them too.
fn dropped_bits(stored: FloatDType, written: DType) -> u32 {
    match stored {
        _ if DType::from(stored) == written => 0,
        FloatDType::BF16 => 16,
        FloatDType::F16 => 13,
        _ => 0,
    }
}

fn multiply(x: FloatTensor<CubeBackend>, matrix: FloatTensor<CubeBackend>, side: Side) -> FloatTensor<CubeBackend> {
    match side {
        Side::Inputs => CubeBackend::float_matmul(x, CubeBackend::float_transpose(matrix)),
        Side::Outputs => CubeBackend::float_matmul(x, matrix),
    }
}
