//! The loss on held-out rows, by the path and within the memory of training.

use datasets::MicroBatch;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::loss::{self, Trained};
use super::objective::{Mean, Metric, Objective, add_metrics, groups};
use super::rounds::{Cut, rounds};
use super::trainer::{TrainError, rows_of, span_of};
use crate::device;
use crate::interruption;
use crate::model::{Decoder, DeviceFailure, Pass, TokenRows};

/// The loss on held-out rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The objective's mean loss; in supervised training the cross-entropy per trained token, in nats.
    #[serde(with = "crate::exact")]
    pub loss: f64,
    /// Trained tokens that were evaluated.
    pub tokens: usize,
    /// The objective's measures, each a mean over groups of documents; for the report alone.
    #[serde(skip)]
    pub metrics: Vec<Metric>,
}

/// Evaluates `decoder` on `batches` by `objective`, without gradients.
///
/// # Errors
/// When the rows do not fit the objective, the device fails, or a signal asks the run to end.
pub fn evaluate(
    decoder: &Decoder,
    objective: &dyn Objective,
    batches: &[MicroBatch],
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, TrainError> {
    let (mut loss, mut tokens, mut metrics) = (0.0, 0, Vec::new());
    let groups = groups(objective, batches)?;
    let cut = Cut { as_rows: false, together: false, group: objective.grouping().group() };
    for (done, batch) in batches.iter().enumerate() {
        let span = span_of(batch);
        for parts in rounds(&decoder.spec, decoder.device(), batch, cut) {
            interruption::check()?;
            let threads = device::workers(decoder.device()).div_ceil(parts.len());
            let loss_of_part = |part: &MicroBatch| {
                let trained = Trained::of(part);
                let rows = rows_of(part, span);
                kernels::with_threads(threads, || loss_of(decoder, objective, rows, trained, parts.len()))
            };
            let losses: Result<Vec<(f64, Vec<Metric>)>, DeviceFailure> = match parts.as_slice() {
                // On this thread, whose queue of a GPU holds what the decoder was made by.
                [one] => Ok(vec![loss_of_part(one)?]),
                parts => parts.par_iter().map(loss_of_part).collect(),
            };
            let losses = losses?;
            loss += losses.iter().map(|(loss, _)| loss).sum::<f64>();
            losses.into_iter().for_each(|(_, more)| add_metrics(&mut metrics, more));
        }
        tokens += batch.trained_tokens();
        progress(done + 1);
    }
    let units = match objective.mean() {
        Mean::Tokens => tokens,
        Mean::Groups => groups,
    };
    metrics.iter_mut().for_each(|(_, value)| *value /= groups.max(1) as f64);
    Ok(Evaluation { loss: loss / units.max(1) as f64, tokens, metrics })
}

/// The summed loss and metrics of the trained positions of `rows`, one of as many `parts`.
fn loss_of(
    decoder: &Decoder,
    objective: &dyn Objective,
    rows: TokenRows,
    mut trained: Trained,
    parts: usize,
) -> Result<(f64, Vec<Metric>), DeviceFailure> {
    if trained.count() == 0 {
        return Ok((0.0, Vec::new()));
    }
    let input = decoder.input(rows);
    let hidden = decoder.hidden(&input, Pass::default());
    let known = objective.known_weights(&trained.documents(&[], &[]));
    if let Some(weights) = known {
        trained.set_weights(weights);
        let sum = loss::without_gradient(decoder, hidden, &trained, parts);
        return Ok((f64::from(sum.try_into_scalar::<f32>().map_err(DeviceFailure::new)?), Vec::new()));
    }
    let log_probabilities = loss::log_probabilities(decoder, hidden, &trained, parts);
    let reference = objective.needs_reference().then(|| {
        let hidden = decoder.hidden(&input, Pass::reference());
        loss::log_probabilities(decoder, hidden, &trained, parts)
    });
    let judged = loss::by_objective(objective, &trained, log_probabilities, reference)?;
    Ok((judged.loss, judged.metrics))
}
