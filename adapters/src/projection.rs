//! A linear map of the decoder, one-to-one with a checkpoint tensor: `y = x Wᵀ (+ b) (+ update)`.

use burn::tensor::{FloatDType, Tensor};

use crate::dropout::DropoutKey;
use crate::low_rank::LowRank;
use crate::parameter::Parameter;

/// A linear map with the name, the layout and the bias of its checkpoint tensor.
#[derive(Debug, Clone)]
pub struct Projection {
    name: String,
    /// `[out, in]`, as the checkpoint stores it.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    /// What an adapter adds.
    pub update: Option<Update>,
}

/// The ways in which a projection can learn beside its own weight.
#[derive(Debug, Clone)]
pub enum Update {
    /// LoRA.
    LowRank(LowRank),
}

impl Projection {
    /// A projection called by its module path, such as `model.layers.0.self_attn.q_proj`.
    pub fn new(name: String, weight: Parameter, bias: Option<Parameter>) -> Self {
        Self { name, weight, bias, update: None }
    }

    /// The module path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Input features.
    pub fn inputs(&self) -> usize {
        self.weight.shape()[1]
    }

    /// Output features.
    pub fn outputs(&self) -> usize {
        self.weight.shape()[0]
    }

    /// `x: [tokens, in]` to `[tokens, out]`; `dropout` names the masks of a training pass.
    pub fn forward(&self, x: Tensor<2>, dropout: Option<DropoutKey>) -> Tensor<2> {
        let mut y = x.clone().matmul(self.weight.matrix(&x).transpose());
        if let Some(bias) = &self.bias {
            y = y + bias.vector(&x).unsqueeze::<2>();
        }
        match &self.update {
            Some(Update::LowRank(update)) => y + update.forward(x, &self.name, dropout),
            None => y,
        }
    }

    /// The weight with its update folded in, f32, `[out, in]`, outside the graph.
    pub fn merged_weight(&self) -> Tensor<2> {
        let weight = self.weight.plain().cast(FloatDType::F32).reshape([self.outputs(), self.inputs()]);
        match &self.update {
            Some(Update::LowRank(update)) => weight + update.delta(),
            None => weight,
        }
    }

    /// Calls `visit` with every parameter under its checkpoint name; adapter matrices as PEFT names them.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        visit(&format!("{}.weight", self.name), &mut self.weight);
        if let Some(bias) = &mut self.bias {
            visit(&format!("{}.bias", self.name), bias);
        }
        match &mut self.update {
            Some(Update::LowRank(update)) => {
                visit(&format!("{}.lora_A.weight", self.name), &mut update.a);
                visit(&format!("{}.lora_B.weight", self.name), &mut update.b);
            }
            None => {}
        }
    }
}
