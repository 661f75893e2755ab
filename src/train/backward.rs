//! Forward and backward pass of one micro-batch.
//!
//! Recorded, the whole forward pass is one autodiff graph. Recomputed (Chen et al. 2016,
//! arXiv:1604.06174), it runs outside the graph and keeps each layer's input; the backward pass runs the
//! layers again one by one, so that a single layer's graph exists at a time. In both, nothing below the
//! lowest layer that learns is differentiated.

use burn::tensor::Tensor;

use super::loss::{self, Trained};
use crate::model::{Decoder, DecoderInput, Pass};

/// What a pass needs beside the decoder.
pub(super) struct Task {
    pub(super) input: DecoderInput,
    pub(super) pass: Pass,
    /// Added to the embeddings.
    pub(super) noise: Option<Tensor<2>>,
    pub(super) trained: Trained,
    /// Factor on the gradients of the summed loss.
    pub(super) factor: f64,
    /// The lowest layer that anything learns in.
    pub(super) lowest: Option<usize>,
    /// Run each layer again in the backward pass.
    pub(super) recompute: bool,
    /// How many such tasks run side by side.
    pub(super) parts: usize,
}

impl Task {
    /// Adds the gradients to the decoder's parameters and returns the summed loss, `[1]`.
    pub(super) fn run(self, decoder: &mut Decoder) -> Tensor<1> {
        if self.recompute { self.recomputed(decoder) } else { self.recorded(decoder) }
    }

    fn recorded(self, decoder: &mut Decoder) -> Tensor<1> {
        let mut x = add(decoder.embed(&self.input), self.noise);
        let embedded = decoder.embedding_learns().then(|| x.clone().autodiff().require_grad());
        x = embedded.clone().unwrap_or(x);
        for (index, layer) in decoder.layers.iter().enumerate() {
            if self.lowest == Some(index) {
                x = x.autodiff();
            }
            x = layer.forward(x, &self.input, self.pass);
        }
        let (loss, gradient) = loss::with_gradient(decoder, x.clone().inner(), &self.trained, self.factor, self.parts);
        if x.is_tracked() {
            let mut graph = (x * gradient).backward();
            decoder.visit(&mut |_, parameter| parameter.collect(&mut graph));
            if let Some(gradient) = embedded.and_then(|embedded| embedded.grad_remove(&mut graph)) {
                decoder.add_embedding_gradient(&self.input, gradient);
            }
        }
        loss
    }

    fn recomputed(self, decoder: &mut Decoder) -> Tensor<1> {
        let mut x = add(decoder.embed(&self.input), self.noise);
        let lowest = self.lowest.unwrap_or(decoder.layers.len());
        let mut inputs = Vec::with_capacity(decoder.layers.len() - lowest);
        for (index, layer) in decoder.layers.iter().enumerate() {
            if index >= lowest {
                inputs.push(x.clone());
            }
            x = layer.forward(x, &self.input, self.pass);
        }
        let (loss, mut gradient) = loss::with_gradient(decoder, x, &self.trained, self.factor, self.parts);
        let embedding_learns = decoder.embedding_learns();
        for (index, x) in inputs.into_iter().enumerate().rev() {
            let layer = &mut decoder.layers[lowest + index];
            let x = if index > 0 || embedding_learns { x.autodiff().require_grad() } else { x.autodiff() };
            let y = layer.forward(x.clone(), &self.input, self.pass);
            let mut graph = (y * gradient.clone()).backward();
            layer.visit(&mut |_, parameter| parameter.collect(&mut graph));
            if let Some(below) = x.grad_remove(&mut graph) {
                gradient = below;
            }
        }
        if embedding_learns {
            decoder.add_embedding_gradient(&self.input, gradient);
        }
        loss
    }
}

fn add(x: Tensor<2>, noise: Option<Tensor<2>>) -> Tensor<2> {
    match noise {
        Some(noise) => x + noise,
        None => x,
    }
}
