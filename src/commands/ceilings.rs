//! The peak rates of a device, of a large matrix product and of a copy, by the operations that training uses: `tune devices
//! --measure`.

use std::f64::consts::TAU;
use std::time::Instant;

use anyhow::{Result, anyhow};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use crate::device::{self, DeviceChoice, OpenDevice};
use crate::report::Report;
use crate::run::Failure;
use crate::text;

/// Operations that are timed together.
const REPEATS: usize = 10;
/// Rounds of them; the best counts.
const ROUNDS: usize = 3;

/// Prints the rates of products of `size x size` matrices in each type that the device computes in, and of a copy of
/// 32 bytes per number of such a matrix.
///
/// # Errors
/// When the device is missing, or fails.
pub fn ceilings(choice: DeviceChoice, size: usize, report: &Report) -> Result<(), Failure> {
    let device = device::open(choice).map_err(|error| Failure::Input(error.into()))?;
    for (dtype, name) in [(FloatDType::BF16, "bf16"), (FloatDType::F16, "f16"), (FloatDType::F32, "f32")] {
        if device.supports(dtype) {
            let rate = 2.0 * (size as f64).powi(3) / product(&device, size, dtype).map_err(Failure::Work)?;
            report.print(&format!(
                "{:<10} {name:<5} product of {size} cubed  {:>9.2} TFLOP/s\n",
                device.name,
                rate / 1e12
            ));
        }
    }
    let count = 8 * size * size;
    let rate = (8 * count) as f64 / copy(&device, [8 * size, size]).map_err(Failure::Work)?;
    let size = text::bytes(4 * count as u64);
    report.print(&format!("{:<10} copy of {size:<9} {:>15.1} GB/s, read and written\n", device.name, rate / 1e9));
    Ok(())
}

/// Seconds of one product.
fn product(device: &OpenDevice, size: usize, dtype: FloatDType) -> Result<f64> {
    let matrix = |phase: f32| numbers([size, size], phase, &device.device).cast(dtype);
    let (left, right) = (matrix(0.0), matrix(1.0));
    let once = || left.clone().matmul(right.clone());
    best(|| wait(repeated(&device.device, once)?.slice([0..1, 0..1]).reshape([1])))
}

/// Seconds of reading and writing the f32 of a matrix of that shape once.
fn copy(device: &OpenDevice, shape: [usize; 2]) -> Result<f64> {
    let source = numbers(shape, 0.0, &device.device);
    let once = || source.clone().add_scalar(1.0);
    best(|| wait(repeated(&device.device, once)?.slice([0..1, 0..1]).reshape([1])))
}

/// Returns the result of `once` from the last of [`REPEATS`] times. Flushing after each keeps them from being fused.
fn repeated<const D: usize>(device: &Device, once: impl Fn() -> Tensor<D>) -> Result<Tensor<D>> {
    let mut last = once();
    for _ in 1..REPEATS {
        device.flush().map_err(|error| anyhow!("the device failed: {error:?}"))?;
        last = once();
    }
    Ok(last)
}

/// Numbers without a pattern that an adder or a cache could use, between -1 and 1; on the device from one row and one
/// column, since burn's `arange` takes time there that grows with the square of its length.
fn numbers([rows, columns]: [usize; 2], phase: f32, device: &Device) -> Tensor<2> {
    let line = |length: usize, step: f64, shape: [usize; 2]| {
        let angles: Vec<f32> = (0..length).map(|index| (index as f64 * step % TAU) as f32).collect();
        Tensor::<2>::from_data(TensorData::new(angles, shape), (device, DType::F32))
    };
    let angles = line(rows, 2.399_963_2, [rows, 1]) + line(columns, 0.754_877_7, [1, columns]);
    angles.add_scalar(phase).sin()
}

/// Seconds of one of the operations that `run` does [`REPEATS`] of, in the best of a few rounds after a first one.
fn best(run: impl Fn() -> Result<()>) -> Result<f64> {
    run()?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        run()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best / REPEATS as f64)
}

/// Reading a number waits for everything before it.
fn wait(number: Tensor<1>) -> Result<()> {
    number.try_into_data().map(drop).map_err(|error| anyhow!("the device failed: {error:?}"))
}
