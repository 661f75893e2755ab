//! The norm and its gradients on CubeCL devices: a cube a row, which it reads from memory once; a second look
//! at it comes from the cache. The gradient of the weight is summed over groups of rows, then over groups.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;

use super::{NormForm, RmsNormBackend, RmsNormGradients};
use crate::cube::{empty, gapless};
use crate::rows::{Rows, Team, cubes, like, vector_size};

/// Groups of rows that sum up the gradient of the weight by themselves: enough cubes for every GPU.
const GROUPS: usize = 256;

mod launch {
    use cubecl::prelude::*;

    use crate::rows::{team_sum, total};

    #[cube(launch)]
    pub(super) fn norm<F: Float, W: Float, N: Size>(
        x: &[Vector<F, N>],
        weight: &[Vector<W, N>],
        out: &mut [Vector<F, N>],
        rows: usize,
        vectors: usize,
        stride: usize,
        per_feature: f32,
        epsilon: f32,
        offset: f32,
        #[comptime] scale_in_f32: bool,
        #[comptime] units: usize,
        #[comptime] plane: usize,
        #[define(F, W)] _dtypes: [ElemType; 2],
    ) {
        let row = CUBE_POS;
        if row >= rows {
            terminate!();
        }
        let mut squares = Vector::<f32, N>::new(0.0f32);
        for place in range_stepped(UNIT_POS as usize, vectors, units) {
            let x = Vector::<f32, N>::cast_from(x[row * stride + place]);
            squares += x * x;
        }
        let square = team_sum(total::<N>(squares), units, plane);
        let inverse = Vector::<f32, N>::new(1.0f32 / (square * per_feature + epsilon).sqrt());
        for place in range_stepped(UNIT_POS as usize, vectors, units) {
            let normalised = Vector::<f32, N>::cast_from(x[row * stride + place]) * inverse;
            let weight = Vector::<f32, N>::cast_from(weight[place]) + Vector::<f32, N>::new(offset);
            let scaled = if comptime!(scale_in_f32) {
                normalised * weight
            } else {
                // Each of the two is rounded before they meet.
                Vector::<f32, N>::cast_from(Vector::<F, N>::cast_from(normalised))
                    * Vector::<f32, N>::cast_from(Vector::<F, N>::cast_from(weight))
            };
            out[row * vectors + place] = Vector::<F, N>::cast_from(scaled);
        }
    }

    #[cube(launch)]
    pub(super) fn to_input<F: Float, W: Float, N: Size>(
        x: &[Vector<F, N>],
        weight: &[Vector<W, N>],
        gradient: &[Vector<F, N>],
        out: &mut [Vector<F, N>],
        rows: usize,
        vectors: usize,
        stride: usize,
        gradient_stride: usize,
        per_feature: f32,
        epsilon: f32,
        offset: f32,
        #[comptime] units: usize,
        #[comptime] plane: usize,
        #[define(F, W)] _dtypes: [ElemType; 2],
    ) {
        let row = CUBE_POS;
        if row >= rows {
            terminate!();
        }
        let offset = Vector::<f32, N>::new(offset);
        let mut squares = Vector::<f32, N>::new(0.0f32);
        let mut products = Vector::<f32, N>::new(0.0f32);
        for place in range_stepped(UNIT_POS as usize, vectors, units) {
            let x = Vector::<f32, N>::cast_from(x[row * stride + place]);
            let weight = Vector::<f32, N>::cast_from(weight[place]) + offset;
            squares += x * x;
            products += x * weight * Vector::<f32, N>::cast_from(gradient[row * gradient_stride + place]);
        }
        let square = team_sum(total::<N>(squares), units, plane);
        let product = team_sum(total::<N>(products), units, plane);
        let inverse = 1.0f32 / (square * per_feature + epsilon).sqrt();
        // With n = x / rms: dx = (g w - n mean(g w n)) / rms.
        let mean = Vector::<f32, N>::new(product * per_feature * inverse * inverse);
        let inverse = Vector::<f32, N>::new(inverse);
        for place in range_stepped(UNIT_POS as usize, vectors, units) {
            let x = Vector::<f32, N>::cast_from(x[row * stride + place]);
            let weight = Vector::<f32, N>::cast_from(weight[place]) + offset;
            let gradient = Vector::<f32, N>::cast_from(gradient[row * gradient_stride + place]);
            out[row * vectors + place] = Vector::<F, N>::cast_from((gradient * weight - x * mean) * inverse);
        }
    }

    /// A cube sums over `group` rows; its units keep the sums of the places that are theirs.
    #[cube(launch)]
    pub(super) fn to_weight<F: Float, N: Size>(
        x: &[Vector<F, N>],
        gradient: &[Vector<F, N>],
        out: &mut [Vector<f32, N>],
        rows: usize,
        group: usize,
        stride: usize,
        gradient_stride: usize,
        per_feature: f32,
        epsilon: f32,
        #[comptime] vectors: usize,
        #[comptime] units: usize,
        #[comptime] plane: usize,
        #[define(F)] _dtype: ElemType,
    ) {
        let own = comptime!(vectors.div_ceil(units));
        if CUBE_POS * vectors >= out.len() {
            terminate!();
        }
        let begin = CUBE_POS * group;
        let mut sums = Array::<Vector<f32, N>>::new(own);
        for slot in 0..own {
            sums[slot] = Vector::<f32, N>::new(0.0f32);
        }
        for row in begin..min(begin + group, rows) {
            let mut squares = Vector::<f32, N>::new(0.0f32);
            for place in range_stepped(UNIT_POS as usize, vectors, units) {
                let x = Vector::<f32, N>::cast_from(x[row * stride + place]);
                squares += x * x;
            }
            let square = team_sum(total::<N>(squares), units, plane);
            let inverse = Vector::<f32, N>::new(1.0f32 / (square * per_feature + epsilon).sqrt());
            for slot in 0..own {
                let place = slot * units + UNIT_POS as usize;
                if place < vectors {
                    let x = Vector::<f32, N>::cast_from(x[row * stride + place]);
                    sums[slot] += x * inverse * Vector::<f32, N>::cast_from(gradient[row * gradient_stride + place]);
                }
            }
            if comptime!(units > 1) {
                // The memory that units share is free for the next row.
                sync_cube();
            }
        }
        for slot in 0..own {
            let place = slot * units + UNIT_POS as usize;
            if place < vectors {
                out[CUBE_POS * vectors + place] = sums[slot];
            }
        }
    }
}

impl RmsNormBackend for CubeBackend {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, form: NormForm) -> FloatTensor<Self> {
        let (x, weight) = (Rows::of(x), gapless(weight));
        let client = x.tensor.client.clone();
        let out = like(&x.tensor);
        if x.count == 0 {
            return out;
        }
        let size = vector_size(&client, x.tensor.elem_size().max(weight.elem_size()), &[x.length, x.stride]);
        let (vectors, stride, rows) = (x.length / size, x.stride / size, x.count);
        let team = Team::of(&client, vectors);
        let dtypes = [x.tensor.dtype, weight.dtype].map(dtype_to_elem_type);
        launch::norm::launch(
            &client,
            cubes(&client, rows),
            team.dim(),
            size,
            x.into_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            vectors,
            stride,
            1.0 / (vectors * size) as f32,
            form.epsilon,
            form.offset,
            form.scale_in_f32,
            team.units,
            team.plane,
            dtypes,
        );
        out
    }
}

impl RmsNormGradients for CubeBackend {
    fn rms_norm_to_input(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        form: NormForm,
    ) -> FloatTensor<Self> {
        let (x, weight, gradient) = (Rows::of(x), gapless(weight), Rows::of(gradient));
        let client = x.tensor.client.clone();
        let out = like(&x.tensor);
        if x.count == 0 {
            return out;
        }
        let bytes = x.tensor.elem_size().max(weight.elem_size());
        let size = vector_size(&client, bytes, &[x.length, x.stride, gradient.stride]);
        let (vectors, rows) = (x.length / size, x.count);
        let (stride, gradient_stride) = (x.stride / size, gradient.stride / size);
        let team = Team::of(&client, vectors);
        let dtypes = [x.tensor.dtype, weight.dtype].map(dtype_to_elem_type);
        launch::to_input::launch(
            &client,
            cubes(&client, rows),
            team.dim(),
            size,
            x.into_arg(),
            weight.into_buffer_arg(),
            gradient.into_arg(),
            out.clone().into_buffer_arg(),
            rows,
            vectors,
            stride,
            gradient_stride,
            1.0 / (vectors * size) as f32,
            form.epsilon,
            form.offset,
            team.units,
            team.plane,
            dtypes,
        );
        out
    }

    fn rms_norm_to_weight(x: FloatTensor<Self>, gradient: FloatTensor<Self>, form: NormForm) -> FloatTensor<Self> {
        let (x, gradient) = (Rows::of(x), Rows::of(gradient));
        let client = x.tensor.client.clone();
        let group = x.count.div_ceil(GROUPS).max(1);
        let groups = x.count.div_ceil(group).max(1);
        let sums = empty(&x.tensor, [groups, x.length], DType::F32);
        let size = vector_size(&client, DType::F32.size(), &[x.length, x.stride, gradient.stride]);
        let (vectors, rows, features) = (x.length / size, x.count, x.length);
        let (stride, gradient_stride) = (x.stride / size, gradient.stride / size);
        let team = Team::of(&client, vectors);
        let dtype = dtype_to_elem_type(x.tensor.dtype);
        launch::to_weight::launch(
            &client,
            cubes(&client, groups),
            team.dim(),
            size,
            x.into_arg(),
            gradient.into_arg(),
            sums.clone().into_buffer_arg(),
            rows,
            group,
            stride,
            gradient_stride,
            1.0 / features as f32,
            form.epsilon,
            vectors,
            team.units,
            team.plane,
            dtype,
        );
        let sum = if groups == 1 { sums } else { Self::float_sum_dim(sums, 0) };
        Self::float_reshape(sum, [features].into())
    }
}
