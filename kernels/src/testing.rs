//! The tests' common parts: drawn inputs, gradients, comparison.

use std::io::Write;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

/// The device that operations with a kernel of their own are tested on, beside the CPU: `TUNE_TEST_DEVICE`, as
/// the root package names devices. One per process, since every kernel is compiled once for each.
pub(crate) fn device() -> Device {
    #[cfg(feature = "cube")]
    crate::leave_products_alone();
    match std::env::var("TUNE_TEST_DEVICE").as_deref().unwrap_or("cpu") {
        "cpu" => Device::flex(),
        #[cfg(feature = "wgpu")]
        "wgpu:cpu" => Device::wgpu(burn::tensor::DeviceKind::Cpu),
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(0),
        #[cfg(feature = "cpu")]
        "cube-cpu" => Device::cpu(),
        name => panic!(
            "TUNE_TEST_DEVICE is `{name}`; this build has cpu and, with their features, wgpu:cpu, cuda, cube-cpu"
        ),
    }
}

/// Says that a test had nothing to do here.
pub(crate) fn skipped(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").unwrap();
}

/// [`device`], a type of 16 bits that it calculates in and the distance of numbers near one; `None`, said aloud,
/// where it has none or is the CPU, where operations in such types are composed.
pub(crate) fn half() -> Option<(Device, FloatDType, f32)> {
    let device = device();
    let found = [(FloatDType::BF16, 1.0 / 128.0), (FloatDType::F16, 1.0 / 1024.0)]
        .into_iter()
        .find(|(dtype, _)| device != Device::flex() && device.supports_dtype(*dtype));
    if found.is_none() {
        skipped("this device does not calculate in 16 bits");
    }
    found.map(|(dtype, step)| (device, dtype, step))
}

/// Values in `[-scale, scale)` that repeat for a seed.
pub(crate) fn draw<const D: usize>(seed: u64, shape: [usize; D], scale: f32) -> Tensor<D> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            // xorshift64* (Vigna 2016)
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
            (bits as f32 / 8_388_608.0 - 1.0) * scale
        })
        .collect();
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F32))
}

/// The value of `operation` on recorded `inputs`, and their gradients where the value's is `weights`.
pub(crate) fn gradients<const N: usize, const D: usize, const E: usize>(
    inputs: [Tensor<D>; N],
    weights: Tensor<E>,
    operation: impl Fn([Tensor<D>; N]) -> Tensor<E>,
) -> (Tensor<E>, Vec<Tensor<D>>) {
    let leaves = inputs.map(|input| input.autodiff().require_grad());
    let value = operation(leaves.clone());
    let mut graph = (value.clone() * weights).backward();
    let gradients = leaves.iter().map(|leaf| leaf.grad_remove(&mut graph).expect("every input has a gradient"));
    (value.inner(), gradients.collect())
}

/// Fails if any value differs by more than `tolerance` times the largest expected value, or times one if that is more.
#[track_caller]
pub(crate) fn assert_close<const D: usize>(got: &Tensor<D>, expected: &Tensor<D>, tolerance: f32) {
    assert_eq!(got.dims(), expected.dims());
    let host = |tensor: &Tensor<D>| tensor.clone().inner().into_data().try_to_vec::<f32>().unwrap();
    let (got, expected) = (host(got), host(expected));
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    for (place, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let difference = (got - expected).abs();
        assert!(difference <= tolerance * largest.max(1.0), "value {place}: {got} instead of {expected}");
    }
}
