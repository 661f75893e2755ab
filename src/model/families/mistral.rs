//! Mistral 7B and Nemo.
//!
//! After transformers' `configuration_mistral.py`: no biases, one sliding window for all layers or
//! none, heads whose width need not be `hidden_size / num_attention_heads`. Keys that are not written
//! have defaults of their own here, which `null` does not mean.

use super::config::{Config, ConfigError};
use super::dense::{Quirks, decoder};
use super::{Family, sliding};
use crate::model::spec::DecoderSpec;

/// The family's row.
pub(super) const FAMILY: Family =
    Family { name: "mistral", model_types: &["mistral"], example: "mistralai/Mistral-Nemo-Base-2407", spec };

fn spec(config: &Config) -> Result<DecoderSpec, ConfigError> {
    decoder(
        config,
        &Quirks {
            default_kv_heads: Some(8),
            default_head_dim: None,
            default_positions: 131_072,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            reach: |config, layers| sliding::same_window(config, layers, 4096),
        },
    )
}
