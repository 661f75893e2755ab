//! Phi-3, Phi-4 and Phi-4-mini.
//!
//! After transformers' `configuration_phi3.py`: queries, keys and values are one projection and so are
//! gate and up; a part of each head may have no position; LongRoPE (`su` in old files); one sliding
//! window for all layers or none.

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder};
use super::trunk::Defaults;
use super::{Family, Reading, sliding};

/// The family's row.
pub(super) const FAMILY: Family = Family { name: "phi3", model_types: &["phi3"], example: "microsoft/phi-4", read };

fn read(config: &Config) -> Result<Reading, ConfigError> {
    decoder(
        config,
        &Quirks {
            defaults: Defaults { positions: 4096, epsilon: 1e-5, ..PLAIN.defaults },
            fused: true,
            reach: |config, layers| sliding::same_window(config, layers, None),
            reads: &["partial_rotary_factor"],
            ..PLAIN
        },
    )
}
