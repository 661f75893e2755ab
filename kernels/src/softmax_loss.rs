//! Cross-entropy of a softmax and its gradient, in place of the logits: one array of that size and no more.

use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::host::{contiguous, is_host, values_mut};
use crate::threads::for_each;
use crate::vector::{exp_and_sum, largest, scale, vectorised};

/// Summed cross-entropy of `logits: [rows, vocab]` for one target a row, `[1]`, and `factor (softmax - onehot)`,
/// `[rows, vocab]`; outside autodiff. The logits come back where this is not one operation (off the CPU, or in
/// another type).
#[expect(clippy::result_large_err, reason = "the logits are handed back as they were")]
pub fn softmax_loss(logits: Tensor<2>, targets: &[i32], factor: f32) -> Result<(Tensor<1>, Tensor<2>), Tensor<2>> {
    if !is_host(&logits) || logits.is_autodiff() {
        return Err(logits);
    }
    let vocab = logits.dims()[1];
    let mut logits = contiguous(logits.try_into_primitive::<Flex>().expect("the tensor is on this backend"));
    let mut losses = vec![0.0; targets.len()];
    let rows = values_mut(&mut logits).par_chunks_exact_mut(vocab).zip(losses.par_iter_mut()).zip(targets);
    for_each(rows, |((row, loss), &target)| {
        let target = target as usize;
        vectorised(
            #[inline(always)]
            || {
                let chosen = row[target];
                let best = largest(row);
                let sum = exp_and_sum(row, best);
                *loss = f64::from(best) + f64::from(sum).ln() - f64::from(chosen);
                scale(row, factor / sum);
                row[target] -= factor;
            },
        );
    });
    let loss = losses.iter().sum::<f64>() as f32;
    let loss = Tensor::<1>::from_data(TensorData::new(vec![loss], [1]), (&Device::flex(), DType::F32));
    Ok((loss, Tensor::from_primitive::<Flex>(logits)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::draw;

    #[test]
    fn loss_and_gradient_equal_those_in_f64() {
        let (rows, vocab) = (3, 77);
        let logits = draw(1, [rows, vocab], 8.0);
        let values: Vec<f64> = logits.clone().into_data().iter::<f64>().collect();
        let targets = [5, 0, 76];
        let (loss, gradient) = softmax_loss(logits, &targets, 0.5).unwrap();
        let gradient = gradient.into_data().try_to_vec::<f32>().unwrap();
        let mut expected = 0.0;
        for (row, values) in values.chunks(vocab).enumerate() {
            let sum: f64 = values.iter().map(|value| value.exp()).sum();
            expected += sum.ln() - values[targets[row] as usize];
            for (column, value) in values.iter().enumerate() {
                let hit = if column == targets[row] as usize { 1.0 } else { 0.0 };
                let expected = 0.5 * (value.exp() / sum - hit);
                assert!((f64::from(gradient[row * vocab + column]) - expected).abs() < 1e-6);
            }
        }
        assert!((f64::from(loss.into_scalar::<f32>()) - expected).abs() < 1e-5);
    }
}
