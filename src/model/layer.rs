//! One layer of the decoder and its residual wiring.

use adapters::{ExpertStack, Parameter, Pass, Projection};
use burn::tensor::Tensor;

use super::attend::KeyValues;
use super::attention::GroupedAttention;
use super::experts::Experts;
use super::feed_forward::Mlp;
use super::input::DecoderInput;
use super::latent_attention::LatentAttention;
use super::norm::Norm;

/// Attention, then feed-forward, each behind a norm and around a residual.
#[derive(Debug, Clone)]
pub struct Layer {
    pub(crate) attention: Attention,
    pub(crate) feed_forward: FeedForward,
    pub(crate) norms: LayerNorms,
}

/// The kinds of attention.
#[derive(Debug, Clone)]
pub(crate) enum Attention {
    Grouped(Box<GroupedAttention>),
    Latent(Box<LatentAttention>),
}

/// The kinds of feed-forward.
#[derive(Debug, Clone)]
pub(crate) enum FeedForward {
    Dense(Box<Mlp>),
    Experts(Box<Experts>),
}

/// The norms of a layer; those after attention and feed-forward come ahead of the residual sum.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorms {
    pub(crate) before_attention: Norm,
    pub(crate) after_attention: Option<Norm>,
    pub(crate) before_feed_forward: Norm,
    pub(crate) after_feed_forward: Option<Norm>,
}

impl Layer {
    /// The residual stream `x: [rows * width, hidden]` through this layer; recorded if `x` is.
    pub fn forward(&self, x: Tensor<2>, input: &DecoderInput, pass: Pass) -> Tensor<2> {
        self.continued(x, input, pass, None)
    }

    /// As [`Layer::forward`], with the keys and values of the tokens before.
    pub(crate) fn continued(
        &self,
        x: Tensor<2>,
        input: &DecoderInput,
        pass: Pass,
        past: Option<&mut Option<KeyValues>>,
    ) -> Tensor<2> {
        let norms = &self.norms;
        let normalised = norms.before_attention.forward(x.clone());
        let attended = match &self.attention {
            Attention::Grouped(attention) => attention.forward(normalised, input, pass, past),
            Attention::Latent(attention) => attention.forward(normalised, input, pass, past),
        };
        let x = x + after(&norms.after_attention, attended);
        let normalised = norms.before_feed_forward.forward(x.clone());
        let fed = match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.forward(normalised, pass),
            FeedForward::Experts(experts) => experts.forward(normalised, pass),
        };
        x + after(&norms.after_feed_forward, fed)
    }

    /// The projections, in the checkpoint's order.
    pub fn projections(&mut self) -> Vec<&mut Projection> {
        self.linear().0
    }

    /// The projections and the stacks of experts.
    pub(crate) fn linear(&mut self) -> (Vec<&mut Projection>, Vec<&mut ExpertStack>) {
        let mut projections = match &mut self.attention {
            Attention::Grouped(attention) => attention.projections(),
            Attention::Latent(attention) => attention.projections(),
        };
        match &mut self.feed_forward {
            FeedForward::Dense(mlp) => {
                projections.extend(mlp.projections());
                (projections, Vec::new())
            }
            FeedForward::Experts(experts) => {
                let (of_experts, stacks) = experts.linear();
                projections.extend(of_experts);
                (projections, stacks)
            }
        }
    }

    /// Calls `visit` with every parameter under its checkpoint name.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        match &mut self.attention {
            Attention::Grouped(attention) => attention.visit(visit),
            Attention::Latent(attention) => attention.visit(visit),
        }
        match &mut self.feed_forward {
            FeedForward::Dense(mlp) => mlp.visit(visit),
            FeedForward::Experts(experts) => experts.visit(visit),
        }
        let norms = &mut self.norms;
        let after = [&mut norms.after_attention, &mut norms.after_feed_forward];
        norms.before_attention.visit(visit);
        norms.before_feed_forward.visit(visit);
        after.into_iter().flatten().for_each(|norm| norm.visit(visit));
    }

    /// True if anything in it is trained.
    pub fn is_trained(&mut self) -> bool {
        let mut trained = false;
        self.visit(&mut |_, parameter| trained |= parameter.is_trainable());
        trained
    }
}

fn after(norm: &Option<Norm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
