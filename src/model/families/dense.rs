//! Families of grouped attention and one gated perceptron, spelt alike.
//!
//! A family says where it departs ([`Quirks`]); [`decoder`] reads the rest and writes the layers out.
//! Families with other layers start from these and change them.

use super::config::{AS_PUBLISHED, Config, ConfigError};
use super::rope::Rope;
use super::trunk::{Defaults, Trunk};
use super::{Reading, sliding, switches};
use crate::model::spec::{
    AttentionSpec, FeedForwardSpec, GroupedSpec, LayerSpec, NormPlacement, QkNorm, Reach, RopePairs,
};

const HEADS_LIMIT: usize = 1 << 14;
const HEAD_DIM_LIMIT: usize = 1 << 12;

/// The differences of a family from Llama.
#[derive(Clone, Copy)]
pub(super) struct Quirks {
    /// Values of missing keys.
    pub(super) defaults: Defaults,
    /// Key and value heads where the key is not written; as many as query heads if `None`.
    pub(super) default_kv_heads: Option<usize>,
    /// Head width where the key is missing; `hidden_size / num_attention_heads` if `None`.
    pub(super) default_head_dim: Option<usize>,
    /// Base of the rotary frequencies where the key is missing.
    pub(super) default_theta: f64,
    /// Bias on the projections to queries, keys and values.
    pub(super) qkv_bias: bool,
    /// Bias on the projection out of attention.
    pub(super) output_bias: bool,
    /// Bias on the projections of the perceptron.
    pub(super) mlp_bias: bool,
    /// If set, queries, keys and values are one projection, and gate and up another.
    pub(super) fused: bool,
    /// RMSNorm on queries and keys before the rotary embedding.
    pub(super) qk_norm: bool,
    /// The values of a head that turn together.
    pub(super) pairs: RopePairs,
    /// The reach of each of this many layers.
    pub(super) reach: fn(&Config, usize) -> Result<Vec<Reach>, ConfigError>,
    /// Keys that most families refuse and this one reads.
    pub(super) reads: &'static [&'static str],
}

/// Llama's own.
pub(super) const PLAIN: Quirks = Quirks {
    defaults: Defaults { positions: 2048, epsilon: 1e-6, tied: false },
    default_kv_heads: None,
    default_head_dim: None,
    default_theta: 10_000.0,
    qkv_bias: false,
    output_bias: false,
    mlp_bias: false,
    fused: false,
    qk_norm: false,
    pairs: RopePairs::Halves,
    reach: sliding::full,
    reads: &[],
};

/// Reads the whole configuration of a family with these quirks.
pub(super) fn decoder(config: &Config, quirks: &Quirks) -> Result<Reading, ConfigError> {
    switches::refuse(config, quirks.reads)?;
    if quirks.qk_norm && config.flag("use_qk_norm")? == Some(false) {
        let hint = "use a model of a supported family; leaving the key out would compute something else";
        return Err(config.unsupported("use_qk_norm", "`true`", hint));
    }
    let trunk = Trunk::read(config, quirks.defaults)?;
    let heads = config.required_size("num_attention_heads", HEADS_LIMIT)?;
    let kv_heads = kv_heads(config, heads, quirks.default_kv_heads)?;
    let head_dim = head_dim(config, trunk.hidden, heads, quirks.default_head_dim)?;
    let mut mlp = trunk.mlp("intermediate_size")?;
    (mlp.bias, mlp.fused_gate_up) = (quirks.mlp_bias, quirks.fused);
    let rope = Rope::read_with(config, quirks.default_theta)?;
    rope.check(config, head_dim)?;
    let rope_spec = rope.spec(head_dim, quirks.pairs);
    let layer = |reach: Reach| LayerSpec {
        attention: AttentionSpec::Grouped(GroupedSpec {
            heads,
            kv_heads,
            head_dim,
            fused_qkv: quirks.fused,
            qkv_bias: quirks.qkv_bias,
            output_bias: quirks.output_bias,
            scale: (head_dim as f64).powf(-0.5) as f32,
            reach,
            qk_norm: if quirks.qk_norm { QkNorm::BeforeRope(trunk.norm) } else { QkNorm::None },
            rope: Some(rope_spec.clone()),
            temperature: None,
            sinks: false,
        }),
        feed_forward: FeedForwardSpec::Dense(mlp),
        feed_forward_name: "mlp",
        norms: NormPlacement::Before(trunk.norm),
    };
    let layers = (quirks.reach)(config, trunk.layers)?.into_iter().map(layer).collect();
    Ok(Reading { spec: trunk.decoder(layers), rope: rope.to_string(), ignored: Vec::new() })
}

/// Query heads.
pub(super) fn heads(config: &Config) -> Result<usize, ConfigError> {
    config.required_size("num_attention_heads", HEADS_LIMIT)
}

/// The width of a part of a head.
pub(super) fn part_of_head(config: &Config, key: &str) -> Result<usize, ConfigError> {
    config.required_size(key, HEAD_DIM_LIMIT)
}

/// The grouped attention of a layer that [`decoder`] made.
pub(super) fn grouped(layer: &mut LayerSpec) -> &mut GroupedSpec {
    match &mut layer.attention {
        AttentionSpec::Grouped(grouped) => grouped,
        AttentionSpec::Latent(_) => unreachable!("these families have grouped attention"),
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
        let accepted = format!("a number of key and value heads that divides `num_attention_heads`, {heads},");
        return Err(if config.has(key) {
            config.wrong(key, accepted, AS_PUBLISHED)
        } else {
            config.missing(key, &accepted)
        });
    }
    Ok(kv_heads)
}

fn head_dim(config: &Config, hidden: usize, heads: usize, default: Option<usize>) -> Result<usize, ConfigError> {
    let written = config.size("head_dim", HEAD_DIM_LIMIT)?;
    let (head_dim, key) = match written.or(default) {
        Some(head_dim) => (head_dim, "head_dim"),
        None if hidden.is_multiple_of(heads) && hidden / heads <= HEAD_DIM_LIMIT => (hidden / heads, "hidden_size"),
        None => {
            let accepted = format!("a multiple of `num_attention_heads`, {heads}, where `head_dim` is missing,");
            return Err(config.wrong("hidden_size", accepted, AS_PUBLISHED));
        }
    };
    if !head_dim.is_multiple_of(2) {
        let accepted = "what makes heads of an even width, as the rotary embedding needs,";
        return Err(config.wrong(key, accepted, AS_PUBLISHED));
    }
    Ok(head_dim)
}
