//! Times attention and its gradients on a device, and says what the device's memory pools reserve for it:
//! `attention DEVICE WAY TOKENS REPEATS`, where DEVICE is cpu, wgpu:cpu, wgpu, cuda or cube-cpu, and WAY is `tiles` or `blocks` (in f32; `tiles-bf16`
//! and `blocks-bf16`), or `composed` for burn's operations with stored scores. One process for each line of a table, since pools only grow.
//!
//! Eight query heads that share two key heads, 64 wide, one causal row.

#![expect(clippy::print_stdout, reason = "a program prints its result")]

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor, TensorData};
use kernels::{AttentionMethod, Visible, attention_by};

const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const DIM: usize = 64;
const SCALE: f32 = 0.125;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, way, tokens, repeats] = arguments.as_slice() else {
        panic!("usage: attention DEVICE tiles|blocks|composed TOKENS REPEATS");
    };
    let device = open(device);
    let number = |text: &str| text.parse::<usize>().expect("TOKENS and REPEATS are numbers");
    let (tokens, repeats) = (number(tokens), number(repeats));
    let dtype = if way.ends_with("-bf16") { FloatDType::BF16 } else { FloatDType::F32 };
    device.seed(1);
    let draw = |heads: usize| {
        let distribution = Distribution::Uniform(-1.0, 1.0);
        Tensor::<4>::random([1, tokens, heads, DIM], distribution, (&device, DType::F32)).cast(dtype)
    };
    let [query, key, value] = [HEADS, KV_HEADS, KV_HEADS].map(draw);
    let visible = Visible::new(vec![0; tokens], tokens, 0, &device);
    let by = if way.starts_with("blocks") {
        AttentionMethod::Blocks { scores_bytes: 8 << 20 }
    } else {
        AttentionMethod::Tiles
    };
    let mask = (way == "composed").then(|| causal(tokens, &device));
    let step = || {
        let [query, key, value] = [&query, &key, &value].map(|x| x.clone().autodiff().require_grad());
        let leaves = [query.clone(), key.clone(), value.clone()];
        let mixed = match &mask {
            Some(mask) => composed(query, key, value, mask),
            None => attention_by(Some(by), query, key, value, None, SCALE, &visible),
        };
        let mut graph = mixed.cast(FloatDType::F32).sum().backward();
        let sums = leaves.map(|leaf| leaf.grad_remove(&mut graph).expect("a leaf").cast(FloatDType::F32).abs().mean());
        let [a, b, c] = sums.map(|sum| sum.into_scalar::<f32>());
        a + b + c
    };
    let begin = Instant::now();
    let checksum = step();
    let first = begin.elapsed().as_secs_f64();
    let mut times: Vec<f64> = (0..repeats)
        .map(|_| {
            let begin = Instant::now();
            step();
            begin.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let reserved = device.memory_pool_usage().map_or(0, |usage| usage.bytes_reserved);
    let median = times.get(repeats / 2).map_or(String::new(), |seconds| format!("{seconds:.2} s, "));
    println!(
        "{tokens:>5} tokens, {way:8}: {median}the first {first:.1} s, {} MiB reserved, mean gradients {checksum:.6}",
        reserved >> 20
    );
}

fn open(name: &str) -> Device {
    #[cfg(feature = "cube")]
    kernels::leave_products_alone();
    match name {
        "cpu" => Device::flex(),
        #[cfg(feature = "wgpu")]
        "wgpu:cpu" => Device::wgpu(burn::tensor::DeviceKind::Cpu),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(0),
        #[cfg(feature = "cpu")]
        "cube-cpu" => Device::cpu(),
        _ => panic!("device `{name}` is not in this build"),
    }
}

/// Numbers to add to scores, `[1, 1, tokens, tokens]`.
fn causal(tokens: usize, device: &Device) -> Tensor<4> {
    let values = (0..tokens * tokens).map(|cell| if cell % tokens <= cell / tokens { 0.0 } else { -1e30 });
    Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), [1, 1, tokens, tokens]), (device, DType::F32))
}

/// Heads that share a key head stacked, scores stored, the softmax divided after the product with the values.
fn composed(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, mask: &Tensor<4>) -> Tensor<2> {
    let [rows, tokens, heads, dim] = query.dims();
    let kv_heads = key.dims()[2];
    let group = heads / kv_heads;
    let query = query.reshape([rows, tokens, kv_heads, group, dim]).permute([0, 2, 3, 1, 4]);
    let query = query.reshape([rows, kv_heads, group * tokens, dim]);
    let (key, value) = (key.swap_dims(1, 2), value.swap_dims(1, 2));
    let scores = query.mul_scalar(SCALE).matmul(key.swap_dims(2, 3)).reshape([rows, heads, tokens, tokens]);
    let scores = scores + mask.clone();
    let weights = (scores.clone() - scores.inner().max_dim(3)).exp();
    let total = weights.clone().sum_dim(3).reshape([rows, kv_heads, group, tokens, 1]);
    let mixed = weights.reshape([rows, kv_heads, group * tokens, tokens]).matmul(value);
    let mixed = mixed.reshape([rows, kv_heads, group, tokens, dim]) / total;
    mixed.permute([0, 3, 1, 2, 4]).reshape([rows * tokens, heads * dim])
}
