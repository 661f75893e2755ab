//! Model families: each turns its `config.json` into a [`DecoderSpec`]. Pure, no tensors.
//!
//! A family is a row in [`FAMILIES`] and a file below this one. Whatever changes the computation and is
//! not supported is refused by name, key and value; the same model written in hub style and in
//! transformers 5 style gives the same specification.

mod config;
mod deepseek_v3;
mod dense;
mod experts;
mod gemma3;
mod gpt_oss;
mod llama;
mod llama4;
mod mistral;
mod mixtral;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod rope;
mod sliding;
mod switches;
#[cfg(test)]
pub(crate) mod tests;
mod trunk;

use std::path::Path;

use serde_json::Value;

pub use config::ConfigError;

use self::config::{AS_PUBLISHED, Asked, Config, shown};
use super::spec::{DecoderSpec, FeedForwardSpec};
use crate::text::nearest;

/// A family of models that share a `config.json` format.
#[derive(Debug)]
pub struct Family {
    /// Its name for people.
    pub name: &'static str,
    /// The values of `model_type` that mean it.
    pub model_types: &'static [&'static str],
    /// A published base model of the family, for messages and documentation.
    pub example: &'static str,
    read: fn(&Config) -> Result<Reading, ConfigError>,
}

/// The facts that a family reads in a configuration.
#[derive(Debug)]
struct Reading {
    spec: DecoderSpec,
    /// The rotary embedding in words.
    rope: String,
    ignored: Vec<Ignored>,
}

/// Tensors of a checkpoint that are not part of the decoder: not loaded, and kept as they are in a merged export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The beginning of their names.
    pub prefix: String,
    /// Their purpose in words.
    pub what: &'static str,
}

/// Every supported family.
pub const FAMILIES: &[Family] = &[
    llama::FAMILY,
    llama4::FAMILY,
    mistral::FAMILY,
    mixtral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen3_moe::FAMILY,
    phi3::FAMILY,
    gemma3::FAMILY,
    deepseek_v3::FAMILY,
    gpt_oss::FAMILY,
];

/// Most experts of a model, layers without counting as one: ten times those of any that is published.
const MOST_EXPERTS: usize = 1 << 18;

/// Most parameters of a model: a hundred times those of any that is published.
const MOST_PARAMETERS: f64 = 1e14;

/// Model types that are known and not supported yet; to name them is kinder than to guess at them.
const NOT_YET: &[&str] = &[
    "cohere2",
    "deepseek_v2",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3n",
    "glm4",
    "granite",
    "mistral3",
    "olmo2",
    "phi",
    "qwen2_moe",
    "qwen3_5",
    "qwen3_next",
];

/// A configuration as its family reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedFamily {
    /// The family's name.
    pub family: &'static str,
    /// The decoder that the configuration describes.
    pub spec: DecoderSpec,
    /// The rotary embedding in words, such as `base 10000`.
    pub rope: String,
    /// Tensors beside the decoder's.
    pub ignored: Vec<Ignored>,
}

/// Finds the family of `config`, the content of the `config.json` at `config_path`, and reads it.
pub fn resolve(config: &Value, config_path: &Path) -> Result<ResolvedFamily, ConfigError> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    let is_of = |family: &&Family| model_type.is_some_and(|name| family.model_types.contains(&name));
    let (Some(family), Some(object)) = (FAMILIES.iter().find(is_of), config.as_object()) else {
        return Err(unknown_family(config, config_path));
    };
    let asked = Asked::default();
    let config = Config::new(config_path, family.name, object, &asked);
    let Reading { spec, rope, ignored } = (family.read)(&config)?;
    switches::refuse_unknown(&config)?;
    check_size(&config, &spec)?;
    Ok(ResolvedFamily { family: family.name, spec, rope, ignored })
}

/// Sizes that are each believable must be so together: their products are numbers of parameters and of names.
fn check_size(config: &Config, spec: &DecoderSpec) -> Result<(), ConfigError> {
    let hidden = spec.hidden as f64;
    let (mut experts, mut elements) = (0, 2.0 * spec.vocab as f64 * hidden);
    for layer in &spec.layers {
        let (count, width) = match &layer.feed_forward {
            FeedForwardSpec::Dense(mlp) => (1, mlp.intermediate),
            FeedForwardSpec::Experts(routed) => (routed.count, routed.expert.intermediate),
        };
        experts += count;
        elements += 3.0 * hidden * width as f64 * count as f64;
    }
    if experts > MOST_EXPERTS {
        let accepted = format!("what makes at most {MOST_EXPERTS} experts in all layers");
        return Err(config.wrong("num_hidden_layers", accepted, AS_PUBLISHED));
    }
    if elements > MOST_PARAMETERS {
        let accepted = format!("what makes a model of at most {MOST_PARAMETERS:e} parameters with the other sizes");
        return Err(config.wrong("hidden_size", accepted, AS_PUBLISHED));
    }
    Ok(())
}

fn unknown_family(config: &Value, config_path: &Path) -> ConfigError {
    let path = config_path.display().to_string().into();
    let supported: Vec<&str> = FAMILIES.iter().flat_map(|family| family.model_types).copied().collect();
    let listed: Vec<String> = supported.iter().map(|name| format!("`{name}`")).collect();
    let listed = listed.join(", ");
    let value = match config.get("model_type") {
        None | Some(Value::Null) => {
            let accepted = format!("one of {listed}").into();
            return ConfigError::Missing { path, key: "model_type".into(), accepted };
        }
        Some(value) => shown(value),
    };
    let (problem, hint) = if NOT_YET.contains(&value.as_str()) {
        ("a family that is not supported yet", "use a base model of a supported family".into())
    } else if let Some(name) = nearest(&value, supported.iter().copied()) {
        ("an unknown family", format!("did you mean `{name}`?").into())
    } else {
        ("an unknown family", "use a base model of a supported family".into())
    };
    ConfigError::UnknownFamily { path, value: value.into(), problem, supported: listed.into(), hint }
}
