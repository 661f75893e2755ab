//! Dropout whose mask is a function of a key and not of when it is drawn: the second forward pass of
//! layer recompute sees the mask of the first.

use burn::tensor::{DType, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

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
        let [tokens, features] = x.dims();
        let mut random = ChaCha8Rng::seed_from_u64(seed_of(self.0, name));
        let kept = (1.0 / (1.0 - rate)) as f32;
        let mask: Vec<f32> =
            (0..tokens * features).map(|_| if f64::from(unit(&mut random)) < rate { 0.0 } else { kept }).collect();
        let device = x.device().inner();
        let mask = Tensor::<2>::from_data(TensorData::new(mask, [tokens, features]), (&device, DType::F32));
        let mask = if x.dtype() == DType::F32 { mask } else { mask.cast(crate::parameter::float_dtype(x.dtype())) };
        x * mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

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
}
