//! Prints the speed of products with a frozen matrix on the CPU: kept in f32, in bf16, and as NF4 codes.
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::time::Instant;

use adapters::Nf4Weight;
use adapters::nf4::Nf4;
use adapters::{Parameter, Weight, normal};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

fn main() {
    let device = Device::flex();
    let shapes = [
        ("up", 512, 2048, 6144),
        ("down", 512, 6144, 2048),
        ("kv", 512, 2048, 1024),
        ("up of 576", 384, 576, 1536),
        ("head", 55, 2048, 30000),
        ("one token", 1, 2048, 6144),
    ];
    for (name, tokens, inputs, outputs) in shapes {
        let values = normal(1, outputs * inputs, 0.02);
        let sizes = [outputs, inputs];
        let dense = |dtype| Weight::Dense(Parameter::from_host(values.clone(), &sizes, dtype, &device));
        let nf4 = Nf4Weight::new(&Nf4::quantise(&values, true, FloatDType::BF16), sizes, &device);
        let tensor = |columns: usize| {
            let data = TensorData::new(normal(2, tokens * columns, 1.0), [tokens, columns]);
            Tensor::<2>::from_data(data, (&device, DType::F32))
        };
        let (x, y) = (tensor(inputs), tensor(outputs));
        let kinds = [("f32", dense(FloatDType::F32)), ("bf16", dense(FloatDType::BF16)), ("nf4", Weight::Nf4(nf4))];
        for (kind, weight) in kinds {
            let mut line = format!("{name:10} {kind:5}");
            for threads in [1, 2] {
                for (side, work) in [
                    ("x W^T", &(|| weight.multiply(x.clone())) as &dyn Fn() -> Tensor<2>),
                    ("y W", &|| weight.multiply_back(y.clone())),
                ] {
                    let flops = 2.0 * (tokens * inputs * outputs) as f64;
                    let repeat = (2e10 / flops).clamp(1.0, 50.0) as usize;
                    let rate = kernels::with_threads(threads, || {
                        work();
                        let begin = Instant::now();
                        (0..repeat).for_each(|_| drop(work()));
                        flops * repeat as f64 / begin.elapsed().as_secs_f64() / 1e9
                    });
                    line += &format!("  {side} on {threads} {rate:6.1}");
                }
            }
            println!("{line} GFLOP/s");
        }
    }
}
