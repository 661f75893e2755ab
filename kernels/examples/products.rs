//! Prints the speed of matrix products of the sizes that training meets, on one thread and on two at a time.

#![expect(clippy::print_stdout, reason = "a program prints its result")]

use std::time::Instant;

use kernels::product::{Into, Matrix, MatrixMut, product};

fn main() {
    let shapes = [
        ("2048 x 2048 x 2048", 2048, 2048, 2048),
        ("down", 384, 1536, 576),
        ("up", 384, 576, 1536),
        ("qo", 384, 576, 576),
        ("kv", 384, 576, 192),
        ("lora in", 384, 576, 16),
        ("lora out", 384, 16, 1536),
        ("head", 256, 576, 49152),
    ];
    for (name, rows, inner, columns) in shapes {
        let a: Vec<f32> = (0..rows * inner).map(|i| (i as f32 * 0.618_034).fract()).collect();
        let long: Vec<f32> = (0..inner * columns).map(|i| (i as f32 * 0.414_213_56).fract()).collect();
        // Numbers of bf16, as most checkpoints hold them.
        let short: Vec<f32> = long.iter().map(|value| (value * 128.0).round() / 128.0).collect();
        let run = |b: &[f32], transposed: bool| {
            let mut out = vec![1.0; rows * columns];
            let b = match transposed {
                true => Matrix::new(b, columns, inner).transposed(),
                false => Matrix::new(b, inner, columns),
            };
            let repeat = (2e9 / (2.0 * (rows * inner * columns) as f64)).ceil() as usize;
            let begin = Instant::now();
            for _ in 0..repeat {
                product(MatrixMut::new(&mut out, rows, columns), Into::Replace, 1.0, Matrix::new(&a, rows, inner), b);
            }
            2.0 * (rows * inner * columns * repeat) as f64 / begin.elapsed().as_secs_f64() / 1e9
        };
        let mut line = format!("{name:20}");
        for (kind, b) in [("f32", &long), ("bf16", &short)] {
            for transposed in [true, false] {
                let one = || kernels::with_threads(1, || run(b, transposed));
                let alone = one();
                let (first, second) = rayon::join(one, one);
                let shared = kernels::with_threads(2, || run(b, transposed));
                let side = if transposed { "x W^T" } else { "x W" };
                line += &format!("  {kind} {side} {alone:.0}, {:.0} apart, {shared:.0} together;", first + second);
            }
        }
        println!("{line} GFLOP/s");
    }
}
