//! Parity with a reference: the numbers of transformers and PEFT, stored under `tests/fixtures`.
//!
//! Every folder there is a case; one whose family this version does not support says that it was
//! skipped. `TUNE_FIXTURES` names another root. `TUNE_TEST_DEVICE` names the device, `cpu` by default;
//! any other device runs the smallest set, for which few kernels are compiled, everything with
//! `TUNE_TEST_FULL=1`, and with `TUNE_TEST_PART=K/N` the smallest set and the K-th of N parts of the rest,
//! K from 0, so that N runs with different K are a full one.

mod check;
pub(crate) mod fixture;
mod forward;
mod gradients;
mod lora;
mod lora_traces;
mod nf4;
mod objective;
mod products;
mod qlora;
mod training;

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::FloatDType;
use tune::device::{self, DeviceChoice, OpenDevice};

/// Steps of a trace in the smallest set.
const SMALL_STEPS: usize = 3;

/// Columns of every batch in the smallest set: one shape, so that few kernels are compiled.
const SMALL_WIDTH: usize = 24;

/// The forward, the LoRA and the QLoRA case of the smallest set.
const SMALL_CASES: [&str; 3] = ["qwen3", "qwen3_all_linear", "qwen3_nf4_dq"];

/// How far a device's numbers may lie from the reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// Hidden states and logits, absolute.
    pub(crate) logits: f64,
    /// Logits of an adapter at the end of training, absolute.
    pub(crate) trained_logits: f64,
    /// Loss of one batch, absolute; also between two ways to compute the same.
    pub(crate) loss: f64,
    /// Gradients, relative to the largest value of the tensor.
    pub(crate) gradient: f64,
    /// Gradient norms, relative.
    pub(crate) gradient_norm: f64,
    /// Loss of a step of a trace, absolute.
    pub(crate) trace_loss: f64,
    /// Adapter and merged tensors after a trace, absolute.
    pub(crate) adapter: f64,
}

const F32: Tolerance = Tolerance {
    logits: 2e-4,
    trained_logits: 1e-3,
    loss: 1e-5,
    gradient: 1e-4,
    gradient_norm: 1e-3,
    trace_loss: 2e-4,
    adapter: 1e-3,
};

/// For f32 matrix products with 10-bit mantissas, which CUDA devices do by default.
const TF32: Tolerance = Tolerance {
    logits: 3e-2,
    trained_logits: 6e-2,
    loss: 3e-3,
    gradient: 2e-2,
    gradient_norm: 2e-2,
    trace_loss: 1e-2,
    adapter: 2e-2,
};

/// For a base, activations and products in bf16, 8 bits a mantissa; what learns, norms, softmax and sums are f32 all the same.
const BF16: Tolerance = Tolerance {
    logits: 0.3,
    trained_logits: 0.3,
    loss: 0.03,
    gradient: 0.1,
    gradient_norm: 3e-2,
    trace_loss: 0.03,
    adapter: 3e-2,
};

/// The same in f16, 11 bits a mantissa. Which product is the fastest is measured anew for each process, and each sums in an
/// order of its own, so that a trace ends elsewhere every time: its losses and norms may be off by twice the most that was seen.
const F16: Tolerance = Tolerance {
    logits: 4e-2,
    trained_logits: 4e-2,
    loss: 4e-3,
    gradient: 2e-2,
    gradient_norm: 7e-3,
    trace_loss: 1e-2,
    adapter: 1e-2,
};

/// The device of this run, and what it is to be put through.
pub(crate) struct Bench {
    pub(crate) device: OpenDevice,
    /// The type of frozen weights and activations.
    pub(crate) compute: FloatDType,
    pub(crate) tolerance: Tolerance,
    /// The cases and tests to run.
    extent: Extent,
    /// Tests take turns on a device that is not the host.
    _turn: Option<MutexGuard<'static, ()>>,
}

/// The share of all cases that a device is put through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Only the smallest set.
    Smallest,
    /// The smallest set, and of all else the part `index` of `count`.
    Part { index: u32, count: u32 },
    /// Everything.
    Full,
}

impl Extent {
    /// The extent that the environment asks for on a device.
    fn of(device: &OpenDevice) -> Self {
        let part = std::env::var("TUNE_TEST_PART").ok();
        if device.is_host || std::env::var("TUNE_TEST_FULL").is_ok_and(|value| value == "1") {
            return Self::Full;
        }
        let Some(part) = part else { return Self::Smallest };
        let numbers = part.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((index, count)) if index < count => Self::Part { index, count },
            _ => panic!("TUNE_TEST_PART is `{part}`; accepted: K/N with K from 0 to N - 1, such as 2/4"),
        }
    }

    /// True if a case or test outside the smallest set is in it. The part of a name is the sum of its bytes modulo
    /// the number of parts.
    fn has(self, name: &str) -> bool {
        match self {
            Self::Smallest => false,
            Self::Part { index, count } => name.bytes().map(u32::from).sum::<u32>() % count == index,
            Self::Full => true,
        }
    }
}

impl Bench {
    /// Opens the device that the environment names and waits for its turn there.
    pub(crate) fn open() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let mut bench = Self::waiting();
        if !bench.device.is_host {
            bench._turn = Some(TURN.lock().unwrap_or_else(PoisonError::into_inner));
        }
        bench
    }

    /// As [`Bench::open`] for a test outside the smallest set; `None`, said aloud, where only that runs.
    pub(crate) fn open_for_full_set(test: &str) -> Option<Self> {
        let bench = Self::waiting();
        if !bench.extent.has(test) {
            let name = &bench.device.name;
            say(&format!("SKIPPED on {name}: {test} (TUNE_TEST_FULL=1 runs it)"));
            return None;
        }
        Some(Self::open())
    }

    /// As [`Bench::open`] in each type of 16 bits that the device computes in, with the smallest set in the first alone:
    /// what training takes on a GPU. None, said aloud, where there is no such type or its products are known to be wrong.
    pub(crate) fn each_of_16_bits(test: impl Fn(&Self)) {
        let mut bench = Self::open();
        let wrong = |dtype| dtype == FloatDType::F16 && bench.device.breaks_matrix_units();
        let types = [FloatDType::BF16, FloatDType::F16];
        let types = types.into_iter().filter(|dtype| bench.device.supports(*dtype) && !wrong(*dtype));
        let types: Vec<FloatDType> = types.take(if bench.is_small() { 1 } else { 2 }).collect();
        if types.is_empty() {
            let name = &bench.device.name;
            say(&format!("SKIPPED on {name}: it does not compute in 16 bits, or its products in them are wrong"));
        }
        for dtype in types {
            bench.compute = dtype;
            bench.tolerance = if dtype == FloatDType::BF16 { BF16 } else { F16 };
            test(&bench);
        }
    }

    fn waiting() -> Self {
        let name = std::env::var("TUNE_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
        let accepted = device::ACCEPTED;
        let choice =
            DeviceChoice::parse(&name).unwrap_or_else(|| panic!("TUNE_TEST_DEVICE is `{name}`; accepted: {accepted}"));
        let device = device::open(choice).unwrap_or_else(|error| panic!("{error}"));
        Self {
            tolerance: if device.name.starts_with("cuda") { TF32 } else { F32 },
            compute: FloatDType::F32,
            extent: Extent::of(&device),
            device,
            _turn: None,
        }
    }

    /// Whether the case called `name` is to run.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.extent.has(name) || SMALL_CASES.contains(&name)
    }

    /// True if only the smallest set runs.
    pub(crate) fn is_small(&self) -> bool {
        self.extent == Extent::Smallest
    }

    /// How many of a trace's `steps` to run.
    pub(crate) fn steps(&self, steps: usize) -> usize {
        if self.is_small() { steps.min(SMALL_STEPS) } else { steps }
    }

    /// Columns that a batch must at least have.
    pub(crate) fn width(&self) -> usize {
        if self.is_small() { SMALL_WIDTH } else { 0 }
    }

    /// The settings of recompute to run.
    pub(crate) fn recompute(&self) -> &'static [bool] {
        if self.is_small() { &[true] } else { &[false, true] }
    }
}

#[expect(clippy::print_stderr, reason = "measured errors and skipped cases are said aloud")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
