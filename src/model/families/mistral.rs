//! Mistral 7B, Nemo, Large 2.
//!
//! After transformers' `configuration_mistral.py`: no biases, one sliding window for all layers or
//! none, heads whose width need not be `hidden_size / num_attention_heads`. Keys that are not written
//! have other defaults here than `null` means.

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder};
use super::trunk::Defaults;
use super::{Family, Reading, sliding};

/// The family's row.
pub(super) const FAMILY: Family =
    Family { name: "mistral", model_types: &["mistral"], example: "mistralai/Mistral-Nemo-Base-2407", read };

fn read(config: &Config) -> Result<Reading, ConfigError> {
    decoder(
        config,
        &Quirks {
            defaults: Defaults { positions: 131_072, ..PLAIN.defaults },
            default_kv_heads: Some(8),
            reach: |config, layers| sliding::same_window(config, layers, Some(4096)),
            ..PLAIN
        },
    )
}
