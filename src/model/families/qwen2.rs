//! Qwen 2 and 2.5.
//!
//! After transformers' `configuration_qwen2.py`: biases on queries, keys and values and nowhere else;
//! a sliding window only if `use_sliding_window`, and then on the upper layers. `vocab_size` is padded
//! beyond the tokenizer's.

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder};
use super::trunk::Defaults;
use super::{Family, Reading, sliding};

/// The family's row.
pub(super) const FAMILY: Family = Family { name: "qwen2", model_types: &["qwen2"], example: "Qwen/Qwen2.5-0.5B", read };

fn read(config: &Config) -> Result<Reading, ConfigError> {
    let defaults = Defaults { positions: 32_768, ..PLAIN.defaults };
    decoder(
        config,
        &Quirks { defaults, default_kv_heads: Some(32), qkv_bias: true, reach: sliding::upper_layers, ..PLAIN },
    )
}
