//! Steps of Adam for many parameters, and the sums of squares of many gradients, on CubeCL devices: one operation,
//! a launch for as many tensors as the device binds at once.
//!
//! The moments are updated in their memory. The parameters' new values take the memory of the gradients, since the
//! graph still holds the old ones.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::CubeDim;
use cubecl::client::Client;

use super::{AdamState, AdamStep, AdamWork};
use crate::cube::{empty, gapless};
use crate::multi_tensor::{self, Vector};
use crate::rows::{Team, cubes, vector_size};

/// Parameters of one launch: every one of them is compiled into the kernel.
const MOST_PARAMETERS: usize = 16;
/// Gradients of one launch.
const MOST_GRADIENTS: usize = 32;
/// Vectors that a unit adds up at least before another cube is worth it.
const VECTORS_OF_A_UNIT: usize = 8;
/// Cubes that add up one gradient at most.
const MOST_CUBES: usize = 64;
/// Buffers that a launch needs besides those of its tensors, at most.
const OTHER_BUFFERS: usize = 4;

mod launch {
    use cubecl::prelude::*;

    use crate::rows::{team_sum, total};

    /// Cubes `ends[i - 1]..ends[i]` work on parameter `i`, a vector a unit.
    #[cube(launch)]
    pub(super) fn adam<N: Size>(
        values: &Sequence<Box<[Vector<f32, N>]>>,
        firsts: &mut Sequence<Box<[Vector<f32, N>]>>,
        seconds: &mut Sequence<Box<[Vector<f32, N>]>>,
        gradients: &mut Sequence<Box<[Vector<f32, N>]>>,
        ends: Sequence<u32>,
        rates: Sequence<f32>,
        kept: Sequence<f32>,
        factor: f32,
        beta1: f32,
        beta2: f32,
        enters1: f32,
        enters2: f32,
        epsilon: f32,
        correction2: f32,
    ) {
        let count = comptime!(values.len());
        #[unroll]
        for index in 0..count {
            let begin = if comptime!(index == 0) { 0u32.runtime() } else { ends[comptime!(index - 1)] };
            if CUBE_POS as u32 >= begin && (CUBE_POS as u32) < ends[index] {
                let values = values.index(index);
                let firsts = firsts.index_mut(index);
                let seconds = seconds.index_mut(index);
                let gradients = gradients.index_mut(index);
                let place = (CUBE_POS - begin as usize) * CUBE_DIM as usize + UNIT_POS as usize;
                if place < gradients.len() {
                    let gradient = gradients[place] * Vector::<f32, N>::new(factor);
                    let first =
                        firsts[place] * Vector::<f32, N>::new(beta1) + gradient * Vector::<f32, N>::new(enters1);
                    let second = seconds[place] * Vector::<f32, N>::new(beta2)
                        + gradient * gradient * Vector::<f32, N>::new(enters2);
                    let denominator =
                        second.sqrt() / Vector::<f32, N>::new(correction2) + Vector::<f32, N>::new(epsilon);
                    let change = first / denominator * Vector::<f32, N>::new(rates[index]);
                    let value = values[place] * Vector::<f32, N>::new(kept[index]) - change;
                    firsts[place] = first;
                    seconds[place] = second;
                    gradients[place] = value;
                }
            }
        }
    }

    /// Cubes `ends[i - 1]..ends[i]` add up the squares of tensor `i`, a sum a cube.
    #[cube(launch)]
    pub(super) fn square_sums<N: Size>(
        tensors: &Sequence<Box<[Vector<f32, N>]>>,
        ends: Sequence<u32>,
        out: &mut [f32],
        offset: usize,
        #[comptime] units: usize,
        #[comptime] plane: usize,
    ) {
        let mut squares = Vector::<f32, N>::new(0.0f32);
        let count = comptime!(tensors.len());
        #[unroll]
        for index in 0..count {
            let begin = if comptime!(index == 0) { 0u32.runtime() } else { ends[comptime!(index - 1)] };
            let end = ends[index];
            if CUBE_POS as u32 >= begin && (CUBE_POS as u32) < end {
                let values = tensors.index(index);
                let first = (CUBE_POS - begin as usize) * units + UNIT_POS as usize;
                for place in range_stepped(first, values.len(), (end - begin) as usize * units) {
                    let value = values[place];
                    squares += value * value;
                }
            }
        }
        let sum = team_sum(total::<N>(squares), units, plane);
        if UNIT_POS == 0 && CUBE_POS < ends[comptime!(count - 1)] as usize {
            out[offset + CUBE_POS] = sum;
        }
    }
}

/// The states after a step each.
pub(super) fn adam_on_cube(work: Vec<AdamWork>) -> Vec<AdamState> {
    let steps: Vec<AdamStep> = work.iter().map(|work| work.step).collect();
    let outputs: Vec<_> = work.iter().flat_map(|work| [(work.gradient.dims()[0], DType::F32); 3]).collect();
    let inputs = work.into_iter().flat_map(|AdamWork { state, gradient, .. }| {
        let AdamState { value, first, second } = state;
        [value, first, second, gradient].map(Vector::Float)
    });
    let updated = multi_tensor::apply("adam", inputs.collect(), &outputs, move |inputs| update(inputs, &steps));
    let mut updated = updated.into_iter().map(Vector::float);
    std::iter::from_fn(|| Some(AdamState { value: updated.next()?, first: updated.next()?, second: updated.next()? }))
        .collect()
}

/// `[value, first, second, gradient]` of every parameter to `[value, first, second]`.
fn update(inputs: Vec<CubeTensor>, steps: &[AdamStep]) -> Vec<CubeTensor> {
    let client = inputs[0].client.clone();
    let most = (bindings(&client) / 4).clamp(1, MOST_PARAMETERS);
    let mut updated = Vec::with_capacity(inputs.len() / 4 * 3);
    let mut inputs = inputs.into_iter().map(gapless);
    let mut next = || {
        let [value, first, second, gradient] = [(); 4].map(|()| inputs.next().expect("four tensors a parameter"));
        [value, own(first), own(second), own(gradient)]
    };
    for steps in steps.chunks(most) {
        let tensors: Vec<[CubeTensor; 4]> = steps.iter().map(|_| next()).collect();
        let lengths: Vec<usize> = tensors.iter().map(|[value, ..]| value.shape().num_elements()).collect();
        let size = vector_size(&client, DType::F32.size(), &lengths);
        let dim = CubeDim::new(&client, lengths.iter().sum::<usize>() / size);
        let ends = ends(lengths.iter().map(|length| (length / size).div_ceil(dim.num_elems() as usize)));
        let buffers = |part: usize| tensors.iter().map(move |tensors| tensors[part].clone().into_buffer_arg());
        let step = steps[0];
        launch::adam::launch(
            &client,
            cubes(&client, ends[ends.len() - 1] as usize),
            dim,
            size,
            buffers(0).collect(),
            buffers(1).collect(),
            buffers(2).collect(),
            buffers(3).collect(),
            ends.iter().copied().collect(),
            steps.iter().map(|step| step.rate).collect(),
            steps.iter().map(|step| step.kept).collect(),
            step.factor,
            step.beta1,
            step.beta2,
            step.enters1,
            step.enters2,
            step.epsilon,
            step.correction2,
        );
        updated.extend(tensors.into_iter().flat_map(|[_, first, second, gradient]| [gradient, first, second]));
    }
    updated
}

/// The sum of the squares of all values of `tensors`, which are on one device: `[1]`.
pub(super) fn square_sum_on_cube(tensors: Vec<Tensor<1>>) -> Option<Tensor<1>> {
    let client_units = |tensor: &Tensor<1>| tensor.dims()[0].div_ceil(VECTORS_OF_A_UNIT * 256).clamp(1, MOST_CUBES);
    let cubes_of: Vec<usize> = tensors.iter().map(client_units).collect();
    let outputs = [(cubes_of.iter().sum(), DType::F32)];
    let tensors = tensors.into_iter().map(Vector::Float).collect();
    let sums =
        multi_tensor::apply("square_sums", tensors, &outputs, move |inputs| vec![square_sums(inputs, &cubes_of)]);
    Some(sums.into_iter().next()?.float().sum())
}

/// A sum for every cube; `cubes_of` says how many each tensor has.
fn square_sums(inputs: Vec<CubeTensor>, cubes_of: &[usize]) -> CubeTensor {
    let client = inputs[0].client.clone();
    let sums = empty(&inputs[0], [cubes_of.iter().sum()], DType::F32);
    let most = bindings(&client).clamp(1, MOST_GRADIENTS);
    let mut inputs = inputs.into_iter().map(gapless);
    let mut offset = 0;
    for cubes_of in cubes_of.chunks(most) {
        let tensors: Vec<CubeTensor> = inputs.by_ref().take(cubes_of.len()).collect();
        let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.shape().num_elements()).collect();
        let size = vector_size(&client, DType::F32.size(), &lengths);
        let team = Team::of(&client, 256);
        let ends = ends(cubes_of.iter().copied());
        let count = ends[ends.len() - 1] as usize;
        launch::square_sums::launch(
            &client,
            cubes(&client, count),
            team.dim(),
            size,
            tensors.into_iter().map(CubeTensor::into_buffer_arg).collect(),
            ends.into_iter().collect(),
            sums.clone().into_buffer_arg(),
            offset,
            team.units,
            team.plane,
        );
        offset += count;
    }
    sums
}

/// Buffers of tensors that a launch can bind.
fn bindings(client: &Client) -> usize {
    (client.properties().hardware.max_bindings as usize).saturating_sub(OTHER_BUFFERS)
}

/// The end of each of `counts` where they are laid one behind the other.
fn ends(counts: impl Iterator<Item = usize>) -> Vec<u32> {
    let sum = |end: &mut usize, count| {
        *end += count;
        Some(*end as u32)
    };
    counts.scan(0, sum).collect()
}

/// The tensor itself if nothing else holds it, else a copy.
pub(super) fn own(tensor: CubeTensor) -> CubeTensor {
    if tensor.can_mut() { tensor } else { tensor.copy() }
}
