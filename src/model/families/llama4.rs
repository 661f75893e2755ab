//! Llama 4 (Scout, Maverick): the text models, and the language model of the multimodal ones.
//!
//! After transformers' `configuration_llama4.py`: neighbours turn together; layers with positions look
//! back within a chunk and may normalise queries and keys without a weight; layers without positions
//! look back to the beginning and scale their queries with the position. Some layers have experts beside
//! a shared one, whose input the router weighs.

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder, grouped};
use super::trunk::{Defaults, INTERMEDIATE_LIMIT};
use super::{Family, Ignored, Reading, experts, sliding, switches};
use crate::model::spec::{
    ExpertNames, ExpertStorage, ExpertsSpec, FeedForwardSpec, MlpSpec, QkNorm, Reach, RopePairs, Scoring,
    TemperatureSpec, Weighs,
};

/// The family's row.
pub(super) const FAMILY: Family = Family {
    name: "llama4",
    model_types: &["llama4_text", "llama4"],
    example: "meta-llama/Llama-4-Scout-17B-16E",
    read,
};

/// Keys of a multimodal model that are about images.
const IMAGES: &[&str] = &[
    "vision_config",
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "boi_token_id",
    "eoi_token_id",
    "image_token_id",
];

fn read(config: &Config) -> Result<Reading, ConfigError> {
    let Some(text) = config.object("text_config")? else { return text_model(config) };
    switches::refuse(config, &["text_config", "vision_config"])?;
    config.without_effect(IMAGES);
    let mut reading = text_model(&text)?;
    reading.spec.prefix = "language_model.";
    reading.ignored = vec![
        Ignored { prefix: "vision_model.".to_owned(), what: "the vision encoder" },
        Ignored { prefix: "multi_modal_projector.".to_owned(), what: "the projector of images" },
    ];
    Ok(reading)
}

fn text_model(config: &Config) -> Result<Reading, ConfigError> {
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    let quirks = Quirks {
        defaults: Defaults { positions: 131_072, epsilon: 1e-5, ..PLAIN.defaults },
        default_kv_heads: Some(8),
        default_head_dim: Some(128),
        default_theta: 500_000.0,
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        pairs: RopePairs::Neighbours,
        reach: sliding::chunks,
        reads: &[
            "attention_chunk_size",
            "attn_temperature_tuning",
            "use_qk_norm",
            "no_rope_layers",
            "no_rope_layer_interval",
            "num_local_experts",
            "moe_layers",
        ],
        ..PLAIN
    };
    let mut reading = decoder(config, &quirks)?;
    let tuned = config.flag("attn_temperature_tuning")?.unwrap_or(true);
    let temperature = TemperatureSpec {
        scale: config.number("attn_scale")?.unwrap_or(0.1),
        floor: config.positive("floor_scale")?.unwrap_or(8192.0),
    };
    let qk_norm = if config.flag("use_qk_norm")?.unwrap_or(true) {
        QkNorm::AfterRope { epsilon: reading.spec.head.norm.epsilon }
    } else {
        QkNorm::None
    };
    let dense_width = config.required_size("intermediate_size_mlp", INTERMEDIATE_LIMIT)?;
    let with_experts = layers_with_experts(config, reading.spec.layers.len())?;
    let count = experts::count(config, &["num_local_experts"])?;
    let mut router = experts::router(config, count, 1)?;
    (router.scoring, router.normalise, router.weighs) = (Scoring::Sigmoid, false, Weighs::Input);
    for (layer, experts_here) in reading.spec.layers.iter_mut().zip(with_experts) {
        let FeedForwardSpec::Dense(expert) = layer.feed_forward else { continue };
        let attention = grouped(layer);
        match attention.reach {
            // A layer without a chunk is one without positions.
            Reach::Full => {
                attention.rope = None;
                attention.temperature = tuned.then_some(temperature);
            }
            Reach::Window(_) | Reach::Chunk(_) => attention.qk_norm = qk_norm,
        }
        layer.feed_forward_name = "feed_forward";
        layer.feed_forward = if experts_here {
            FeedForwardSpec::Experts(ExpertsSpec {
                count,
                router,
                expert,
                storage: ExpertStorage::Stacked { interleaved: false, swapped_in_peft: true },
                shared: Some(expert),
                names: ExpertNames { router: "router", shared: "shared_expert", ..experts::NAMES },
            })
        } else {
            FeedForwardSpec::Dense(MlpSpec { intermediate: dense_width, ..expert })
        };
    }
    Ok(reading)
}

/// True for each layer with experts: those in `moe_layers`, else every `interleave_moe_layer_step`th.
fn layers_with_experts(config: &Config, layers: usize) -> Result<Vec<bool>, ConfigError> {
    let listed = config.counts("moe_layers", layers.saturating_sub(1))?;
    let step = config.size("interleave_moe_layer_step", usize::MAX)?.unwrap_or(1);
    let has = |layer: usize| match &listed {
        Some(listed) => listed.contains(&layer),
        None => (layer + 1).is_multiple_of(step),
    };
    Ok((0..layers).map(has).collect())
}
