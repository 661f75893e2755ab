//! Which projections an adapter changes, and putting it there.
//!
//! Matching follows PEFT: a list entry is a module's whole path or its last components, a pattern must
//! match the whole path, `all-linear` is every linear map but the output head. What PEFT lets pass, a
//! list entry that matches nothing, is an error here.

use std::collections::BTreeSet;

use burn::tensor::Device;
use fancy_regex::Regex;
use thiserror::Error;

use crate::low_rank::{LowRank, LowRankSpec};
use crate::peft::{PeftError, SavedAdapter};
use crate::projection::{Projection, Update};

/// What to attach, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSpec {
    /// The update that every target gets.
    pub low_rank: LowRankSpec,
    /// The projections to change.
    pub targets: Targets,
    /// Only these layers; all if unset.
    pub layers: Option<Vec<usize>>,
    /// Seed of the initialisation.
    pub seed: u64,
}

/// The projections to change, as a recipe names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every linear map of the layers; never the output head.
    AllLinear,
    /// Module paths or their last components, such as `q_proj`.
    Names(Vec<String>),
    /// A pattern for the whole module path.
    Pattern(String),
}

/// Why an adapter does not fit the model.
#[derive(Debug, Error)]
pub enum AttachError {
    /// A target that no projection answers to.
    #[error("adapter target `{target}` matches no projection\nhint: {hint}")]
    NoMatch {
        /// As the recipe has it.
        target: String,
        /// What to do.
        hint: String,
    },
    /// A pattern that is no regular expression.
    #[error(
        "adapter target `{pattern}` is no valid pattern: {reason}\nhint: write a list of names such as [q_proj, v_proj], or a regular expression for the whole module path"
    )]
    Pattern {
        /// As the recipe has it.
        pattern: String,
        /// What the parser says.
        reason: String,
    },
    /// A layer that the model does not have.
    #[error("layer `{layer}` to adapt does not exist\nhint: the model has layers 0 to {last}")]
    Layer {
        /// As the recipe has it.
        layer: usize,
        /// The highest layer.
        last: usize,
    },
    /// A saved adapter that does not fit.
    #[error(transparent)]
    Saved(#[from] PeftError),
}

/// A module's path and the layer it lies in.
#[derive(Debug, Clone, Copy)]
struct Module<'a> {
    path: &'a str,
    layer: Option<usize>,
}

/// The paths that `targets` and `layers` choose, in the order of `paths`.
///
/// # Errors
/// When a target matches nothing, a pattern does not parse, or a layer does not exist.
pub fn select(targets: &Targets, layers: Option<&[usize]>, paths: &[&str]) -> Result<Vec<String>, AttachError> {
    let modules: Vec<Module> = paths.iter().map(|path| Module { path, layer: layer_of(path) }).collect();
    if let Some(wanted) = layers {
        let last = modules.iter().filter_map(|module| module.layer).max().unwrap_or(0);
        if let Some(&layer) = wanted.iter().find(|&&layer| layer > last) {
            return Err(AttachError::Layer { layer, last });
        }
    }
    let in_layers =
        |module: &Module| layers.is_none_or(|wanted| module.layer.is_some_and(|layer| wanted.contains(&layer)));
    let chosen: Vec<&Module> = match targets {
        Targets::AllLinear => modules.iter().collect(),
        Targets::Names(names) => {
            for name in names {
                if !modules.iter().any(|module| answers_to(module.path, name)) {
                    return Err(no_match(name, paths));
                }
            }
            modules.iter().filter(|module| names.iter().any(|name| answers_to(module.path, name))).collect()
        }
        Targets::Pattern(pattern) => {
            let invalid = |error: fancy_regex::Error| AttachError::Pattern {
                pattern: pattern.clone(),
                reason: error.to_string(),
            };
            let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(invalid)?;
            let mut matched = Vec::new();
            for module in &modules {
                if regex.is_match(module.path).map_err(invalid)? {
                    matched.push(module);
                }
            }
            if matched.is_empty() {
                return Err(no_match(pattern, paths));
            }
            matched
        }
    };
    Ok(chosen.into_iter().filter(|module| in_layers(module)).map(|module| module.path.to_owned()).collect())
}

/// Puts a fresh update on every projection that `spec` chooses and returns how many.
///
/// # Errors
/// As [`select`].
pub fn attach(
    spec: &AdapterSpec,
    mut projections: Vec<&mut Projection>,
    device: &Device,
) -> Result<usize, AttachError> {
    let chosen: BTreeSet<String> = {
        let paths: Vec<&str> = projections.iter().map(|projection| projection.name()).collect();
        select(&spec.targets, spec.layers.as_deref(), &paths)?.into_iter().collect()
    };
    for projection in projections.iter_mut().filter(|projection| chosen.contains(projection.name())) {
        let (inputs, outputs) = (projection.inputs(), projection.outputs());
        let update = LowRank::new(spec.low_rank, projection.name(), inputs, outputs, spec.seed, device);
        projection.update = Some(Update::LowRank(update));
    }
    Ok(chosen.len())
}

/// Puts a saved adapter on the projections that it was made for and returns how many.
///
/// # Errors
/// When it holds tensors for modules that are not there or whose shape differs.
pub fn attach_saved(
    saved: &SavedAdapter,
    mut projections: Vec<&mut Projection>,
    device: &Device,
) -> Result<usize, AttachError> {
    let mut unused: BTreeSet<&str> = saved.modules().collect();
    let mut attached = 0;
    for projection in &mut projections {
        let name = projection.name().to_owned();
        if unused.remove(name.as_str()) {
            let update = saved.low_rank(&name, projection.inputs(), projection.outputs(), device)?;
            projection.update = Some(Update::LowRank(update));
            attached += 1;
        }
    }
    match unused.first() {
        Some(module) => {
            Err(PeftError::UnknownModule { module: (*module).to_owned(), folder: saved.folder.clone() }.into())
        }
        None => Ok(attached),
    }
}

/// Whether `path` is `name` or ends with it at a dot, as PEFT matches a list.
fn answers_to(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The number after `.layers.` in a module path.
fn layer_of(path: &str) -> Option<usize> {
    let (_, rest) = path.split_once("layers.")?;
    rest.split('.').next()?.parse().ok()
}

fn no_match(target: &str, paths: &[&str]) -> AttachError {
    let names: BTreeSet<&str> = paths.iter().filter_map(|path| path.rsplit('.').next()).collect();
    let closest = names.iter().map(|name| (strsim::damerau_levenshtein(target, name), *name)).min();
    let accepted = names.iter().copied().collect::<Vec<_>>().join(", ");
    let hint = match closest {
        _ if ["lm_head", "embed_tokens"].iter().any(|name| answers_to(target, name)) => {
            format!("LoRA here sits on the linear maps of the layers: {accepted}")
        }
        Some((distance, name)) if distance <= 2 => format!("did you mean `{name}`? This model has {accepted}"),
        _ => format!("this model has {accepted}"),
    };
    AttachError::NoMatch { target: target.to_owned(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 6] = [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.v_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
        "model.layers.1.mlp.down_proj",
    ];

    fn names(list: &[&str]) -> Targets {
        Targets::Names(list.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn names_match_the_end_of_a_path_at_a_dot() {
        assert_eq!(select(&names(&["q_proj"]), None, &PATHS).unwrap(), [PATHS[0], PATHS[3]]);
        assert_eq!(select(&names(&["layers.1.mlp.down_proj"]), None, &PATHS).unwrap(), [PATHS[5]]);
        assert!(select(&names(&["_proj"]), None, &PATHS).is_err());
    }

    #[test]
    fn a_target_that_matches_nothing_is_an_error_with_the_closest_name() {
        let error = select(&names(&["q_proj", "v_porj"]), None, &PATHS).unwrap_err().to_string();
        assert!(error.contains("`v_porj`") && error.contains("did you mean `v_proj`?"), "{error}");
        let error = select(&names(&["lm_head"]), None, &PATHS).unwrap_err().to_string();
        assert!(error.contains("linear maps of the layers"), "{error}");
    }

    #[test]
    fn a_pattern_must_match_the_whole_path() {
        let pattern = |text: &str| Targets::Pattern(text.to_owned());
        assert_eq!(select(&pattern(r".*layers\.0.*(q|v)_proj"), None, &PATHS).unwrap(), [PATHS[0], PATHS[1]]);
        assert!(select(&pattern("q_proj"), None, &PATHS).is_err());
        assert!(matches!(select(&pattern("("), None, &PATHS), Err(AttachError::Pattern { .. })));
    }

    #[test]
    fn layers_restrict_the_choice_and_must_exist() {
        assert_eq!(select(&Targets::AllLinear, Some(&[1]), &PATHS).unwrap(), PATHS[3..]);
        assert!(matches!(
            select(&Targets::AllLinear, Some(&[2]), &PATHS),
            Err(AttachError::Layer { layer: 2, last: 1 })
        ));
    }
}
