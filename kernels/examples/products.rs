//! Prints the speed of matrix products of the sizes that training meets, on one thread and on two at a time; an
//! argument names the sizes whose names hold it.

#![expect(clippy::print_stdout, reason = "a program prints its result")]

use std::time::Instant;

use half::bf16;
use kernels::product::{HalfMatrix, Matrix, new_half_product, new_product};

fn main() {
    let shapes = [
        ("2048 x 2048 x 2048", 2048, 2048, 2048),
        ("down", 400, 1536, 576),
        ("up", 400, 576, 1536),
        ("qo", 400, 576, 576),
        ("kv", 400, 576, 192),
        ("lora in", 400, 576, 16),
        ("lora out", 400, 16, 1536),
        ("0.6b up", 400, 1024, 3072),
        ("0.6b down", 400, 3072, 1024),
        ("0.6b head 55", 55, 1024, 151936),
        ("0.6b head 110", 110, 1024, 151936),
        ("0.6b head 250", 250, 1024, 151936 / 5),
        ("0.6b head 55 back", 55, 151936, 1024),
        ("0.6b head 110 back", 110, 151936, 1024),
        ("0.6b head 250 back", 250, 151936 / 5, 1024),
        ("head", 200, 576, 49152),
        ("head back", 200, 49152, 576),
    ];
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for (name, rows, inner, columns) in shapes.into_iter().filter(|(name, ..)| name.contains(&wanted)) {
        let a: Vec<f32> = (0..rows * inner).map(|i| (i as f32 * 0.618_034).fract()).collect();
        let full: Vec<f32> = (0..inner * columns).map(|i| (i as f32 * 0.414_213_56).fract()).collect();
        let half: Vec<bf16> = full.iter().copied().map(bf16::from_f32).collect();
        let run = |short: bool, transposed: bool| {
            let a = Matrix::new(&a, rows, inner);
            let repeat = (2e9 / (2.0 * (rows * inner * columns) as f64)).ceil() as usize;
            // The best of some tries: others may be at work on the machine.
            let tries = (0..4).map(|_| {
                let begin = Instant::now();
                for _ in 0..repeat.div_ceil(2) {
                    let made = match (short, transposed) {
                        (false, true) => Some(new_product(1.0, a, Matrix::new(&full, columns, inner).transposed())),
                        (false, false) => Some(new_product(1.0, a, Matrix::new(&full, inner, columns))),
                        (true, true) => new_half_product(a, HalfMatrix::new(&half, columns, inner).transposed()),
                        (true, false) => new_half_product(a, HalfMatrix::new(&half, inner, columns)),
                    };
                    std::hint::black_box(made);
                }
                2.0 * (rows * inner * columns * repeat.div_ceil(2)) as f64 / begin.elapsed().as_secs_f64() / 1e9
            });
            tries.fold(0.0, f64::max)
        };
        let mut line = format!("{name:20}");
        let kinds = [("f32", false), ("bf16", true)];
        for (kind, short) in kinds.into_iter().filter(|(_, short)| !short || columns >= 48 && inner >= 64) {
            for transposed in [true, false] {
                let one = || kernels::with_threads(1, || run(short, transposed));
                let alone = one();
                let (first, second) = rayon::join(one, one);
                let shared = kernels::with_threads(2, || run(short, transposed));
                let side = if transposed { "x W^T" } else { "x W" };
                line += &format!("  {kind} {side} {alone:.0}, {:.0} apart, {shared:.0} together;", first + second);
            }
        }
        println!("{line} GFLOP/s");
    }
}
