//! The logits of a decoder on a few rows of the data, and their comparison with those of what was written.
//!
//! Readers only warn about tensors that they do not know, so a wrong name gives the untouched base
//! model without an error.

use std::path::Path;

use burn::tensor::{FloatDType, Tensor};
use datasets::MicroBatch;

use super::ExportError;
use super::merge::MergedForm;
use super::weights::base_dtype;
use crate::hub::BaseModel;
use crate::model::{Decoder, DeviceFailure, Pass, TokenRows, span};

/// Rows to compare on, and the logits of a decoder there.
#[derive(Debug)]
pub struct Probe {
    batch: MicroBatch,
    logits: Vec<f32>,
    largest: f32,
    vocab: usize,
}

/// The distance of a decoder from another on the rows of a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbeDivergence {
    /// Largest difference of a logit.
    pub difference: f32,
    /// Mean divergence (Kullback-Leibler) of the next token's distribution, in nats.
    pub nats: f64,
}

/// The distance of a written model from the one that it must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verification {
    /// Largest difference of a logit.
    pub difference: f32,
    /// Largest difference that was accepted.
    pub allowed: f32,
}

impl Probe {
    /// The logits of `decoder` as it is now on the real tokens of `batch`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn take(decoder: &Decoder, batch: MicroBatch) -> Result<Self, ExportError> {
        let logits = logits(decoder, &batch)?;
        let largest = logits.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        Ok(Self { batch, logits, largest, vocab: decoder.spec.vocab })
    }

    /// The logits on the same rows with the updates of `decoder` merged as `form` says. One layer is merged at a time, so
    /// that the merged model need not fit beside the trained one.
    ///
    /// # Errors
    /// When the base's weights cannot be read, or the device fails.
    pub fn merged(&self, decoder: &Decoder, base: &BaseModel, form: &MergedForm) -> Result<Self, ExportError> {
        let written = form.dtype.unwrap_or_else(|| base_dtype(&base.config));
        let input = decoder.input(rows(&self.batch));
        let mut x = decoder.embed(&input);
        for layer in &decoder.layers {
            let mut layer = layer.clone();
            for projection in layer.projections() {
                form.apply(projection, base, written)?;
            }
            x = layer.forward(x, &input, Pass::default());
        }
        let logits = read(decoder, &self.batch, x)?;
        Ok(Self { batch: self.batch.clone(), logits, largest: self.largest, vocab: self.vocab })
    }

    /// The distance of `other`, taken on the same rows, from this.
    pub fn divergence(&self, other: &Self) -> ProbeDivergence {
        let pairs = || self.logits.iter().zip(&other.logits);
        let difference = pairs().map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        let rows = self.logits.chunks(self.vocab).zip(other.logits.chunks(self.vocab));
        let tokens = (self.logits.len() / self.vocab).max(1);
        let nats: f64 = rows.map(|(trained, merged)| kullback_leibler(trained, merged)).sum();
        ProbeDivergence { difference, nats: nats / tokens as f64 }
    }

    /// Compares `decoder`, which was read from `folder`, whose narrowest numbers are of type `dtype`.
    ///
    /// # Errors
    /// When its logits are too far from these, or the device fails.
    pub fn compare(&self, decoder: &Decoder, folder: &Path, dtype: FloatDType) -> Result<Verification, ExportError> {
        let found = logits(decoder, &self.batch)?;
        let difference = self.logits.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        // 16-bit numbers round each weight by up to 2^-9 of itself (bf16), which moves logits in proportion.
        let relative = if dtype == FloatDType::F32 && decoder.dtype() == FloatDType::F32 { 1e-3 } else { 5e-2 };
        let allowed = relative * self.largest.max(1.0);
        if difference.is_nan() || difference > allowed {
            let reason = format!(
                "its logits differ from the trained model's by {difference:.2e}; at most {allowed:.2e} is allowed"
            );
            return Err(ExportError::check(folder, reason));
        }
        Ok(Verification { difference, allowed })
    }
}

/// `Σ p (ln p - ln q)` for the distributions of two rows of logits.
fn kullback_leibler(p: &[f32], q: &[f32]) -> f64 {
    let log_sum = |logits: &[f32]| {
        let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, value| largest.max(*value));
        let sum: f64 = logits.iter().map(|value| f64::from(value - largest).exp()).sum();
        f64::from(largest) + sum.ln()
    };
    let (of_p, of_q) = (log_sum(p), log_sum(q));
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - of_p, f64::from(*q) - of_q);
        p.exp() * (p - q)
    };
    p.iter().zip(q).map(term).sum()
}

fn rows(batch: &MicroBatch) -> TokenRows<'_> {
    TokenRows {
        span: span(batch.width, &batch.documents, &batch.positions),
        rows: batch.rows,
        width: batch.width,
        tokens: &batch.tokens,
        positions: &batch.positions,
        documents: &batch.documents,
    }
}

/// Logits of the real tokens, row by row.
fn logits(decoder: &Decoder, batch: &MicroBatch) -> Result<Vec<f32>, DeviceFailure> {
    read(decoder, batch, decoder.hidden(&decoder.input(rows(batch)), Pass::default()))
}

/// Logits of the real tokens of `batch`, whose residual stream after the last layer is `hidden`.
fn read(decoder: &Decoder, batch: &MicroBatch, hidden: Tensor<2>) -> Result<Vec<f32>, DeviceFailure> {
    let logits: Tensor<2> = decoder.logits(decoder.normalise(hidden));
    let data = logits.try_into_data().map_err(DeviceFailure::new)?;
    let values = data.try_to_vec::<f32>().map_err(DeviceFailure::new)?;
    let vocab = decoder.spec.vocab;
    let real = batch.documents.iter().enumerate().filter(|(_, document)| **document >= 0);
    Ok(real.flat_map(|(token, _)| values[token * vocab..(token + 1) * vocab].to_vec()).collect())
}
