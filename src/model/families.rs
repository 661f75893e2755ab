//! Model families: each turns its `config.json` into a [`DecoderSpec`]. Pure, no tensors.
//!
//! A family is a row in [`FAMILIES`] and a file below this one. Whatever changes the computation and is
//! not supported is refused by name, key and value; the same model written in hub style and in
//! transformers 5 style gives the same specification.

mod config;
mod dense;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod rope;
mod sliding;
#[cfg(test)]
pub(crate) mod tests;
mod unsupported;

use std::path::Path;

use serde_json::Value;

pub use config::ConfigError;

use self::config::{Config, shown};
use self::rope::Rope;
use super::spec::DecoderSpec;

/// A family of models that share a `config.json` format.
#[derive(Debug)]
pub struct Family {
    /// Its name for people.
    pub name: &'static str,
    /// The values of `model_type` that mean it.
    pub model_types: &'static [&'static str],
    /// A published base model of the family, for messages and documentation.
    pub example: &'static str,
    spec: fn(&Config) -> Result<DecoderSpec, ConfigError>,
}

/// Every supported family.
pub const FAMILIES: &[Family] = &[llama::FAMILY, mistral::FAMILY, qwen2::FAMILY, qwen3::FAMILY];

/// Model types that are known and not supported yet; to name them is kinder than to guess at them.
const NOT_YET: &[&str] = &[
    "deepseek_v2",
    "deepseek_v3",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gpt_oss",
    "llama4",
    "llama4_text",
    "mistral3",
    "mixtral",
    "phi",
    "phi3",
    "qwen2_moe",
    "qwen3_moe",
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
}

/// Finds the family of `config`, the content of the `config.json` at `config_path`, and reads it.
pub fn resolve(config: &Value, config_path: &Path) -> Result<ResolvedFamily, ConfigError> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    let is_of = |family: &&Family| model_type.is_some_and(|name| family.model_types.contains(&name));
    let (Some(family), Some(object)) = (FAMILIES.iter().find(is_of), config.as_object()) else {
        return Err(unknown_family(config, config_path));
    };
    let config = Config::new(config_path, family.name, object);
    let spec = (family.spec)(&config)?;
    let rope = Rope::read(&config)?.to_string();
    Ok(ResolvedFamily { family: family.name, spec, rope })
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
    let similar = |name: &&&str| strsim::damerau_levenshtein(name, &value) <= 2;
    let (problem, hint) = if NOT_YET.contains(&value.as_str()) {
        ("a family that is not supported yet", "use a base model of a supported family".into())
    } else if let Some(name) = supported.iter().find(similar) {
        ("an unknown family", format!("did you mean `{name}`?").into())
    } else {
        ("an unknown family", "use a base model of a supported family".into())
    };
    ConfigError::UnknownFamily { path, value: value.into(), problem, supported: listed.into(), hint }
}
