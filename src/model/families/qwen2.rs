//! Qwen 2 and 2.5.
//!
//! After transformers' `configuration_qwen2.py`: biases on queries, keys and values and nowhere else;
//! a sliding window only if `use_sliding_window`, and then on the upper layers. `vocab_size` is padded
//! beyond the tokenizer's.

use super::config::{Config, ConfigError};
use super::dense::{Quirks, decoder};
use super::{Family, sliding};
use crate::model::spec::DecoderSpec;

/// The family's row.
pub(super) const FAMILY: Family = Family { name: "qwen2", model_types: &["qwen2"], example: "Qwen/Qwen2.5-0.5B", spec };

fn spec(config: &Config) -> Result<DecoderSpec, ConfigError> {
    decoder(
        config,
        &Quirks {
            default_kv_heads: None,
            default_head_dim: None,
            default_positions: 32_768,
            qkv_bias: true,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            reach: sliding::upper_layers,
        },
    )
}
