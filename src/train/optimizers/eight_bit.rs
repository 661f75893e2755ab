//! A vector of an optimizer's state in 8 bits a value (Dettmers et al. 2022, arXiv:2110.02861).
//!
//! Values are divided by the largest of their block of 256 and rounded to the nearest of 256 numbers that
//! lie close together near zero, as bitsandbytes has them: 2 bytes a parameter for both moments instead of 8.
//! On the CPU codes are bytes on the host; elsewhere they are on the device, whose steps are [`adam_eight_bit`]'s.
//!
//! [`adam_eight_bit`]: kernels::adam_eight_bit

use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::EightBitMoment;
use rayon::prelude::*;

use crate::device;

/// Values that share a scale.
const BLOCK: usize = 256;
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
            let bound = |part: usize| {
                if 2 * part <= parts { 0.1 + width * part as f32 } else { 1.0 - width * (parts - part) as f32 }
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

    /// The middles between neighbouring numbers: a value's code is the number of them below it.
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
    Device(Box<EightBitMoment>),
}

impl EightBit {
    /// Rounds `values`, f32 on the CPU.
    pub(super) fn encode(values: Tensor<1>, map: Map) -> Self {
        let (length, device) = (values.dims()[0], values.device());
        Self { map, length, stored: on_host(&host_values(values), map, device) }
    }

    /// A vector of `length` values in the memory of a device.
    pub(super) fn of_device(moment: EightBitMoment, length: usize, map: Map) -> Self {
        Self { map, length, stored: Stored::Device(Box::new(moment)) }
    }

    /// Zeros on a device that is not the CPU: a factor of zero, whatever the codes.
    pub(super) fn zeros_on(device: &Device, length: usize) -> EightBitMoment {
        let blocks = length.div_ceil(BLOCK);
        EightBitMoment {
            codes: Tensor::zeros([blocks * BLOCK / 4], (device, DType::U32)),
            scales: Tensor::zeros([blocks], (device, DType::F32)),
        }
    }

    /// The codes and scales of its device, if that is not the CPU.
    pub(super) fn into_device(self) -> Option<EightBitMoment> {
        match self.stored {
            Stored::Device(moment) => Some(*moment),
            Stored::Host { .. } => None,
        }
    }

    /// Scales of a vector of `length` values.
    pub(super) fn scales(length: usize) -> usize {
        length.div_ceil(BLOCK)
    }

    /// The codes and the scales of their blocks, in the order of the values.
    pub(super) fn parts(&self) -> (Vec<u8>, Vec<f32>) {
        match &self.stored {
            Stored::Host { codes, scales, .. } => (codes.clone(), scales.clone()),
            Stored::Device(moment) => {
                let mut codes = codes_of(moment);
                codes.truncate(self.length);
                (codes, host_values(moment.scales.clone()))
            }
        }
    }

    /// A vector of the `codes` and the `scales` of their blocks, as [`EightBit::parts`] gives them.
    pub(super) fn from_parts(mut codes: Vec<u8>, scales: Vec<f32>, map: Map, device: &Device) -> Self {
        let length = codes.len();
        if device::is_host(device) {
            return Self { map, length, stored: Stored::Host { codes, scales, device: device.clone() } };
        }
        let blocks = scales.len();
        codes.resize(blocks * BLOCK, 0);
        let words: Vec<u32> = codes.as_chunks::<4>().0.iter().copied().map(u32::from_le_bytes).collect();
        let codes = TensorData::new(words, [blocks * BLOCK / 4]);
        let codes = Tensor::from_data(codes, (device, DType::U32));
        let scales = Tensor::from_data(TensorData::new(scales, [blocks]), (device, DType::F32));
        Self::of_device(EightBitMoment { codes, scales }, length, map)
    }

    /// The values, f32, on their device.
    pub(super) fn decode(&self) -> Tensor<1> {
        match &self.stored {
            Stored::Host { codes, scales, device } => self.decoded(codes, scales, device),
            Stored::Device(moment) => {
                self.decoded(&codes_of(moment), &host_values(moment.scales.clone()), &moment.scales.device())
            }
        }
    }

    fn decoded(&self, codes: &[u8], scales: &[f32], device: &Device) -> Tensor<1> {
        let numbers = self.map.numbers();
        let mut values = vec![0.0; self.length];
        values.par_chunks_mut(BLOCK).zip(codes.par_chunks(BLOCK)).zip(scales).for_each(|((to, from), scale)| {
            to.iter_mut().zip(from).for_each(|(value, code)| *value = numbers[usize::from(*code)] * scale);
        });
        Tensor::from_data(TensorData::new(values, [self.length]), (device, DType::F32))
    }
}

/// The codes of whole blocks, read from a device.
fn codes_of(moment: &EightBitMoment) -> Vec<u8> {
    let words = moment.codes.clone().into_data().try_to_vec::<u32>().expect("codes are u32");
    words.into_iter().flat_map(u32::to_le_bytes).collect()
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
        let decoded =
            host_values(EightBit::encode(Tensor::from_floats(values.as_slice(), &device), Map::Signed).decode());
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
    fn a_vector_is_made_again_from_its_parts() {
        let device = Device::flex();
        let values = spread(3 * BLOCK + 17);
        let vector = EightBit::encode(Tensor::from_floats(values.as_slice(), &device), Map::Signed);
        let (codes, scales) = vector.parts();
        assert_eq!((codes.len(), scales.len()), (values.len(), EightBit::scales(values.len())));
        let again = EightBit::from_parts(codes, scales, Map::Signed, &device);
        assert_eq!(host_values(vector.decode()), host_values(again.decode()));
    }
}
