//! Llama 2 and 3, and the many models published in their format (SmolLM2, TinyLlama, Yi).
//!
//! After transformers' `configuration_llama.py`. Biases are optional; every layer looks back to the
//! beginning; the rotary embedding may be scaled.

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder};
use super::{Family, Reading};

/// The family's row.
pub(super) const FAMILY: Family =
    Family { name: "llama", model_types: &["llama"], example: "meta-llama/Llama-3.1-8B", read };

fn read(config: &Config) -> Result<Reading, ConfigError> {
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    let mlp_bias = config.flag("mlp_bias")?.unwrap_or(false);
    decoder(config, &Quirks { qkv_bias: attention_bias, output_bias: attention_bias, mlp_bias, ..PLAIN })
}
