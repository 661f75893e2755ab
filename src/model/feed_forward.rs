//! The gated perceptron of a layer: `down(gated(gate x, up x))` (Shazeer 2020, arXiv:2002.05202).

use adapters::{Parameter, Pass, Projection};
use burn::tensor::Tensor;
use kernels::GatedOrigin;

use super::spec::Activation;

/// One gated perceptron.
#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    pub(crate) input: GateUp,
    pub(crate) down: Projection,
    pub(crate) activation: Activation,
}

/// Projections to gate and up.
#[derive(Debug, Clone)]
pub(crate) enum GateUp {
    Separate(Box<[Projection; 2]>),
    /// One, its outputs in this order.
    Fused(Box<Projection>),
}

impl Mlp {
    /// `x: [tokens, hidden]`, same shape out.
    pub(crate) fn forward(&self, x: Tensor<2>, pass: Pass) -> Tensor<2> {
        let (gate, up) = match &self.input {
            GateUp::Separate(projections) => {
                let [gate, up] = projections.as_ref();
                (gate.forward(x.clone(), pass), up.forward(x, pass))
            }
            GateUp::Fused(projection) => halves(projection.forward(x, pass)),
        };
        self.down.forward_gated(GatedOrigin { activation: self.activation, gate, up }, pass)
    }

    /// The projections, in the checkpoint's order.
    pub(crate) fn projections(&mut self) -> Vec<&mut Projection> {
        let mut all: Vec<&mut Projection> = match &mut self.input {
            GateUp::Separate(projections) => projections.iter_mut().collect(),
            GateUp::Fused(projection) => vec![projection],
        };
        all.push(&mut self.down);
        all
    }

    /// Calls `visit` with every parameter.
    pub(crate) fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        for projection in self.projections() {
            projection.visit(visit);
        }
    }
}

/// The first and the second half of the columns of `x: [tokens, 2 * width]`.
pub(crate) fn halves(x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let [tokens, columns] = x.dims();
    let half = columns / 2;
    (x.clone().slice([0..tokens, 0..half]), x.slice([0..tokens, half..columns]))
}
