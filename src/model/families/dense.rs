//! The keys that families of grouped attention and one gated perceptron spell alike.
//!
//! A family says where it departs ([`Quirks`]); [`decoder`] reads the rest and writes the layers out.

use super::config::{Config, ConfigError};
use super::rope::Rope;
use super::unsupported;
use crate::model::spec::{
    Activation, AttentionSpec, DecoderSpec, FeedForwardSpec, GroupedSpec, HeadSpec, LayerSpec, MlpSpec, NormSpec,
    QkNorm, Reach,
};

// Far above any model, and low enough that no product of them overflows and no list of layers fills the memory.
const LAYERS_LIMIT: usize = 1 << 12;
const HIDDEN_LIMIT: usize = 1 << 20;
const INTERMEDIATE_LIMIT: usize = 1 << 22;
const HEADS_LIMIT: usize = 1 << 14;
const HEAD_DIM_LIMIT: usize = 1 << 12;
const VOCAB_LIMIT: usize = 1 << 26;
const POSITIONS_LIMIT: usize = 1 << 32;

/// Where a family departs from the others.
pub(super) struct Quirks {
    /// Key and value heads where the key is not written; as many as query heads if `None`.
    pub(super) default_kv_heads: Option<usize>,
    /// Head width where the key is missing; `hidden_size / num_attention_heads` if `None`.
    pub(super) default_head_dim: Option<usize>,
    /// Longest sequence where the key is missing.
    pub(super) default_positions: usize,
    /// Bias on `q_proj`, `k_proj`, `v_proj`.
    pub(super) qkv_bias: bool,
    /// Bias on `o_proj`.
    pub(super) output_bias: bool,
    /// Bias on the three projections of the perceptron.
    pub(super) mlp_bias: bool,
    /// RMSNorm on queries and keys before the rotary embedding.
    pub(super) qk_norm: bool,
    /// How far back each of this many layers looks.
    pub(super) reach: fn(&Config, usize) -> Result<Vec<Reach>, ConfigError>,
}

/// Reads the whole configuration of a family with these quirks.
pub(super) fn decoder(config: &Config, quirks: &Quirks) -> Result<DecoderSpec, ConfigError> {
    unsupported::refuse(config)?;
    let hidden = config.required_size("hidden_size", HIDDEN_LIMIT)?;
    let layers = config.required_size("num_hidden_layers", LAYERS_LIMIT)?;
    let heads = config.required_size("num_attention_heads", HEADS_LIMIT)?;
    let kv_heads = kv_heads(config, heads, quirks.default_kv_heads)?;
    let head_dim = head_dim(config, hidden, heads, quirks.default_head_dim)?;
    let norm = NormSpec { epsilon: config.positive("rms_norm_eps")?.unwrap_or(1e-6) };
    let mlp = MlpSpec {
        intermediate: config.required_size("intermediate_size", INTERMEDIATE_LIMIT)?,
        bias: quirks.mlp_bias,
        activation: activation(config)?,
    };
    let rope = Rope::read(config)?.spec(head_dim);
    let layer = |reach: Reach| LayerSpec {
        attention: AttentionSpec::Grouped(GroupedSpec {
            heads,
            kv_heads,
            head_dim,
            qkv_bias: quirks.qkv_bias,
            output_bias: quirks.output_bias,
            scale: (head_dim as f64).powf(-0.5) as f32,
            reach,
            qk_norm: if quirks.qk_norm { QkNorm::BeforeRope(norm) } else { QkNorm::None },
            rope: rope.clone(),
        }),
        feed_forward: FeedForwardSpec::Dense(mlp),
        norm,
    };
    Ok(DecoderSpec {
        vocab: config.required_size("vocab_size", VOCAB_LIMIT)?,
        hidden,
        embed_scale: 1.0,
        layers: (quirks.reach)(config, layers)?.into_iter().map(layer).collect(),
        head: HeadSpec { norm, tied: config.flag("tie_word_embeddings")?.unwrap_or(false) },
        max_positions: config.size("max_position_embeddings", POSITIONS_LIMIT)?.unwrap_or(quirks.default_positions),
        initializer_range: config.positive("initializer_range")?.unwrap_or(0.02),
    })
}

fn activation(config: &Config) -> Result<Activation, ConfigError> {
    match config.text("hidden_act")? {
        // Two names of the same function.
        None | Some("silu" | "swish") => Ok(Activation::Silu),
        Some(_) => Err(config.unsupported("hidden_act", "`silu`", "use a model of a supported family")),
    }
}

fn kv_heads(config: &Config, heads: usize, default: Option<usize>) -> Result<usize, ConfigError> {
    let key = "num_key_value_heads";
    let kv_heads = match config.size(key, HEADS_LIMIT)? {
        Some(kv_heads) => kv_heads,
        None if config.has(key) => heads,
        None => default.unwrap_or(heads),
    };
    if !heads.is_multiple_of(kv_heads) {
        let hint = "use the `config.json` that the model was published with";
        let accepted = format!("a number of key and value heads that divides `num_attention_heads`, {heads},");
        return Err(match config.has(key) {
            true => config.wrong(key, accepted, hint),
            false => config.missing(key, &accepted),
        });
    }
    Ok(kv_heads)
}

fn head_dim(config: &Config, hidden: usize, heads: usize, default: Option<usize>) -> Result<usize, ConfigError> {
    let hint = "use the `config.json` that the model was published with";
    let written = config.size("head_dim", HEAD_DIM_LIMIT)?;
    let (head_dim, key) = match written.or(default) {
        Some(head_dim) => (head_dim, "head_dim"),
        None if hidden.is_multiple_of(heads) && hidden / heads <= HEAD_DIM_LIMIT => (hidden / heads, "hidden_size"),
        None => {
            let accepted = format!("a multiple of `num_attention_heads`, {heads}, where `head_dim` is missing,");
            return Err(config.wrong("hidden_size", accepted, hint));
        }
    };
    if !head_dim.is_multiple_of(2) {
        let accepted = "what makes heads of an even width, as the rotary embedding needs,";
        return Err(config.wrong(key, accepted, hint));
    }
    Ok(head_dim)
}
