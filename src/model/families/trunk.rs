//! Keys that every family spells alike: sizes of the whole, norms, head, activation.

use super::config::{Config, ConfigError, OTHER_FAMILY};
use super::rope::POSITIONS_LIMIT;
use crate::model::spec::{Activation, DecoderSpec, HeadSpec, LayerSpec, MlpSpec, NormSpec};

// Far above any model, and low enough that no product of them overflows and no list of layers fills the memory.
const LAYERS_LIMIT: usize = 1 << 12;
const HIDDEN_LIMIT: usize = 1 << 20;
const VOCAB_LIMIT: usize = 1 << 26;
/// Widest perceptron that is believed.
pub(super) const INTERMEDIATE_LIMIT: usize = 1 << 22;

/// The decoder without its layers.
pub(super) struct Trunk<'a> {
    pub(super) config: Config<'a>,
    pub(super) hidden: usize,
    /// Number of layers.
    pub(super) layers: usize,
    /// Every norm, unless the family says otherwise.
    pub(super) norm: NormSpec,
    positions: usize,
    vocab: usize,
    tied: bool,
    initializer_range: f64,
}

/// Values of missing keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    /// `max_position_embeddings`.
    pub(super) positions: usize,
    /// `rms_norm_eps`.
    pub(super) epsilon: f64,
    /// `tie_word_embeddings`.
    pub(super) tied: bool,
}

impl<'a> Trunk<'a> {
    /// Reads the sizes.
    pub(super) fn read(config: &Config<'a>, defaults: Defaults) -> Result<Trunk<'a>, ConfigError> {
        Ok(Trunk {
            hidden: config.required_size("hidden_size", HIDDEN_LIMIT)?,
            layers: config.required_size("num_hidden_layers", LAYERS_LIMIT)?,
            norm: NormSpec::plain(config.positive("rms_norm_eps")?.unwrap_or(defaults.epsilon)),
            positions: config.size("max_position_embeddings", POSITIONS_LIMIT)?.unwrap_or(defaults.positions),
            vocab: config.required_size("vocab_size", VOCAB_LIMIT)?,
            tied: config.flag("tie_word_embeddings")?.unwrap_or(defaults.tied),
            initializer_range: config.positive("initializer_range")?.unwrap_or(0.02),
            config: *config,
        })
    }

    /// The decoder with these layers.
    pub(super) fn decoder(&self, layers: Vec<LayerSpec>) -> DecoderSpec {
        DecoderSpec {
            vocab: self.vocab,
            hidden: self.hidden,
            embed_scale: 1.0,
            layers,
            head: HeadSpec { norm: self.norm, tied: self.tied },
            max_positions: self.positions,
            initializer_range: self.initializer_range,
            prefix: "",
            class_path: "model.",
        }
    }

    /// A perceptron without biases whose width is under `key`.
    pub(super) fn mlp(&self, key: &str) -> Result<MlpSpec, ConfigError> {
        Ok(MlpSpec {
            intermediate: self.config.required_size(key, INTERMEDIATE_LIMIT)?,
            bias: false,
            fused_gate_up: false,
            activation: activation(&self.config)?,
        })
    }
}

fn activation(config: &Config) -> Result<Activation, ConfigError> {
    let key = if config.value("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    config.without_effect(&["hidden_act"]);
    match config.text(key)? {
        // Two names of the same function.
        None | Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
        Some(_) => Err(config.unsupported(key, "one of `silu`, `gelu_pytorch_tanh`", OTHER_FAMILY)),
    }
}
