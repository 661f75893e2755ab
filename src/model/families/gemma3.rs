//! Gemma 3: the text models, and the language model of the multimodal ones.
//!
//! After transformers' `configuration_gemma3.py`: embeddings scaled by the root of the width, norms that
//! scale by one plus their weight and stand before and after attention and feed-forward, layers with a
//! window and their own rotary frequencies between layers without, a custom scale of the scores.

use serde_json::{Value, json};

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder, grouped};
use super::rope::Rope;
use super::trunk::Defaults;
use super::{Family, Ignored, Reading, sliding, switches};
use crate::model::spec::{NormPlacement, NormSpec, QkNorm, Reach, RopePairs};

/// The family's row.
pub(super) const FAMILY: Family =
    Family { name: "gemma3", model_types: &["gemma3_text", "gemma3"], example: "google/gemma-3-1b-pt", read };

/// Keys of a multimodal model that are about images.
const IMAGES: &[&str] = &[
    "vision_config",
    "mm_tokens_per_image",
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
    // Where the whole model says whether its head is tied, the part does not.
    let tied = config.flag("tie_word_embeddings")?.map(|tied| ("tie_word_embeddings", json!(tied)));
    let text_with_head = text.without("tie_word_embeddings").completed(tied.as_slice());
    let mut reading = text_model(&text.with(&text_with_head))?;
    (reading.spec.prefix, reading.spec.class_path) = ("language_model.", "model.language_model.");
    reading.ignored = vec![
        Ignored { prefix: "vision_tower.".to_owned(), what: "the vision encoder" },
        Ignored { prefix: "multi_modal_projector.".to_owned(), what: "the projector of images" },
    ];
    Ok(reading)
}

/// Values of missing keys; published multimodal models leave them out.
fn defaults() -> [(&'static str, Value); 6] {
    [
        ("vocab_size", json!(262_208)),
        ("hidden_size", json!(2304)),
        ("intermediate_size", json!(9216)),
        ("num_hidden_layers", json!(26)),
        ("num_attention_heads", json!(8)),
        ("hidden_activation", json!("gelu_pytorch_tanh")),
    ]
}

fn text_model(config: &Config) -> Result<Reading, ConfigError> {
    let completed = config.completed(&defaults());
    let config = &config.with(&completed);
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    let theta = 1e6;
    let full = Rope::read_layer_type(config, sliding::FULL, theta)?;
    let local = Rope::read_layer_type(config, sliding::SLIDING, 10_000.0)?;
    config.without_effect(&["rope_local_base_freq"]);
    // What is written for each kind of layer is read above; the shared reader sees the rest.
    let config = &if full.is_some() { config.without("rope_parameters") } else { *config };
    let quirks = Quirks {
        defaults: Defaults { positions: 131_072, epsilon: 1e-6, tied: true },
        default_kv_heads: Some(4),
        default_head_dim: Some(256),
        default_theta: theta,
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        qk_norm: true,
        reach: sliding::every_nth_full,
        reads: &["query_pre_attn_scalar", "rope_local_base_freq"],
        ..PLAIN
    };
    let mut reading = decoder(config, &quirks)?;
    let full = match full {
        Some(full) => full,
        None => Rope::read_with(config, theta)?,
    };
    let local = match local {
        Some(local) => local,
        None => Rope::plain(config.positive("rope_local_base_freq")?.unwrap_or(10_000.0)),
    };
    let scale = config.positive("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5) as f32;
    let norm = NormSpec { offset: 1.0, scale_in_f32: true, ..reading.spec.head.norm };
    for layer in &mut reading.spec.layers {
        layer.norms = NormPlacement::Around(norm);
        let attention = grouped(layer);
        let rope = if attention.reach == Reach::Full { &full } else { &local };
        attention.rope = Some(rope.spec(attention.head_dim, RopePairs::Halves));
        attention.qk_norm = QkNorm::BeforeRope(norm);
        attention.scale = scale;
    }
    reading.spec.head.norm = norm;
    reading.spec.embed_scale = (reading.spec.hidden as f64).sqrt() as f32;
    reading.rope = format!("{full}; layers with a window: {local}");
    Ok(reading)
}
