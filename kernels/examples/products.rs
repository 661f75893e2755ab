//! Prints the speed of matrix products of the sizes that training meets, on one thread and on two at a time.

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
        let a = vec![0.5; rows * inner];
        let b = vec![0.25; inner * columns];
        let run = |transposed: bool| {
            let mut out = vec![0.0; rows * columns];
            let b = match transposed {
                true => Matrix::new(&b, columns, inner).transposed(),
                false => Matrix::new(&b, inner, columns),
            };
            let repeat = (4e9 / (2.0 * (rows * inner * columns) as f64)).ceil() as usize;
            let begin = Instant::now();
            for _ in 0..repeat {
                product(MatrixMut::new(&mut out, rows, columns), Into::Replace, 1.0, Matrix::new(&a, rows, inner), b);
            }
            2.0 * (rows * inner * columns * repeat) as f64 / begin.elapsed().as_secs_f64() / 1e9
        };
        let mut line = format!("{name:20}");
        for transposed in [true, false] {
            let one = kernels::with_threads(1, || run(transposed));
            let (first, second) = rayon::join(
                || kernels::with_threads(1, || run(transposed)),
                || kernels::with_threads(1, || run(transposed)),
            );
            let shared = kernels::with_threads(2, || run(transposed));
            line += &format!(
                "  {} one {one:6.1}, two apart {:6.1}, two together {shared:6.1}",
                if transposed { "x W^T" } else { "x W" },
                first + second
            );
        }
        println!("{line} GFLOP/s");
    }
}
