//! Loops over slices of f32 that the compiler turns into the widest vector instructions of the machine,
//! chosen when the program runs.
//!
//! Sums have a fixed order whatever the width, so that a result does not depend on the machine.

use crate::exponential::exp;

/// Partial sums of a reduction.
const LANES: usize = 32;

/// Runs `work`, which should be a closure marked `#[inline(always)]`, with the machine's vector instructions.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// `sum a_i b_i`.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut partial = [0.0; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            partial[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    total(partial) + rest
}

/// The largest value; negative infinity of none. A NaN may be passed over.
#[inline(always)]
pub fn largest(values: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
        }
    }
    best.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces each value by `exp(value - shift)` and returns their sum.
#[inline(always)]
pub fn exp_and_sum(values: &mut [f32], shift: f32) -> f32 {
    let mut partial = [0.0; LANES];
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - shift);
            partial[lane] += chunk[lane];
        }
    }
    let mut last = 0.0;
    for value in rest {
        *value = exp(*value - shift);
        last += *value;
    }
    total(partial) + last
}

/// `sum exp(value_i - shift)`.
#[inline(always)]
pub fn sum_of_exp(values: &[f32], shift: f32) -> f32 {
    let mut partial = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            partial[lane] += exp(chunk[lane] - shift);
        }
    }
    total(partial) + rest.iter().map(|value| exp(*value - shift)).sum::<f32>()
}

/// `target_i += factor * source_i`.
#[inline(always)]
pub fn add_scaled(target: &mut [f32], source: &[f32], factor: f32) {
    for (target, source) in target.iter_mut().zip(source) {
        *target += factor * source;
    }
}

/// `target_i *= factor`.
#[inline(always)]
pub fn scale(target: &mut [f32], factor: f32) {
    for value in target {
        *value *= factor;
    }
}

/// The sum in a fixed tree.
#[inline(always)]
fn total(mut partial: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            partial[lane] += partial[lane + width];
        }
        width /= 2;
    }
    partial[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37) % 101) as f32 * 0.03 - 1.5).collect()
    }

    #[test]
    fn reductions_equal_those_in_f64_at_every_length() {
        for count in [0, 1, 31, 32, 33, 100, 1000] {
            let (a, b) = (ramp(count), ramp(count).into_iter().rev().collect::<Vec<_>>());
            let expected: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let got = vectorised(
                #[inline(always)]
                || dot(&a, &b),
            );
            assert!((f64::from(got) - expected).abs() < 1e-4, "{count}: {got} {expected}");
            let expected = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(
                vectorised(
                    #[inline(always)]
                    || largest(&a)
                ),
                expected
            );
            let mut powers = a.clone();
            let sum = vectorised(
                #[inline(always)]
                || exp_and_sum(&mut powers, 0.25),
            );
            let expected: f64 = a.iter().map(|a| (f64::from(*a) - 0.25).exp()).sum();
            assert!((f64::from(sum) - expected).abs() <= 1e-5 * expected.max(1.0), "{count}: {sum} {expected}");
        }
    }
}
