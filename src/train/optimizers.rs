//! Optimizers: each turns the gradients of a step into new values of the trainable parameters.
//!
//! An optimizer is a row in [`OPTIMIZERS`] and a file below this one. Recipes, the plan, the memory estimate and
//! checkpoints read the row; the trainer sees an [`ActiveOptimizer`]. What all optimizers share is here: the walk over the
//! parameters, the count of steps, and what a step applies to each parameter.

mod adamw;
mod adamw_8bit;
mod eight_bit;

use std::collections::HashMap;
use std::fmt;

use adapters::Parameter;
use burn::tensor::{Device, Tensor};

use super::checkpoint::SavedState;
use super::vectors::{SavedVectors, StateError, Vector};
use crate::model::Decoder;
use crate::model::spec::DecoderSpec;

/// Every optimizer; the first is that of recipes that name none.
pub const OPTIMIZERS: &[OptimizerKind] = &[adamw::KIND, adamw_8bit::KIND];

/// What AdamW reads beside the learning rate.
const ADAMW_KEYS: &[&str] = &["adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay"];

/// An optimizer that recipes can name.
#[derive(Debug)]
pub struct OptimizerKind {
    /// Its names in recipes.
    pub names: &'static [OptimizerName],
    /// The recipe's keys, beside the learning rate, that it reads.
    pub reads: &'static [&'static str],
    /// The optimizer and its settings in words.
    pub describe: fn(&OptimizerSettings) -> String,
    /// Bytes of its state for these tensors of a model.
    pub state_bytes: fn(&[TrainedTensor], &DecoderSpec) -> u64,
    /// The optimizer without state, for a model.
    start: fn(&OptimizerSettings, &DecoderSpec) -> Box<dyn Optimizer>,
}

impl Default for &OptimizerKind {
    /// The first of [`OPTIMIZERS`].
    fn default() -> Self {
        &OPTIMIZERS[0]
    }
}

/// A name of an optimizer in recipes.
#[derive(Debug)]
pub struct OptimizerName {
    /// The name.
    pub name: &'static str,
    /// The reason why the result is the same as with another name of the optimizer, for names that mean something of
    /// their own elsewhere.
    pub same_because: Option<&'static str>,
}

impl OptimizerName {
    /// A name that means the optimizer and nothing else.
    const fn plain(name: &'static str) -> Self {
        Self { name, same_because: None }
    }

    /// A name that elsewhere means a variant, with the reason why its result is the same.
    const fn variant(name: &'static str, same_because: &'static str) -> Self {
        Self { name, same_because: Some(same_because) }
    }
}

/// The optimizer called `name` in recipes, and the name.
pub fn named(name: &str) -> Option<(&'static OptimizerKind, &'static OptimizerName)> {
    let spelled = |kind: &'static OptimizerKind| {
        let known = kind.names.iter().find(|known| known.name == name)?;
        Some((kind, known))
    };
    OPTIMIZERS.iter().find_map(spelled)
}

/// The names of all optimizers, in the order in which messages list them.
pub fn names() -> Vec<&'static str> {
    OPTIMIZERS.iter().flat_map(|kind| kind.names).map(|known| known.name).collect()
}

/// An optimizer and its hyperparameters; what is not set has the optimizer's own default.
#[derive(Debug, Clone, Copy)]
pub struct OptimizerSettings {
    /// The optimizer.
    pub kind: &'static OptimizerKind,
    /// Decay of the first moment.
    pub beta1: Option<f64>,
    /// Decay of the second moment.
    pub beta2: Option<f64>,
    /// The term that keeps a quotient finite.
    pub epsilon: Option<f64>,
    /// Weight decay.
    pub weight_decay: f64,
}

impl Default for OptimizerSettings {
    /// The first optimizer with its own defaults, without weight decay.
    fn default() -> Self {
        Self { kind: &OPTIMIZERS[0], beta1: None, beta2: None, epsilon: None, weight_decay: 0.0 }
    }
}

/// A trainable tensor, as far as an optimizer's memory depends on it.
#[derive(Debug, Clone)]
pub struct TrainedTensor {
    /// The name under which the decoder has it.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

impl TrainedTensor {
    /// Number of values.
    pub fn values(&self) -> u64 {
        self.shape.iter().map(|size| *size as u64).product()
    }
}

/// The scalars of one step for one parameter.
#[derive(Debug, Clone, Copy)]
struct ParameterStep {
    /// Steps that were taken, this one included; bias correction counts from 1.
    number: i32,
    /// The learning rate.
    learning_rate: f64,
    /// Weight decay.
    weight_decay: f64,
    /// Factor on the gradient.
    factor: f64,
}

/// The arithmetic and the state of an optimizer.
trait Optimizer: fmt::Debug + Send {
    /// Takes the gradient of the parameter called `name` away, if it has one, and applies it: at once, or in
    /// [`Optimizer::finish`] together with others. On the CPU it is the last to need the gradient.
    fn update(&mut self, name: &str, parameter: &mut Parameter, step: &ParameterStep);

    /// Runs the updates that wait; returns the new values by parameter.
    fn finish(&mut self) -> HashMap<String, Tensor<1>> {
        HashMap::new()
    }

    /// The state, as vectors under names that [`Optimizer::restore`] knows.
    fn save(&self) -> Vec<(String, Vector)>;

    /// Takes over what `saved` has of the state of the parameter called `name`, which may be nothing: a parameter that
    /// never had a gradient has no state.
    ///
    /// # Errors
    /// When it does not fit the parameter.
    fn restore(
        &mut self,
        name: &str,
        parameter: &Parameter,
        saved: &SavedVectors,
        device: &Device,
    ) -> Result<(), StateError>;
}

/// The optimizer of a trainer, with its state.
#[derive(Debug)]
pub(super) struct ActiveOptimizer {
    optimizer: Box<dyn Optimizer>,
    weight_decay: f64,
    /// Steps that were taken.
    steps: i32,
}

impl ActiveOptimizer {
    /// The optimizer that `settings` name, without state, for the decoder that is `spec`.
    pub(super) fn start(settings: &OptimizerSettings, spec: &DecoderSpec) -> Self {
        Self { optimizer: (settings.kind.start)(settings, spec), weight_decay: settings.weight_decay, steps: 0 }
    }

    /// Takes the gradients of `decoder` away and applies them times `factor` at `learning_rate`.
    pub(super) fn step(&mut self, decoder: &mut Decoder, learning_rate: f64, factor: f64) {
        self.steps += 1;
        let step = ParameterStep { number: self.steps, learning_rate, weight_decay: self.weight_decay, factor };
        decoder.visit(&mut |name, parameter| self.optimizer.update(name, parameter, &step));
        let mut values = self.optimizer.finish();
        decoder.visit(&mut |name, parameter| {
            if let Some(value) = values.remove(name) {
                parameter.replace(value);
            }
        });
    }

    /// Steps that were taken.
    pub(super) fn steps(&self) -> i32 {
        self.steps
    }

    /// The state, as vectors under their names in a state file.
    pub(super) fn save(&self) -> Vec<(String, Vector)> {
        self.optimizer.save()
    }

    /// Takes over the state of the trainable parameters of `decoder`, and the count of steps.
    ///
    /// # Errors
    /// When it does not fit them.
    pub(super) fn restore(&mut self, saved: &SavedState, decoder: &mut Decoder) -> Result<(), StateError> {
        self.steps = saved.position.optimizer_step;
        let device = decoder.device().clone();
        let mut restored = Ok(());
        decoder.visit(&mut |name, parameter| {
            if parameter.is_trainable() && restored.is_ok() {
                restored = self.optimizer.restore(name, parameter, &saved.vectors, &device);
            }
        });
        restored
    }
}

/// All values of `tensors`.
fn values(tensors: &[TrainedTensor]) -> u64 {
    tensors.iter().map(TrainedTensor::values).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_optimizer_and_the_first_is_the_default() {
        let mut names = names();
        assert_eq!(names[0], "adamw_torch");
        assert!(std::ptr::eq(named("adamw_torch").expect("a name").0, OptimizerSettings::default().kind));
        assert!(named("adamw").is_none());
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn state_in_8_bits_takes_a_quarter_but_for_the_embedding() {
        let spec = crate::model::families::tests::spec_of("llama31");
        let tensor = |name: &str, shape: &[usize]| TrainedTensor { name: name.to_owned(), shape: shape.to_vec() };
        let tensors = [tensor(&crate::model::names::embedding(&spec), &[384, 64]), tensor("matrix", &[64, 100])];
        let bytes = |name: &str| (named(name).expect("a name").0.state_bytes)(&tensors, &spec);
        assert_eq!(bytes("adamw_torch"), 8 * (384 * 64 + 6400));
        assert_eq!(bytes("adamw_8bit"), 8 * 384 * 64 + 2 * 6400);
    }
}
