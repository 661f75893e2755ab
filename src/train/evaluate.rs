//! The loss on held-out rows, by the path and within the memory of training.

use datasets::MicroBatch;

use super::loss::{self, Trained};
use super::trainer::{rows_of, span_of};
use crate::model::{Decoder, DeviceFailure};

/// What held-out rows say of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean cross-entropy per trained token, in nats.
    pub loss: f64,
    /// Trained tokens that were judged.
    pub tokens: usize,
}

/// Evaluates `decoder` on `batches`, without gradients.
///
/// # Errors
/// When the device fails.
pub fn evaluate(
    decoder: &Decoder,
    batches: &[MicroBatch],
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, DeviceFailure> {
    let (mut loss, mut tokens) = (0.0, 0);
    for (done, batch) in batches.iter().enumerate() {
        let trained = Trained::of(batch);
        if trained.count() > 0 {
            let hidden = decoder.hidden(&decoder.input(rows_of(batch, span_of(batch))));
            let sum = loss::without_gradient(decoder, hidden, &trained);
            loss += f64::from(sum.try_into_scalar::<f32>().map_err(DeviceFailure::new)?);
            tokens += trained.count();
        }
        progress(done + 1);
    }
    Ok(Evaluation { loss: loss / tokens.max(1) as f64, tokens })
}
