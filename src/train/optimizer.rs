//! AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) with torch's arithmetic.
//!
//! Decay is decoupled, `p *= 1 - lr wd`; both moments are bias-corrected; epsilon is added to
//! `sqrt(v) / sqrt(1 - beta2^t)`. State exists only for parameters that had a gradient, in f32 or in 8 bits.

use std::collections::{HashMap, HashSet};

use adapters::Parameter;
use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::{AdamState, AdamStep, AdamWork, EightBitMoment, EightBitState, EightBitWork, adam_all, adam_eight_bit};

use super::checkpoint::{SavedState, StateError, Vector};
use super::eight_bit::{EightBit, Map};
use crate::device::{self, host};
use crate::model::Decoder;

/// What the names of moments begin with in a saved state, and how those of codes and their scales end.
const FIRST: &str = "first.";
const SECOND: &str = "second.";
const CODES: &str = ".codes";
const SCALES: &str = ".scales";

/// Parameters of fewer values keep f32 state even where 8 bits are asked for, as with bitsandbytes.
const LEAST_EIGHT_BIT: usize = 4096;

/// How the moments are kept between steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateBits {
    /// f32: 8 bytes a parameter.
    ThirtyTwo,
    /// 8 bits in blocks of 256 that share a scale: about 2 bytes a parameter.
    Eight,
}

impl StateBits {
    /// Bytes of both moments of one value of a large parameter, scales left out.
    pub fn bytes(self) -> u64 {
        match self {
            StateBits::ThirtyTwo => 8,
            StateBits::Eight => 2,
        }
    }
}

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
    /// How the moments are kept.
    pub state: StateBits,
    step: i32,
    moments: HashMap<String, Moments>,
    /// Parameters of a GPU whose update waits for the others', so that all are one operation.
    waiting: Vec<(String, AdamWork)>,
    /// The same of parameters with state in 8 bits.
    waiting_eight_bit: Vec<(String, EightBitWork)>,
    /// Parameters whose moments stay f32.
    exact: HashSet<String>,
}

#[derive(Debug, Clone)]
struct Moments {
    first: Moment,
    second: Moment,
}

#[derive(Debug, Clone)]
enum Moment {
    Exact(Tensor<1>),
    EightBit(EightBit),
}

impl Moments {
    /// Both moments of a parameter of `value`: zero where there were none.
    fn values(before: Option<Self>, value: &Tensor<1>) -> (Tensor<1>, Tensor<1>) {
        match before {
            Some(before) => (before.first.into_value(), before.second.into_value()),
            None => (value.zeros_like(), value.zeros_like()),
        }
    }
}

impl Moment {
    fn into_value(self) -> Tensor<1> {
        match self {
            Moment::Exact(value) => value,
            Moment::EightBit(rounded) => rounded.decode(),
        }
    }
}

impl AdamW {
    /// An optimizer without state, which will be f32.
    pub fn new(beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64) -> Self {
        Self {
            beta1,
            beta2,
            epsilon,
            weight_decay,
            state: StateBits::ThirtyTwo,
            step: 0,
            moments: HashMap::new(),
            waiting: Vec::new(),
            waiting_eight_bit: Vec::new(),
            exact: HashSet::new(),
        }
    }

    /// The same with its state kept in `state`.
    pub fn with_state(self, state: StateBits) -> Self {
        Self { state, ..self }
    }

    /// Keeps the moments of the parameter called `name` in f32 whatever the others are kept in.
    pub fn keep_exact(&mut self, name: String) {
        self.exact.insert(name);
    }

    /// Begins the next step; bias correction counts from 1.
    pub fn next_step(&mut self) {
        self.step += 1;
    }

    /// Takes the parameter's gradient away and applies it times `factor` at `learning_rate`: at once on the CPU, where
    /// it is the last to need the gradient, else in [`AdamW::finish`].
    pub fn update(&mut self, name: &str, parameter: &mut Parameter, learning_rate: f64, factor: f64) {
        let Some(gradient) = parameter.take_gradient() else { return };
        let step = AdamStep {
            factor: factor as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            enters1: (1.0 - self.beta1) as f32,
            enters2: (1.0 - self.beta2) as f32,
            epsilon: self.epsilon as f32,
            correction2: (1.0 - self.beta2.powi(self.step)).sqrt() as f32,
            rate: (learning_rate / (1.0 - self.beta1.powi(self.step))) as f32,
            kept: (1.0 - learning_rate * self.weight_decay) as f32,
        };
        let before = self.moments.remove(name);
        if device::is_host(&gradient.device()) {
            return parameter.change(|value| {
                let (first, second) = Moments::values(before, &value);
                let work = AdamWork { state: AdamState { value, first, second }, gradient, step };
                let AdamState { value, first, second } = adam_all(vec![work]).remove(0);
                self.moments.insert(name.to_owned(), self.kept(name, first, second));
                value
            });
        }
        let value = parameter.plain();
        if !self.is_exact(name, parameter.count()) {
            let state = eight_bit_state(value, before);
            return self.waiting_eight_bit.push((name.to_owned(), EightBitWork { state, gradient, step }));
        }
        let (first, second) = Moments::values(before, &value);
        self.waiting.push((name.to_owned(), AdamWork { state: AdamState { value, first, second }, gradient, step }));
    }

    /// Runs the updates that wait; the new values by parameter.
    pub fn finish(&mut self) -> HashMap<String, Tensor<1>> {
        let (names, work): (Vec<String>, Vec<AdamWork>) = self.waiting.drain(..).unzip();
        let mut values = HashMap::with_capacity(names.len());
        for (name, AdamState { value, first, second }) in names.into_iter().zip(adam_all(work)) {
            self.moments.insert(name.clone(), self.kept(&name, first, second));
            values.insert(name, value);
        }
        let (names, work): (Vec<String>, Vec<EightBitWork>) = self.waiting_eight_bit.drain(..).unzip();
        if names.is_empty() {
            return values;
        }
        let numbers = [Map::Signed, Map::Unsigned].map(Map::numbers);
        for (name, EightBitState { value, first, second }) in names.into_iter().zip(adam_eight_bit(work, numbers)) {
            let length = value.dims()[0];
            let moment = |moment, map| Moment::EightBit(EightBit::of_device(moment, length, map));
            let moments = Moments { first: moment(first, Map::Signed), second: moment(second, Map::Unsigned) };
            self.moments.insert(name.clone(), moments);
            values.insert(name, value);
        }
        values
    }

    /// Steps that bias correction has counted.
    pub(super) fn step(&self) -> i32 {
        self.step
    }

    /// The moments of every parameter, as vectors under names that [`AdamW::restore`] knows.
    pub(super) fn state(&self) -> Vec<(String, Vector)> {
        let mut vectors = Vec::new();
        for (name, moments) in &self.moments {
            for (order, moment) in [(FIRST, &moments.first), (SECOND, &moments.second)] {
                match moment {
                    Moment::Exact(values) => vectors.push((format!("{order}{name}"), Vector::numbers(values.clone()))),
                    Moment::EightBit(rounded) => {
                        let (codes, scales) = rounded.parts();
                        vectors.push((format!("{order}{name}{CODES}"), Vector::codes(codes)));
                        vectors.push((format!("{order}{name}{SCALES}"), Vector::numbers(on_device(scales, &host()))));
                    }
                }
            }
        }
        vectors
    }

    /// Takes over the moments that `saved` has of the parameters that learn in `decoder`, and its count of steps.
    ///
    /// # Errors
    /// When they do not fit.
    pub(super) fn restore(&mut self, saved: &SavedState, decoder: &mut Decoder) -> Result<(), StateError> {
        self.step = saved.position.optimizer_step;
        let device = decoder.device().clone();
        let mut learning = Vec::new();
        decoder.visit(&mut |name, parameter| {
            if parameter.is_trainable() {
                learning.push((name.to_owned(), parameter.count()));
            }
        });
        let moment = |name: String, length: usize, map: Map| match saved.codes(&format!("{name}{CODES}"), length)? {
            Some(codes) => {
                let scales = saved.numbers(&format!("{name}{SCALES}"), EightBit::scales(length))?;
                Ok::<Moment, StateError>(Moment::EightBit(EightBit::from_parts(codes, scales, map, &device)))
            }
            None => Ok(Moment::Exact(on_device(saved.numbers(&name, length)?, &device))),
        };
        for (name, length) in learning {
            // A parameter that never had a gradient has no moments.
            if saved.has(&format!("{FIRST}{name}")) || saved.has(&format!("{FIRST}{name}{CODES}")) {
                let first = moment(format!("{FIRST}{name}"), length, Map::Signed)?;
                let second = moment(format!("{SECOND}{name}"), length, Map::Unsigned)?;
                self.moments.insert(name, Moments { first, second });
            }
        }
        Ok(())
    }

    /// The moments as they stay until the next step.
    fn kept(&self, name: &str, first: Tensor<1>, second: Tensor<1>) -> Moments {
        if self.is_exact(name, first.dims()[0]) {
            return Moments { first: Moment::Exact(first), second: Moment::Exact(second) };
        }
        Moments {
            first: Moment::EightBit(EightBit::encode(first, Map::Signed)),
            second: Moment::EightBit(EightBit::encode(second, Map::Unsigned)),
        }
    }

    /// Whether the moments of a parameter with `count` values stay f32.
    fn is_exact(&self, name: &str, count: usize) -> bool {
        self.state == StateBits::ThirtyTwo || count < LEAST_EIGHT_BIT || self.exact.contains(name)
    }
}

/// A parameter of a device that is not the CPU with what it remembers, nothing at first.
fn eight_bit_state(value: Tensor<1>, before: Option<Moments>) -> EightBitState {
    let (device, length) = (value.device(), value.dims()[0]);
    let moment = |moment: Option<Moment>| -> EightBitMoment {
        let kept = moment.and_then(|moment| match moment {
            Moment::EightBit(rounded) => rounded.into_device(),
            Moment::Exact(_) => None,
        });
        kept.unwrap_or_else(|| EightBit::zeros_on(&device, length))
    };
    let (first, second) = before.map_or((None, None), |before| (Some(before.first), Some(before.second)));
    EightBitState { first: moment(first), second: moment(second), value }
}

fn on_device(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), (device, DType::F32))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::tensor::FloatDType;
    use safetensors::{Dtype, SafeTensors};

    use super::*;
    use crate::device::DeviceChoice;
    use crate::hub::fixtures::fixture;

    const STEPS: usize = 4;

    /// Steps of bitsandbytes' AdamW with its state in 8 bits; integers as floats.
    fn reference() -> BTreeMap<String, Vec<f32>> {
        let bytes = std::fs::read(fixture("optimizer/adamw_8bit.safetensors")).expect("the fixture is there");
        let file = SafeTensors::deserialize(&bytes).expect("a sound file");
        let read = |(name, view): (String, safetensors::tensor::TensorView)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
                // Codes from 0 to 255.
                _ => data.chunks_exact(8).map(|bytes| f32::from(bytes[0])).collect(),
            };
            (name, values)
        };
        file.tensors().into_iter().map(read).collect()
    }

    /// The device that the environment names, as for the parity tests.
    fn device() -> Device {
        let name = std::env::var("TUNE_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
        let choice = DeviceChoice::parse(&name).expect("TUNE_TEST_DEVICE names a device");
        device::open(choice).expect("the device is there").device
    }

    fn tensor(values: &[f32]) -> Tensor<1> {
        Tensor::from_floats(values, &device())
    }

    /// One step for one parameter.
    fn take_step(optimizer: &mut AdamW, name: &str, parameter: &mut Parameter) {
        optimizer.next_step();
        optimizer.update(name, parameter, 1e-2, 1.0);
        optimizer.finish().into_values().for_each(|value| parameter.replace(value));
    }

    fn values(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec::<f32>().expect("f32")
    }

    /// Runs the reference's steps on its parameter `name` and compares the parameter after each.
    fn steps(reference: &BTreeMap<String, Vec<f32>>, name: &str) -> AdamW {
        let before = reference[&format!("{name}.before")].clone();
        let shape = [before.len()];
        let mut parameter = Parameter::from_host(before, &shape, FloatDType::F32, &device());
        parameter.train();
        let mut optimizer = AdamW::new(0.9, 0.95, 1e-8, 0.1).with_state(StateBits::Eight);
        for step in 0..STEPS {
            parameter.add_gradient(tensor(&reference[&format!("{name}.gradient.{step}")]));
            take_step(&mut optimizer, name, &mut parameter);
            let expected = &reference[&format!("{name}.after.{step}")];
            let ours = values(parameter.plain());
            // A value next to the middle of two codes may get the other one by the last bit of a sum.
            let apart = ours.iter().zip(expected).filter(|(ours, theirs)| (*ours - *theirs).abs() > 1e-6).count();
            assert!(apart <= 4, "{apart} values of {name} differ after step {step}");
        }
        optimizer
    }

    #[test]
    fn steps_with_state_in_8_bits_equal_those_of_bitsandbytes() {
        let reference = reference();
        let optimizer = steps(&reference, "large");
        let moments = &optimizer.moments["large"];
        for (part, moment) in [("first", &moments.first), ("second", &moments.second)] {
            assert!(matches!(moment, Moment::EightBit(_)));
            let of = |what: &str| &reference[&format!("large.{part}.{what}")];
            let (codes, scales, map) = (of("codes"), of("scales"), of("map"));
            let value = |(index, code): (usize, &f32)| map[*code as usize] * scales[index / 256];
            let expected: Vec<f32> = codes.iter().enumerate().map(value).collect();
            let apart = |(ours, theirs): &(&f32, &f32)| (*ours - *theirs).abs() > 1e-5 * theirs.abs();
            let apart = values(moment.clone().into_value()).iter().zip(&expected).filter(apart).count();
            assert!(apart <= 4, "{apart} values of the {part} moment differ");
        }
    }

    #[test]
    fn maps_equal_those_of_bitsandbytes() {
        let reference = reference();
        for (map, part) in [(Map::Signed, "first"), (Map::Unsigned, "second")] {
            let theirs = &reference[&format!("large.{part}.map")];
            for (ours, theirs) in map.numbers().iter().zip(theirs) {
                assert!((ours - theirs).abs() <= 2e-7 * theirs.abs(), "{ours} and {theirs}");
            }
        }
    }

    #[test]
    fn small_parameters_and_those_named_keep_exact_state() {
        let reference = reference();
        assert!(matches!(steps(&reference, "small").moments["small"].first, Moment::Exact(_)));
        let mut optimizer = AdamW::new(0.9, 0.95, 1e-8, 0.1).with_state(StateBits::Eight);
        optimizer.keep_exact("embedding".to_owned());
        for (name, exact) in [("embedding", true), ("matrix", false)] {
            let mut parameter = Parameter::from_host(vec![1.0; 4096], &[64, 64], FloatDType::F32, &device());
            parameter.train();
            parameter.add_gradient(tensor(&[0.5; 4096]));
            take_step(&mut optimizer, name, &mut parameter);
            assert_eq!(matches!(optimizer.moments[name].second, Moment::Exact(_)), exact, "{name}");
        }
    }
}
