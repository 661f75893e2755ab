//! AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) with torch's arithmetic.
//!
//! Decay is decoupled, `p *= 1 - lr wd`; both moments are bias-corrected; epsilon is added to
//! `sqrt(v) / sqrt(1 - beta2^t)`. State, two moments in f32, exists only for parameters that had a gradient.

use std::collections::HashMap;

use adapters::Parameter;
use burn::tensor::{Device, Tensor};
use kernels::{AdamState, AdamStep, AdamWork, adam_all};

use super::{Optimizer, OptimizerKind, OptimizerName, OptimizerSettings, ParameterStep, values};
use crate::device;
use crate::train::vectors::{SavedVectors, StateError, Vector};

/// The optimizer's row.
pub(super) const KIND: OptimizerKind = OptimizerKind {
    names: &[
        OptimizerName::plain("adamw_torch"),
        OptimizerName::variant("adamw_torch_fused", "fused is the same arithmetic in fewer kernels"),
        OptimizerName::variant("paged_adamw_32bit", PAGED),
    ],
    reads: super::ADAMW_KEYS,
    describe: |settings| format!("AdamW, {}", Constants::of(settings).describe(settings)),
    state_bytes: |tensors, _| STATE_BYTES * values(tensors),
    start: |settings, _| Box::new(AdamW::new(Constants::of(settings))),
};

/// The reason why paged optimizers give the same result.
pub(super) const PAGED: &str = "paged is the same arithmetic with its state in other memory";

/// Bytes of both moments of a value.
pub(super) const STATE_BYTES: u64 = 8;

/// The beginnings of the names of moments in a saved state.
pub(super) const FIRST: &str = "first.";
pub(super) const SECOND: &str = "second.";

/// The constants of the arithmetic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constants {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
}

impl Constants {
    /// The constants of `settings`, with torch's defaults.
    pub(super) fn of(settings: &OptimizerSettings) -> Self {
        Self {
            beta1: settings.beta1.unwrap_or(0.9),
            beta2: settings.beta2.unwrap_or(0.999),
            epsilon: settings.epsilon.unwrap_or(1e-8),
        }
    }

    /// The constants and the weight decay in words.
    pub(super) fn describe(&self, settings: &OptimizerSettings) -> String {
        format!(
            "betas {} and {}, epsilon {:e}, weight decay {}",
            self.beta1, self.beta2, self.epsilon, settings.weight_decay
        )
    }

    /// The constants as a kernel takes them, for a step of one parameter.
    pub(super) fn at(&self, step: &ParameterStep) -> AdamStep {
        AdamStep {
            factor: step.factor as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            enters1: (1.0 - self.beta1) as f32,
            enters2: (1.0 - self.beta2) as f32,
            epsilon: self.epsilon as f32,
            correction2: (1.0 - self.beta2.powi(step.number)).sqrt() as f32,
            rate: (step.learning_rate / (1.0 - self.beta1.powi(step.number))) as f32,
            kept: (1.0 - step.learning_rate * step.weight_decay) as f32,
        }
    }
}

/// The state: both moments of each parameter.
#[derive(Debug)]
pub(super) struct AdamW {
    constants: Constants,
    moments: HashMap<String, [Tensor<1>; 2]>,
    /// Parameters of a GPU whose update waits for the others', so that all are one operation.
    waiting: Vec<(String, AdamWork)>,
}

impl AdamW {
    /// An optimizer without state.
    pub(super) fn new(constants: Constants) -> Self {
        Self { constants, moments: HashMap::new(), waiting: Vec::new() }
    }

    /// True if the parameter called `name` has moments.
    #[cfg(test)]
    pub(super) fn has(&self, name: &str) -> bool {
        self.moments.contains_key(name)
    }
}

impl Optimizer for AdamW {
    fn update(&mut self, name: &str, parameter: &mut Parameter, step: &ParameterStep) {
        let Some(gradient) = parameter.take_gradient() else { return };
        let (step, on_host) = (self.constants.at(step), device::is_host(&gradient.device()));
        let before = self.moments.remove(name);
        let work = |value: Tensor<1>| {
            let [first, second] = before.unwrap_or_else(|| [value.zeros_like(), value.zeros_like()]);
            AdamWork { state: AdamState { value, first, second }, gradient, step }
        };
        if !on_host {
            return self.waiting.push((name.to_owned(), work(parameter.plain())));
        }
        parameter.change(|value| {
            let AdamState { value, first, second } = adam_all(vec![work(value)]).remove(0);
            self.moments.insert(name.to_owned(), [first, second]);
            value
        });
    }

    fn finish(&mut self) -> HashMap<String, Tensor<1>> {
        let (names, work): (Vec<String>, Vec<AdamWork>) = self.waiting.drain(..).unzip();
        let mut values = HashMap::with_capacity(names.len());
        for (name, AdamState { value, first, second }) in names.into_iter().zip(adam_all(work)) {
            self.moments.insert(name.clone(), [first, second]);
            values.insert(name, value);
        }
        values
    }

    fn save(&self) -> Vec<(String, Vector)> {
        let of = |(name, [first, second]): (&String, &[Tensor<1>; 2])| {
            [(FIRST, first), (SECOND, second)]
                .map(|(order, moment)| (format!("{order}{name}"), Vector::numbers(moment.clone())))
        };
        self.moments.iter().flat_map(of).collect()
    }

    fn restore(
        &mut self,
        name: &str,
        parameter: &Parameter,
        saved: &SavedVectors,
        device: &Device,
    ) -> Result<(), StateError> {
        if !saved.has(&format!("{FIRST}{name}")) {
            return Ok(());
        }
        let moment = |order: &str| saved.tensor(&format!("{order}{name}"), parameter.count(), device);
        self.moments.insert(name.to_owned(), [moment(FIRST)?, moment(SECOND)?]);
        Ok(())
    }
}
