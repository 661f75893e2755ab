//! Qwen 3, the dense models.
//!
//! After transformers' `configuration_qwen3.py`: RMSNorm on queries and keys per head before the rotary
//! embedding, heads of 128 unless the file says otherwise, optional biases on all four projections of
//! attention, sliding windows by the rule of Qwen 2.

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder};
use super::trunk::Defaults;
use super::{Family, Reading, sliding};

/// The family's row.
pub(super) const FAMILY: Family = Family { name: "qwen3", model_types: &["qwen3"], example: "Qwen/Qwen3-0.6B", read };

fn read(config: &Config) -> Result<Reading, ConfigError> {
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    decoder(
        config,
        &Quirks {
            defaults: Defaults { positions: 32_768, ..PLAIN.defaults },
            default_kv_heads: Some(32),
            default_head_dim: Some(128),
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            qk_norm: true,
            reach: sliding::upper_layers,
            reads: &["use_qk_norm"],
            ..PLAIN
        },
    )
}
