//! Dropout whose mask is a function of a key and not of when it is drawn: the second forward pass of
//! layer recompute sees the mask of the first.
//!
//! On the CPU a mask is drawn from a generator. Elsewhere every value's place is hashed on the device, where drawing on
//! the host would take longer than the step.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::dtype::float_dtype;
use crate::random::{seed_of, unit};

/// Names the masks of one micro-batch: made from the run's seed, the step and the micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutKey(pub u64);

impl DropoutKey {
    /// The key of micro-batch `micro_batch` of `step`.
    pub fn new(seed: u64, step: usize, micro_batch: usize) -> Self {
        Self(seed_of(seed_of(seed, "dropout"), &format!("{step}.{micro_batch}")))
    }

    /// `x` with each value zeroed with probability `rate` and the others scaled by `1 / (1 - rate)`; `x: [tokens, features]`.
    pub(crate) fn apply(self, x: Tensor<2>, name: &str, rate: f64) -> Tensor<2> {
        let (shape, device) = (x.dims(), x.device().inner());
        let seed = seed_of(self.0, name);
        let mask = match kernels::on_host(&device, DType::F32) {
            true => drawn(seed, shape, rate, &device),
            false => hashed(seed, shape, rate, &device),
        };
        let mask = if x.dtype() == DType::F32 { mask } else { mask.cast(float_dtype(x.dtype())) };
        x * mask
    }
}

/// A mask of zeros and `1 / (1 - rate)`, f32, drawn on the host.
fn drawn(seed: u64, shape: [usize; 2], rate: f64, device: &Device) -> Tensor<2> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let kept = (1.0 / (1.0 - rate)) as f32;
    let mask: Vec<f32> =
        (0..shape[0] * shape[1]).map(|_| if f64::from(unit(&mut random)) < rate { 0.0 } else { kept }).collect();
    Tensor::from_data(TensorData::new(mask, shape), (device, DType::F32))
}

/// The same from the hash of each value's place, on the device.
fn hashed(seed: u64, shape: [usize; 2], rate: f64, device: &Device) -> Tensor<2> {
    // Rows and columns come from the host: burn's `arange` sums up a vector of ones on the device, every number anew.
    let count = |length: usize, step: usize, shape: [usize; 2]| {
        let values: Vec<u32> = (0..length).map(|index| (index * step) as u32).collect();
        Tensor::<2, Int>::from_data(TensorData::new(values, shape), (device, DType::U32))
    };
    let places = count(shape[0], shape[1], [shape[0], 1]) + count(shape[1], 1, [1, shape[1]]);
    let [low, high] = [seed as u32, (seed >> 32) as u32];
    let hash = mixed(mixed(places.bitwise_xor_scalar(low)).bitwise_xor_scalar(high));
    // 24 bits, which f32 holds exactly.
    let dropped = (rate * f64::from(1 << 24)).round();
    let kept = hash.bitwise_right_shift_scalar(8u32).float().greater_equal_elem(dropped);
    kept.float().mul_scalar(1.0 / (1.0 - rate))
}

/// 32 bits each of which hangs on every bit of what was given, one to one: Wellons' lowbias32 (2018), two products
/// between three shifts.
fn mixed(bits: Tensor<2, Int>) -> Tensor<2, Int> {
    let folded = |bits: Tensor<2, Int>, shift: u32| bits.clone().bitwise_xor(bits.bitwise_right_shift_scalar(shift));
    let bits = folded(bits, 16).mul_scalar(0x7feb_352d_u32);
    let bits = folded(bits, 15).mul_scalar(0x846c_a68b_u32);
    folded(bits, 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device;

    #[test]
    fn a_mask_repeats_for_its_key_and_name_and_keeps_the_mean() {
        let x = Tensor::<2>::ones([64, 64], &Device::flex());
        let draw = |key: DropoutKey, name: &str| {
            key.apply(x.clone(), name, 0.25).into_data().try_to_vec::<f32>().expect("f32 values")
        };
        let key = DropoutKey::new(42, 3, 1);
        let first = draw(key, "q_proj");
        assert_eq!(first, draw(key, "q_proj"));
        assert_ne!(first, draw(key, "k_proj"));
        assert_ne!(first, draw(DropoutKey::new(42, 4, 1), "q_proj"));
        let mean = first.iter().sum::<f32>() / first.len() as f32;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
    }

    #[test]
    fn every_device_hashes_the_same_mask() {
        // Seeds whose halves have their highest bit set, and not.
        for seed in [7, 0x8000_0001, 0xf234_5678_9abc_def0] {
            let draw =
                |device: &Device| hashed(seed, [37, 50], 0.3, device).into_data().try_to_vec::<f32>().expect("f32");
            assert_eq!(draw(&device()), draw(&Device::flex()), "{seed:x}");
        }
    }

    #[test]
    fn hashed_masks_repeat_keep_the_mean_and_do_not_follow_rows_columns_or_seeds() {
        let device = Device::flex();
        let draw = |seed: u64| hashed(seed, [256, 64], 0.25, &device).into_data().try_to_vec::<f32>().expect("f32");
        let masks: Vec<Vec<f32>> = [3, 4, 3 << 32, 3 << 33].map(draw).to_vec();
        assert_eq!(masks[0], draw(3));
        let share = |values: &[f32]| values.iter().filter(|value| **value == 0.0).count() as f64 / values.len() as f64;
        for mask in &masks {
            assert!(mask.iter().all(|value| *value == 0.0 || (*value - 4.0 / 3.0).abs() < 1e-6));
            assert!((share(mask) - 0.25).abs() < 0.015, "{}", share(mask));
            for column in 0..64 {
                let column: Vec<f32> = mask.iter().skip(column).step_by(64).copied().collect();
                assert!((share(&column) - 0.25).abs() < 0.14, "{}", share(&column));
            }
        }
        // Two masks drop the same value as often as chance has it.
        for (first, second) in [(0, 1), (0, 2), (2, 3)] {
            let both = masks[first].iter().zip(&masks[second]).filter(|(a, b)| **a == 0.0 && **b == 0.0).count();
            assert!((both as f64 / 16_384.0 - 0.0625).abs() < 0.01, "{both}");
        }
    }
}
