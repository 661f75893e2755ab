//! A linear map of the decoder, one-to-one with a checkpoint tensor: `y = x Wᵀ (+ b) (+ update)`.

use burn::tensor::Tensor;
use kernels::GatedOrigin;

use crate::dora::Dora;
use crate::low_rank::LowRank;
use crate::parameter::Parameter;
use crate::pass::Pass;
use crate::weight::Weight;

/// True for the name of a parameter that an update has beside the weight, as [`Projection::visit`] and
/// [`ExpertStack::visit`](crate::ExpertStack::visit) give names.
pub fn is_of_update(name: &str) -> bool {
    name.rsplit('.').take(2).any(|part| part.starts_with("lora_"))
}

/// The kinds of linear maps in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Every token goes through it.
    Common,
    /// A router sends some tokens through it.
    Expert,
    /// It is a router.
    Router,
}

/// A linear map with the name, the layout and the bias of its checkpoint tensor.
#[derive(Debug, Clone)]
pub struct Projection {
    name: String,
    role: Role,
    /// `[out, in]`, as the checkpoint stores it.
    pub weight: Weight,
    /// `[out]`.
    pub bias: Option<Parameter>,
    /// The adapter's part.
    pub update: Option<Update>,
}

/// The adapters of a projection.
#[derive(Debug, Clone)]
pub enum Update {
    /// LoRA.
    LowRank(Box<LowRank>),
    /// DoRA.
    Dora(Box<Dora>),
}

impl Update {
    /// The matrices A and B, which every update has.
    pub fn low_rank(&self) -> &LowRank {
        match self {
            Self::LowRank(update) => update,
            Self::Dora(update) => &update.low_rank,
        }
    }
}

impl Projection {
    /// A projection called by its module path, such as `model.layers.0.self_attn.q_proj`.
    pub fn new(name: String, role: Role, weight: Weight, bias: Option<Parameter>) -> Self {
        Self { name, role, weight, bias, update: None }
    }

    /// The module path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kind.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Input features.
    pub fn inputs(&self) -> usize {
        self.weight.sizes()[1]
    }

    /// Output features.
    pub fn outputs(&self) -> usize {
        self.weight.sizes()[0]
    }

    /// `x: [tokens, in]` to `[tokens, out]`; recorded if `x` is.
    pub fn forward(&self, x: Tensor<2>, pass: Pass) -> Tensor<2> {
        self.forward_from(x, None, pass)
    }

    /// As [`Projection::forward`] for an `x` that [`kernels::gated`] made: a backward pass can make it again.
    pub fn forward_gated(&self, origin: GatedOrigin, pass: Pass) -> Tensor<2> {
        let x = kernels::gated(origin.activation, origin.gate.clone(), origin.up.clone());
        self.forward_from(x, Some(origin), pass)
    }

    fn forward_from(&self, x: Tensor<2>, origin: Option<GatedOrigin>, pass: Pass) -> Tensor<2> {
        let y = match pass.active(self.update.as_ref()) {
            None => self.weight.multiply(x),
            Some(Update::LowRank(update)) => update.forward(x, &self.weight, origin, &self.name, pass.dropout),
            Some(Update::Dora(update)) => update.forward(x, &self.weight, &self.name, pass.dropout),
        };
        match &self.bias {
            Some(bias) => {
                let bias = bias.vector(&y).unsqueeze::<2>();
                y + bias
            }
            None => y,
        }
    }

    /// The weight with its update folded in, f32, `[out, in]`, outside the graph.
    pub fn merged_weight(&self) -> Tensor<2> {
        self.merged_into(&self.weight)
    }

    /// As [`Projection::merged_weight`], with the update folded into another base weight than the projection's own.
    pub fn merged_into(&self, weight: &Weight) -> Tensor<2> {
        match &self.update {
            Some(Update::LowRank(update)) => weight.dense() + update.delta(),
            Some(Update::Dora(update)) => update.merged(weight),
            None => weight.dense(),
        }
    }

    /// Calls `visit` with every parameter under its checkpoint name, but not with packed weights; adapter matrices as PEFT names them.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        if let Some(weight) = self.weight.parameter_mut() {
            visit(&format!("{}.weight", self.name), weight);
        }
        if let Some(bias) = &mut self.bias {
            visit(&format!("{}.bias", self.name), bias);
        }
        let (low_rank, magnitude) = match &mut self.update {
            None => return,
            Some(Update::LowRank(update)) => (update.as_mut(), None),
            Some(Update::Dora(update)) => (&mut update.low_rank, Some(&mut update.magnitude)),
        };
        visit(&format!("{}.lora_A.weight", self.name), &mut low_rank.a);
        visit(&format!("{}.lora_B.weight", self.name), &mut low_rank.b);
        if let Some(magnitude) = magnitude {
            visit(&format!("{}.lora_magnitude_vector", self.name), magnitude);
        }
    }
}
