//! What was written, loaded again and compared with what was trained.
//!
//! Readers only warn about tensors that they do not know, so a wrong name gives the untouched base
//! model without an error. The comparison is of logits on a few rows of the data.

use std::path::Path;

use adapters::{Adaptable, Parameter};
use burn::tensor::{FloatDType, Tensor};
use datasets::MicroBatch;

use super::ExportError;
use super::merge::MergedForm;
use super::merged::base_dtype;
use crate::hub::BaseModel;
use crate::model::{Decoder, DeviceFailure, Pass, Storage, TokenRows, span};
use crate::open::{self, OpenError};

/// Rows to compare on, and the trained decoder's logits there.
#[derive(Debug)]
pub struct Probe {
    batch: MicroBatch,
    logits: Vec<f32>,
    largest: f32,
    vocab: usize,
}

/// How far one way to merge is from the trained model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Largest difference of a logit.
    pub difference: f32,
    /// Mean divergence (Kullback-Leibler) of the next token's distribution from the trained model's, in nats.
    pub nats: f64,
}

/// How far a written model is from the trained one.
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
    pub fn take(decoder: &Decoder, batch: MicroBatch, folder: &Path) -> Result<Self, ExportError> {
        let logits = logits(decoder, &batch, folder)?;
        let largest = logits.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        Ok(Self { batch, logits, largest, vocab: decoder.spec.vocab })
    }

    /// The same rows with the updates of `decoder` merged as `form` says. A layer at a time is merged, so that the
    /// merged model need not fit beside the trained one.
    ///
    /// # Errors
    /// When the base's weights cannot be read, or the device fails.
    pub fn merged(
        &self,
        decoder: &Decoder,
        base: &BaseModel,
        form: &MergedForm,
        folder: &Path,
    ) -> Result<Self, ExportError> {
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
        let logits = read(decoder, &self.batch, x, folder)?;
        Ok(Self { batch: self.batch.clone(), logits, largest: self.largest, vocab: self.vocab })
    }

    /// How far `other`, on the same rows, is from this.
    pub fn divergence(&self, other: &Self) -> Divergence {
        let pairs = || self.logits.iter().zip(&other.logits);
        let difference = pairs().map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        let rows = self.logits.chunks(self.vocab).zip(other.logits.chunks(self.vocab));
        let tokens = (self.logits.len() / self.vocab).max(1);
        let nats: f64 = rows.map(|(trained, merged)| kullback_leibler(trained, merged)).sum();
        Divergence { difference, nats: nats / tokens as f64 }
    }

    /// Loads the adapter in `folder` onto `decoder`, whose own updates are thrown away first, and compares.
    ///
    /// # Errors
    /// When it cannot be read, changes nothing, or computes something else.
    pub fn check_adapter(
        &self,
        decoder: &mut Decoder,
        folder: &Path,
        dtype: FloatDType,
    ) -> Result<Verification, ExportError> {
        let adaptable = decoder.adaptable();
        adaptable.projections.into_iter().for_each(|projection| projection.update = None);
        adaptable.stacks.into_iter().for_each(|stack| stack.update = None);
        open::attach(decoder, folder, None).map_err(|error| unusable(folder, error))?;
        let failed = |error: DeviceFailure| check(folder, error.to_string());
        if !changes_anything(&decoder.adaptable()).map_err(failed)? {
            return Err(check(folder, "the adapter changes nothing: all of its products are zero".to_owned()));
        }
        self.compare(decoder, folder, dtype)
    }

    /// Loads the checkpoint in `folder` and compares; `dtype` is the type its changed numbers were written in.
    ///
    /// # Errors
    /// When it cannot be read or computes something else.
    pub fn check_merged(
        &self,
        folder: &Path,
        storage: &Storage,
        device: &burn::tensor::Device,
    ) -> Result<Verification, ExportError> {
        let name = folder.to_string_lossy();
        let base = BaseModel::open(&name, &[Path::new("")], None)?;
        let decoder = open::resolve(&base)
            .and_then(|model| open::load(&base, &model, None, device, storage, &mut |_, _| {}))
            .map_err(|error| unusable(folder, error))?;
        let mut tensors = base.weights.iter().flat_map(|weights| weights.tensors());
        let is_narrow = tensors.any(|(_, info)| info.dtype != crate::hub::Dtype::F32);
        let dtype = if is_narrow { FloatDType::BF16 } else { FloatDType::F32 };
        self.compare(&decoder, folder, dtype)
    }

    fn compare(&self, decoder: &Decoder, folder: &Path, dtype: FloatDType) -> Result<Verification, ExportError> {
        let found = logits(decoder, &self.batch, folder)?;
        let difference = self.logits.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        // 16-bit numbers round each weight by up to 2^-9 of itself (bf16), which moves logits in proportion.
        let relative = if dtype == FloatDType::F32 && decoder.dtype() == FloatDType::F32 { 1e-3 } else { 5e-2 };
        let allowed = relative * self.largest.max(1.0);
        if difference.is_nan() || difference > allowed {
            let reason =
                format!("its logits differ from the trained model's by {difference:.2e}, allowed are {allowed:.2e}");
            return Err(check(folder, reason));
        }
        Ok(Verification { difference, allowed })
    }
}

/// Whether any update is other than zero, or a module was trained as a whole.
fn changes_anything(decoder: &Adaptable) -> Result<bool, DeviceFailure> {
    let not_zero = |parameter: &Parameter| {
        let largest = parameter.plain().abs().max().try_into_scalar::<f32>().map_err(DeviceFailure::new)?;
        Ok(largest > 0.0)
    };
    for update in decoder.projections.iter().filter_map(|projection| projection.update.as_ref()) {
        let low_rank = update.low_rank();
        if not_zero(&low_rank.a)? && not_zero(&low_rank.b)? {
            return Ok(true);
        }
    }
    for update in decoder.stacks.iter().filter_map(|stack| stack.update.as_ref()) {
        if not_zero(&update.a)? && not_zero(&update.b)? {
            return Ok(true);
        }
    }
    Ok(decoder.modules.iter().any(|(_, parameter)| parameter.is_trainable()))
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
fn logits(decoder: &Decoder, batch: &MicroBatch, folder: &Path) -> Result<Vec<f32>, ExportError> {
    read(decoder, batch, decoder.hidden(&decoder.input(rows(batch))), folder)
}

/// Logits of the real tokens of `batch`, whose residual stream after the last layer is `hidden`.
fn read(decoder: &Decoder, batch: &MicroBatch, hidden: Tensor<2>, folder: &Path) -> Result<Vec<f32>, ExportError> {
    let logits: Tensor<2> = decoder.logits(decoder.normalise(hidden));
    let data = logits.try_into_data().map_err(|error| check(folder, format!("{error:?}")))?;
    let values = data.try_to_vec::<f32>().map_err(|error| check(folder, format!("{error:?}")))?;
    let vocab = decoder.spec.vocab;
    let real = batch.documents.iter().enumerate().filter(|(_, document)| **document >= 0);
    Ok(real.flat_map(|(token, _)| values[token * vocab..(token + 1) * vocab].to_vec()).collect())
}

/// The error of an export in `folder` that does not open.
fn unusable(folder: &Path, error: OpenError) -> ExportError {
    match error {
        OpenError::Files(error) => error.into(),
        OpenError::Adapter(error) => error.into(),
        error => check(folder, error.to_string()),
    }
}

fn check(folder: &Path, reason: String) -> ExportError {
    ExportError::Check { folder: folder.to_owned(), reason }
}
