//! The ways in which rotary frequencies are stretched for a longer context: linear, that of Llama 3,
//! YaRN (Peng et al. 2023, arXiv:2309.00071) and LongRoPE (Ding et al. 2024, arXiv:2402.13753).

use std::fmt;

use super::POSITIONS_LIMIT;
use crate::model::families::config::{AS_PUBLISHED, Config, ConfigError};

const NAMES: &str = "one of `default`, `linear`, `llama3`, `yarn`, `longrope`";

/// A stretch of the frequencies.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scaling {
    None,
    Linear {
        factor: f64,
    },
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: usize,
    },
    Yarn {
        factor: f64,
        original: usize,
        beta_fast: f64,
        beta_slow: f64,
        truncate: bool,
        attention_factor: f64,
        /// The mscale of all dimensions, 0 if there is none.
        all_dimensions: f64,
    },
    LongRope {
        short: Vec<f32>,
        long: Vec<f32>,
        original: usize,
        attention_factor: f64,
    },
}

impl Scaling {
    /// Reads the object with the scaling; `original` and `positions` are the contexts that stand outside of it.
    pub(super) fn read(
        rope: &Config,
        original: Option<usize>,
        positions: Option<usize>,
    ) -> Result<Scaling, ConfigError> {
        let context = || -> Result<usize, ConfigError> {
            let inside = rope.size("original_max_position_embeddings", POSITIONS_LIMIT)?;
            original.or(inside).or(positions).ok_or_else(|| {
                rope.missing("original_max_position_embeddings", "the context that the model was first trained on")
            })
        };
        match rope_type(rope)? {
            "default" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear { factor: factor(rope)? }),
            "llama3" => {
                let needed = |key| rope.positive(key)?.ok_or_else(|| rope.missing(key, "a number above 0"));
                let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
                if low >= high {
                    let accepted = format!("a number below `high_freq_factor`, {high},");
                    return Err(rope.wrong("low_freq_factor", accepted, AS_PUBLISHED));
                }
                let original = rope.required_size("original_max_position_embeddings", POSITIONS_LIMIT)?;
                Ok(Scaling::Llama3 { factor: factor(rope)?, low, high, original })
            }
            "yarn" => {
                let original = context()?;
                let factor = match rope.value("factor") {
                    Some(_) => factor(rope)?,
                    None => implied_factor(rope, original, positions)?,
                };
                let (mscale, all) =
                    (rope.number("mscale")?.unwrap_or(0.0), rope.number("mscale_all_dim")?.unwrap_or(0.0));
                let attention_factor = match rope.positive("attention_factor")? {
                    Some(given) => given,
                    None if mscale != 0.0 && all != 0.0 => magnitude(factor, mscale) / magnitude(factor, all),
                    None => magnitude(factor, 1.0),
                };
                Ok(Scaling::Yarn {
                    factor,
                    original,
                    beta_fast: rope.positive("beta_fast")?.unwrap_or(32.0),
                    beta_slow: rope.positive("beta_slow")?.unwrap_or(1.0),
                    truncate: rope.flag("truncate")?.unwrap_or(true),
                    attention_factor,
                    all_dimensions: all,
                })
            }
            // An old name of the same.
            "longrope" | "su" => {
                let original = context()?;
                let list = |key| rope.numbers(key)?.ok_or_else(|| rope.missing(key, "a list of numbers"));
                let (short, long) = (list("short_factor")?, list("long_factor")?);
                if short.len() != long.len() || short.iter().chain(&long).any(|factor| *factor <= 0.0) {
                    let accepted = format!("a list of numbers above 0, as many as in `long_factor`, {},", long.len());
                    return Err(rope.wrong("short_factor", accepted, AS_PUBLISHED));
                }
                let ratio = match rope.positive("factor")? {
                    Some(factor) => factor,
                    None => implied_factor(rope, original, positions)?,
                };
                let attention_factor = match rope.positive("attention_factor")? {
                    Some(given) => given,
                    None if ratio <= 1.0 => 1.0,
                    None => (1.0 + ratio.ln() / (original as f64).ln()).sqrt(),
                };
                Ok(Scaling::LongRope { short, long, original, attention_factor })
            }
            _ => {
                let key = if rope.value("rope_type").is_some() { "rope_type" } else { "type" };
                let hint = "use a checkpoint without this scaling; leaving the key out would compute something else";
                Err(rope.unsupported(key, NAMES, hint))
            }
        }
    }

    /// The stretched frequencies; and others, with the longest row for which they do not hold yet.
    pub(super) fn frequencies(&self, plain: &[f32], theta: f64) -> (Vec<f32>, Option<(Vec<f32>, usize)>) {
        let all = |stretch: &dyn Fn(f32) -> f32| (plain.iter().map(|&frequency| stretch(frequency)).collect(), None);
        match self {
            Scaling::None => (plain.to_vec(), None),
            Scaling::Linear { factor } => all(&|frequency| frequency / *factor as f32),
            Scaling::Llama3 { factor, low, high, original } => {
                all(&|frequency| llama3(frequency, *factor, *low, *high, *original))
            }
            Scaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
                let dim = (2 * plain.len()) as f64;
                let turns = |rotations: f64| {
                    dim * (*original as f64 / (rotations * std::f64::consts::TAU)).ln() / (2.0 * theta.ln())
                };
                let (low, high) = (turns(*beta_fast), turns(*beta_slow));
                let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(dim - 1.0));
                let width = if low == high { 0.001 } else { high - low };
                let stretched = plain.iter().enumerate().map(|(pair, &frequency)| {
                    let ramp = ((pair as f32 - low as f32) / width as f32).clamp(0.0, 1.0);
                    let kept = 1.0 - ramp;
                    frequency / *factor as f32 * (1.0 - kept) + frequency * kept
                });
                (stretched.collect(), None)
            }
            Scaling::LongRope { short, long, original, .. } => {
                let by =
                    |factors: &[f32]| plain.iter().zip(factors).map(|(frequency, factor)| frequency / factor).collect();
                (by(short), Some((by(long), *original)))
            }
        }
    }

    /// Factor on cosine and sine.
    pub(super) fn attention_scaling(&self) -> f64 {
        match self {
            Scaling::Yarn { attention_factor, .. } | Scaling::LongRope { attention_factor, .. } => *attention_factor,
            Scaling::None | Scaling::Linear { .. } | Scaling::Llama3 { .. } => 1.0,
        }
    }

    /// Factor on the scores of latent attention.
    pub(super) fn score_factor(&self) -> f64 {
        match self {
            Scaling::Yarn { factor, all_dimensions, .. } if *all_dimensions != 0.0 => {
                magnitude(*factor, *all_dimensions).powi(2)
            }
            _ => 1.0,
        }
    }

    /// Factors in the lists of LongRoPE.
    pub(super) fn factor_count(&self) -> Option<usize> {
        match self {
            Scaling::LongRope { short, .. } => Some(short.len()),
            _ => None,
        }
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scaling::None => Ok(()),
            Scaling::Linear { factor } => write!(formatter, ", linear scaling by {factor}"),
            Scaling::Llama3 { factor, original, .. } => {
                write!(formatter, ", llama3 scaling by {factor} from {original} positions")
            }
            Scaling::Yarn { factor, original, .. } => {
                write!(formatter, ", yarn scaling by {factor} from {original} positions")
            }
            Scaling::LongRope { original, .. } => {
                write!(formatter, ", longrope: short factors up to {original} positions, long ones beyond")
            }
        }
    }
}

/// Long wavelengths are stretched, short ones kept, and those between mixed.
fn llama3(frequency: f32, factor: f64, low: f64, high: f64, original: usize) -> f32 {
    let context = original as f64;
    let wavelength = std::f32::consts::TAU / frequency;
    let slowed = frequency / factor as f32;
    if wavelength < (context / high) as f32 {
        frequency
    } else if wavelength > (context / low) as f32 {
        slowed
    } else {
        let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
        (1.0 - smooth) * slowed + smooth * frequency
    }
}

/// YaRN's growth of attention with the stretch.
fn magnitude(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

/// The stretch where none is written: the context over that of the first training.
fn implied_factor(rope: &Config, original: usize, positions: Option<usize>) -> Result<f64, ConfigError> {
    match positions {
        Some(positions) => Ok(positions as f64 / original as f64),
        None => Err(rope.missing("factor", "a number of at least 1")),
    }
}

fn rope_type<'a>(rope: &Config<'a>) -> Result<&'a str, ConfigError> {
    match (rope.text("rope_type")?, rope.text("type")?) {
        (Some(new), Some(old)) if new != old => Err(rope.unsupported(
            "type",
            format!("the same as in `rope_type`, `{new}`,"),
            "the two contradict each other: use a model of a supported family",
        )),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) if rope.value("factor").is_some() => Err(rope.missing("rope_type", NAMES)),
        (None, None) => Ok("default"),
    }
}

fn factor(rope: &Config) -> Result<f64, ConfigError> {
    let factor = rope.positive("factor")?.ok_or_else(|| rope.missing("factor", "a number of at least 1"))?;
    if factor < 1.0 {
        return Err(rope.wrong("factor", "a number of at least 1", AS_PUBLISHED));
    }
    Ok(factor)
}
