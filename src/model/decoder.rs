//! The decoder: embedding, layers, final norm, head. Which architecture it is lies in its parts.

use adapters::{Adaptable, Parameter, Pass, Projection};
use burn::tensor::{Device, FloatDType, Tensor};

use super::input::DecoderInput;
use super::layer::Layer;
use super::names;
use super::norm::Norm;
use super::positions::PositionRules;
use super::spec::DecoderSpec;
use super::token_rows::TokenRows;

/// A decoder-only language model with its weights.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// The architecture.
    pub spec: DecoderSpec,
    /// The layers from the embedding up.
    pub layers: Vec<Layer>,
    /// `[vocab, hidden]`; also the head where that is tied.
    pub(crate) embedding: Parameter,
    /// Final norm and head.
    pub head: Head,
    /// The position rules that layers share and name by index.
    pub(crate) rules: PositionRules,
    pub(crate) device: Device,
    pub(crate) dtype: FloatDType,
}

/// The final norm, and the output matrix unless the embedding serves.
#[derive(Debug, Clone)]
pub struct Head {
    pub(crate) norm: Norm,
    /// `[vocab, hidden]`.
    pub(crate) weight: Option<Parameter>,
}

impl Decoder {
    /// The device that computes, outside the autodiff graph.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype of frozen weights and of activations.
    pub fn dtype(&self) -> FloatDType {
        self.dtype
    }

    /// `rows` as tensors for this decoder.
    pub fn input(&self, rows: TokenRows) -> DecoderInput {
        DecoderInput::new(rows, 0, &self.rules, &self.device)
    }

    /// The residual stream entering layer 0, `[rows * width, hidden]`, outside the graph.
    pub fn embed(&self, input: &DecoderInput) -> Tensor<2> {
        let table = self.embedding.plain().reshape([self.spec.vocab, self.spec.hidden]);
        let embedded = table.select(0, input.tokens.clone()).cast(self.dtype);
        if self.spec.embed_scale == 1.0 { embedded } else { embedded.mul_scalar(self.spec.embed_scale) }
    }

    /// Adds the embedding's gradient where that of [`Decoder::embed`]'s result is `gradient`.
    pub fn add_embedding_gradient(&mut self, input: &DecoderInput, gradient: Tensor<2>) {
        let scaled = if self.spec.embed_scale == 1.0 { gradient } else { gradient.mul_scalar(self.spec.embed_scale) };
        self.embedding.add_gradient_of_rows(input.tokens.clone(), scaled);
    }

    /// The residual stream after the last layer, without gradients.
    pub fn hidden(&self, input: &DecoderInput, pass: Pass) -> Tensor<2> {
        let x = self.embed(input);
        self.layers.iter().fold(x, |x, layer| layer.forward(x, input, pass))
    }

    /// The final norm; recorded if `x` is.
    pub fn normalise(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.norm.forward(x)
    }

    /// Logits of normalised rows `x: [n, hidden]`, `[n, vocab]`, f32.
    pub fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        self.head_weight().multiply(x).cast(FloatDType::F32)
    }

    /// The head's matrix, `[vocab, hidden]`.
    pub fn head_weight(&self) -> &Parameter {
        self.head.weight.as_ref().unwrap_or(&self.embedding)
    }

    /// The head's matrix, to add a gradient to.
    pub fn head_weight_mut(&mut self) -> &mut Parameter {
        self.head.weight.as_mut().unwrap_or(&mut self.embedding)
    }

    /// Gives a head that is the embedding a weight of its own, the same for now.
    pub fn part_head(&mut self) {
        if self.spec.head.tied {
            self.spec.head.tied = false;
            self.head.weight = Some(self.embedding.clone());
        }
    }

    /// The projections of all layers, in the checkpoint's order: the one walk of attach, merge, export and counting.
    pub fn projections(&mut self) -> Vec<&mut Projection> {
        self.layers.iter_mut().flat_map(Layer::projections).collect()
    }

    /// Everything that an adapter can change; a tied head is not a module of its own.
    pub fn adaptable(&mut self) -> Adaptable<'_> {
        let mut adaptable = Adaptable { projections: Vec::new(), stacks: Vec::new(), modules: Vec::new() };
        adaptable.modules.push((names::embedding_path(&self.spec), &mut self.embedding));
        if let Some(weight) = &mut self.head.weight {
            adaptable.modules.push((names::head(&self.spec).path, weight));
        }
        for layer in &mut self.layers {
            let (projections, stacks) = layer.linear();
            adaptable.projections.extend(projections);
            adaptable.stacks.extend(stacks);
        }
        adaptable
    }

    /// Calls `visit` with every parameter under its checkpoint name, embedding first.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        visit(&names::embedding(&self.spec), &mut self.embedding);
        for layer in &mut self.layers {
            layer.visit(visit);
        }
        self.visit_head(visit);
    }

    /// Calls `visit` with the final norm and, unless tied, the head.
    pub fn visit_head(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        self.head.norm.visit(visit);
        if let Some(weight) = &mut self.head.weight {
            visit(&names::head_weight(&self.spec), weight);
        }
    }

    /// True if the embedding is trained.
    pub fn embedding_is_trained(&self) -> bool {
        self.embedding.is_trainable()
    }

    /// A parameter of the base model that is trained itself, if there is one.
    pub fn trained_in_place(&mut self) -> Option<String> {
        let mut found = None;
        self.visit(&mut |name, parameter| {
            if found.is_none() && parameter.is_trainable() && !adapters::is_of_update(name) {
                found = Some(name.to_owned());
            }
        });
        found
    }

    /// The lowest layer in which anything is trained: 0 if the embedding is, `None` if nothing in a layer is.
    pub fn lowest_trainable(&mut self) -> Option<usize> {
        if self.embedding.is_trainable() {
            return Some(0);
        }
        self.layers.iter_mut().position(Layer::is_trained)
    }
}
