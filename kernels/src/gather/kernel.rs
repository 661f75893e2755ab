//! Rows on CubeCL devices: a unit adds up a vector of those that make one row of the result, in one launch.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;
use cubecl::{CubeDim, calculate_cube_count_elemwise};

use super::GatherBackend;
use crate::cube::{empty, gapless};
use crate::rows::vector_size;

mod launch {
    use cubecl::prelude::*;

    /// `width` counts vectors.
    #[cube(launch)]
    pub(super) fn sums<F: Float, N: Size>(
        x: &[Vector<F, N>],
        ids: &[i32],
        out: &mut [Vector<F, N>],
        width: usize,
        copies: usize,
        #[define(F)] _dtype: ElemType,
    ) {
        if ABSOLUTE_POS >= out.len() {
            terminate!();
        }
        let column = ABSOLUTE_POS % width;
        let first = ABSOLUTE_POS / width * copies;
        let mut sum = Vector::<f32, N>::new(0.0);
        for copy in 0..copies {
            let row = usize::cast_from(ids[first + copy]);
            sum += Vector::<f32, N>::cast_from(x[row * width + column]);
        }
        out[ABSOLUTE_POS] = Vector::<F, N>::cast_from(sum);
    }
}

impl GatherBackend for CubeBackend {
    fn sums_of_rows(x: FloatTensor<Self>, ids: IntTensor<Self>, _: IntTensor<Self>, rows: usize) -> FloatTensor<Self> {
        let (x, ids) = (gapless(x), gapless(ids));
        let [_, width] = x.shape().dims();
        let [taken] = ids.shape().dims();
        let out = empty(&x, [rows, width], x.dtype);
        if rows * width == 0 {
            return out;
        }
        let client = x.client.clone();
        let size = vector_size(&client, x.elem_size(), &[width]);
        let dtype = dtype_to_elem_type(x.dtype);
        let units = rows * width / size;
        let dim = CubeDim::new(&client, units);
        launch::sums::launch(
            &client,
            calculate_cube_count_elemwise(&client, units, dim),
            dim,
            size,
            x.into_buffer_arg(),
            ids.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            width / size,
            taken / rows,
            dtype,
        );
        out
    }
}
