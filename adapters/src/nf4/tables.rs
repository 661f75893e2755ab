//! The two code books of NF4 weights: 16 values for weights, 256 for the scales of blocks.

use std::sync::OnceLock;

/// NormalFloat: quantiles of a normal distribution, scaled to -1 .. 1, zero among them
/// (Dettmers et al. 2023, arXiv:2305.14314, appendix E).
pub const CODES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The signed dynamic map of 8 bits, ascending (Dettmers 2016, arXiv:1511.04561): seven decades, each with twice
/// the values of the one below, and zero and one.
pub fn dynamic_map() -> &'static [f32; 256] {
    static MAP: OnceLock<[f32; 256]> = OnceLock::new();
    MAP.get_or_init(|| {
        let mut values = vec![0.0, 1.0];
        for decade in 0..7 {
            let scale = 10f64.powi(decade - 6) as f32;
            for mean in means(1 << decade) {
                values.extend([scale * mean, -scale * mean]);
            }
        }
        values.sort_by(f32::total_cmp);
        values.try_into().expect("two values, and twice 1 + 2 + .. + 64")
    })
}

/// The middles of `parts` equal parts of 0.1 .. 1.
fn means(parts: usize) -> impl Iterator<Item = f32> {
    // torch.linspace: from the nearer end in steps, rounded once.
    let step = (1.0 - 0.1f32) / parts as f32;
    let bound = move |index: usize| match index < parts.div_ceil(2) {
        true => step.mul_add(index as f32, 0.1),
        false => (-step).mul_add((parts - index) as f32, 1.0),
    };
    (0..parts).map(move |part| (bound(part) + bound(part + 1)) / 2.0)
}

/// Between which two codes a value lies: values above the `i`-th middle are nearer to a code above the `i`-th.
pub(super) fn middles<const N: usize, const M: usize>(codes: &[f32; N]) -> [f32; M] {
    std::array::from_fn(|index| (codes[index] + codes[index + 1]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_books_ascend_and_end_at_one() {
        assert!(CODES.is_sorted() && dynamic_map().is_sorted());
        assert_eq!((CODES[7], CODES[15], dynamic_map()[255]), (0.0, 1.0, 1.0));
        assert_eq!(dynamic_map().iter().filter(|value| **value < 0.0).count(), 127);
    }
}
