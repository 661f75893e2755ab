//! Keys that families with experts spell alike: the number of experts, and of those that a token uses.

use super::config::{AS_PUBLISHED, Config, ConfigError};
use crate::model::spec::{ExpertNames, RouterSpec, Scoring, Weighs};

const EXPERTS_LIMIT: usize = 1 << 16;

/// Names of experts' parts as most families have them.
pub(super) const NAMES: ExpertNames =
    ExpertNames { router: "gate", gate: "gate_proj", up: "up_proj", down: "down_proj", shared: "shared_experts" };

/// Experts, under the first of `keys` that is written.
pub(super) fn count(config: &Config, keys: &[&str]) -> Result<usize, ConfigError> {
    config.without_effect(keys);
    let key = keys.iter().find(|key| config.value(key).is_some()).unwrap_or(&keys[0]);
    config.required_size(key, EXPERTS_LIMIT)
}

/// A router that chooses `num_experts_per_tok` of `count` by a softmax over all; families change the rest.
pub(super) fn router(config: &Config, count: usize, default_chosen: usize) -> Result<RouterSpec, ConfigError> {
    let key = "num_experts_per_tok";
    let chosen = config.size(key, EXPERTS_LIMIT)?.unwrap_or(default_chosen);
    if chosen > count {
        return Err(config.wrong(key, format!("at most the number of experts, {count},"), AS_PUBLISHED));
    }
    Ok(RouterSpec {
        chosen,
        scoring: Scoring::Softmax,
        normalise: true,
        scale: 1.0,
        groups: None,
        correction: false,
        bias: false,
        weighs: Weighs::Output,
    })
}
