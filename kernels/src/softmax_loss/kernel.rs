//! The loss and its gradient on CubeCL devices: one launch that reads the logits twice and writes the gradient
//! over them. The statistics of a row (its largest value and the sum of exponentials) are kept by its cube
//! alone, found in one pass as by Milakov and Gimelshein (2018, arXiv:1805.02867).

use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;

use crate::cube::{empty, gapless};
use crate::rows::{Rows, Team, cubes, vector_size};

/// Backends on which the loss and its gradient are one operation.
#[backend_extension(Cube, Fusion)]
pub(crate) trait SoftmaxLossBackend: Backend {
    /// The cross-entropy of every row times its weight, `[rows]` in f32, and `factor weight (softmax - onehot)`,
    /// `[rows, vocab]`, in the memory of `logits` unless something else holds them too; `targets: [rows]`, i32,
    /// `weights: [rows]`, f32.
    #[fusion(meta = |logits, _targets, _weights, _factor| (
        TensorSpec::new(Shape::new([logits.shape[0]]), DType::F32),
        logits.clone(),
    ))]
    fn softmax_loss(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        factor: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

mod launch {
    use cubecl::prelude::*;

    use crate::rows::{largest, team_max, team_sum, total};

    #[cube(launch)]
    pub(super) fn softmax_loss<F: Float, N: Size>(
        logits: &mut [Vector<F, N>],
        targets: &[i32],
        weights: &[f32],
        losses: &mut [f32],
        vectors: usize,
        stride: usize,
        factor: f32,
        #[comptime] units: usize,
        #[comptime] plane: usize,
        #[define(F)] _dtype: ElemType,
    ) {
        let row = CUBE_POS;
        if row >= targets.len() {
            terminate!();
        }
        let begin = row * stride;
        // Of the values of this unit so far: the largest, and the sum of exponentials below it.
        let mut best = f32::min_value();
        let mut sum = Vector::<f32, N>::new(0.0f32);
        for place in range_stepped(UNIT_POS as usize, vectors, units) {
            let values = Vector::<f32, N>::cast_from(logits[begin + place]);
            let found = largest::<N>(values);
            if found > best {
                sum *= Vector::<f32, N>::new((best - found).exp());
                best = found;
            }
            sum += (values - Vector::<f32, N>::new(best)).exp();
        }
        let best_of_row = team_max(best, units, plane);
        let sum_of_row = team_sum(total::<N>(sum) * (best - best_of_row).exp(), units, plane);

        let target = targets[row] as usize;
        let weight = weights[row];
        let factor = factor * weight;
        let scale = factor / sum_of_row;
        for place in range_stepped(UNIT_POS as usize, vectors, units) {
            let values = Vector::<f32, N>::cast_from(logits[begin + place]);
            let mut gradient = (values - Vector::<f32, N>::new(best_of_row)).exp() * Vector::<f32, N>::new(scale);
            if place == target / N::value() {
                #[unroll]
                for component in 0..N::value() {
                    if component == target % N::value() {
                        losses[row] = weight * (best_of_row + sum_of_row.ln() - values.extract(component));
                        gradient.insert(component, gradient.extract(component) - factor);
                    }
                }
            }
            logits[begin + place] = Vector::<F, N>::cast_from(gradient);
        }
    }
}

impl SoftmaxLossBackend for CubeBackend {
    fn softmax_loss(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        factor: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let mut rows = Rows::of(logits);
        if !rows.tensor.can_mut() {
            rows = Rows::of(rows.tensor.copy());
        }
        let client = rows.tensor.client.clone();
        let losses = empty(&rows.tensor, [rows.count], DType::F32);
        let size = vector_size(&client, rows.tensor.elem_size(), &[rows.length, rows.stride]);
        let (vectors, stride) = (rows.length / size, rows.stride / size);
        let team = Team::of(&client, vectors);
        let gradient = rows.tensor.clone();
        launch::softmax_loss::launch(
            &client,
            cubes(&client, rows.count),
            team.dim(),
            size,
            rows.into_arg(),
            gapless(targets).into_buffer_arg(),
            gapless(weights).into_buffer_arg(),
            losses.clone().into_buffer_arg(),
            vectors,
            stride,
            factor,
            team.units,
            team.plane,
            dtype_to_elem_type(gradient.dtype),
        );
        (losses, gradient)
    }
}
