//! Mixtral: Mistral with experts in every layer.
//!
//! After transformers' `configuration_mixtral.py`: a softmax over all experts, of which the chosen
//! weights are divided by their sum.

use super::config::{Config, ConfigError};
use super::dense::{PLAIN, Quirks, decoder};
use super::trunk::Defaults;
use super::{Family, Reading, experts, sliding};
use crate::model::spec::{ExpertNames, ExpertStorage, ExpertsSpec, FeedForwardSpec};

/// The family's row.
pub(super) const FAMILY: Family =
    Family { name: "mixtral", model_types: &["mixtral"], example: "mistralai/Mixtral-8x7B-v0.1", read };

fn read(config: &Config) -> Result<Reading, ConfigError> {
    let quirks = Quirks {
        defaults: Defaults { positions: 131_072, epsilon: 1e-5, ..PLAIN.defaults },
        default_kv_heads: Some(8),
        default_theta: 1e6,
        reach: |config, layers| sliding::same_window(config, layers, None),
        reads: &["num_local_experts"],
        ..PLAIN
    };
    let mut reading = decoder(config, &quirks)?;
    let count = experts::count(config, &["num_local_experts"])?;
    let router = experts::router(config, count, 2)?;
    for layer in &mut reading.spec.layers {
        let FeedForwardSpec::Dense(expert) = layer.feed_forward else { continue };
        layer.feed_forward_name = "block_sparse_moe";
        layer.feed_forward = FeedForwardSpec::Experts(ExpertsSpec {
            count,
            router,
            expert,
            storage: ExpertStorage::Separate,
            shared: None,
            names: ExpertNames { gate: "w1", up: "w3", down: "w2", ..experts::NAMES },
        });
    }
    Ok(reading)
}
