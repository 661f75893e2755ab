//! One layer of the decoder and its residual wiring.

use adapters::{DropoutKey, Parameter, Projection};
use burn::tensor::Tensor;

use super::attention::{GroupedAttention, KeyValues};
use super::feed_forward::Mlp;
use super::input::DecoderInput;
use super::norm::Norm;

/// What distinguishes one run through the layers from another.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass {
    /// Names the dropout masks while training; none in evaluation.
    pub dropout: Option<DropoutKey>,
}

/// Attention, then feed-forward, each behind a norm and around a residual.
#[derive(Debug, Clone)]
pub struct Layer {
    pub(crate) attention_norm: Norm,
    pub(crate) attention: GroupedAttention,
    pub(crate) feed_forward_norm: Norm,
    pub(crate) feed_forward: Mlp,
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
        let x = x.clone() + self.attention.forward(self.attention_norm.forward(x), input, pass, past);
        x.clone() + self.feed_forward.forward(self.feed_forward_norm.forward(x), pass)
    }

    /// The projections, in the checkpoint's order.
    pub fn projections(&mut self) -> Vec<&mut Projection> {
        let mut all = self.attention.projections();
        all.extend(self.feed_forward.projections());
        all
    }

    /// Calls `visit` with every parameter under its checkpoint name.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        self.attention_norm.visit(visit);
        self.attention.visit(visit);
        self.feed_forward_norm.visit(visit);
        self.feed_forward.visit(visit);
    }

    /// Whether anything in it learns.
    pub fn learns(&mut self) -> bool {
        let mut learns = false;
        self.visit(&mut |_, parameter| learns |= parameter.is_trainable());
        learns
    }
}
