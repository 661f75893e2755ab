//! One optimizer step: forward, backward, clip, update. The only place with gradients.
//!
//! The loss is summed over the trained tokens of the whole accumulation window and divided once by
//! their number. With recompute, the forward pass runs outside the graph and keeps each layer's input;
//! the backward pass runs the layers again one by one, so that a single layer's graph exists at a time.

use std::time::Instant;

use adapters::{DropoutKey, Parameter, seed_of};
use burn::tensor::{DType, Tensor, TensorData};
use datasets::{Batch, MicroBatch};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use thiserror::Error;

use super::loss::{self, Trained};
use super::optimizer::AdamW;
use super::schedule::Schedule;
use crate::model::{Decoder, DecoderInput, Pass, TokenRows};

/// What training needs to know beside the decoder and the data.
#[derive(Debug, Clone)]
pub struct TrainSettings {
    /// Learning rate by step, and the number of steps.
    pub schedule: Schedule,
    /// The optimizer, without state.
    pub optimizer: AdamW,
    /// Global gradient norm above which gradients are scaled down; none for no clipping.
    pub max_gradient_norm: Option<f64>,
    /// Run each layer again in the backward pass instead of keeping its intermediate tensors.
    pub recompute: bool,
    /// Noise on the embeddings (NEFTune, Jain et al. 2023, arXiv:2310.05914): its alpha.
    pub embedding_noise: Option<f64>,
    /// Seed of dropout and noise.
    pub seed: u64,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: usize,
    /// Mean cross-entropy per trained token, in nats.
    pub loss: f64,
    /// The learning rate applied.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Tokens without padding.
    pub tokens: usize,
    /// Tokens that were learnt from.
    pub trained_tokens: usize,
    /// Wall time.
    pub seconds: f64,
    /// Epochs done.
    pub epoch: f64,
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The device reports an error.
    #[error("the device failed: {reason}\nhint: if memory ran out, lower micro_batch_size or sequence_len, or set gradient_checkpointing: true")]
    Device {
        /// What it says.
        reason: String,
    },
    /// The loss or the gradient is NaN or infinite.
    #[error("step {step}: the loss is {loss} and the gradient norm {gradient_norm}\nhint: lower learning_rate, add warmup_steps, or look at the rows of this step with `tune preview`")]
    Diverged {
        /// The step.
        step: usize,
        /// Its loss.
        loss: f64,
        /// Its gradient norm.
        gradient_norm: f64,
    },
}

impl TrainError {
    pub(crate) fn device(error: impl std::fmt::Debug) -> Self {
        Self::Device { reason: format!("{error:?}") }
    }
}

/// A decoder that learns.
#[derive(Debug)]
pub struct Trainer {
    decoder: Decoder,
    settings: TrainSettings,
    optimizer: AdamW,
    step: usize,
    /// The lowest layer that anything learns in.
    lowest: Option<usize>,
}

impl Trainer {
    /// Starts at step 0 with a decoder whose trainable parameters are marked.
    pub fn start(mut decoder: Decoder, settings: TrainSettings) -> Self {
        let lowest = decoder.lowest_trainable();
        let optimizer = settings.optimizer.clone();
        Self { decoder, settings, optimizer, step: 0, lowest }
    }

    /// Steps done.
    pub fn position(&self) -> usize {
        self.step
    }

    /// The decoder as it is now.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The decoder as it is now, to walk over its parameters.
    pub fn decoder_mut(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// The trained decoder.
    pub fn into_decoder(self) -> Decoder {
        self.decoder
    }

    /// Learns from one batch, which is one accumulation window.
    ///
    /// # Errors
    /// When the device fails, or the loss or gradient is not finite; the weights are then those of the step before.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, TrainError> {
        let started = Instant::now();
        let factor = 1.0 / batch.trained_tokens.max(1) as f64;
        let mut losses = Vec::with_capacity(batch.micro_batches.len());
        for (index, micro_batch) in batch.micro_batches.iter().enumerate() {
            losses.extend(self.forward_backward(micro_batch, index, factor));
        }
        let (loss_sum, gradient_norm) = self.read(losses)?;
        let loss = loss_sum * factor;
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Err(TrainError::Diverged { step: self.step + 1, loss, gradient_norm });
        }
        // torch's clip_grad_norm_: max / (norm + 1e-6), never above 1.
        let clip = self.settings.max_gradient_norm.map_or(1.0, |max| (max / (gradient_norm + 1e-6)).min(1.0));
        let learning_rate = self.settings.schedule.learning_rate(self.step);
        let optimizer = &mut self.optimizer;
        optimizer.next_step();
        self.decoder.visit(&mut |name, parameter| optimizer.update(name, parameter, learning_rate, clip));
        self.step += 1;
        Ok(StepReport {
            step: self.step,
            loss,
            learning_rate,
            gradient_norm,
            tokens: batch.tokens,
            trained_tokens: batch.trained_tokens,
            seconds: started.elapsed().as_secs_f64(),
            epoch: batch.epoch,
        })
    }

    /// Gradients of one micro-batch's summed loss times `factor`, added to the parameters; the summed loss, `[1]`, if any token counts.
    pub fn forward_backward(&mut self, batch: &MicroBatch, index: usize, factor: f64) -> Option<Tensor<1>> {
        let trained = Trained::of(batch);
        if trained.count() == 0 {
            return None;
        }
        let input = self.decoder.input(rows_of(batch));
        let pass = Pass { dropout: Some(DropoutKey::new(self.settings.seed, self.step, index)) };
        let noise = self.noise(batch, index);
        Some(if self.settings.recompute {
            self.recomputed(&input, pass, noise, &trained, factor)
        } else {
            self.recorded(&input, pass, noise, &trained, factor)
        })
    }

    /// The whole forward pass under autodiff.
    fn recorded(&mut self, input: &DecoderInput, pass: Pass, noise: Option<Tensor<2>>, trained: &Trained, factor: f64) -> Tensor<1> {
        let mut x = add(self.decoder.embed(input, true), noise);
        for (index, layer) in self.decoder.layers.iter().enumerate() {
            if self.lowest == Some(index) {
                x = x.autodiff();
            }
            x = layer.forward(x, input, pass);
        }
        let (loss, gradient) = loss::with_gradient(&mut self.decoder, x.clone().inner(), trained, factor);
        if x.is_tracked() {
            let mut graph = (x * gradient).backward();
            self.decoder.visit(&mut |_, parameter| parameter.collect(&mut graph));
        }
        loss
    }

    /// The forward pass outside the graph, then layer by layer back.
    fn recomputed(&mut self, input: &DecoderInput, pass: Pass, noise: Option<Tensor<2>>, trained: &Trained, factor: f64) -> Tensor<1> {
        let mut x = add(self.decoder.embed(input, false), noise);
        let lowest = self.lowest.unwrap_or(self.decoder.layers.len());
        let mut inputs = Vec::with_capacity(self.decoder.layers.len() - lowest);
        for (index, layer) in self.decoder.layers.iter().enumerate() {
            if index >= lowest {
                inputs.push(x.clone());
            }
            x = layer.forward(x, input, pass);
        }
        let (loss, mut gradient) = loss::with_gradient(&mut self.decoder, x, trained, factor);
        let embedding_learns = self.decoder.embedding_mut().is_trainable();
        for (index, x) in inputs.into_iter().enumerate().rev() {
            let layer = &mut self.decoder.layers[lowest + index];
            let x = if index > 0 || embedding_learns { x.autodiff().require_grad() } else { x.autodiff() };
            let y = layer.forward(x.clone(), input, pass);
            let mut graph = (y * gradient.clone()).backward();
            layer.visit(&mut |_, parameter| parameter.collect(&mut graph));
            if let Some(below) = x.grad_remove(&mut graph) {
                gradient = below;
            }
        }
        if embedding_learns {
            let embedded = self.decoder.embed(input, true);
            let mut graph = (embedded * gradient).backward();
            self.decoder.embedding_mut().collect(&mut graph);
        }
        loss
    }

    /// NEFTune's noise for a micro-batch: uniform, at most `alpha / sqrt(tokens * hidden)` with each row's own token count.
    fn noise(&self, batch: &MicroBatch, index: usize) -> Option<Tensor<2>> {
        let alpha = self.settings.embedding_noise?;
        let hidden = self.decoder.spec.hidden;
        let seed = seed_of(self.settings.seed, &format!("noise.{}.{index}", self.step));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::with_capacity(batch.tokens.len() * hidden);
        for row in batch.documents.chunks(batch.width) {
            let tokens = row.iter().filter(|document| **document >= 0).count().max(1);
            let bound = (alpha / ((tokens * hidden) as f64).sqrt()) as f32;
            values.extend((0..row.len() * hidden).map(|_| {
                let unit = (random.next_u32() >> 8) as f32 / 16_777_216.0;
                (2.0 * unit - 1.0) * bound
            }));
        }
        let data = TensorData::new(values, [batch.tokens.len(), hidden]);
        Some(Tensor::<2>::from_data(data, (self.decoder.device(), DType::F32)).cast(self.decoder.dtype()))
    }

    /// The summed loss and the global gradient norm, in one read from the device.
    fn read(&mut self, losses: Vec<Tensor<1>>) -> Result<(f64, f64), TrainError> {
        let mut parts = losses;
        let count = parts.len();
        self.decoder.visit(&mut |_, parameter: &mut Parameter| {
            if let Some(gradient) = parameter.gradient() {
                parts.push(gradient.clone().square().sum());
            }
        });
        if parts.is_empty() {
            return Ok((0.0, 0.0));
        }
        let data = Tensor::cat(parts, 0).try_into_data().map_err(TrainError::device)?;
        let values = data.try_to_vec::<f32>().map_err(TrainError::device)?;
        let sum = |values: &[f32]| values.iter().map(|&value| f64::from(value)).sum::<f64>();
        Ok((sum(&values[..count]), sum(&values[count..]).sqrt()))
    }
}

/// A micro-batch as the decoder takes it.
pub(crate) fn rows_of(batch: &MicroBatch) -> TokenRows<'_> {
    TokenRows {
        rows: batch.rows,
        width: batch.width,
        tokens: &batch.tokens,
        positions: &batch.positions,
        documents: &batch.documents,
    }
}

fn add(x: Tensor<2>, noise: Option<Tensor<2>>) -> Tensor<2> {
    match noise {
        Some(noise) => x + noise,
        None => x,
    }
}
