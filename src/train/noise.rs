//! The noise that NEFTune adds to embeddings while training (Jain et al. 2023, arXiv:2310.05914).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Noise for rows of `width` tokens, `[rows * width, hidden]` row-major: uniform, at most
/// `alpha / sqrt(tokens * hidden)` with each row's own token count. `documents` is negative on padding, as in a
/// micro-batch.
pub(super) fn noise(alpha: f64, seed: u64, documents: &[i32], width: usize, hidden: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(documents.len() * hidden);
    for row in documents.chunks(width) {
        let tokens = row.iter().filter(|document| **document >= 0).count().max(1);
        let bound = (alpha / ((tokens * hidden) as f64).sqrt()) as f32;
        values.extend((0..row.len() * hidden).map(|_| {
            let unit = (random.next_u32() >> 8) as f32 / 16_777_216.0;
            (2.0 * unit - 1.0) * bound
        }));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest magnitude, mean and standard deviation.
    fn moments(values: &[f32]) -> (f64, f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let square = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / count;
        let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(f64::from(value.abs())));
        (largest, mean, (square - mean * mean).sqrt())
    }

    #[test]
    fn noise_is_uniform_within_the_bound_of_the_paper() {
        // Two rows of 16 tokens with 64 values each, the second with 12 tokens of padding: 5 / sqrt(16 * 64) and
        // 5 / sqrt(4 * 64). A uniform distribution deviates by its bound over the root of 3.
        let documents = [vec![0; 20], vec![-1; 12]].concat();
        let values = noise(5.0, 3, &documents, 16, 64);
        assert_eq!(values.len(), 32 * 64);
        for (row, bound) in values.chunks(16 * 64).zip([5.0 / 32.0, 5.0 / 16.0]) {
            let (largest, mean, deviation) = moments(row);
            assert!(largest <= bound && largest > 0.99 * bound, "{largest} of {bound}");
            assert!(mean.abs() < 0.05 * bound, "{mean} of {bound}");
            assert!((deviation / bound - 1.0 / 3f64.sqrt()).abs() < 0.02, "{deviation} of {bound}");
        }
    }

    #[test]
    fn noise_is_a_function_of_the_seed_and_grows_with_alpha() {
        let documents = [0; 8];
        let one = noise(1.0, 7, &documents, 8, 4);
        assert_eq!(one, noise(1.0, 7, &documents, 8, 4));
        assert_ne!(one, noise(1.0, 8, &documents, 8, 4));
        let doubled: Vec<f32> = one.iter().map(|value| 2.0 * value).collect();
        assert_eq!(doubled, noise(2.0, 7, &documents, 8, 4));
    }
}
