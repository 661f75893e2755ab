//! `gpu DEVICE OPERATION kernel|composed`: what one operation costs on a device (`wgpu:cpu`, `cuda`, `cube-cpu`), forward
//! and backward, as a kernel or composed of burn's operations with fusion: time, bytes that the graph keeps between the
//! two passes, and the most that the device's pools held beyond the inputs.

#![expect(clippy::print_stdout, reason = "a program prints its result")]

use std::time::Instant;

use burn::tensor::activation::{silu, softmax};
use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};
use kernels::{
    Activation, AdamState, AdamStep, AdamWork, EightBitMoment, EightBitState, EightBitWork, NormForm, RopePairs,
    Rotation, adam_all, adam_eight_bit, gated, gather_rows, rms_norm, rotate, softmax_loss, square_sums,
};

/// Runs that are timed, after as many that are not.
const RUNS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, operation, kind] = arguments.as_slice() else { panic!("gpu DEVICE OPERATION kernel|composed") };
    let kernel = kind == "kernel";
    let device = open(device);
    let measured = match operation.as_str() {
        "rms_norm" => norm(&device, kernel),
        "gated" => gate(&device, kernel),
        "rotary" => rotary(&device, kernel),
        "gather_rows" => rows(&device, kernel),
        "softmax_loss" => loss(&device, kernel),
        "adam" => adam(&device, kernel),
        "adam_eight_bit" => eight_bit(&device, kernel),
        "square_sums" => norms(&device, kernel),
        name => panic!("no operation {name}"),
    };
    println!("{operation:14} {kind:8} {measured}");
}

fn open(name: &str) -> Device {
    #[cfg(feature = "cube")]
    kernels::leave_products_alone();
    match name {
        #[cfg(feature = "wgpu")]
        "wgpu:cpu" => Device::wgpu(burn::tensor::DeviceKind::Cpu),
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(0),
        #[cfg(feature = "cpu")]
        "cube-cpu" => Device::cpu(),
        name => panic!("no device {name} in this build"),
    }
}

/// Numbers in [-1, 1).
fn numbers<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|index| (index as f32 * 0.618_034).fract() * 2.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

fn in_use(device: &Device) -> u64 {
    device.sync().expect("the device works");
    device.memory_pool_usage().map_or(0, |usage| usage.bytes_in_use)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The median time of `run` on what `set_up` makes, until the device has all of its result; and what the pools held at
/// most beyond what they hold now.
fn timed<T, R>(device: &Device, set_up: impl Fn() -> T, mut run: impl FnMut(T) -> R) -> String {
    let before = in_use(device);
    let mut times = Vec::new();
    for index in 0..2 * RUNS {
        let input = set_up();
        device.sync().expect("the device works");
        let begin = Instant::now();
        let result = run(input);
        device.sync().expect("the device works");
        if index >= RUNS {
            times.push(begin.elapsed().as_secs_f64());
        }
        drop(result);
    }
    times.sort_by(f64::total_cmp);
    let reserved = device.memory_pool_usage().map_or(0, |usage| usage.bytes_reserved);
    let held = mebibytes(reserved.saturating_sub(before));
    format!("{:8.2} ms, pools {held:6.1} MiB beyond the inputs", times[RUNS / 2] * 1e3)
}

/// As [`timed`] for a forward and a backward pass, with what the graph and the result hold in between.
fn passes<const N: usize, const D: usize>(
    device: &Device,
    inputs: [Tensor<D>; N],
    operation: impl Fn([Tensor<D>; N]) -> Tensor<D>,
) -> String {
    let weights = numbers(operation(inputs.clone()).dims(), device);
    let leaves = || inputs.clone().map(|input| input.autodiff().require_grad());
    let before = in_use(device);
    let value = operation(leaves());
    let kept = in_use(device) - before;
    drop(value);
    let time = timed(device, leaves, |leaves| {
        let mut graph = (operation(leaves.clone()) * weights.clone()).backward();
        leaves.map(|leaf| leaf.grad_remove(&mut graph))
    });
    format!("{time}, graph and result {:5.1} MiB", mebibytes(kept))
}

fn norm(device: &Device, kernel: bool) -> String {
    let weight = numbers([2048], device);
    let form = NormForm { epsilon: 1e-6, offset: 0.0, scale_in_f32: false };
    passes(device, [numbers([1024, 2048], device)], |[x]| match kernel {
        true => rms_norm(&x, &weight, form).expect("there is a kernel"),
        false => {
            let inverse = x.clone().square().mean_dim(1).add_scalar(form.epsilon).sqrt().recip();
            x * inverse * weight.clone().unsqueeze::<2>()
        }
    })
}

fn gate(device: &Device, kernel: bool) -> String {
    let input = || numbers([512, 5632], device);
    passes(device, [input(), input()], |[gate, up]| match kernel {
        true => gated(Activation::Silu, gate, up),
        false => silu(gate) * up,
    })
}

fn rotary(device: &Device, kernel: bool) -> String {
    let table = || numbers([1, 512, 1, 64], device);
    let rotation = Rotation { cosine: table(), sine: table(), pairs: RopePairs::Halves };
    passes(device, [numbers([1, 512, 32, 128], device)], |[x]| match kernel {
        true => rotate(x, &rotation),
        false => {
            let part = |begin| x.clone().slice([0..1, 0..512, 0..32, begin..begin + 64]);
            let (first, second) = (part(0), part(64));
            let (cosine, sine) = (rotation.cosine.clone(), rotation.sine.clone());
            let turned = first.clone() * cosine.clone() - second.clone() * sine.clone();
            Tensor::cat(vec![turned, second * cosine + first * sine], 3)
        }
    })
}

/// The tokens of a layer with experts, in the order of the experts, eight for each.
fn rows(device: &Device, kernel: bool) -> String {
    let (tokens, copies) = (512, 8);
    let count = tokens * copies;
    // The factor is odd: every place once, in an order without a pattern.
    let slots: Vec<usize> = (0..count).map(|row| row * 1021 % count).collect();
    let mut places = vec![0; count];
    slots.iter().enumerate().for_each(|(row, &slot)| places[slot] = row as i32);
    let sources: Vec<i32> = slots.iter().map(|slot| (slot / copies) as i32).collect();
    let [sources, places] =
        [sources, places].map(|ids| Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), (device, DType::I32)));
    passes(device, [numbers([tokens, 1024], device)], |[x]| match kernel {
        true => gather_rows(x, sources.clone(), places.clone()),
        false => x.select(0, sources.clone()),
    })
}

fn loss(device: &Device, kernel: bool) -> String {
    let (rows, vocab) = (256, 32768);
    let source = numbers([rows, vocab], device);
    let targets: Vec<i32> = (0..rows as i32).map(|row| row * 101).collect();
    let weights = vec![1.0; rows];
    let logits = || source.clone().mul_scalar(8.0);
    timed(device, logits, |logits| match kernel {
        true => softmax_loss(logits, &targets, &weights, 0.01).expect("there is a kernel"),
        false => {
            let data = TensorData::new(targets.clone(), [rows, 1]);
            let column = Tensor::<2, Int>::from_data(data, (device, DType::I32));
            let largest = logits.clone().max_dim(1);
            let log_sum = (logits.clone() - largest.clone()).exp().sum_dim(1).log() + largest;
            let loss = (log_sum - logits.clone().gather(1, column.clone())).sum();
            let minus_one = Tensor::<2>::full([rows, 1], -1.0, (device, DType::F32));
            let gradient = softmax(logits, 1).scatter(1, column, minus_one, IndexingUpdateOp::Add);
            (loss, gradient.mul_scalar(0.01))
        }
    })
}

const STEP: AdamStep = AdamStep {
    factor: 0.5,
    beta1: 0.9,
    beta2: 0.999,
    enters1: 0.1,
    enters2: 0.001,
    epsilon: 1e-8,
    correction2: 0.05,
    rate: 0.01,
    kept: 0.99,
};

/// Parameters, as many as the adapter matrices of 32 layers of seven projections, and values in each.
const PARAMETERS: [usize; 2] = [448, 8192];

fn adam(device: &Device, kernel: bool) -> String {
    let [count, length] = PARAMETERS;
    let set_up = || {
        let one = |_| {
            let [value, first, second, gradient] = [(); 4].map(|()| numbers([length], device));
            AdamWork { state: AdamState { value, first, second: second.abs() }, gradient, step: STEP }
        };
        (0..count).map(one).collect::<Vec<_>>()
    };
    timed(device, set_up, |work| match kernel {
        true => adam_all(work),
        false => work.into_iter().map(|work| composed_adam(work.state, work.gradient, work.step)).collect(),
    })
}

fn composed_adam(state: AdamState, gradient: Tensor<1>, step: AdamStep) -> AdamState {
    let gradient = gradient.mul_scalar(step.factor);
    let first = state.first.mul_scalar(step.beta1) + gradient.clone().mul_scalar(step.enters1);
    let second = state.second.mul_scalar(step.beta2) + gradient.square().mul_scalar(step.enters2);
    let denominator = second.clone().sqrt().div_scalar(step.correction2).add_scalar(step.epsilon);
    let change = (first.clone() / denominator).mul_scalar(step.rate);
    AdamState { value: state.value.mul_scalar(step.kept) - change, first, second }
}

fn eight_bit(device: &Device, kernel: bool) -> String {
    let [count, length] = PARAMETERS;
    let table =
        [0, 1].map(|map| (0..256).map(|code| (code as f32 + 1.0) / 128.0 - 1.0 + map as f32).collect::<Vec<f32>>());
    // Composed, a code has an integer for itself.
    let codes = if kernel { length / 4 } else { length };
    let set_up = || {
        let moment = || EightBitMoment {
            codes: Tensor::zeros([codes], (device, if kernel { DType::U32 } else { DType::I32 })),
            scales: Tensor::zeros([length / 256], (device, DType::F32)),
        };
        let one = |_| {
            let [value, gradient] = [(); 2].map(|()| numbers([length], device));
            EightBitWork { state: EightBitState { value, first: moment(), second: moment() }, gradient, step: STEP }
        };
        (0..count).map(one).collect::<Vec<_>>()
    };
    timed(device, set_up, |work| match kernel {
        true => adam_eight_bit(work, table.clone()),
        false => work.into_iter().map(|work| composed_eight_bit(work, &table)).collect(),
    })
}

fn composed_eight_bit(work: EightBitWork, tables: &[Vec<f32>; 2]) -> EightBitState {
    let EightBitState { value, first, second } = work.state;
    let decode = |moment: EightBitMoment, table: &Vec<f32>| {
        let numbers = Tensor::<1>::from_floats(table.as_slice(), &moment.scales.device());
        let blocks = moment.scales.dims()[0];
        (numbers.select(0, moment.codes).reshape([blocks, 256]) * moment.scales.reshape([blocks, 1])).reshape([-1])
    };
    let (first, second) = (decode(first, &tables[0]), decode(second, &tables[1]));
    let AdamState { value, first, second } =
        composed_adam(AdamState { value, first, second }, work.gradient, work.step);
    let encode = |values: Tensor<1>, table: &Vec<f32>| {
        let (device, blocks) = (values.device(), values.dims()[0] / 256);
        let middles: Vec<f32> = table.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).chain([f32::INFINITY]).collect();
        let middles = Tensor::<1>::from_floats(middles.as_slice(), &device);
        let values = values.reshape([blocks, 256]);
        let scales = values.clone().abs().max_dim(1);
        let none = scales.clone().equal_elem(0.0);
        let scaled = (values / scales.clone().mask_fill(none, 1.0)).reshape([blocks * 256]);
        let mut codes = Tensor::<1, Int>::zeros([blocks * 256], (&device, DType::I32));
        for step in [128, 64, 32, 16, 8, 4, 2, 1] {
            let middle = middles.clone().select(0, codes.clone().add_scalar(step - 1));
            codes = codes + middle.lower(scaled.clone()).int().mul_scalar(step);
        }
        EightBitMoment { codes, scales: scales.reshape([blocks]) }
    };
    EightBitState { value, first: encode(first, &tables[0]), second: encode(second, &tables[1]) }
}

fn norms(device: &Device, kernel: bool) -> String {
    let [count, length] = PARAMETERS;
    let gradients: Vec<Tensor<1>> = (0..count).map(|_| numbers([length], device)).collect();
    timed(
        device,
        || gradients.clone(),
        |gradients| {
            let sums = match kernel {
                true => square_sums(gradients),
                false => gradients.into_iter().map(|gradient| gradient.square().sum()).collect(),
            };
            Tensor::cat(sums, 0).into_data()
        },
    )
}
