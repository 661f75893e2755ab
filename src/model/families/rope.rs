//! Rotary frequencies from `config.json`, in every spelling of it.
//!
//! Hub style is `rope_theta` beside `rope_scaling` (with `rope_type`, or `type` in old files);
//! transformers 5 puts all of it into `rope_parameters`. Scalings: none, linear, llama3. The arithmetic
//! is f32, step by step as in transformers' `modeling_rope_utils.py`, so that frequencies agree to an ulp.

use std::fmt;

use super::config::{Config, ConfigError};
use crate::model::spec::RopeSpec;

/// Base of the frequencies where a configuration names none.
const DEFAULT_THETA: f64 = 10_000.0;
/// Largest context that is believed.
const POSITIONS_LIMIT: usize = 1 << 32;

/// The rotary embedding as a configuration describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rope {
    theta: f64,
    scaling: Scaling,
}

#[derive(Debug, Clone, PartialEq)]
enum Scaling {
    None,
    Linear { factor: f64 },
    Llama3 { factor: f64, low: f64, high: f64, original: usize },
}

impl Rope {
    /// Reads `rope_parameters`, `rope_scaling` and `rope_theta`.
    pub(super) fn read(config: &Config) -> Result<Rope, ConfigError> {
        let outer_theta = config.positive("rope_theta")?;
        let parameters = config.object("rope_parameters")?;
        let scaling = config.object("rope_scaling")?;
        let of = |object: &Config| read_object(object, outer_theta);
        match (parameters, scaling) {
            (Some(parameters), Some(scaling)) => {
                let rope = of(&parameters)?;
                if rope != of(&scaling)? {
                    return Err(config.wrong(
                        "rope_scaling",
                        "the same as in `rope_parameters`",
                        "the two contradict each other: keep one of them",
                    ));
                }
                Ok(rope)
            }
            (Some(object), None) | (None, Some(object)) => of(&object),
            (None, None) => Ok(Rope { theta: outer_theta.unwrap_or(DEFAULT_THETA), scaling: Scaling::None }),
        }
    }

    /// The frequencies for heads of `head_dim`, an even number.
    pub(super) fn spec(&self, head_dim: usize) -> RopeSpec {
        let inv_freq = (0..head_dim / 2).map(|pair| self.scaled(self.frequency(pair, head_dim)));
        RopeSpec { inv_freq: inv_freq.collect(), attention_scaling: 1.0 }
    }

    fn frequency(&self, pair: usize, head_dim: usize) -> f32 {
        let exponent = (2 * pair) as f32 / head_dim as f32;
        // The power alone in f64: powf in f32 differs between machines, its rounded result does not.
        let power = f64::from(self.theta as f32).powf(f64::from(exponent)) as f32;
        1.0 / power
    }

    fn scaled(&self, frequency: f32) -> f32 {
        match self.scaling {
            Scaling::None => frequency,
            Scaling::Linear { factor } => frequency / factor as f32,
            Scaling::Llama3 { factor, low, high, original } => {
                let original = original as f64;
                let wavelength = std::f32::consts::TAU / frequency;
                let slowed = frequency / factor as f32;
                if wavelength < (original / high) as f32 {
                    frequency
                } else if wavelength > (original / low) as f32 {
                    slowed
                } else {
                    let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
                    (1.0 - smooth) * slowed + smooth * frequency
                }
            }
        }
    }
}

impl fmt::Display for Rope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "base {}", self.theta)?;
        match self.scaling {
            Scaling::None => Ok(()),
            Scaling::Linear { factor } => write!(formatter, ", linear scaling by {factor}"),
            Scaling::Llama3 { factor, original, .. } => {
                write!(formatter, ", llama3 scaling by {factor} from {original} positions")
            }
        }
    }
}

fn read_object(rope: &Config, outer_theta: Option<f64>) -> Result<Rope, ConfigError> {
    for (key, value) in rope.entries() {
        if value.is_object() {
            return Err(rope.unsupported(
                key,
                "one rotary embedding for all layers",
                "use a model of a supported family",
            ));
        }
    }
    for key in ["mrope_section", "mrope_interleaved", "long_factor", "short_factor"] {
        if rope.value(key).is_some_and(|value| value.as_bool() != Some(false)) {
            return Err(rope.unsupported(key, "its absence", "use the text-only checkpoint of the model"));
        }
    }
    if rope.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        return Err(rope.unsupported("partial_rotary_factor", "1.0", "use a model that rotates whole heads"));
    }
    let theta = rope.positive("rope_theta")?;
    if let (Some(inner), Some(outer)) = (theta, outer_theta)
        && inner != outer
    {
        return Err(rope.wrong(
            "rope_theta",
            format!("`{outer}`, as outside of it,"),
            "the two contradict each other: keep one of them",
        ));
    }
    let theta = theta.or(outer_theta).unwrap_or(DEFAULT_THETA);
    let scaling = match rope_type(rope)? {
        "default" => Scaling::None,
        "linear" => Scaling::Linear { factor: factor(rope)? },
        "llama3" => {
            let needed = |key| rope.positive(key)?.ok_or_else(|| rope.missing(key, "a number above 0"));
            let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
            if low >= high {
                return Err(rope.wrong(
                    "low_freq_factor",
                    format!("a number below `high_freq_factor`, {high},"),
                    "use the `config.json` that the model was published with",
                ));
            }
            let original = rope.required_size("original_max_position_embeddings", POSITIONS_LIMIT)?;
            Scaling::Llama3 { factor: factor(rope)?, low, high, original }
        }
        _ => {
            let key = if rope.value("rope_type").is_some() { "rope_type" } else { "type" };
            return Err(rope.unsupported(
                key,
                "one of `default`, `linear`, `llama3`",
                "use a checkpoint without this scaling; leaving the key out would compute something else",
            ));
        }
    };
    Ok(Rope { theta, scaling })
}

fn rope_type<'a>(rope: &Config<'a>) -> Result<&'a str, ConfigError> {
    match (rope.text("rope_type")?, rope.text("type")?) {
        (Some(new), Some(old)) if new != old => Err(rope.unsupported(
            "type",
            format!("the same as in `rope_type`, `{new}`,"),
            "the two contradict each other: use a model of a supported family",
        )),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) if rope.value("factor").is_some() => {
            Err(rope.missing("rope_type", "one of `default`, `linear`, `llama3`"))
        }
        (None, None) => Ok("default"),
    }
}

fn factor(rope: &Config) -> Result<f64, ConfigError> {
    let factor = rope.positive("factor")?.ok_or_else(|| rope.missing("factor", "a number of at least 1"))?;
    if factor < 1.0 {
        let hint = "use the `config.json` that the model was published with";
        return Err(rope.wrong("factor", "a number of at least 1", hint));
    }
    Ok(factor)
}
