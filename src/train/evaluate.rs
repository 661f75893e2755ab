//! The loss on held-out rows, by the path and within the memory of training.

use datasets::MicroBatch;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::loss::{self, Trained};
use super::rounds::{Cut, rounds};
use super::trainer::{TrainError, rows_of, span_of};
use crate::device;
use crate::interruption;
use crate::model::{Decoder, DeviceFailure, TokenRows};

/// What held-out rows say of the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy per trained token, in nats.
    #[serde(with = "crate::exact")]
    pub loss: f64,
    /// Trained tokens that were judged.
    pub tokens: usize,
}

/// Evaluates `decoder` on `batches`, without gradients.
///
/// # Errors
/// When the device fails, or a signal asks the run to end.
pub fn evaluate(
    decoder: &Decoder,
    batches: &[MicroBatch],
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, TrainError> {
    let (mut loss, mut tokens) = (0.0, 0);
    let cut = Cut { as_rows: false, together: false };
    for (done, batch) in batches.iter().enumerate() {
        let span = span_of(batch);
        for parts in rounds(&decoder.spec, decoder.device(), batch, cut) {
            interruption::check()?;
            let threads = device::workers(decoder.device()).div_ceil(parts.len());
            let loss_of_part = |part: &MicroBatch| {
                let trained = Trained::of(part);
                kernels::with_threads(threads, || loss_of(decoder, rows_of(part, span), &trained, parts.len()))
            };
            let losses: Result<Vec<f64>, DeviceFailure> = match parts.as_slice() {
                // On this thread, whose queue of a GPU holds what the decoder was made by.
                [one] => Ok(vec![loss_of_part(one)?]),
                parts => parts.par_iter().map(loss_of_part).collect(),
            };
            loss += losses?.iter().sum::<f64>();
        }
        tokens += batch.trained_tokens();
        progress(done + 1);
    }
    Ok(Evaluation { loss: loss / tokens.max(1) as f64, tokens })
}

/// The summed loss of the trained positions of `rows`, one of as many `parts`.
fn loss_of(decoder: &Decoder, rows: TokenRows, trained: &Trained, parts: usize) -> Result<f64, DeviceFailure> {
    if trained.count() == 0 {
        return Ok(0.0);
    }
    let hidden = decoder.hidden(&decoder.input(rows));
    let sum = loss::without_gradient(decoder, hidden, trained, parts);
    Ok(f64::from(sum.try_into_scalar::<f32>().map_err(DeviceFailure::new)?))
}
