//! Products of two matrices in 16 bits, as the device's library makes them: small ones, since that is where LoRA's rank,
//! experts with few tokens and the last rows of a batch lead.

use burn::tensor::{FloatDType, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Bench;
use super::check::{Check, settle};

/// Rows, inner dimension, columns.
const SIZES: [[usize; 3]; 8] = [
    [29, 32, 384],
    [24, 16, 384],
    [29, 32, 96],
    [48, 16, 384],
    [5, 64, 384],
    [130, 16, 512],
    [33, 40, 96],
    [16, 96, 1024],
];

#[test]
fn small_products_in_16_bits_equal_those_in_f64() {
    Bench::each_of_16_bits(|bench| {
        // The most that rounding the result takes away; its sum is in f32.
        let rounding = if bench.compute == FloatDType::BF16 { 1.0 / 256.0 } else { 1.0 / 2048.0 };
        let sizes = &SIZES[..if bench.is_small() { 2 } else { SIZES.len() }];
        let mut wrong = Vec::new();
        for &[rows, inner, columns] in sizes {
            let (x, weight) = (matrix(bench, [rows, inner], 1), matrix(bench, [columns, inner], 2));
            let (sums, magnitudes) = product(&read(&x), &read(&weight), inner);
            // As a matrix of its own, where `transpose` only reads in another order.
            let turned = Tensor::from_data(weight.clone().transpose().into_data(), (&x.device(), weight.dtype()));
            let mut check = Check::new(format!("[{rows}, {inner}] x [{inner}, {columns}] in {:?}", bench.compute));
            for (kind, ours) in [("transposed", x.clone().matmul(weight.transpose())), ("plain", x.matmul(turned))] {
                for ((ours, sum), magnitude) in read(&ours).iter().zip(&sums).zip(&magnitudes) {
                    check.within(kind, format!("product, {kind},"), (ours - sum).abs() / magnitude, rounding);
                }
            }
            check.done(&mut wrong);
        }
        settle(&wrong, sizes.len());
    });
}

/// `a bᵀ` of `[rows, inner]` and `[columns, inner]`, and the same of the absolute values, which rounding goes by.
fn product(a: &[f64], b: &[f64], inner: usize) -> (Vec<f64>, Vec<f64>) {
    let of = |(a, b): (&[f64], &[f64])| {
        let terms = || a.iter().zip(b).map(|(a, b)| a * b);
        (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>())
    };
    a.chunks(inner).flat_map(|row| b.chunks(inner).map(move |column| (row, column))).map(of).unzip()
}

fn matrix(bench: &Bench, shape: [usize; 2], seed: u64) -> Tensor<2> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| random.random_range(-1.0f32..1.0)).collect();
    Tensor::<2>::from_data(TensorData::new(values, shape), &bench.device.device).cast(bench.compute)
}

fn read(matrix: &Tensor<2>) -> Vec<f64> {
    matrix.clone().into_data().convert::<f64>().try_into_vec().unwrap()
}
