//! Seeded random numbers by name: every tensor's draw depends on the seed and its own name alone, so
//! that neither the order of loading nor the set of other tensors changes it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seed for `name` under the run's `seed` (FNV-1a over the name, mixed with the seed).
pub fn seed_of(seed: u64, name: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

/// `count` draws from the uniform distribution on `[low, high)`.
pub(crate) fn uniform(seed: u64, count: usize, low: f32, high: f32) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| low + (high - low) * unit(&mut random)).collect()
}

/// `count` draws from the normal distribution with mean 0 (Box-Muller).
pub fn normal(seed: u64, count: usize, standard_deviation: f64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * f64::from(1.0 - unit(&mut random)).ln()).sqrt() * standard_deviation;
        let angle = std::f64::consts::TAU * f64::from(unit(&mut random));
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}

/// A value in `[0, 1)` with 24 random bits.
pub(crate) fn unit(random: &mut ChaCha8Rng) -> f32 {
    (random.next_u32() >> 8) as f32 / 16_777_216.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_draws_have_the_asked_moments_and_repeat() {
        let draws = normal(7, 40_001, 0.02);
        let mean = draws.iter().sum::<f32>() / draws.len() as f32;
        let variance = draws.iter().map(|x| x * x).sum::<f32>() / draws.len() as f32;
        assert!(mean.abs() < 5e-4, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 3e-4, "{variance}");
        assert_eq!(draws, normal(7, 40_001, 0.02));
        assert_ne!(draws, normal(8, 40_001, 0.02));
    }
}
