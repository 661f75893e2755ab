//! Forward and backward pass of one micro-batch.
//!
//! Recorded, the whole forward pass is one autodiff graph. Recomputed (Chen et al. 2016,
//! arXiv:1604.06174), it runs outside the graph and keeps each layer's input; the backward pass runs the
//! layers again one by one, so that a single layer's graph exists at a time. In both, nothing below the
//! lowest trained layer is differentiated.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::loss::{self, Trained};
use super::objective::{Objective, PartLoss};
use crate::model::{Decoder, DecoderInput, DeviceFailure, Pass};

/// A pass over a part of a micro-batch, and everything that it needs beside the decoder.
pub(super) struct Task {
    pub(super) input: DecoderInput,
    pub(super) pass: Pass,
    /// Added to the embeddings.
    pub(super) noise: Option<Tensor<2>>,
    /// The trained positions, with their weights where these are known.
    pub(super) trained: Trained,
    /// Weighs the trained positions once their log-probabilities are there; none where the weights are known.
    pub(super) objective: Option<Arc<dyn Objective>>,
    /// Factor on the gradients of the summed loss.
    pub(super) factor: f64,
    /// The lowest layer in which anything is trained.
    pub(super) lowest: Option<usize>,
    /// Run each layer again in the backward pass.
    pub(super) recompute: bool,
    /// The number of such tasks that run side by side.
    pub(super) parts: usize,
}

impl Task {
    /// Adds the gradients to the decoder's parameters and returns the summed loss.
    pub(super) fn run(mut self, decoder: &mut Decoder) -> Result<PartLoss, DeviceFailure> {
        // Ahead of the forward pass, so that what that keeps for the backward pass does not exist yet.
        let reference = self.objective.as_ref().filter(|objective| objective.needs_reference()).map(|_| {
            let hidden = decoder.hidden(&self.input, Pass::reference());
            loss::log_probabilities(decoder, hidden, &self.trained, self.parts)
        });
        let noise = self.noise.take();
        let embedded = add(decoder.embed(&self.input), noise);
        if self.recompute {
            self.recomputed(decoder, embedded, reference)
        } else {
            self.recorded(decoder, embedded, reference)
        }
    }

    /// The summed loss and the gradient for `hidden`, the residual stream after the last layer.
    fn head(
        &mut self,
        decoder: &mut Decoder,
        hidden: Tensor<2>,
        reference: Option<Tensor<1>>,
    ) -> Result<(PartLoss, Tensor<2>), DeviceFailure> {
        let Some(objective) = &self.objective else {
            let (sum, gradient) = loss::with_gradient(decoder, hidden, &self.trained, self.factor, self.parts);
            return Ok((PartLoss { sum, metrics: Vec::new() }, gradient));
        };
        let log_probabilities = loss::log_probabilities(decoder, hidden.clone(), &self.trained, self.parts);
        let judged = loss::by_objective(objective.as_ref(), &self.trained, log_probabilities, reference)?;
        self.trained.set_weights(judged.weights);
        let (_, gradient) = loss::with_gradient(decoder, hidden, &self.trained, self.factor, self.parts);
        Ok((PartLoss { sum: loss::scalar(judged.loss, decoder.device()), metrics: judged.metrics }, gradient))
    }

    fn recorded(
        mut self,
        decoder: &mut Decoder,
        embedded: Tensor<2>,
        reference: Option<Tensor<1>>,
    ) -> Result<PartLoss, DeviceFailure> {
        let mut x = embedded;
        let embedded = decoder.embedding_is_trained().then(|| x.clone().autodiff().require_grad());
        x = embedded.clone().unwrap_or(x);
        for (index, layer) in decoder.layers.iter().enumerate() {
            if self.lowest == Some(index) {
                x = x.autodiff();
            }
            x = layer.forward(x, &self.input, self.pass);
        }
        let (loss, gradient) = self.head(decoder, x.clone().inner(), reference)?;
        if x.is_tracked() {
            let mut graph = (x * gradient).backward();
            decoder.visit(&mut |_, parameter| parameter.collect(&mut graph));
            if let Some(gradient) = embedded.and_then(|embedded| embedded.grad_remove(&mut graph)) {
                decoder.add_embedding_gradient(&self.input, gradient);
            }
        }
        Ok(loss)
    }

    fn recomputed(
        mut self,
        decoder: &mut Decoder,
        embedded: Tensor<2>,
        reference: Option<Tensor<1>>,
    ) -> Result<PartLoss, DeviceFailure> {
        let mut x = embedded;
        let lowest = self.lowest.unwrap_or(decoder.layers.len());
        let mut inputs = Vec::with_capacity(decoder.layers.len() - lowest);
        for (index, layer) in decoder.layers.iter().enumerate() {
            if index >= lowest {
                inputs.push(x.clone());
            }
            x = layer.forward(x, &self.input, self.pass);
        }
        let (loss, mut gradient) = self.head(decoder, x, reference)?;
        let embedding_is_trained = decoder.embedding_is_trained();
        for (index, x) in inputs.into_iter().enumerate().rev() {
            let layer = &mut decoder.layers[lowest + index];
            let x = if index > 0 || embedding_is_trained { x.autodiff().require_grad() } else { x.autodiff() };
            let y = layer.forward(x.clone(), &self.input, self.pass);
            let mut graph = (y * gradient.clone()).backward();
            layer.visit(&mut |_, parameter| parameter.collect(&mut graph));
            if let Some(below) = x.grad_remove(&mut graph) {
                gradient = below;
            }
        }
        if embedding_is_trained {
            decoder.add_embedding_gradient(&self.input, gradient);
        }
        Ok(loss)
    }
}

fn add(x: Tensor<2>, noise: Option<Tensor<2>>) -> Tensor<2> {
    match noise {
        Some(noise) => x + noise,
        None => x,
    }
}
