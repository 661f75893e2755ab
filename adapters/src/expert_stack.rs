//! The linear maps of all experts of a layer in one checkpoint tensor, `[experts, in, out]`, and what
//! LoRA adds to them: `y = x W_e (+ b_e) + s (x A_eᵀ) B_eᵀ`.
//!
//! The gradient of a slice is as large as what it was cut from. A stack is therefore halved again and
//! again on the way to a single expert, so that the backward pass costs a logarithm of the number of experts.

use burn::tensor::{Device, FloatDType, Tensor};

use crate::low_rank::LowRankSpec;
use crate::parameter::Parameter;
use crate::pass::Pass;
use crate::random::{seed_of, uniform};

/// The linear maps of all experts of a layer.
#[derive(Debug, Clone)]
pub struct ExpertStack {
    name: String,
    /// If set, PEFT takes inputs for outputs, see [`ExpertStack::is_swapped`].
    swapped: bool,
    /// `[experts, in, out]`, as the checkpoint stores it.
    pub weight: Parameter,
    /// `[experts, out]`.
    pub bias: Option<Parameter>,
    /// The adapter's part.
    pub update: Option<StackUpdate>,
}

/// A low-rank update of each expert.
#[derive(Debug, Clone)]
pub struct StackUpdate {
    /// `[experts, rank, in]`.
    pub a: Parameter,
    /// `[experts, out, rank]`.
    pub b: Parameter,
    /// Rank, alpha; no dropout.
    pub spec: LowRankSpec,
}

impl ExpertStack {
    /// A stack called by its parameter name, such as `model.layers.0.mlp.experts.down_proj`.
    pub fn new(name: String, swapped: bool, weight: Parameter, bias: Option<Parameter>) -> Self {
        Self { name, swapped, weight, bias, update: None }
    }

    /// The parameter name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if PEFT takes this tensor for `[experts, out, in]`, which it is not: its A is then on the side of the outputs.
    pub fn is_swapped(&self) -> bool {
        self.swapped
    }

    /// Experts, input features, output features.
    pub fn sizes(&self) -> [usize; 3] {
        [self.weight.shape()[0], self.weight.shape()[1], self.weight.shape()[2]]
    }

    /// The stack for a computation on `x`: recorded if `x` is.
    pub fn view(&self, x: &Tensor<2>, pass: Pass) -> StackView {
        let update = pass.active(self.update.as_ref());
        let [experts, _, outputs] = self.sizes();
        StackView {
            weight: Piece::of(self.weight.stack(x)),
            bias: self.bias.as_ref().map(|bias| Piece::of(bias.vector(x).reshape([experts, 1, outputs]))),
            update: update.map(|update| (Piece::of(update.a.stack(x)), Piece::of(update.b.stack(x)))),
            scaling: update.map_or(0.0, |update| update.spec.scaling() as f32),
        }
    }

    /// The weights with their updates folded in, f32, `[experts, in, out]`, outside the graph.
    pub fn merged_weight(&self) -> Tensor<3> {
        let weight = self.weight.plain().cast(FloatDType::F32).reshape(self.sizes());
        match &self.update {
            None => weight,
            Some(update) => weight + update.delta(),
        }
    }

    /// Calls `visit` with every parameter under its checkpoint name; adapter matrices under names of our own.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        visit(&self.name, &mut self.weight);
        if let Some(bias) = &mut self.bias {
            visit(&format!("{}_bias", self.name), bias);
        }
        if let Some(update) = &mut self.update {
            visit(&format!("{}.lora_A", self.name), &mut update.a);
            visit(&format!("{}.lora_B", self.name), &mut update.b);
        }
    }
}

impl StackUpdate {
    /// A fresh update for `stack`, drawn from `seed`; it changes nothing until trained.
    pub fn new(spec: LowRankSpec, stack: &ExpertStack, seed: u64, device: &Device) -> Self {
        let [experts, inputs, outputs] = stack.sizes();
        let (a_count, b_count) = (experts * spec.rank * inputs, experts * spec.rank * outputs);
        let drawn = |count: usize, width: usize| {
            let bound = 1.0 / (width as f32).sqrt();
            uniform(seed_of(seed, &format!("{}.lora_A", stack.name)), count, -bound, bound)
        };
        // What PEFT calls A is drawn, and its B is zero.
        let (a, b) = match stack.swapped {
            false => (drawn(a_count, inputs), vec![0.0; b_count]),
            true => (vec![0.0; a_count], drawn(b_count, outputs)),
        };
        Self::from_host(spec, a, b, stack.sizes(), device)
    }

    /// An update with given values, `a: [experts, rank, in]` and `b: [experts, out, rank]` row-major.
    pub fn from_host(spec: LowRankSpec, a: Vec<f32>, b: Vec<f32>, sizes: [usize; 3], device: &Device) -> Self {
        let [experts, inputs, outputs] = sizes;
        let mut a = Parameter::from_host(a, &[experts, spec.rank, inputs], FloatDType::F32, device);
        let mut b = Parameter::from_host(b, &[experts, outputs, spec.rank], FloatDType::F32, device);
        a.train();
        b.train();
        Self { a, b, spec }
    }

    /// `s (B A)ᵀ` of each expert in f32, `[experts, in, out]`.
    fn delta(&self) -> Tensor<3> {
        let stack = |parameter: &Parameter| {
            let shape = parameter.shape();
            parameter.plain().reshape([shape[0], shape[1], shape[2]])
        };
        let product = stack(&self.b).matmul(stack(&self.a)); // [experts, out, in]
        product.swap_dims(1, 2).mul_scalar(self.spec.scaling() as f32)
    }
}

/// Some neighbouring experts of a stack in one computation.
#[derive(Debug, Clone)]
pub struct StackView {
    weight: Piece,
    /// `[experts, 1, out]`.
    bias: Option<Piece>,
    update: Option<(Piece, Piece)>,
    scaling: f32,
}

impl StackView {
    /// The experts below `expert`, and the others.
    pub fn split(&self, expert: usize) -> (Self, Self) {
        let half = |side: fn(&Piece, usize) -> Piece| Self {
            weight: side(&self.weight, expert),
            bias: self.bias.as_ref().map(|bias| side(bias, expert)),
            update: self.update.as_ref().map(|(a, b)| (side(a, expert), side(b, expert))),
            scaling: self.scaling,
        };
        (half(Piece::below), half(Piece::from))
    }

    /// `x: [tokens, in]` through one expert, `[tokens, out]`.
    pub fn forward(&self, expert: usize, x: Tensor<2>) -> Tensor<2> {
        let mut y = x.clone().matmul(self.weight.matrix(expert));
        if let Some(bias) = &self.bias {
            y = y + bias.matrix(expert);
        }
        match &self.update {
            None => y,
            Some((a, b)) => {
                let narrow = x.matmul(a.matrix(expert).transpose()).mul_scalar(self.scaling); // [tokens, rank]
                y + narrow.matmul(b.matrix(expert).transpose())
            }
        }
    }
}

/// A part of a tensor whose first dimension counts experts.
#[derive(Debug, Clone)]
struct Piece {
    tensor: Tensor<3>,
    /// The expert in the first place.
    first: usize,
}

impl Piece {
    fn of(tensor: Tensor<3>) -> Self {
        Self { tensor, first: 0 }
    }

    fn below(&self, expert: usize) -> Self {
        self.part(0, expert - self.first)
    }

    fn from(&self, expert: usize) -> Self {
        self.part(expert - self.first, self.tensor.dims()[0])
    }

    fn part(&self, from: usize, to: usize) -> Self {
        // Only what has a gradient must be halved; a single slice of the whole is cheaper otherwise.
        if !self.tensor.is_tracked() {
            return self.clone();
        }
        let [_, rows, columns] = self.tensor.dims();
        let tensor = self.tensor.clone().slice([from..to, 0..rows, 0..columns]);
        Self { tensor, first: self.first + from }
    }

    fn matrix(&self, expert: usize) -> Tensor<2> {
        let [_, rows, columns] = self.tensor.dims();
        let place = expert - self.first;
        self.tensor.clone().slice([place..place + 1, 0..rows, 0..columns]).reshape([rows, columns])
    }
}
