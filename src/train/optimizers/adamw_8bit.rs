//! AdamW with both moments in 8 bits (Dettmers et al. 2022, arXiv:2110.02861), as bitsandbytes computes it.
//!
//! On the CPU moments are decoded, the step is that of [`AdamW`], and they are encoded again; elsewhere one kernel does
//! all of it. Small parameters and the embedding keep f32 moments, and are those of an [`AdamW`] within.

use std::collections::HashMap;

use adapters::Parameter;
use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::{AdamState, AdamWork, EightBitMoment, EightBitState, EightBitWork, adam_all, adam_eight_bit};

use super::adamw::{self, AdamW, Constants, FIRST, PAGED, SECOND};
use super::eight_bit::{EightBit, Map};
use super::{Optimizer, OptimizerKind, OptimizerName, ParameterStep, values};
use crate::device::{self, host};
use crate::model::names;
use crate::train::vectors::{SavedVectors, StateError, Vector};

/// The optimizer's row.
pub(super) const KIND: OptimizerKind = OptimizerKind {
    names: &[
        OptimizerName::plain("adamw_bnb_8bit"),
        OptimizerName::plain("adamw_8bit"),
        OptimizerName::variant("paged_adamw_8bit", PAGED),
    ],
    reads: super::ADAMW_KEYS,
    describe: |settings| format!("AdamW with 8-bit state, {}", Constants::of(settings).describe(settings)),
    state_bytes: |tensors, spec| {
        let embedding = names::embedding(spec);
        let exact = tensors.iter().find(|tensor| tensor.name == embedding).map_or(0, |tensor| tensor.values());
        adamw::STATE_BYTES * exact + STATE_BYTES * (values(tensors) - exact)
    },
    // Rows of an embedding differ too much to share a scale; transformers' trainer keeps its state in f32 too.
    start: |settings, spec| Box::new(AdamW8Bit::new(Constants::of(settings), names::embedding(spec))),
};

/// Bytes of both moments of a value, scales left out.
const STATE_BYTES: u64 = 2;

/// Parameters of fewer values keep f32 moments, as with bitsandbytes.
const LEAST_VALUES: usize = 4096;

/// The ends of the names of codes and of their scales in a saved state.
const CODES: &str = ".codes";
const SCALES: &str = ".scales";

/// The state: both moments of each parameter.
#[derive(Debug)]
struct AdamW8Bit {
    constants: Constants,
    moments: HashMap<String, Moments>,
    /// Parameters of a GPU whose update waits for the others', so that all are one operation.
    waiting: Vec<(String, EightBitWork)>,
    /// Parameters with f32 moments.
    exact: AdamW,
    /// The name of the embedding, which is one of them.
    embedding: String,
}

#[derive(Debug)]
struct Moments {
    first: EightBit,
    second: EightBit,
}

impl AdamW8Bit {
    /// An optimizer without state.
    fn new(constants: Constants, embedding: String) -> Self {
        let (moments, waiting) = (HashMap::new(), Vec::new());
        Self { constants, moments, waiting, exact: AdamW::new(constants), embedding }
    }

    /// True if the moments of the parameter called `name` stay f32.
    fn is_exact(&self, name: &str, parameter: &Parameter) -> bool {
        parameter.count() < LEAST_VALUES || name == self.embedding
    }
}

impl Optimizer for AdamW8Bit {
    fn update(&mut self, name: &str, parameter: &mut Parameter, step: &ParameterStep) {
        if self.is_exact(name, parameter) {
            return self.exact.update(name, parameter, step);
        }
        let Some(gradient) = parameter.take_gradient() else { return };
        let step = self.constants.at(step);
        let before = self.moments.remove(name);
        if !device::is_host(&gradient.device()) {
            let state = device_state(parameter.plain(), before);
            return self.waiting.push((name.to_owned(), EightBitWork { state, gradient, step }));
        }
        parameter.change(|value| {
            let (first, second) = match before {
                Some(before) => (before.first.decode(), before.second.decode()),
                None => (value.zeros_like(), value.zeros_like()),
            };
            let work = AdamWork { state: AdamState { value, first, second }, gradient, step };
            let AdamState { value, first, second } = adam_all(vec![work]).remove(0);
            let moments = Moments {
                first: EightBit::encode(first, Map::Signed),
                second: EightBit::encode(second, Map::Unsigned),
            };
            self.moments.insert(name.to_owned(), moments);
            value
        });
    }

    fn finish(&mut self) -> HashMap<String, Tensor<1>> {
        let mut values = self.exact.finish();
        let (names, work): (Vec<String>, Vec<EightBitWork>) = self.waiting.drain(..).unzip();
        if names.is_empty() {
            return values;
        }
        let numbers = [Map::Signed, Map::Unsigned].map(Map::numbers);
        for (name, EightBitState { value, first, second }) in names.into_iter().zip(adam_eight_bit(work, numbers)) {
            let length = value.dims()[0];
            let moments = Moments {
                first: EightBit::of_device(first, length, Map::Signed),
                second: EightBit::of_device(second, length, Map::Unsigned),
            };
            self.moments.insert(name.clone(), moments);
            values.insert(name, value);
        }
        values
    }

    fn save(&self) -> Vec<(String, Vector)> {
        let mut vectors = self.exact.save();
        for (name, moments) in &self.moments {
            for (order, moment) in [(FIRST, &moments.first), (SECOND, &moments.second)] {
                let (codes, scales) = moment.parts();
                vectors.push((format!("{order}{name}{CODES}"), Vector::codes(codes)));
                let length = scales.len();
                let scales = Tensor::from_data(TensorData::new(scales, [length]), (&host(), DType::F32));
                vectors.push((format!("{order}{name}{SCALES}"), Vector::numbers(scales)));
            }
        }
        vectors
    }

    fn restore(
        &mut self,
        name: &str,
        parameter: &Parameter,
        saved: &SavedVectors,
        device: &Device,
    ) -> Result<(), StateError> {
        if self.is_exact(name, parameter) {
            return self.exact.restore(name, parameter, saved, device);
        }
        if !saved.has(&format!("{FIRST}{name}{CODES}")) {
            return Ok(());
        }
        let length = parameter.count();
        let moment = |order: &str, map: Map| -> Result<EightBit, StateError> {
            let codes = saved.codes(&format!("{order}{name}{CODES}"), length)?;
            let scales = saved.numbers(&format!("{order}{name}{SCALES}"), EightBit::scales(length))?;
            Ok(EightBit::from_parts(codes, scales, map, device))
        };
        let moments = Moments { first: moment(FIRST, Map::Signed)?, second: moment(SECOND, Map::Unsigned)? };
        self.moments.insert(name.to_owned(), moments);
        Ok(())
    }
}

/// A parameter of a device that is not the CPU with its moments, zeros at first.
fn device_state(value: Tensor<1>, before: Option<Moments>) -> EightBitState {
    let (device, length) = (value.device(), value.dims()[0]);
    let moment = |moment: Option<EightBit>| -> EightBitMoment {
        moment.and_then(EightBit::into_device).unwrap_or_else(|| EightBit::zeros_on(&device, length))
    };
    let (first, second) = before.map_or((None, None), |before| (Some(before.first), Some(before.second)));
    EightBitState { first: moment(first), second: moment(second), value }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::tensor::FloatDType;
    use safetensors::{Dtype, SafeTensors};

    use super::*;
    use crate::device::DeviceChoice;
    use crate::hub::fixtures::fixture;
    use crate::train::optimizers::OptimizerSettings;

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

    fn optimizer(embedding: &str) -> AdamW8Bit {
        let settings = OptimizerSettings { beta2: Some(0.95), ..OptimizerSettings::default() };
        AdamW8Bit::new(Constants::of(&settings), embedding.to_owned())
    }

    /// One step, that of this number, for one parameter.
    fn take_step(optimizer: &mut AdamW8Bit, name: &str, parameter: &mut Parameter, number: usize) {
        let step = ParameterStep { number: number as i32, learning_rate: 1e-2, weight_decay: 0.1, factor: 1.0 };
        optimizer.update(name, parameter, &step);
        optimizer.finish().into_values().for_each(|value| parameter.replace(value));
    }

    fn values(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec::<f32>().expect("f32")
    }

    /// Runs the reference's steps on its parameter `name` and compares the parameter after each.
    fn steps(reference: &BTreeMap<String, Vec<f32>>, name: &str) -> AdamW8Bit {
        let before = reference[&format!("{name}.before")].clone();
        let shape = [before.len()];
        let mut parameter = Parameter::from_host(before, &shape, FloatDType::F32, &device());
        parameter.train();
        let mut optimizer = optimizer("embedding");
        for step in 0..STEPS {
            parameter.add_gradient(tensor(&reference[&format!("{name}.gradient.{step}")]));
            take_step(&mut optimizer, name, &mut parameter, step + 1);
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
            let of = |what: &str| &reference[&format!("large.{part}.{what}")];
            let (codes, scales, map) = (of("codes"), of("scales"), of("map"));
            let value = |(index, code): (usize, &f32)| map[*code as usize] * scales[index / 256];
            let expected: Vec<f32> = codes.iter().enumerate().map(value).collect();
            let apart = |(ours, theirs): &(&f32, &f32)| (*ours - *theirs).abs() > 1e-5 * theirs.abs();
            let apart = values(moment.decode()).iter().zip(&expected).filter(apart).count();
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
    fn small_parameters_and_the_embedding_keep_exact_state() {
        let reference = reference();
        let small = steps(&reference, "small");
        assert!(small.moments.is_empty() && small.exact.has("small"));
        let mut optimizer = optimizer("embedding");
        for (name, exact) in [("embedding", true), ("matrix", false)] {
            let mut parameter = Parameter::from_host(vec![1.0; 4096], &[64, 64], FloatDType::F32, &device());
            parameter.train();
            parameter.add_gradient(tensor(&[0.5; 4096]));
            take_step(&mut optimizer, name, &mut parameter, 1);
            assert_eq!(optimizer.exact.has(name), exact, "{name}");
            assert_eq!(optimizer.moments.contains_key(name), !exact, "{name}");
        }
    }
}
