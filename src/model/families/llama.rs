//! Llama 2 and 3, and the many models published in their format (SmolLM2, TinyLlama, Yi).
//!
//! After transformers' `configuration_llama.py`. Biases are optional; every layer looks back to the
//! beginning; the rotary embedding may be scaled (`linear`, `llama3`).

use super::config::{Config, ConfigError};
use super::dense::{Quirks, decoder};
use super::{Family, sliding};
use crate::model::spec::DecoderSpec;

/// The family's row.
pub(super) const FAMILY: Family =
    Family { name: "llama", model_types: &["llama"], example: "meta-llama/Llama-3.1-8B", spec };

fn spec(config: &Config) -> Result<DecoderSpec, ConfigError> {
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    decoder(
        config,
        &Quirks {
            default_kv_heads: None,
            default_head_dim: None,
            default_positions: 2048,
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            mlp_bias: config.flag("mlp_bias")?.unwrap_or(false),
            qk_norm: false,
            reach: sliding::full,
        },
    )
}
