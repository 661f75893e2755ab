//! GPT-OSS.
//!
//! After transformers' `configuration_gpt_oss.py`: biases everywhere in attention and experts, a trained
//! sink in every softmax, windows on every other layer, experts in one tensor per matrix whose columns of
//! gate and up alternate and whose activation is clamped, weights by a softmax over the chosen experts.

use serde_json::{Value, json};

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder, grouped};
use super::trunk::Defaults;
use super::{Family, Reading, experts, sliding};
use crate::model::spec::{
    Activation, ExpertNames, ExpertStorage, ExpertsSpec, FeedForwardSpec, MlpSpec, NormPlacement, NormSpec, Scoring,
};

/// The family's row.
pub(super) const FAMILY: Family =
    Family { name: "gpt_oss", model_types: &["gpt_oss"], example: "openai/gpt-oss-20b", read };

/// The scaling of a configuration that names none.
fn default_scaling() -> Value {
    json!({
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": false,
        "original_max_position_embeddings": 4096,
    })
}

fn read(config: &Config) -> Result<Reading, ConfigError> {
    let scaling = match config.value("rope_parameters") {
        Some(_) => None,
        None => Some(("rope_scaling", default_scaling())),
    };
    let completed = config.completed(scaling.as_slice());
    let config = &config.with(&completed);
    // OpenAI's own names of `num_experts_per_tok` and of the scaling's `original_max_position_embeddings`.
    config.without_effect(&["experts_per_token", "initial_context_length"]);
    let attention_bias = config.flag("attention_bias")?.unwrap_or(true);
    let quirks = Quirks {
        defaults: Defaults { positions: 131_072, epsilon: 1e-5, ..PLAIN.defaults },
        default_kv_heads: Some(8),
        default_head_dim: Some(64),
        default_theta: 150_000.0,
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        reach: sliding::alternating,
        reads: &["num_local_experts"],
        ..PLAIN
    };
    let mut reading = decoder(config, &quirks)?;
    let count = experts::count(config, &["num_local_experts"])?;
    let mut router = experts::router(config, count, 4)?;
    (router.scoring, router.normalise, router.bias) = (Scoring::SoftmaxOfChosen, false, true);
    let activation = Activation::ClampedSwish {
        alpha: config.positive("swiglu_alpha")?.unwrap_or(1.702) as f32,
        limit: config.positive("swiglu_limit")?.unwrap_or(7.0) as f32,
    };
    let norm = NormSpec { scale_in_f32: true, ..reading.spec.head.norm };
    for layer in &mut reading.spec.layers {
        let FeedForwardSpec::Dense(mlp) = layer.feed_forward else { continue };
        grouped(layer).sinks = true;
        layer.norms = NormPlacement::Before(norm);
        layer.feed_forward = FeedForwardSpec::Experts(ExpertsSpec {
            count,
            router,
            expert: MlpSpec { bias: true, activation, ..mlp },
            storage: ExpertStorage::Stacked { interleaved: true, swapped_in_peft: false },
            shared: None,
            names: ExpertNames { router: "router", ..experts::NAMES },
        });
    }
    reading.spec.head.norm = norm;
    Ok(reading)
}
