//! Rotary frequencies from `config.json`, in every spelling of it.
//!
//! Hub style is `rope_theta` beside `rope_scaling` (with `rope_type`, or `type` in old files);
//! transformers 5 puts all of it into `rope_parameters`. Scalings are in [`scaling`]. The arithmetic is
//! f32, step by step as in transformers' `modeling_rope_utils.py`, so that frequencies agree to an ulp.

mod scaling;

use std::fmt;

use self::scaling::Scaling;
use super::config::{AS_PUBLISHED, Config, ConfigError, OTHER_FAMILY};
use super::switches::OF_SCALINGS;
use crate::model::spec::{LongRope, RopePairs, RopeSpec};

/// Base of the frequencies where a configuration names none.
const DEFAULT_THETA: f64 = 10_000.0;
/// Largest context that is believed.
pub(super) const POSITIONS_LIMIT: usize = 1 << 32;

/// The rotary embedding as a configuration describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rope {
    theta: f64,
    /// Share of a head that turns.
    partial: f64,
    scaling: Scaling,
}

impl Rope {
    /// Reads `rope_parameters`, `rope_scaling` and `rope_theta`.
    pub(super) fn read(config: &Config) -> Result<Rope, ConfigError> {
        Rope::read_with(config, DEFAULT_THETA)
    }

    /// As [`Rope::read`], with the base where none is written.
    pub(super) fn read_with(config: &Config, default_theta: f64) -> Result<Rope, ConfigError> {
        let outer = Outer {
            theta: config.positive("rope_theta")?,
            default_theta,
            partial: config.share("partial_rotary_factor")?,
            original: config.size("original_max_position_embeddings", POSITIONS_LIMIT)?,
            positions: config.size("max_position_embeddings", POSITIONS_LIMIT)?,
        };
        let parameters = config.object("rope_parameters")?;
        let scaling = config.object("rope_scaling")?;
        match (parameters, scaling) {
            (Some(parameters), Some(scaling)) => {
                let rope = read_object(&parameters, &outer)?;
                if rope != read_object(&scaling, &outer)? {
                    return Err(config.wrong(
                        "rope_scaling",
                        "the same as in `rope_parameters`",
                        "the two contradict each other: keep one of them",
                    ));
                }
                Ok(rope)
            }
            (Some(object), None) | (None, Some(object)) => read_object(&object, &outer),
            (None, None) => Ok(Rope {
                theta: outer.theta.unwrap_or(default_theta),
                partial: outer.partial.unwrap_or(1.0),
                scaling: Scaling::None,
            }),
        }
    }

    /// Reads `rope_parameters` with one object for each kind of layer; `None` if they are not written that way.
    pub(super) fn read_layer_type(
        config: &Config,
        layer_type: &'static str,
        default_theta: f64,
    ) -> Result<Option<Rope>, ConfigError> {
        let Some(parameters) = config.object("rope_parameters")? else { return Ok(None) };
        let positions = config.size("max_position_embeddings", POSITIONS_LIMIT)?;
        let outer = Outer { theta: None, default_theta, partial: None, original: None, positions };
        parameters.object(layer_type)?.map(|object| read_object(&object, &outer)).transpose()
    }

    /// A rotary embedding without scaling.
    pub(super) fn plain(theta: f64) -> Rope {
        Rope { theta, partial: 1.0, scaling: Scaling::None }
    }

    /// Values of a head of `head_dim` that turn.
    pub(super) fn rotary_dim(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.partial) as usize
    }

    /// The frequencies for heads of `head_dim`, of which an even number of values turns.
    pub(super) fn spec(&self, head_dim: usize, pairs: RopePairs) -> RopeSpec {
        let dim = self.rotary_dim(head_dim);
        let plain: Vec<f32> = (0..dim / 2).map(|pair| self.frequency(pair, dim)).collect();
        let (inv_freq, long) = self.scaling.frequencies(&plain, self.theta);
        RopeSpec {
            inv_freq,
            attention_scaling: self.scaling.attention_scaling() as f32,
            pairs,
            long: long.map(|(inv_freq, beyond)| LongRope { inv_freq, beyond }),
        }
    }

    /// The factor on attention scores that latent attention takes from this scaling.
    pub(super) fn latent_score_factor(&self) -> f64 {
        self.scaling.score_factor()
    }

    /// Refuses factors for another number of frequencies than heads of `head_dim` have.
    pub(super) fn check(&self, config: &Config, head_dim: usize) -> Result<(), ConfigError> {
        let dim = self.rotary_dim(head_dim);
        if dim == 0 || !dim.is_multiple_of(2) {
            let accepted = format!("a share of heads of {head_dim} that is an even number of values");
            return Err(config.wrong("partial_rotary_factor", accepted, AS_PUBLISHED));
        }
        match self.scaling.factor_count() {
            Some(count) if count != dim / 2 => {
                let key = if config.has("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
                Err(config.wrong(
                    key,
                    format!("{} long and short factors, one for each frequency,", dim / 2),
                    AS_PUBLISHED,
                ))
            }
            _ => Ok(()),
        }
    }

    fn frequency(&self, pair: usize, dim: usize) -> f32 {
        let exponent = (2 * pair) as f32 / dim as f32;
        // The power alone in f64: powf in f32 differs between machines, its rounded result does not.
        let power = f64::from(self.theta as f32).powf(f64::from(exponent)) as f32;
        1.0 / power
    }
}

impl fmt::Display for Rope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "base {}", self.theta)?;
        if self.partial != 1.0 {
            write!(formatter, ", {} of each head", self.partial)?;
        }
        write!(formatter, "{}", self.scaling)
    }
}

/// Values that stand outside of the object with the scaling.
struct Outer {
    theta: Option<f64>,
    default_theta: f64,
    partial: Option<f64>,
    /// Context of the first training.
    original: Option<usize>,
    /// Context now.
    positions: Option<usize>,
}

fn read_object(rope: &Config, outer: &Outer) -> Result<Rope, ConfigError> {
    rope.without_effect(OF_SCALINGS);
    for (key, value) in rope.entries() {
        if value.is_object() {
            return Err(rope.unsupported(key, "one rotary embedding for all layers", OTHER_FAMILY));
        }
    }
    for key in ["mrope_section", "mrope_interleaved"] {
        if rope.value(key).is_some_and(|value| value.as_bool() != Some(false)) {
            return Err(rope.unsupported(key, "its absence", "use the text-only checkpoint of the model"));
        }
    }
    Ok(Rope {
        theta: agreed(rope, "rope_theta", rope.positive("rope_theta")?, outer.theta)?.unwrap_or(outer.default_theta),
        partial: agreed(rope, "partial_rotary_factor", rope.share("partial_rotary_factor")?, outer.partial)?
            .unwrap_or(1.0),
        scaling: Scaling::read(rope, outer.original, outer.positions)?,
    })
}

/// A number that may be inside the object, outside of it, or both.
fn agreed(rope: &Config, key: &str, inner: Option<f64>, outer: Option<f64>) -> Result<Option<f64>, ConfigError> {
    match (inner, outer) {
        (Some(inner), Some(outer)) if inner != outer => Err(rope.wrong(
            key,
            format!("`{outer}`, as outside of it,"),
            "the two contradict each other: keep one of them",
        )),
        (inner, outer) => Ok(inner.or(outer)),
    }
}
