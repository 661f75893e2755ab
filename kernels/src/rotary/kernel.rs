//! Rotation on CubeCL devices: one unit turns a pair, or a vector of pairs of one head, in one launch.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::untile;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{CubeDim, calculate_cube_count_elemwise};

use super::RotaryBackend;
use crate::cube::gapless;
use crate::rows::{flat, like, vector_size};

mod launch {
    use cubecl::prelude::*;

    /// A unit takes a vector of firsts and the one of their seconds, or a vector of those that do not turn; lengths
    /// and distances in vectors.
    #[cube(launch)]
    pub(super) fn halves<F: Float, N: Size>(
        x: &[Vector<F, N>],
        cosine: &[Vector<f32, N>],
        sine: &[Vector<f32, N>],
        out: &mut [Vector<F, N>],
        token_stride: usize,
        head_stride: usize,
        heads: usize,
        head: usize,
        direction: f32,
        #[comptime] pairs: usize,
        #[define(F)] _dtype: ElemType,
    ) {
        let units = head - pairs;
        let place = ABSOLUTE_POS % units;
        let row = ABSOLUTE_POS / units;
        if row * head >= out.len() {
            terminate!();
        }
        let token = row / heads;
        let from = token * token_stride + row % heads * head_stride;
        if place < pairs {
            let cosine = cosine[token * pairs + place];
            let sine = sine[token * pairs + place] * Vector::<f32, N>::new(direction);
            let first = Vector::<f32, N>::cast_from(x[from + place]);
            let second = Vector::<f32, N>::cast_from(x[from + pairs + place]);
            out[row * head + place] = Vector::<F, N>::cast_from(first * cosine - second * sine);
            out[row * head + pairs + place] = Vector::<F, N>::cast_from(second * cosine + first * sine);
        } else {
            out[row * head + pairs + place] = x[from + pairs + place];
        }
    }

    /// A unit takes two neighbours.
    #[cube(launch)]
    pub(super) fn neighbours<F: Float>(
        x: &[F],
        cosine: &[f32],
        sine: &[f32],
        out: &mut [F],
        token_stride: usize,
        head_stride: usize,
        heads: usize,
        head: usize,
        direction: f32,
        #[comptime] pairs: usize,
        #[define(F)] _dtype: ElemType,
    ) {
        let units = head.div_ceil(2);
        let place = ABSOLUTE_POS % units;
        let row = ABSOLUTE_POS / units;
        if row * head >= out.len() {
            terminate!();
        }
        let token = row / heads;
        let from = token * token_stride + row % heads * head_stride + 2 * place;
        let to = row * head + 2 * place;
        if place < pairs {
            let cosine = cosine[token * pairs + place];
            let sine = sine[token * pairs + place] * direction;
            let first = f32::cast_from(x[from]);
            let second = f32::cast_from(x[from + 1]);
            out[to] = F::cast_from(first * cosine - second * sine);
            out[to + 1] = F::cast_from(second * cosine + first * sine);
        } else {
            out[to] = x[from];
            if 2 * place + 1 < head {
                out[to + 1] = x[from + 1];
            }
        }
    }
}

impl RotaryBackend for CubeBackend {
    fn rotate(
        x: FloatTensor<Self>,
        cosine: FloatTensor<Self>,
        sine: FloatTensor<Self>,
        neighbours: bool,
        direction: f32,
    ) -> FloatTensor<Self> {
        let (x, token_stride, head_stride) = tokens(x);
        let (cosine, sine) = (gapless(cosine), gapless(sine));
        let [rows, width, heads, head] = x.shape().dims();
        let pairs = cosine.shape().dims::<4>()[3];
        let client = x.client.clone();
        let out = like(&x);
        if out.shape().num_elements() == 0 {
            return out;
        }
        let dtype = dtype_to_elem_type(out.dtype);
        let extent = (rows * width - 1) * token_stride + (heads - 1) * head_stride + head;
        let size = match neighbours {
            true => 1,
            false => vector_size(&client, cosine.elem_size(), &[pairs, head, token_stride, head_stride]),
        };
        let per_head = if neighbours { head.div_ceil(2) } else { (head - pairs) / size };
        let units = rows * width * heads * per_head;
        let dim = CubeDim::new(&client, units);
        let count = calculate_cube_count_elemwise(&client, units, dim);
        let buffers = [flat(x, extent), cosine, sine, out.clone()].map(CubeTensor::into_buffer_arg);
        let [x, cosine, sine, to] = buffers;
        let (token_stride, head_stride) = (token_stride / size, head_stride / size);
        let (head, pairs) = (head / size, pairs / size);
        match neighbours {
            true => launch::neighbours::launch(
                &client,
                count,
                dim,
                x,
                cosine,
                sine,
                to,
                token_stride,
                head_stride,
                heads,
                head,
                direction,
                pairs,
                dtype,
            ),
            false => launch::halves::launch(
                &client,
                count,
                dim,
                size,
                x,
                cosine,
                sine,
                to,
                token_stride,
                head_stride,
                heads,
                head,
                direction,
                pairs,
                dtype,
            ),
        }
        out
    }
}

/// `x: [rows, width, heads, head_dim]` and the distances of its tokens and of the heads of a token; a copy if they
/// are not the same everywhere.
fn tokens(x: CubeTensor) -> (CubeTensor, usize, usize) {
    let x = untile(x);
    let (shape, strides) = (x.meta.shape(), x.meta.strides());
    let [rows, width, heads, head] = [0, 1, 2, 3].map(|dimension| shape[dimension]);
    let regular = (head == 1 || strides[3] == 1) && (rows == 1 || width == 1 || strides[0] == strides[1] * width);
    let token_stride = if width == 1 { strides[0] } else { strides[1] };
    let head_stride = strides[2];
    if regular && token_stride >= head && head_stride >= head {
        return (x, token_stride, head_stride);
    }
    (gapless(x), heads * head, head)
}
