//! The gated perceptron of a layer: `down(silu(gate x) * up x)` (Shazeer 2020, arXiv:2002.05202).

use adapters::{Parameter, Projection};
use burn::tensor::Tensor;
use burn::tensor::activation::silu;

use super::layer::Pass;
use super::spec::Activation;

/// One gated perceptron.
#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    pub(crate) gate: Projection,
    pub(crate) up: Projection,
    pub(crate) down: Projection,
    pub(crate) activation: Activation,
}

impl Mlp {
    /// `x: [tokens, hidden]`, same shape out.
    pub(crate) fn forward(&self, x: Tensor<2>, pass: Pass) -> Tensor<2> {
        let gate = self.gate.forward(x.clone(), pass.dropout);
        let up = self.up.forward(x, pass.dropout);
        let gate = match self.activation {
            Activation::Silu => silu(gate),
        };
        self.down.forward(gate * up, pass.dropout)
    }

    /// The projections, in the checkpoint's order.
    pub(crate) fn projections(&mut self) -> Vec<&mut Projection> {
        vec![&mut self.gate, &mut self.up, &mut self.down]
    }

    /// Calls `visit` with every parameter.
    pub(crate) fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        for projection in self.projections() {
            projection.visit(visit);
        }
    }
}
