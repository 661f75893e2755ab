//! The common parts of kernels that work along the rows of tensors: the place of rows, and units that add up over one together.
//!
//! A row is one cube's; its units take vectors of the row in turn, so that neighbours read neighbouring memory.
//! Sums over the units go through planes (warps) where all planes of the device are of one size, else through
//! shared memory alone. On CPUs, where barriers cost most, a cube is one unit.

use burn::backend::TensorMetadata;
use burn_cubecl::kernel::untile;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::ir::features::Plane;
use cubecl::prelude::*;
use cubecl::zspace::metadata::Metadata;
use cubecl::{CubeCount, CubeDim, calculate_cube_count_elemwise};

use crate::cube::gapless;

/// Units of a cube unless a row is short or very long.
const UNITS: usize = 256;
/// Units of a cube for rows with many vectors for each of [`UNITS`].
const MOST_UNITS: usize = 1024;

/// A tensor as rows, its last dimension, that start `stride` values apart.
pub(crate) struct Rows {
    pub(crate) tensor: CubeTensor,
    pub(crate) count: usize,
    pub(crate) length: usize,
    pub(crate) stride: usize,
}

impl Rows {
    /// The rows of `tensor`; a copy of it if they do not lie at equal distances.
    pub(crate) fn of(tensor: CubeTensor) -> Self {
        let tensor = untile(tensor);
        match stride(&tensor) {
            Some(stride) => Self::at(tensor, stride),
            None => {
                let tensor = gapless(tensor);
                let length = tensor.shape().to_vec().last().copied().unwrap_or(1);
                Self::at(tensor, length)
            }
        }
    }

    fn at(tensor: CubeTensor, stride: usize) -> Self {
        let shape = tensor.shape().to_vec();
        let length = shape.last().copied().unwrap_or(1);
        let count = shape.iter().product::<usize>() / length.max(1);
        Self { tensor, count, length, stride }
    }

    /// All memory from the first row's begin to the last row's end.
    pub(crate) fn into_arg(self) -> BufferArg {
        let extent = self.count.saturating_sub(1) * self.stride + self.length;
        flat(self.tensor, extent).into_buffer_arg()
    }
}

/// `tensor`'s memory as a vector of `extent` values.
pub(crate) fn flat(tensor: CubeTensor, extent: usize) -> CubeTensor {
    let CubeTensor { client, handle, device, dtype, .. } = tensor;
    CubeTensor::new(client, handle, Metadata::new([extent], [1]), device, dtype)
}

/// Values between the begins of rows, if it is the same everywhere.
fn stride(tensor: &CubeTensor) -> Option<usize> {
    let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
    let last = shape.len() - 1;
    if shape[last] != 1 && strides[last] != 1 {
        return None;
    }
    // From the inside: each dimension has to continue where the one within it ends.
    let mut found: Option<(usize, usize)> = None;
    for dimension in (0..last).rev().filter(|&dimension| shape[dimension] != 1) {
        match found {
            None => found = Some((strides[dimension], shape[dimension])),
            Some((stride, rows)) if strides[dimension] == stride * rows => {
                found = Some((stride, rows * shape[dimension]));
            }
            Some(_) => return None,
        }
    }
    let stride = found.map_or(shape[last], |(stride, _)| stride);
    (stride >= shape[last]).then_some(stride)
}

/// The widest vectors in which all of `lengths` can be counted, for values of `bytes` or more.
pub(crate) fn vector_size(client: &Client, bytes: usize, lengths: &[usize]) -> usize {
    let fits = |&size: &usize| lengths.iter().all(|length| length.is_multiple_of(size));
    client.io_optimized_vector_sizes(bytes).find(fits).unwrap_or(1)
}

/// Units that share a row: how many, and how many of them make a plane (0 where planes cannot add up).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Team {
    pub(crate) units: usize,
    pub(crate) plane: usize,
}

impl Team {
    /// For rows of `vectors`.
    pub(crate) fn of(client: &Client, vectors: usize) -> Self {
        let properties = client.properties();
        let hardware = &properties.hardware;
        if hardware.num_cpu_cores.is_some() {
            return Self { units: 1, plane: 0 };
        }
        let (least, most) = (hardware.plane_size_min as usize, hardware.plane_size_max as usize);
        let alike = least == most && least > 1 && properties.features.plane.contains(Plane::Ops);
        let wanted = if vectors >= 8 * UNITS { MOST_UNITS } else { UNITS };
        let limit = wanted.min(hardware.max_units_per_cube as usize);
        let units = vectors.next_power_of_two().clamp(most.clamp(1, limit), limit);
        // Both are powers of two on every device that has planes.
        Self { units, plane: if alike && units.is_multiple_of(least) { least } else { 0 } }
    }

    pub(crate) fn dim(self) -> CubeDim {
        CubeDim::new_1d(self.units as u32)
    }
}

/// Memory for a tensor of the shape and type of `tensor`, in order and without gaps.
pub(crate) fn like(tensor: &CubeTensor) -> CubeTensor {
    empty_device_contiguous_dtype(tensor.client.clone(), tensor.device.clone(), tensor.shape(), tensor.dtype)
}

/// At least `count` cubes.
pub(crate) fn cubes(client: &Client, count: usize) -> CubeCount {
    calculate_cube_count_elemwise(client, count, CubeDim::new_single())
}

/// The sum of a vector's values.
#[cube]
pub(crate) fn total<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for place in 0..N::value() {
        sum += vector.extract(place);
    }
    sum
}

/// The largest of a vector's values.
#[cube]
pub(crate) fn largest<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut found = vector.extract(0usize);
    #[unroll]
    for place in 1..N::value() {
        found = max(found, vector.extract(place));
    }
    found
}

/// The sum of every unit's `value`, to all of them.
#[cube]
pub(crate) fn team_sum(value: f32, #[comptime] units: usize, #[comptime] plane: usize) -> f32 {
    let mut sum = value;
    if comptime!(units > 1) {
        let slots = comptime!(units.checked_div(plane).unwrap_or(units));
        let mut shared = Shared::<[f32]>::new_slice(slots);
        if comptime!(plane > 0) {
            sum = plane_sum(value);
            if comptime!(slots > 1) {
                if UNIT_POS_PLANE == 0 {
                    shared[PLANE_POS as usize] = sum;
                }
                sync_cube();
                sum = 0.0f32;
                #[unroll]
                for slot in 0..slots {
                    sum += shared[slot];
                }
            }
        } else {
            shared[UNIT_POS as usize] = value;
            let mut half = comptime!(units / 2).runtime();
            while half > 0 {
                sync_cube();
                if (UNIT_POS as usize) < half {
                    let other = shared[UNIT_POS as usize + half];
                    shared[UNIT_POS as usize] += other;
                }
                half /= 2;
            }
            sync_cube();
            sum = shared[0];
        }
    }
    sum
}

/// The largest of every unit's `value`, to all of them.
#[cube]
pub(crate) fn team_max(value: f32, #[comptime] units: usize, #[comptime] plane: usize) -> f32 {
    let mut found = value;
    if comptime!(units > 1) {
        let slots = comptime!(units.checked_div(plane).unwrap_or(units));
        let mut shared = Shared::<[f32]>::new_slice(slots);
        if comptime!(plane > 0) {
            found = plane_max(value);
            if comptime!(slots > 1) {
                if UNIT_POS_PLANE == 0 {
                    shared[PLANE_POS as usize] = found;
                }
                sync_cube();
                #[unroll]
                for slot in 0..slots {
                    found = max(found, shared[slot]);
                }
            }
        } else {
            shared[UNIT_POS as usize] = value;
            let mut half = comptime!(units / 2).runtime();
            while half > 0 {
                sync_cube();
                if (UNIT_POS as usize) < half {
                    let other = shared[UNIT_POS as usize + half];
                    let own = shared[UNIT_POS as usize];
                    shared[UNIT_POS as usize] = max(own, other);
                }
                half /= 2;
            }
            sync_cube();
            found = shared[0];
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::*;
    use crate::cube::empty;
    use crate::multi_tensor;
    use crate::testing::{device, draw, skipped};

    mod launch {
        use cubecl::prelude::*;

        use crate::rows::{team_max, team_sum};

        #[cube(launch)]
        pub(super) fn sum_and_largest(
            values: &[f32],
            out: &mut [f32],
            #[comptime] units: usize,
            #[comptime] plane: usize,
        ) {
            let value = values[UNIT_POS as usize];
            let sum = team_sum(value, units, plane);
            let largest = team_max(value, units, plane);
            // The last unit has them as the first does.
            if UNIT_POS as usize == comptime!(units - 1) {
                out[0] = sum;
                out[1] = largest;
                out[2] = f32::cast_from(CUBE_DIM);
            }
        }
    }

    #[test]
    fn units_find_their_sum_and_their_largest_through_planes_and_through_shared_memory() {
        let device = device();
        if device == Device::flex() {
            return skipped("this device has no units");
        }
        for (vectors, planes) in [(256, true), (256, false), (4, true), (1, false)] {
            let values = draw::<1>(1, [1024], 1.0);
            let inputs = vec![multi_tensor::Vector::Float(values.clone().to_device(&device))];
            let found = multi_tensor::apply("sum_and_largest", inputs, &[(3, DType::F32)], move |inputs| {
                let client = inputs[0].client.clone();
                let mut team = Team::of(&client, vectors);
                team.plane *= usize::from(planes);
                let out = empty(&inputs[0], [3], DType::F32);
                let values = inputs[0].clone().into_buffer_arg();
                let to = out.clone().into_buffer_arg();
                launch::sum_and_largest::launch(
                    &client,
                    cubes(&client, 1),
                    team.dim(),
                    values,
                    to,
                    team.units,
                    team.plane,
                );
                vec![out]
            });
            let found = found.into_iter().next().unwrap().float().into_data().try_to_vec::<f32>().unwrap();
            let values = values.into_data().try_to_vec::<f32>().unwrap();
            let values = &values[..found[2] as usize];
            let largest = values.iter().fold(f32::MIN, |largest, value| largest.max(*value));
            let fits = (values.iter().sum::<f32>() - found[0]).abs() < 1e-4 && largest == found[1];
            assert!(fits, "{found:?} for {vectors} vectors");
        }
    }
}
