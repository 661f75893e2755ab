//! What attention and the head of a large vocabulary cost alone on the CPU, beyond what goes in and comes out (Linux).
//!
//! `attention TOKENS` prints by how much the process's resident memory grows at its peak during an attention of so many
//! tokens, forward and backward; `head VOCABULARY ROWS` during the loss of 4096 trained tokens in so many rows, of a
//! model that is a head of that vocabulary and little more: what it takes more than with a vocabulary of 128 is the
//! vocabulary's. A process measures one case, since what it freed would hide the next. `benches/attention.sh` calls it.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::path::Path;
use std::time::Instant;

use adapters::{AdapterSpec, LowRankSpec, Method, Targets};
use burn::tensor::{Device, FloatDType, Tensor};
use datasets::MicroBatch;
use kernels::{Visible, attention};
use serde_json::json;
use tune::model::{Source, Storage, families, load};
use tune::train::{OptimizerSettings, Schedule, TrainSettings, Trainer, default_objective, schedules};

/// Heads, heads of keys, and width of a head of the smollm2-135m shape.
const HEADS: [usize; 3] = [9, 3, 64];
/// Trained tokens of a step on the head.
const TRAINED: usize = 4096;

fn main() {
    tune::allocator::share_heap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = arguments.iter().skip(1).filter_map(|text| text.parse().ok()).collect();
    match (arguments.first().map(String::as_str), numbers.as_slice()) {
        (Some("attention"), &[tokens]) => {
            let mut seconds = 0.0;
            let peak = peak_of(|| seconds = attend(tokens));
            let scores = mebibytes(HEADS[0] * tokens * tokens * 4);
            println!(
                "attention {tokens:>6} tokens {seconds:>8.3} s {:>8.1} MiB; its scores {scores:.0} MiB",
                mebibytes(peak)
            );
        }
        (Some("head"), &[vocab, rows]) => {
            let mut trainer = trainer(vocab);
            let batch = micro_batch(vocab, rows, TRAINED / rows);
            let peak = peak_of(|| drop(trainer.forward_backward(&batch, 0, 1.0 / TRAINED as f64)));
            println!(
                "head, vocabulary {vocab:>6}, {rows:>2} rows of {:>4} trained tokens {:>8.1} MiB",
                TRAINED / rows,
                mebibytes(peak)
            );
        }
        _ => println!("alone attention TOKENS | alone head VOCABULARY ROWS"),
    }
}

/// Seconds of one attention, forward and backward, on `tokens` tokens of one document.
fn attend(tokens: usize) -> f64 {
    let device = Device::flex();
    let [heads, kv_heads, width] = HEADS;
    let draw = |heads| {
        let count = tokens * heads * width;
        let values: Vec<f32> = (0..count).map(|place| ((place * 7919) % 2003) as f32 / 1000.0 - 1.0).collect();
        Tensor::<1>::from_floats(values.as_slice(), &device).reshape([1, tokens, heads, width])
    };
    let [query, key, value] = [draw(heads), draw(kv_heads), draw(kv_heads)].map(|x| x.autodiff().require_grad());
    let visible = Visible::new(vec![0; tokens], tokens, 0, &device);
    let started = Instant::now();
    let mixed = attention(query.clone(), key, value, None, 0.125, &visible);
    let gradients = mixed.backward();
    let found = query.grad(&gradients).expect("the query has a gradient");
    assert_eq!(found.dims()[1], tokens);
    started.elapsed().as_secs_f64()
}

/// A trainer of a model that is little more than its head, frozen.
fn trainer(vocab: usize) -> Trainer {
    let config = json!({
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64, "intermediate_size": 64,
        "vocab_size": vocab, "rms_norm_eps": 1e-6, "max_position_embeddings": 8192, "rope_theta": 1e6,
        "hidden_act": "silu", "tie_word_embeddings": true,
    });
    let spec = families::resolve(&config, Path::new("config.json")).expect("a supported model").spec;
    let storage = Storage::of(FloatDType::F32, true);
    let device = Device::flex();
    let loaded = load(&spec, &Source::Random { seed: 1 }, &device, &storage, &mut |_| {});
    let mut decoder = loaded.expect("nothing is read");
    let adapter = AdapterSpec {
        method: Method::LowRank(LowRankSpec { rank: 8, alpha: 8.0, dropout: 0.0, rank_stabilised: false }),
        targets: Targets::AllLinear,
        parameters: Vec::new(),
        saved_modules: Vec::new(),
        layers: None,
        seed: 1,
    };
    adapters::attach(&adapter, decoder.adaptable(), &device).expect("every linear map takes one");
    let settings = TrainSettings {
        objective: default_objective(),
        schedule: Schedule {
            kind: schedules::named("constant").expect("a schedule"),
            peak: 0.0,
            warmup_steps: 0,
            total_steps: 1,
            floor: 0.0,
        },
        optimizer: OptimizerSettings::default(),
        max_gradient_norm: None,
        recompute: false,
        embedding_noise: None,
        seed: 1,
    };
    Trainer::start(decoder, settings)
}

/// `rows` documents of `width` tokens, all of them trained.
fn micro_batch(vocab: usize, rows: usize, width: usize) -> MicroBatch {
    let cells = rows * width;
    MicroBatch {
        rows,
        width,
        tokens: (0..cells).map(|cell| (cell * 7919 % vocab) as i32).collect(),
        targets: (0..cells).map(|cell| (cell * 104_729 % vocab) as i32).collect(),
        trained: vec![true; cells],
        documents: vec![0; cells],
        positions: (0..cells).map(|cell| (cell % width) as i32).collect(),
        real_tokens: cells,
    }
}

/// Bytes by which the resident memory's peak during `work` is above what was resident before.
fn peak_of(work: impl FnOnce()) -> usize {
    // The kernel then counts the peak from now on.
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux counts anew");
    let before = resident("VmRSS:");
    work();
    resident("VmHWM:").saturating_sub(before)
}

/// A line of this process's status, in bytes.
fn resident(line: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let value = status.lines().find_map(|text| text.strip_prefix(line)).expect("the line is there");
    1024 * value.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
