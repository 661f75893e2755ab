//! AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) with torch's arithmetic.
//!
//! Decay is decoupled, `p *= 1 - lr wd`; both moments are bias-corrected; epsilon is added to
//! `sqrt(v) / sqrt(1 - beta2^t)`. State is f32 and exists only for parameters that had a gradient.

use std::collections::HashMap;

use adapters::Parameter;
use burn::tensor::Tensor;

/// The optimizer's constants and its state.
#[derive(Debug, Clone)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    step: i32,
    moments: HashMap<String, Moments>,
}

#[derive(Debug, Clone)]
struct Moments {
    first: Tensor<1>,
    second: Tensor<1>,
}

impl AdamW {
    /// An optimizer without state.
    pub fn new(beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64) -> Self {
        Self { beta1, beta2, epsilon, weight_decay, step: 0, moments: HashMap::new() }
    }

    /// Begins the next step; bias correction counts from 1.
    pub fn next_step(&mut self) {
        self.step += 1;
    }

    /// Applies the parameter's gradient times `factor` at `learning_rate`, and takes the gradient away.
    pub fn update(&mut self, name: &str, parameter: &mut Parameter, learning_rate: f64, factor: f64) {
        let Some(gradient) = parameter.take_gradient() else { return };
        let gradient = if factor == 1.0 { gradient } else { gradient.mul_scalar(factor) };
        let weighted = gradient.clone().mul_scalar(1.0 - self.beta1);
        let squared = gradient.square().mul_scalar(1.0 - self.beta2);
        let moments = match self.moments.remove(name) {
            Some(before) => Moments {
                first: before.first.mul_scalar(self.beta1) + weighted,
                second: before.second.mul_scalar(self.beta2) + squared,
            },
            None => Moments { first: weighted, second: squared },
        };
        let correction1 = 1.0 - self.beta1.powi(self.step);
        let correction2 = (1.0 - self.beta2.powi(self.step)).sqrt();
        let denominator = moments.second.clone().sqrt().div_scalar(correction2).add_scalar(self.epsilon);
        let change = (moments.first.clone() / denominator).mul_scalar(learning_rate / correction1);
        self.moments.insert(name.to_owned(), moments);
        let value = parameter.plain();
        let value =
            if self.weight_decay == 0.0 { value } else { value.mul_scalar(1.0 - learning_rate * self.weight_decay) };
        parameter.replace(value - change);
    }
}
