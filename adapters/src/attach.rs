//! The choice of the projections that an adapter changes, and putting it there.
//!
//! Matching follows PEFT: a list entry is a module's whole path or its last components, a pattern must
//! match the whole path, `all-linear` is every linear map but routers and the output head.
//! A list entry that matches nothing, which PEFT lets pass, is an error here.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use burn::tensor::Device;
use fancy_regex::Regex;
use thiserror::Error;

use crate::dora::Dora;
use crate::expert_stack::{ExpertStack, StackUpdate};
use crate::low_rank::{LowRank, LowRankSpec};
use crate::parameter::Parameter;
use crate::projection::{Projection, Role, Update};
use crate::weight::Weight;

/// The adapter to attach, and its targets.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSpec {
    /// The method that adapts every target.
    pub method: Method,
    /// The projections to change.
    pub targets: Targets,
    /// Stacks of experts to change, by parameter name or its last components.
    pub parameters: Vec<String>,
    /// Modules to train as a whole, by module path.
    pub saved_modules: Vec<String>,
    /// Only these layers; all if unset.
    pub layers: Option<Vec<usize>>,
    /// Seed of the initialisation.
    pub seed: u64,
}

/// The ways to adapt a projection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// LoRA.
    LowRank(LowRankSpec),
    /// DoRA.
    Dora(LowRankSpec),
}

impl Method {
    /// Rank, alpha and dropout.
    pub fn low_rank(&self) -> LowRankSpec {
        match self {
            Self::LowRank(spec) | Self::Dora(spec) => *spec,
        }
    }

    /// The same method with another rank, alpha or dropout.
    pub fn with(&self, spec: LowRankSpec) -> Self {
        match self {
            Self::LowRank(_) => Self::LowRank(spec),
            Self::Dora(_) => Self::Dora(spec),
        }
    }

    /// `low_rank` as this method's update of a projection with this weight.
    fn update(&self, low_rank: LowRank, weight: &Weight) -> Update {
        match self {
            Self::LowRank(_) => Update::LowRank(Box::new(low_rank)),
            Self::Dora(_) => Update::Dora(Box::new(Dora::new(low_rank, weight))),
        }
    }
}

/// Everything in a decoder that an adapter can change.
#[derive(Debug)]
pub struct Adaptable<'a> {
    /// The linear maps of all layers, in the checkpoint's order.
    pub projections: Vec<&'a mut Projection>,
    /// The experts that are stored in one tensor.
    pub stacks: Vec<&'a mut ExpertStack>,
    /// Modules that can be trained as a whole: their paths and weights.
    pub modules: Vec<(String, &'a mut Parameter)>,
}

/// The projections to change, as a recipe names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every linear map but routers and the output head.
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
    #[error("adapter target `{target}` matches no projection")]
    NoMatch {
        /// As the recipe has it.
        target: String,
        /// The names that the model has.
        names: Vec<String>,
        /// The remedy.
        hint: String,
    },
    /// A pattern that is not a regular expression.
    #[error("adapter target `{pattern}` is not a valid pattern: {reason}")]
    Pattern {
        /// As the recipe has it.
        pattern: String,
        /// The parser's error.
        reason: String,
    },
    /// A layer that the model does not have.
    #[error("layer `{layer}` to adapt does not exist")]
    Layer {
        /// As the recipe has it.
        layer: usize,
        /// The highest layer.
        last: usize,
    },
}

impl AttachError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            AttachError::NoMatch { hint, .. } => hint.as_str().into(),
            AttachError::Pattern { .. } => {
                "write a list of names such as [q_proj, v_proj], or a regular expression for the whole module path"
                    .into()
            }
            AttachError::Layer { last, .. } => format!("the model has layers 0 to {last}").into(),
        })
    }
}

/// A linear map by name.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its module path.
    pub path: &'a str,
    /// Its kind.
    pub role: Role,
}

/// The paths that `targets` and `layers` choose, in the order of `candidates`.
///
/// # Errors
/// When a target matches nothing, a pattern does not parse, or a layer does not exist.
pub fn select(
    targets: &Targets,
    layers: Option<&[usize]>,
    candidates: &[Candidate],
) -> Result<Vec<String>, AttachError> {
    check_layers(layers, candidates.iter().map(|candidate| candidate.path))?;
    let chosen: Vec<&Candidate> = match targets {
        Targets::AllLinear => all_linear(candidates),
        Targets::Names(names) => {
            for name in names {
                if !candidates.iter().any(|candidate| answers_to(candidate.path, name)) {
                    return Err(no_match(name, candidates.iter().map(|candidate| candidate.path)));
                }
            }
            let named = |path| names.iter().any(|name| answers_to(path, name));
            candidates.iter().filter(|candidate| named(candidate.path)).collect()
        }
        Targets::Pattern(pattern) => {
            let invalid = |error: fancy_regex::Error| AttachError::Pattern {
                pattern: pattern.clone(),
                reason: error.to_string(),
            };
            let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(invalid)?;
            let mut matched = Vec::new();
            for candidate in candidates {
                if regex.is_match(candidate.path).map_err(invalid)? {
                    matched.push(candidate);
                }
            }
            if matched.is_empty() {
                return Err(no_match(pattern, candidates.iter().map(|candidate| candidate.path)));
            }
            matched
        }
    };
    let paths = chosen.into_iter().map(|candidate| candidate.path);
    Ok(paths.filter(|path| in_layers(path, layers)).map(str::to_owned).collect())
}

/// Every linear map but routers. Where experts are modules, maps outside of them that are called like their parts are
/// left out: PEFT folds the names of experts' parts into stacked parameters and would not load the others.
fn all_linear<'a>(candidates: &'a [Candidate<'a>]) -> Vec<&'a Candidate<'a>> {
    let of_experts = candidates.iter().filter(|candidate| candidate.role == Role::Expert);
    let of_experts: BTreeSet<&str> = of_experts.map(|candidate| short(candidate.path)).collect();
    let chosen = |candidate: &&Candidate| match candidate.role {
        Role::Common => !of_experts.contains(short(candidate.path)),
        Role::Expert => true,
        Role::Router => false,
    };
    candidates.iter().filter(chosen).collect()
}

/// The last component of a path.
fn short(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The stacks of experts that `wanted` and `layers` choose among `names`, in their order.
///
/// # Errors
/// When an entry matches nothing.
pub fn select_stacks(wanted: &[String], layers: Option<&[usize]>, names: &[&str]) -> Result<Vec<String>, AttachError> {
    if let Some(target) = wanted.iter().find(|target| !names.iter().any(|name| answers_to(name, target))) {
        let known: BTreeSet<&str> = names.iter().filter_map(|name| name.rsplit('.').next()).collect();
        let names: Vec<String> = known.into_iter().map(str::to_owned).collect();
        let hint = if names.is_empty() {
            "this model keeps no experts in stacked tensors: name projections in lora_target_modules".to_owned()
        } else {
            format!("this model has {}", names.join(", "))
        };
        return Err(AttachError::NoMatch { target: target.clone(), names, hint });
    }
    let chosen = names.iter().filter(|name| wanted.iter().any(|target| answers_to(name, target)));
    Ok(chosen.filter(|name| in_layers(name, layers)).map(|name| (*name).to_owned()).collect())
}

fn check_layers<'a>(layers: Option<&[usize]>, paths: impl Iterator<Item = &'a str>) -> Result<(), AttachError> {
    let Some(wanted) = layers else { return Ok(()) };
    let last = paths.filter_map(layer_of).max().unwrap_or(0);
    match wanted.iter().find(|&&layer| layer > last) {
        Some(&layer) => Err(AttachError::Layer { layer, last }),
        None => Ok(()),
    }
}

fn in_layers(path: &str, layers: Option<&[usize]>) -> bool {
    layers.is_none_or(|wanted| layer_of(path).is_some_and(|layer| wanted.contains(&layer)))
}

/// Puts a fresh update on everything that `spec` chooses, and makes the modules trainable that it names.
///
/// # Errors
/// As [`select`].
pub fn attach(spec: &AdapterSpec, decoder: Adaptable, device: &Device) -> Result<(), AttachError> {
    let Adaptable { projections, stacks, modules } = decoder;
    let chosen: HashSet<String> = {
        let candidate = |projection: &'_ &mut Projection| (projection.name().to_owned(), projection.role());
        let named: Vec<(String, Role)> = projections.iter().map(candidate).collect();
        let candidates: Vec<Candidate> = named.iter().map(|(path, role)| Candidate { path, role: *role }).collect();
        select(&spec.targets, spec.layers.as_deref(), &candidates)?.into_iter().collect()
    };
    let low_rank = spec.method.low_rank();
    for projection in projections {
        if chosen.contains(projection.name()) {
            let (inputs, outputs) = (projection.inputs(), projection.outputs());
            let update = LowRank::new(low_rank, projection.name(), inputs, outputs, spec.seed, device);
            projection.update = Some(spec.method.update(update, &projection.weight));
        }
    }
    let chosen: HashSet<String> = {
        let names: Vec<&str> = stacks.iter().map(|stack| stack.name()).collect();
        select_stacks(&spec.parameters, spec.layers.as_deref(), &names)?.into_iter().collect()
    };
    for stack in stacks {
        if chosen.contains(stack.name()) {
            stack.update = Some(StackUpdate::new(low_rank, stack, spec.seed, device));
        }
    }
    for (path, parameter) in modules {
        if spec.saved_modules.contains(&path) {
            parameter.train();
        }
    }
    Ok(())
}

/// True if `path` is `name` or ends with it at a dot, as PEFT matches a list.
pub(crate) fn answers_to(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The number after `.layers.` in a module path.
fn layer_of(path: &str) -> Option<usize> {
    let (_, rest) = path.split_once("layers.")?;
    rest.split('.').next()?.parse().ok()
}

fn no_match<'a>(target: &str, paths: impl Iterator<Item = &'a str>) -> AttachError {
    let names: BTreeSet<&str> = paths.filter_map(|path| path.rsplit('.').next()).collect();
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let accepted = names.join(", ");
    let hint = if ["lm_head", "embed_tokens"].iter().any(|name| answers_to(target, name)) {
        format!("LoRA here sits on the linear maps of the layers: {accepted}")
    } else {
        format!("this model has {accepted}")
    };
    AttachError::NoMatch { target: target.to_owned(), names, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: &str = "model.layers.0.mlp.gate";
    const PATHS: [&str; 6] = [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.v_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
        "model.layers.1.mlp.down_proj",
    ];

    fn select(targets: &Targets, layers: Option<&[usize]>, paths: &[&str]) -> Result<Vec<String>, AttachError> {
        let candidate = |path| Candidate { path, role: if path == ROUTER { Role::Router } else { Role::Common } };
        super::select(targets, layers, &paths.iter().map(|path| candidate(*path)).collect::<Vec<_>>())
    }

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
    fn a_target_that_matches_nothing_is_an_error_with_the_names_that_would() {
        let error = select(&names(&["q_proj", "v_porj"]), None, &PATHS).unwrap_err();
        assert!(error.to_string().contains("`v_porj`"), "{error}");
        assert!(error.hint().unwrap().contains("this model has down_proj, q_proj, v_proj"), "{error:?}");
        let error = select(&names(&["lm_head"]), None, &PATHS).unwrap_err();
        assert!(error.hint().unwrap().contains("linear maps of the layers"), "{error:?}");
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
