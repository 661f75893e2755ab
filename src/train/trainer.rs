//! One optimizer step: forward, backward, clip, update. The only place with gradients.
//!
//! The loss is summed over the whole accumulation window and divided once, by its trained tokens or whatever else the
//! objective takes the mean of. On the CPU the rows of a micro-batch are shared out among the cores.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use adapters::{DropoutKey, Parameter, seed_of};
use burn::tensor::{DType, Tensor, TensorData};
use datasets::{Batch, MicroBatch};
use rayon::prelude::*;
use thiserror::Error;

use super::backward::Task;
use super::checkpoint::{Position, SavedState, TrainerState};
use super::fault;
use super::loss::Trained;
use super::loss_scale::LossScale;
use super::noise::noise;
use super::objective::{self, Mean, Metric, Objective, ObjectiveError, PartLoss, add_metrics};
use super::optimizers::{ActiveOptimizer, OptimizerSettings};
use super::rounds::{Cut, rounds};
use super::schedules::Schedule;
use super::vectors::StateError;
use crate::device;
use crate::interruption::{self, Interrupted};
use crate::model::inspect::parameter_counts;
use crate::model::{Decoder, DeviceFailure, Pass, TokenRows, span};

/// The settings of training.
#[derive(Debug, Clone)]
pub struct TrainSettings {
    /// The objective of every step.
    pub objective: Arc<dyn Objective>,
    /// Learning rate by step, and the number of steps.
    pub schedule: Schedule,
    /// The optimizer.
    pub optimizer: OptimizerSettings,
    /// Global gradient norm above which gradients are scaled down; none for no clipping.
    pub max_gradient_norm: Option<f64>,
    /// Run each layer again in the backward pass instead of keeping its intermediate tensors.
    pub recompute: bool,
    /// Noise on the embeddings (NEFTune, Jain et al. 2023, arXiv:2310.05914): its alpha.
    pub embedding_noise: Option<f64>,
    /// Seed of dropout and noise.
    pub seed: u64,
}

/// The figures of one step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: usize,
    /// The objective's mean loss; in supervised training the cross-entropy per trained token, in nats.
    pub loss: f64,
    /// The objective's measures, each a mean over groups of documents.
    pub metrics: Vec<Metric>,
    /// The learning rate applied.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Micro-batches that the step was cut into.
    pub micro_batches: usize,
    /// Tokens without padding.
    pub tokens: usize,
    /// Tokens that were trained on.
    pub trained_tokens: usize,
    /// Wall time.
    pub seconds: f64,
    /// Epochs done.
    pub epoch: f64,
    /// True if nothing was trained, since the loss or the gradient is not finite.
    pub skipped: bool,
    /// The first micro-batch whose loss is not finite, if one is.
    pub suspect: Option<usize>,
}

/// A reason why a step failed.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The objective cannot train on these rows, or this model.
    #[error(transparent)]
    Objective(#[from] ObjectiveError),
    /// The device reports an error.
    #[error(transparent)]
    Device(#[from] DeviceFailure),
    /// A signal asks the run to end.
    #[error("the run ends")]
    Interrupted(#[from] Interrupted),
}

impl TrainError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            TrainError::Objective(error) => error.hint(),
            TrainError::Device(error) => error.hint(),
            TrainError::Interrupted(_) => None,
        }
    }
}

/// Loss and gradient norm of an accumulation window, the loss scale taken off.
struct WindowLoss {
    /// The objective's mean loss.
    loss: f64,
    /// Its measures.
    metrics: Vec<Metric>,
    /// Global norm of the gradients.
    norm: f64,
    /// The first micro-batch whose loss is not finite.
    suspect: Option<usize>,
}

/// A decoder in training.
#[derive(Debug)]
pub struct Trainer {
    decoder: Decoder,
    settings: TrainSettings,
    optimizer: ActiveOptimizer,
    step: usize,
    /// The lowest layer in which anything is trained.
    lowest: Option<usize>,
    /// Threads that work at a time.
    workers: usize,
    scale: LossScale,
    /// The rules for cutting micro-batches into parts.
    cut: Cut,
}

impl Trainer {
    /// Starts at step 0 with a decoder whose trainable parameters are marked.
    pub fn start(mut decoder: Decoder, settings: TrainSettings) -> Self {
        let lowest = decoder.lowest_trainable();
        let optimizer = ActiveOptimizer::start(&settings.optimizer, &decoder.spec);
        let workers = device::workers(decoder.device());
        let scale = LossScale::of(decoder.dtype());
        let mut trainable = 0;
        decoder.visit(&mut |_, parameter| trainable += if parameter.is_trainable() { parameter.count() } else { 0 });
        // The noise on embeddings counts the tokens of a row, so that rows must stay rows for it.
        let as_rows = settings.embedding_noise.is_some();
        let grouping = settings.objective.grouping();
        let cut = Cut::new(as_rows, grouping, trainable as u64, parameter_counts(&decoder.spec).total);
        Self { decoder, settings, optimizer, step: 0, lowest, workers, scale, cut }
    }

    /// Starts where `saved` was; at step 0 without one.
    ///
    /// # Errors
    /// When it is the state of another decoder.
    pub fn start_or_resume(
        decoder: Decoder,
        settings: TrainSettings,
        saved: Option<&SavedState>,
    ) -> Result<Self, StateError> {
        let mut trainer = Self::start(decoder, settings);
        if let Some(saved) = saved {
            saved.restore_parameters(&mut trainer.decoder)?;
            trainer.optimizer.restore(saved, &mut trainer.decoder)?;
            trainer.step = saved.position.step;
            trainer.scale = saved.position.loss_scale;
        }
        Ok(trainer)
    }

    /// A copy of everything that the next steps depend on.
    pub fn state(&self) -> TrainerState {
        let position = Position { step: self.step, optimizer_step: self.optimizer.steps(), loss_scale: self.scale };
        TrainerState::of(position, &self.decoder, self.optimizer.save())
    }

    /// Steps done.
    pub fn position(&self) -> usize {
        self.step
    }

    /// The objective of every step.
    pub fn objective(&self) -> &dyn Objective {
        self.settings.objective.as_ref()
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

    /// Trains on one batch, which is one accumulation window; not where the loss or the gradient is not finite,
    /// which the report says. The batch is done with in any case.
    ///
    /// # Errors
    /// When the objective cannot train on the batch; when the device fails, after which the step may be tried again once
    /// [`Trainer::discard_gradients`] was called; when a signal came, after which the weights are those of the step before.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, TrainError> {
        let started = Instant::now();
        let window = loop {
            // The library of a GPU may panic where it has no memory left.
            let window = catch_unwind(AssertUnwindSafe(|| self.gradients(batch)))
                .unwrap_or_else(|panic| Err(DeviceFailure::of_panic(panic).into()))?;
            let overflowed = window.loss.is_finite() && !window.norm.is_finite();
            if !overflowed || !self.scale.overflowed() {
                break window;
            }
            self.discard_gradients();
        };
        let skipped = !window.loss.is_finite() || !window.norm.is_finite();
        let learning_rate = self.settings.schedule.learning_rate(self.step);
        if skipped {
            self.discard_gradients();
        } else {
            // torch's clip_grad_norm_: max / (norm + 1e-6), never above 1.
            let clip = self.settings.max_gradient_norm.map_or(1.0, |max| (max / (window.norm + 1e-6)).min(1.0));
            self.optimizer.step(&mut self.decoder, learning_rate, clip / self.scale.factor());
            self.scale.held();
        }
        self.step += 1;
        Ok(StepReport {
            step: self.step,
            loss: window.loss,
            metrics: window.metrics,
            learning_rate,
            gradient_norm: window.norm,
            micro_batches: batch.micro_batches.len(),
            tokens: batch.tokens,
            trained_tokens: batch.trained_tokens,
            seconds: started.elapsed().as_secs_f64(),
            epoch: batch.epoch,
            skipped,
            suspect: window.suspect,
        })
    }

    /// Adds the gradients of `batch`, times the loss scale, to the parameters.
    fn gradients(&mut self, batch: &Batch) -> Result<WindowLoss, TrainError> {
        self.check_reference()?;
        let objective = self.settings.objective.as_ref();
        let groups = objective::groups(objective, &batch.micro_batches)?;
        let units = match objective.mean() {
            Mean::Tokens => batch.trained_tokens,
            Mean::Groups => groups,
        };
        let mean = 1.0 / units.max(1) as f64;
        let scale = self.scale.factor();
        let mut metrics = Vec::new();
        let mut losses = Vec::with_capacity(batch.micro_batches.len());
        let mut of = Vec::with_capacity(batch.micro_batches.len());
        for (index, micro_batch) in batch.micro_batches.iter().enumerate() {
            fault::check(micro_batch.rows, self.step)?;
            if let Some(loss) = self.forward_backward(micro_batch, index, mean * scale)? {
                losses.push(loss.sum);
                add_metrics(&mut metrics, loss.metrics);
                of.push(index);
            }
            if let Err(interrupted) = interruption::check() {
                self.discard_gradients();
                return Err(interrupted.into());
            }
        }
        let (losses, norm) = self.read(losses)?;
        let suspect = losses.iter().position(|loss| !loss.is_finite()).map(|place| of[place]);
        metrics.iter_mut().for_each(|(_, value)| *value /= groups.max(1) as f64);
        Ok(WindowLoss { loss: losses.iter().sum::<f64>() * mean, metrics, norm: norm / scale, suspect })
    }

    /// Refuses an objective that compares with the model without its adapter where that is not kept.
    fn check_reference(&mut self) -> Result<(), ObjectiveError> {
        let objective = self.settings.objective.as_ref();
        if !objective.needs_reference() {
            return Ok(());
        }
        match self.decoder.trained_in_place() {
            Some(parameter) => Err(ObjectiveError::NoReference { objective: objective.name(), parameter }),
            None => Ok(()),
        }
    }

    /// Adds the gradients of one micro-batch's summed loss times `factor` to the parameters; returns the summed loss, if any
    /// token counts.
    ///
    /// # Errors
    /// When the device fails where an objective reads log-probabilities.
    pub fn forward_backward(
        &mut self,
        batch: &MicroBatch,
        index: usize,
        factor: f64,
    ) -> Result<Option<PartLoss>, DeviceFailure> {
        let span = span_of(batch);
        let mut losses = Vec::new();
        let rounds = rounds(&self.decoder.spec, self.decoder.device(), batch, self.cut);
        for (round, parts) in rounds.into_iter().enumerate() {
            // The caller sees it too, and throws away what was added up.
            if interruption::check().is_err() {
                break;
            }
            let keyed = |part: usize| (index << 16) + round * self.workers + part;
            let tasks = parts.iter().enumerate().filter_map(|(part, rows)| self.task(rows, span, keyed(part), factor));
            let mut tasks: Vec<Task> = tasks.map(|task| Task { parts: parts.len(), ..task }).collect();
            match tasks.len() {
                1 => losses.extend(tasks.pop().map(|task| self.alone(task)).transpose()?),
                _ => losses.extend(self.side_by_side(tasks)?),
            }
        }
        if losses.is_empty() {
            return Ok(None);
        }
        let mut metrics = Vec::new();
        let mut sums = Vec::with_capacity(losses.len());
        for loss in losses {
            add_metrics(&mut metrics, loss.metrics);
            sums.push(loss.sum);
        }
        Ok(Some(PartLoss { sum: Tensor::cat(sums, 0).sum(), metrics }))
    }

    /// Forgets the gradients that were added up since the last step.
    pub fn discard_gradients(&mut self) {
        self.decoder.visit(&mut |_, parameter| drop(parameter.take_gradient()));
    }

    /// Runs `task`, whose operations use all threads.
    fn alone(&mut self, task: Task) -> Result<PartLoss, DeviceFailure> {
        let decoder = &mut self.decoder;
        if device::is_host(decoder.device()) {
            // On one of these threads, so that each of the many operations need not wait for one.
            rayon::scope(|_| task.run(decoder))
        } else {
            task.run(decoder)
        }
    }

    /// Runs `tasks` at the same time and adds their gradients in their order, so that the same run gives the same bytes.
    fn side_by_side(&mut self, tasks: Vec<Task>) -> Result<Vec<PartLoss>, DeviceFailure> {
        let copy = || {
            let mut decoder = self.decoder.clone();
            // Leaves of its own keep each worker's graph apart from the others'.
            decoder.visit(&mut |_, parameter| parameter.renew());
            decoder
        };
        let work: Vec<(Decoder, Task)> = tasks.into_iter().map(|task| (copy(), task)).collect();
        let threads = self.workers.div_ceil(work.len().max(1));
        let run = |(mut decoder, task): (Decoder, Task)| {
            let loss = kernels::with_threads(threads, || task.run(&mut decoder));
            let mut gradients = Vec::new();
            decoder.visit(&mut |_, parameter| gradients.push(parameter.take_gradient()));
            (loss, gradients)
        };
        type Done = (Result<PartLoss, DeviceFailure>, Vec<Option<Tensor<1>>>);
        let done: Vec<Done> = work.into_par_iter().map(run).collect();
        let mut losses = Vec::with_capacity(done.len());
        for (loss, gradients) in done {
            losses.push(loss?);
            let mut gradients = gradients.into_iter();
            self.decoder.visit(&mut |_, parameter| {
                if let Some(gradient) = gradients.next().flatten() {
                    parameter.add_gradient(gradient);
                }
            });
        }
        Ok(losses)
    }

    /// The pass over `rows` of a micro-batch of that span; none if nothing of them counts.
    fn task(&self, rows: &MicroBatch, span: usize, index: usize, factor: f64) -> Option<Task> {
        let mut trained = Trained::of(rows);
        if trained.count() == 0 {
            return None;
        }
        let objective = &self.settings.objective;
        let known = objective.known_weights(&trained.documents(&[], &[]));
        let objective = known.is_none().then(|| Arc::clone(objective));
        known.into_iter().for_each(|weights| trained.set_weights(weights));
        let dropout = Some(DropoutKey::new(self.settings.seed, self.step, index));
        Some(Task {
            input: self.decoder.input(rows_of(rows, span)),
            pass: Pass { dropout, ..Pass::default() },
            noise: self.noise(rows, index),
            trained,
            objective,
            factor,
            lowest: self.lowest,
            recompute: self.settings.recompute,
            parts: 1,
        })
    }

    /// NEFTune's noise for a micro-batch, `[rows * width, hidden]`.
    fn noise(&self, batch: &MicroBatch, index: usize) -> Option<Tensor<2>> {
        let alpha = self.settings.embedding_noise?;
        let hidden = self.decoder.spec.hidden;
        let seed = seed_of(self.settings.seed, &format!("noise.{}.{index}", self.step));
        let values = noise(alpha, seed, &batch.documents, batch.width, hidden);
        let data = TensorData::new(values, [batch.tokens.len(), hidden]);
        Some(Tensor::<2>::from_data(data, (self.decoder.device(), DType::F32)).cast(self.decoder.dtype()))
    }

    /// The summed loss of each micro-batch and the global gradient norm, in one read from the device.
    fn read(&mut self, losses: Vec<Tensor<1>>) -> Result<(Vec<f64>, f64), TrainError> {
        let mut parts = losses;
        let count = parts.len();
        let mut gradients = Vec::new();
        self.decoder.visit(&mut |_, parameter: &mut Parameter| gradients.extend(parameter.gradient()));
        parts.extend(kernels::square_sums(gradients));
        if parts.is_empty() {
            return Ok((Vec::new(), 0.0));
        }
        let data = Tensor::cat(parts, 0).try_into_data().map_err(DeviceFailure::new)?;
        let values = data.try_to_vec::<f32>().map_err(DeviceFailure::new)?;
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        let (losses, squares) = values.split_at(count);
        Ok((losses.to_vec(), squares.iter().sum::<f64>().sqrt()))
    }
}

/// Positions of a micro-batch's longest document, padding included.
pub(crate) fn span_of(batch: &MicroBatch) -> usize {
    span(batch.width, &batch.documents, &batch.positions)
}

/// A micro-batch, or rows of one with that span, as the decoder takes it.
pub(crate) fn rows_of(batch: &MicroBatch, span: usize) -> TokenRows<'_> {
    TokenRows {
        span,
        rows: batch.rows,
        width: batch.width,
        tokens: &batch.tokens,
        positions: &batch.positions,
        documents: &batch.documents,
    }
}
