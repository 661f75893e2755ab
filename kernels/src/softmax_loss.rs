//! Weighted cross-entropy of a softmax and its gradient, in place of the logits: one array of that size and no more, or a
//! piece of it at a time.
//!
//! A row's weight `w` counts in the loss and in the gradient; the common `factor` (the mean over a step, the loss scale of
//! f16) in the gradient alone, so that it can be as small as it must be without rounding the loss.

#[cfg(feature = "cube")]
mod kernel;

#[cfg(feature = "cube")]
use burn::backend::Dispatch;
use burn::backend::Flex;
#[cfg(feature = "cube")]
use burn::tensor::Int;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

#[cfg(feature = "cube")]
use self::kernel::SoftmaxLossBackend;
#[cfg(feature = "cube")]
use crate::cube::on_cube;
use crate::host::{contiguous, is_host, values, values_mut};
use crate::threads::for_each;
use crate::vector::{exp_and_sum, largest, scale, sum_of_exp, vectorised};

/// Cross-entropy of `logits: [rows, vocab]` for one target a row, each times its row's weight and summed, `[1]` in f32, and
/// `factor weight (softmax - onehot)`, `[rows, vocab]` in the type of the logits and in their memory; outside autodiff.
///
/// # Errors
/// Returns the logits where this is not one operation: on the CPU in another type than f32.
#[expect(clippy::result_large_err, reason = "the logits are handed back as they were")]
pub fn softmax_loss(
    logits: Tensor<2>,
    targets: &[i32],
    weights: &[f32],
    factor: f32,
) -> Result<(Tensor<1>, Tensor<2>), Tensor<2>> {
    assert_eq!(targets.len(), weights.len(), "every row has a weight");
    if logits.is_autodiff() {
        return Err(logits);
    }
    #[cfg(feature = "cube")]
    if on_cube(&logits.device()) {
        let (device, rows) = (logits.device(), [targets.len()]);
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets.to_vec(), rows), (&device, DType::I32));
        let weights = Tensor::<1>::from_data(TensorData::new(weights.to_vec(), rows), (&device, DType::F32));
        let (losses, gradient) =
            Dispatch::softmax_loss(logits.into_dispatch(), targets.into_dispatch(), weights.into_dispatch(), factor);
        return Ok((Tensor::<1>::from_dispatch(losses).sum(), Tensor::from_dispatch(gradient)));
    }
    if !is_host(&logits) {
        return Err(logits);
    }
    let vocab = logits.dims()[1];
    let mut logits = contiguous(logits.try_into_primitive::<Flex>().expect("the tensor is on this backend"));
    let mut losses = vec![0.0; targets.len()];
    let rows = values_mut(&mut logits).par_chunks_exact_mut(vocab).zip(losses.par_iter_mut());
    for_each(rows.zip(targets).zip(weights), |(((row, loss), &target), &weight)| {
        let (target, factor) = (target as usize, factor * weight);
        vectorised(
            #[inline(always)]
            || {
                let chosen = row[target];
                let best = largest(row);
                let sum = exp_and_sum(row, best);
                *loss = f64::from(weight) * (f64::from(best) + f64::from(sum).ln() - f64::from(chosen));
                scale(row, factor / sum);
                row[target] -= factor;
            },
        );
    });
    let loss = losses.iter().sum::<f64>() as f32;
    let loss = Tensor::<1>::from_data(TensorData::new(vec![loss], [1]), (&Device::flex(), DType::F32));
    Ok((loss, Tensor::from_primitive::<Flex>(logits)))
}

/// Cross-entropy of a softmax whose logits come a range of the vocabulary at a time: once for the sums, and once more for
/// the gradient (the running maximum of Milakov and Gimelshein 2018, arXiv:1805.02867). On the CPU, in f32, outside autodiff.
#[derive(Debug)]
pub struct SoftmaxInPieces {
    rows: Vec<Row>,
}

/// The sums of a row so far.
#[derive(Debug)]
struct Row {
    target: usize,
    weight: f32,
    /// The largest logit so far.
    largest: f32,
    /// The sum of `exp(logit - largest)` so far.
    sum: f64,
    /// The target's logit, once it was there.
    chosen: f32,
}

impl SoftmaxInPieces {
    /// Nothing seen yet of rows with these `targets` and `weights`.
    pub fn new(targets: &[i32], weights: &[f32]) -> Self {
        assert_eq!(targets.len(), weights.len(), "every row has a weight");
        let row = |(target, weight): (&i32, &f32)| Row {
            target: *target as usize,
            weight: *weight,
            largest: f32::NEG_INFINITY,
            sum: 0.0,
            chosen: 0.0,
        };
        Self { rows: targets.iter().zip(weights).map(row).collect() }
    }

    /// Takes note of the logits of the vocabulary from `first` on, `[rows, any]`; each logit once.
    pub fn see(&mut self, logits: Tensor<2>, first: usize) {
        let columns = logits.dims()[1];
        let logits = contiguous(logits.try_into_primitive::<Flex>().expect("the tensor is on this backend"));
        for_each(self.rows.par_iter_mut().zip(values(&logits).par_chunks_exact(columns)), |(row, logits)| {
            vectorised(
                #[inline(always)]
                || {
                    if let Some(chosen) = row.target.checked_sub(first).and_then(|place| logits.get(place)) {
                        row.chosen = *chosen;
                    }
                    let before = row.largest;
                    row.largest = before.max(largest(logits));
                    let kept = row.sum * f64::from(before - row.largest).exp();
                    row.sum = kept + f64::from(sum_of_exp(logits, row.largest));
                },
            );
        });
    }

    /// The weighted sum of the rows' cross-entropies, `[1]`, once all logits were seen.
    pub fn loss(&self) -> Tensor<1> {
        let loss = self.rows.iter().map(|row| f64::from(row.weight) * row.loss()).sum::<f64>() as f32;
        Tensor::from_data(TensorData::new(vec![loss], [1]), (&Device::flex(), DType::F32))
    }

    /// The cross-entropy of each row, without its weight, `[rows]`, once all logits were seen.
    pub fn losses(&self) -> Tensor<1> {
        let losses: Vec<f32> = self.rows.iter().map(|row| row.loss() as f32).collect();
        let count = losses.len();
        Tensor::from_data(TensorData::new(losses, [count]), (&Device::flex(), DType::F32))
    }

    /// `factor weight (softmax - onehot)` of the logits of the vocabulary from `first` on, in their memory, once all were seen.
    pub fn gradient(&self, logits: Tensor<2>, first: usize, factor: f32) -> Tensor<2> {
        let columns = logits.dims()[1];
        let mut logits = contiguous(logits.try_into_primitive::<Flex>().expect("the tensor is on this backend"));
        let rows = values_mut(&mut logits).par_chunks_exact_mut(columns).zip(&self.rows);
        for_each(rows, |(logits, row)| {
            let factor = factor * row.weight;
            vectorised(
                #[inline(always)]
                || {
                    exp_and_sum(logits, row.largest);
                    scale(logits, (f64::from(factor) / row.sum) as f32);
                    if let Some(chosen) = row.target.checked_sub(first).and_then(|place| logits.get_mut(place)) {
                        *chosen -= factor;
                    }
                },
            );
        });
        Tensor::from_primitive::<Flex>(logits)
    }
}

impl Row {
    fn loss(&self) -> f64 {
        f64::from(self.largest) + self.sum.ln() - f64::from(self.chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, device, draw, half};
    use burn::tensor::FloatDType;

    const FACTOR: f32 = 0.5;
    /// Of three rows: none is like another, and one lowers what it trains.
    const WEIGHTS: [f32; 3] = [1.0, -0.75, 2.5];

    /// Loss and gradient in f64.
    fn reference(logits: &Tensor<2>, targets: &[i32]) -> (Tensor<1>, Tensor<2>) {
        let [rows, vocab] = logits.dims();
        let values: Vec<f64> = logits.clone().into_data().iter::<f64>().collect();
        let mut loss = 0.0;
        let mut gradient = Vec::with_capacity(rows * vocab);
        for ((values, target), weight) in values.chunks(vocab).zip(targets).zip(WEIGHTS.map(f64::from)) {
            let sum: f64 = values.iter().map(|value| value.exp()).sum();
            loss += weight * (sum.ln() - values[*target as usize]);
            gradient.extend(values.iter().enumerate().map(|(column, value)| {
                let hit = if column == *target as usize { 1.0 } else { 0.0 };
                (f64::from(FACTOR) * weight * (value.exp() / sum - hit)) as f32
            }));
        }
        let tensor = |values, shape: &[usize]| TensorData::new(values, shape.to_vec());
        let device = Device::flex();
        (
            Tensor::from_data(tensor(vec![loss as f32], &[1]), (&device, DType::F32)),
            Tensor::from_data(tensor(gradient, &[rows, vocab]), (&device, DType::F32)),
        )
    }

    #[test]
    fn loss_and_gradient_equal_those_in_f64() {
        for (vocab, targets) in [(77, [5, 0, 76]), (4096, [4095, 2, 1001]), (36, [35, 1, 18])] {
            let logits = draw(1, [3, vocab], 8.0);
            let (expected, expected_gradient) = reference(&logits, &targets);
            let (loss, gradient) = softmax_loss(logits.to_device(&device()), &targets, &WEIGHTS, FACTOR).unwrap();
            assert_close(&loss, &expected, 1e-6);
            assert_close(&gradient, &expected_gradient, 1e-6);
        }
    }

    #[test]
    fn loss_and_gradient_in_pieces_equal_those_in_f64() {
        for (vocab, piece, targets) in [(77, 30, [5, 29, 76]), (4096, 1000, [4095, 2, 1001]), (36, 36, [35, 1, 18])] {
            let logits = draw(1, [3, vocab], 20.0);
            let (expected, expected_gradient) = reference(&logits, &targets);
            let pieces = || (0..vocab).step_by(piece).map(|first| first..(first + piece).min(vocab));
            let piece_of = |columns: &std::ops::Range<usize>| logits.clone().slice([0..3, columns.clone()]);
            let mut softmax = SoftmaxInPieces::new(&targets, &WEIGHTS);
            pieces().for_each(|columns| softmax.see(piece_of(&columns), columns.start));
            assert_close(&softmax.loss(), &expected, 1e-6);
            let weights = Tensor::<1>::from_floats(WEIGHTS, &Device::flex());
            assert_close(&(softmax.losses() * weights).sum(), &expected, 1e-5);
            let gradients = pieces().map(|columns| softmax.gradient(piece_of(&columns), columns.start, FACTOR));
            assert_close(&Tensor::cat(gradients.collect(), 1), &expected_gradient, 1e-6);
        }
    }

    #[test]
    fn logits_that_are_not_finite_make_the_loss_in_pieces_not_finite() {
        for value in [f32::NAN, f32::INFINITY] {
            let mut softmax = SoftmaxInPieces::new(&[1], &[1.0]);
            softmax.see(draw(1, [1, 20], 1.0), 0);
            softmax.see(Tensor::full([1, 20], value, (&Device::flex(), DType::F32)), 20);
            assert!(!softmax.loss().into_scalar::<f32>().is_finite(), "{value}");
        }
    }

    #[test]
    fn a_weight_of_one_changes_no_bit() {
        let (logits, targets) = (draw(1, [3, 200], 8.0), [5, 0, 199]);
        let [all, one] = [&[1.0; 3][..], &[1.0]];
        let (_, gradient) = softmax_loss(logits.clone().to_device(&device()), &targets, all, FACTOR).unwrap();
        let gradient = gradient.to_device(&Device::flex());
        for (row, weight) in WEIGHTS.into_iter().enumerate() {
            let alone = || logits.clone().slice([row..row + 1, 0..200]).to_device(&device());
            let (loss, plain) = softmax_loss(alone(), &targets[row..=row], one, FACTOR * weight).unwrap();
            let (weighted_loss, weighted) = softmax_loss(alone(), &targets[row..=row], &[weight], FACTOR).unwrap();
            weighted.into_data().assert_eq(&plain.into_data(), true);
            assert_close(&weighted_loss, &loss.mul_scalar(weight), 1e-6);
            let (_, same) = softmax_loss(alone(), &targets[row..=row], one, FACTOR).unwrap();
            same.into_data().assert_eq(&gradient.clone().slice([row..row + 1, 0..200]).into_data(), true);
        }
    }

    #[test]
    fn logits_that_something_else_holds_too_are_not_changed() {
        let logits = draw(1, [2, 40], 3.0).to_device(&device());
        let before = logits.clone().into_data();
        let (_, gradient) = softmax_loss(logits.clone(), &[3, 4], &WEIGHTS[..2], FACTOR).unwrap();
        assert_close(&gradient, &reference(&draw(1, [2, 40], 3.0), &[3, 4]).1, 1e-6);
        logits.into_data().assert_eq(&before, true);
    }

    #[test]
    fn logits_in_16_bits_give_the_loss_in_f32() {
        let Some((device, dtype, step)) = half() else { return };
        let logits = draw(1, [3, 96], 8.0).to_device(&device).cast(dtype);
        let targets = [5, 0, 95];
        // Read as they are: a cast back to f32 can be fused with the one before, which then rounds nothing.
        let (expected, expected_gradient) = reference(&logits, &targets);
        let (loss, gradient) = softmax_loss(logits, &targets, &WEIGHTS, FACTOR).unwrap();
        assert_close(&loss, &expected, 1e-6);
        assert_close(&gradient.cast(FloatDType::F32), &expected_gradient, step);
    }
}
