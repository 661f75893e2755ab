//! Qwen 3, the models with experts (30B-A3B, 235B-A22B).
//!
//! After transformers' `configuration_qwen3_moe.py`: attention as in Qwen 3 except that a sliding window
//! holds on all layers; a layer has experts unless it is listed in `mlp_only_layers` or its number, from
//! 1, is not a multiple of `decoder_sparse_step`.

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder};
use super::trunk::{Defaults, INTERMEDIATE_LIMIT};
use super::{Family, Reading, experts, sliding};
use crate::model::spec::{ExpertStorage, ExpertsSpec, FeedForwardSpec, MlpSpec};

/// The family's row.
pub(super) const FAMILY: Family =
    Family { name: "qwen3_moe", model_types: &["qwen3_moe"], example: "Qwen/Qwen3-30B-A3B", read };

fn read(config: &Config) -> Result<Reading, ConfigError> {
    // Of the dense models: here a window holds on all layers.
    config.without_effect(&["max_window_layers"]);
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    let quirks = Quirks {
        defaults: Defaults { positions: 32_768, ..PLAIN.defaults },
        default_kv_heads: Some(4),
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        qk_norm: true,
        reach: sliding::gated_window,
        reads: &["num_experts", "num_local_experts", "use_qk_norm"],
        ..PLAIN
    };
    let mut reading = decoder(config, &quirks)?;
    let layers = reading.spec.layers.len();
    let dense = config.counts("mlp_only_layers", layers.saturating_sub(1))?.unwrap_or_default();
    let step = config.size("decoder_sparse_step", usize::MAX)?.unwrap_or(1);
    let count = experts::count(config, &["num_experts", "num_local_experts"])?;
    let mut router = experts::router(config, count, 8)?;
    router.normalise = config.flag("norm_topk_prob")?.unwrap_or(false);
    let intermediate = config.required_size("moe_intermediate_size", INTERMEDIATE_LIMIT)?;
    for (index, layer) in reading.spec.layers.iter_mut().enumerate() {
        let FeedForwardSpec::Dense(mlp) = layer.feed_forward else { continue };
        if dense.contains(&index) || !(index + 1).is_multiple_of(step) {
            continue;
        }
        layer.feed_forward = FeedForwardSpec::Experts(ExpertsSpec {
            count,
            router,
            expert: MlpSpec { intermediate, ..mlp },
            storage: ExpertStorage::Separate,
            shared: None,
            names: experts::NAMES,
        });
    }
    Ok(reading)
}
