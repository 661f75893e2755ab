//! A vector of an optimizer's state in 8 bits a value (Dettmers et al. 2022, arXiv:2110.02861).
//!
//! Values are divided by the largest of their block of 256 and rounded to the nearest of 256 numbers that
//! lie close together near zero, as bitsandbytes has them: 2 bytes a parameter for both moments instead of 8.
//! On the CPU codes are bytes on the host; elsewhere four of them share an integer of the device.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::device;

/// Values that share a scale.
const BLOCK: usize = 256;
/// Codes that share an integer on a device.
const PACKED: usize = 4;
/// Powers of ten that the numbers of a map span.
const DECADES: usize = 7;

/// The numbers that codes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Map {
    /// From -1 to 1, for first moments.
    Signed,
    /// From 0 to 1, for second moments.
    Unsigned,
}

impl Map {
    /// The numbers in ascending order.
    ///
    /// Of each decade from 1e-7 to 1, the upper one has twice the numbers of the one below: the middles of equal parts
    /// from a tenth of its end to its end. Zero and one come in addition.
    pub(super) fn numbers(self) -> Vec<f32> {
        let mut numbers = vec![0.0, 1.0];
        for decade in 0..DECADES {
            let parts = match self {
                Map::Signed => 1 << decade,
                Map::Unsigned => 2 << decade,
            };
            let end = 10f64.powi(decade as i32 + 1 - DECADES as i32) as f32;
            let width = 0.9 / parts as f32;
            // From both ends, as torch's linspace.
            let bound = |part: usize| match 2 * part <= parts {
                true => 0.1 + width * part as f32,
                false => 1.0 - width * (parts - part) as f32,
            };
            for part in 0..parts {
                let middle = end * ((bound(part) + bound(part + 1)) / 2.0);
                numbers.push(middle);
                if self == Map::Signed {
                    numbers.push(-middle);
                }
            }
        }
        numbers.sort_by(f32::total_cmp);
        numbers
    }

    /// What lies between two neighbouring numbers: a value's code is how many of these are below it.
    fn bounds(self) -> Vec<f32> {
        self.numbers().windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect()
    }
}

/// A vector in 8 bits a value.
#[derive(Debug, Clone)]
pub(super) struct EightBit {
    map: Map,
    length: usize,
    stored: Stored,
}

#[derive(Debug, Clone)]
enum Stored {
    /// A code a value, and the scale of each block.
    Host {
        codes: Vec<u8>,
        scales: Vec<f32>,
        device: Device,
    },
    Device(Box<OnDevice>),
}

#[derive(Debug, Clone)]
struct OnDevice {
    /// Those of whole blocks, a quarter of them in each byte of the integers.
    codes: Tensor<1, Int>,
    /// `[blocks, 1]`.
    scales: Tensor<2>,
}

impl EightBit {
    /// Rounds `values`, f32.
    pub(super) fn encode(values: Tensor<1>, map: Map) -> Self {
        let (length, device) = (values.dims()[0], values.device());
        let stored = match device::is_host(&device) {
            true => on_host(&host_values(values), map, device),
            false => on_device(values, map),
        };
        Self { map, length, stored }
    }

    /// The values, f32.
    pub(super) fn decode(&self) -> Tensor<1> {
        let numbers = self.map.numbers();
        match &self.stored {
            Stored::Host { codes, scales, device } => {
                let mut values = vec![0.0; self.length];
                values.par_chunks_mut(BLOCK).zip(codes.par_chunks(BLOCK)).zip(scales).for_each(
                    |((to, from), scale)| {
                        to.iter_mut().zip(from).for_each(|(value, code)| *value = numbers[usize::from(*code)] * scale);
                    },
                );
                Tensor::from_data(TensorData::new(values, [self.length]), (device, DType::F32))
            }
            Stored::Device(stored) => {
                let OnDevice { codes, scales } = stored.as_ref();
                let plane = |plane: usize| {
                    let shifted = codes.clone().bitwise_right_shift_scalar(8 * plane as i32);
                    shifted.bitwise_and_scalar(0xff)
                };
                let codes = Tensor::cat((0..PACKED).map(plane).collect(), 0);
                let values = table(&numbers, &scales.device()).select(0, codes).reshape([scales.dims()[0], BLOCK]);
                let values = values * scales.clone();
                let padded = values.dims()[0] * BLOCK;
                values.reshape([padded]).slice(0..self.length)
            }
        }
    }
}

fn on_host(values: &[f32], map: Map, device: Device) -> Stored {
    let bounds = map.bounds();
    let mut codes = vec![0; values.len()];
    let scales = codes.par_chunks_mut(BLOCK).zip(values.par_chunks(BLOCK)).map(|(codes, values)| {
        let largest = values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let factor = if largest > 0.0 { 1.0 / largest } else { 0.0 };
        for (code, value) in codes.iter_mut().zip(values) {
            let scaled = value * factor;
            // 255 bounds: at most 255 of them are below.
            *code = bounds.partition_point(|bound| *bound < scaled) as u8;
        }
        largest
    });
    let scales = scales.collect();
    Stored::Host { codes, scales, device }
}

fn on_device(values: Tensor<1>, map: Map) -> Stored {
    let device = values.device();
    let length = values.dims()[0];
    let blocks = length.div_ceil(BLOCK);
    let padding = Tensor::zeros([blocks * BLOCK - length], (&device, DType::F32));
    let values = Tensor::cat(vec![values, padding], 0).reshape([blocks, BLOCK]);
    let scales = values.clone().abs().max_dim(1); // [blocks, 1]
    let none = scales.clone().equal_elem(0.0);
    let scaled = (values / scales.clone().mask_fill(none, 1.0)).reshape([blocks * BLOCK]);
    // How many bounds are below each value, by halving: the last of 256 bounds is above all.
    let mut bounds = map.bounds();
    bounds.push(f32::INFINITY);
    let bounds = table(&bounds, &device);
    let mut codes = Tensor::<1, Int>::zeros([blocks * BLOCK], (&device, DType::I32));
    for step in [128, 64, 32, 16, 8, 4, 2, 1] {
        let bound = bounds.clone().select(0, codes.clone().add_scalar(step - 1));
        codes = codes + bound.lower(scaled.clone()).int().mul_scalar(step);
    }
    let quarter = blocks * BLOCK / PACKED;
    let plane = |plane: usize| {
        let codes = codes.clone().slice(plane * quarter..(plane + 1) * quarter);
        codes.bitwise_left_shift_scalar(8 * plane as i32)
    };
    let codes = (1..PACKED).fold(plane(0), |packed, next| packed.bitwise_or(plane(next)));
    Stored::Device(Box::new(OnDevice { codes, scales }))
}

fn table(numbers: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(numbers.to_vec(), [numbers.len()]), (device, DType::F32))
}

fn host_values(values: Tensor<1>) -> Vec<f32> {
    values.into_data().try_to_vec::<f32>().expect("the state of an optimizer is f32")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(length: usize) -> Vec<f32> {
        let value = |index: usize| {
            let unit = (index as f32 * 0.754_877).fract() - 0.5;
            unit * unit * unit * (1.0 + (index / BLOCK) as f32)
        };
        (0..length).map(value).collect()
    }

    #[test]
    fn maps_have_256_numbers_that_grow() {
        for map in [Map::Signed, Map::Unsigned] {
            let numbers = map.numbers();
            assert_eq!(numbers.len(), 256);
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
            assert_eq!(numbers[255], 1.0);
        }
        assert_eq!((Map::Unsigned.numbers()[0], Map::Signed.numbers()[127]), (0.0, 0.0));
    }

    #[test]
    fn values_come_back_as_the_nearest_number_times_the_largest_of_their_block() {
        let device = Device::flex();
        let mut values = spread(3 * BLOCK + 17);
        values[BLOCK..2 * BLOCK].fill(0.0);
        let decoded = host_values(EightBit::encode(table(&values, &device), Map::Signed).decode());
        let numbers = Map::Signed.numbers();
        for (block, decoded) in values.chunks(BLOCK).zip(decoded.chunks(BLOCK)) {
            let largest = block.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
            for (value, decoded) in block.iter().zip(decoded) {
                let distance = |number: f32| (number * largest - value).abs();
                let best = numbers.iter().map(|number| distance(*number)).fold(f32::INFINITY, f32::min);
                assert!((decoded - value).abs() <= best * 1.001 + 1e-9, "{value} became {decoded}");
            }
        }
    }

    #[test]
    fn integers_of_a_device_hold_what_bytes_of_the_host_do() {
        let device = Device::flex();
        for (map, values) in [
            (Map::Signed, spread(2 * BLOCK + 3)),
            (Map::Unsigned, spread(5 * BLOCK).iter().map(|value| value.abs()).collect()),
        ] {
            let host = EightBit::encode(table(&values, &device), map);
            let stored = on_device(table(&values, &device), map);
            let other = EightBit { map, length: values.len(), stored };
            let (host, other) = (host_values(host.decode()), host_values(other.decode()));
            let apart = host.iter().zip(&other).filter(|(a, b)| (*a - *b).abs() > 1e-6 * a.abs()).count();
            // A division and a product with the inverse may fall on two sides of a bound.
            assert!(apart <= 1, "{apart} of {} differ", host.len());
        }
    }
}
