//! What learns: an adapter on chosen projections, or weights of the model itself.

use std::collections::HashSet;
use std::path::PathBuf;

use adapters::peft::SavedAdapter;
use adapters::{AdapterSpec, Candidate, LowRankSpec, Method, Role, Targets, select, select_stacks};
use anyhow::{Result, anyhow, bail};
use fancy_regex::Regex;

use crate::hub::BaseModel;
use crate::model::names::{self, ParameterKind, ProjectionName};
use crate::model::spec::{DecoderSpec, FeedForwardSpec};
use crate::recipe::{self, AdapterKind, Recipe};
use crate::text::nearest;
use crate::train::optimizers::TrainedTensor;

/// What learns.
#[derive(Debug, Clone)]
pub enum Adaptation {
    /// Low-rank updates; everything else is frozen.
    Adapter {
        /// Rank, targets and the rest.
        spec: AdapterSpec,
        /// The projections that get one, by module path.
        targets: Vec<String>,
        /// The stacks of experts that get one, by parameter name.
        stacks: Vec<String>,
        /// An adapter to continue from.
        continued: Option<PathBuf>,
        /// The tensors that are trained.
        tensors: Vec<TrainedTensor>,
    },
    /// Weights of the model.
    Full {
        /// Names of the trainable parameters.
        parameters: Vec<String>,
        /// The same as tensors.
        tensors: Vec<TrainedTensor>,
    },
}

impl Adaptation {
    /// What the recipe asks for, on the architecture `spec`.
    ///
    /// # Errors
    /// When a target or a pattern matches nothing, or there are no weights to adapt.
    pub fn resolve(recipe: &Recipe, spec: &DecoderSpec, base: &BaseModel) -> Result<Self> {
        match recipe.adapter {
            Some(AdapterKind::Lora | AdapterKind::Qlora) => lora(recipe, spec, base),
            None => full(recipe, spec),
        }
    }

    /// The adapter that is trained, if one is.
    pub fn adapter(&self) -> Option<&AdapterSpec> {
        match self {
            Self::Adapter { spec, .. } => Some(spec),
            Self::Full { .. } => None,
        }
    }

    /// The tensors that are trained.
    pub fn tensors(&self) -> &[TrainedTensor] {
        match self {
            Self::Adapter { tensors, .. } | Self::Full { tensors, .. } => tensors,
        }
    }

    /// Number of trainable values.
    pub fn trainable(&self) -> u64 {
        self.tensors().iter().map(TrainedTensor::values).sum()
    }
}

fn lora(recipe: &Recipe, spec: &DecoderSpec, base: &BaseModel) -> Result<Adaptation> {
    if base.is_random() {
        bail!(
            "{}: `{}` holds no weights, and an adapter on random weights learns nothing of use\nhint: name a folder with model.safetensors, or leave adapter blank to train a new model",
            recipe.at("base_model"),
            base.folder.display(),
        );
    }
    let stacked = !recipe.lora_target_parameters.is_empty();
    let (key, targets) = match (&recipe.lora_target_modules, recipe.lora_target_linear) {
        (_, Some(true)) => ("lora_target_linear", Targets::AllLinear),
        (Some(recipe::Targets::AllLinear), _) => ("lora_target_modules", Targets::AllLinear),
        (Some(recipe::Targets::List(names)), _) => ("lora_target_modules", Targets::Names(names.clone())),
        (Some(recipe::Targets::Regex(pattern)), _) => ("lora_target_modules", Targets::Pattern(pattern.clone())),
        (None, _) if stacked => ("adapter", Targets::Names(Vec::new())),
        (None, _) => ("adapter", Targets::AllLinear),
    };
    let low_rank = LowRankSpec {
        rank: recipe.lora_r.unwrap_or(8),
        alpha: recipe.lora_alpha.unwrap_or(16.0),
        dropout: recipe.lora_dropout.unwrap_or(0.0),
        rank_stabilised: recipe.peft_use_rslora.unwrap_or(false),
    };
    let mut adapter = AdapterSpec {
        method: if recipe.peft_use_dora == Some(true) { Method::Dora(low_rank) } else { Method::LowRank(low_rank) },
        targets,
        parameters: recipe.lora_target_parameters.clone(),
        saved_modules: whole_modules(recipe, spec)?,
        layers: recipe.peft_layers_to_transform.clone(),
        seed: recipe.seed.unwrap_or(42),
    };
    let projections = names::projections(spec);
    let candidate = |name: &'_ ProjectionName| (name.path.clone(), name.role);
    let named: Vec<(String, Role)> = projections.iter().map(candidate).collect();
    let candidates: Vec<Candidate> = named.iter().map(|(path, role)| Candidate { path, role: *role }).collect();
    let mut targets = select(&adapter.targets, adapter.layers.as_deref(), &candidates)
        .map_err(|error| refused(recipe, key, error))?;
    let all_stacks = names::stacks(spec);
    let stack_names: Vec<&str> = all_stacks.iter().map(|stack| stack.name.as_str()).collect();
    let mut stacks = select_stacks(&adapter.parameters, adapter.layers.as_deref(), &stack_names)
        .map_err(|error| refused(recipe, "lora_target_parameters", error))?;
    let saved = saved_adapter(recipe, spec)?;
    if let Some(saved) = &saved {
        adapter.method = kept(recipe, saved)?;
        let known = saved.targets();
        let kept: Vec<String> =
            named.iter().map(|(path, _)| path).filter(|path| known.contains(*path)).cloned().collect();
        if key != "adapter" && kept != targets {
            bail!(
                "{}: the targets are not those of the adapter in {}, which changes {} projections\nhint: leave {key} out; an adapter keeps its targets",
                recipe.at(key),
                saved.folder.display(),
                kept.len(),
            );
        }
        targets = kept;
        adapter.parameters.clone_from(&saved.parameters);
        stacks = stack_names.iter().filter(|name| known.contains(**name)).map(|name| (*name).to_owned()).collect();
        let shapes = names::shapes(spec);
        let whole = shapes.modules.into_iter().map(|(path, _)| path);
        adapter.saved_modules = whole.filter(|path| known.contains(path)).collect();
    }
    let chosen: HashSet<&str> = targets.iter().map(String::as_str).collect();
    let adapted: Vec<&ProjectionName> =
        projections.iter().filter(|projection| chosen.contains(projection.path.as_str())).collect();
    check_experts(recipe, spec, &adapter, &adapted, !stacks.is_empty())?;
    let rank = adapter.method.low_rank().rank;
    let highest = adapted.iter().map(|projection| projection.in_features.min(projection.out_features)).max();
    if let Some(highest) = highest.filter(|highest| rank > *highest) {
        bail!(
            "{}: lora_r `{rank}` is more than the rank {highest} that the targets can have\nhint: choose a rank from 4 to 64; to train whole matrices leave adapter blank",
            recipe.at("lora_r"),
        );
    }
    let magnitudes = matches!(adapter.method, Method::Dora(_));
    let tensor = |name: String, shape: &[usize]| TrainedTensor { name, shape: shape.to_vec() };
    let mut tensors = Vec::new();
    for ProjectionName { path, in_features, out_features, .. } in adapted {
        tensors.push(tensor(format!("{path}.lora_A.weight"), &[rank, *in_features]));
        tensors.push(tensor(format!("{path}.lora_B.weight"), &[*out_features, rank]));
        if magnitudes {
            tensors.push(tensor(format!("{path}.lora_magnitude_vector"), &[*out_features]));
        }
    }
    for stack in all_stacks.iter().filter(|stack| stacks.contains(&stack.name)) {
        tensors.push(tensor(format!("{}.lora_A", stack.name), &[stack.experts, rank, stack.in_features]));
        tensors.push(tensor(format!("{}.lora_B", stack.name), &[stack.experts, stack.out_features, rank]));
    }
    tensors.extend(adapter.saved_modules.iter().map(|path| tensor(names::weight(path), &[spec.vocab, spec.hidden])));
    let continued = saved.map(|saved| saved.folder);
    Ok(Adaptation::Adapter { spec: adapter, targets, stacks, continued, tensors })
}

/// The modules that `lora_modules_to_save` names, by module path.
fn whole_modules(recipe: &Recipe, spec: &DecoderSpec) -> Result<Vec<String>> {
    let known: Vec<String> = names::shapes(spec).modules.into_iter().map(|(path, _)| path).collect();
    let mut paths = Vec::new();
    for (index, name) in recipe.lora_modules_to_save.iter().enumerate() {
        let at = recipe.at(&format!("lora_modules_to_save.{index}"));
        let answers = |path: &&String| *path == name || path.ends_with(&format!(".{name}"));
        let Some(path) = known.iter().find(answers) else {
            let short: Vec<&str> = known.iter().map(|path| names::short(path)).collect();
            let tied = if spec.head.tied { "; the head of this model is its embedding" } else { "" };
            bail!(
                "{at}: `{name}` is no module that can be trained as a whole\nhint: this model has {}{tied}",
                short.join(", ")
            );
        };
        if spec.head.tied {
            bail!(
                "{at}: the embedding of this model is also its head, and a copy of one of them would part the two\nhint: leave `{name}` out, or train the weights themselves with adapter: blank and unfrozen_parameters"
            );
        }
        paths.push(path.clone());
    }
    Ok(paths)
}

/// What PEFT cannot load on experts is refused before training.
fn check_experts(
    recipe: &Recipe,
    spec: &DecoderSpec,
    adapter: &AdapterSpec,
    adapted: &[&ProjectionName],
    stacked: bool,
) -> Result<()> {
    let routed = adapted.iter().any(|projection| projection.role == Role::Expert);
    if !routed && !stacked {
        return Ok(());
    }
    if let Method::Dora(_) = adapter.method {
        bail!(
            "{}: DoRA on experts is not supported, by PEFT either\nhint: leave peft_use_dora out, or name attention's projections in lora_target_modules",
            recipe.at("peft_use_dora"),
        );
    }
    check_whole_experts(recipe, spec, adapted)?;
    if stacked && adapter.method.low_rank().dropout > 0.0 {
        bail!(
            "{}: dropout on stacked experts is not supported, by PEFT either\nhint: set lora_dropout: 0",
            recipe.at("lora_dropout"),
        );
    }
    Ok(())
}

/// Of the experts of a layer all or none must be adapted, and gates together with projections up.
fn check_whole_experts(recipe: &Recipe, spec: &DecoderSpec, adapted: &[&ProjectionName]) -> Result<()> {
    for (index, layer) in spec.layers.iter().enumerate() {
        let FeedForwardSpec::Experts(experts) = &layer.feed_forward else { continue };
        let count = |part: &str| {
            let of_part = |name: &&&ProjectionName| name.layer == Some(index) && name.short() == part;
            adapted.iter().filter(|name| name.role == Role::Expert).filter(of_part).count()
        };
        let [gate, up, down] = [experts.names.gate, experts.names.up, experts.names.down].map(count);
        let whole = [gate, up, down].iter().all(|count| [0, experts.count].contains(count));
        if !whole || gate != up {
            bail!(
                "{}: layer {index} adapts `{}` in {gate}, `{}` in {up} and `{}` in {down} of its {} experts; PEFT loads all of them or none, and the first two only together\nhint: name {} without a number of an expert",
                recipe.at("lora_target_modules"),
                experts.names.gate,
                experts.names.up,
                experts.names.down,
                experts.count,
                [experts.names.gate, experts.names.up, experts.names.down].join(", "),
            );
        }
    }
    Ok(())
}

/// The adapter to continue from, checked against the architecture.
fn saved_adapter(recipe: &Recipe, spec: &DecoderSpec) -> Result<Option<SavedAdapter>> {
    let Some(folder) = &recipe.lora_model_dir else {
        return Ok(None);
    };
    let saved = SavedAdapter::read(&recipe.locate(folder), &names::shapes(spec), names::module_paths(spec));
    saved.map(Some).map_err(|error| anyhow!("{}: {error}", recipe.at("lora_model_dir")))
}

/// Rank and scaling of an adapter to continue from, which the recipe may repeat but not change.
fn kept(recipe: &Recipe, saved: &SavedAdapter) -> Result<Method> {
    let spec = saved.method.low_rank();
    let written = [
        ("lora_r", recipe.lora_r.map(|rank| rank as f64), spec.rank as f64),
        ("lora_alpha", recipe.lora_alpha, spec.alpha),
    ];
    for (key, value, own) in written {
        if let Some(value) = value.filter(|value| *value != own) {
            bail!(
                "{}: {key} `{value}` differs from the {own} of the adapter in {}\nhint: leave {key} out; an adapter keeps its rank and scaling",
                recipe.at(key),
                saved.folder.display(),
            );
        }
    }
    if recipe.peft_use_rslora.is_some_and(|stabilised| stabilised != spec.rank_stabilised) {
        bail!(
            "{}: peft_use_rslora is `{}` for the adapter in {}\nhint: leave peft_use_rslora out; an adapter keeps its rank and scaling",
            recipe.at("peft_use_rslora"),
            spec.rank_stabilised,
            saved.folder.display(),
        );
    }
    let dora = matches!(saved.method, Method::Dora(_));
    if recipe.peft_use_dora.is_some_and(|wanted| wanted != dora) {
        bail!(
            "{}: peft_use_dora is `{dora}` for the adapter in {}\nhint: leave peft_use_dora out; an adapter keeps its method",
            recipe.at("peft_use_dora"),
            saved.folder.display(),
        );
    }
    Ok(saved.method.with(LowRankSpec { dropout: recipe.lora_dropout.unwrap_or(spec.dropout), ..spec }))
}

/// The error at its place in the recipe, with the name that a misspelt target stands for.
fn refused(recipe: &Recipe, key: &str, mut error: adapters::AttachError) -> anyhow::Error {
    if let adapters::AttachError::NoMatch { target, names, hint } = &mut error
        && let Some(name) = nearest(target, names.iter().map(String::as_str))
    {
        *hint = format!("did you mean `{name}`? {hint}");
    }
    anyhow!("{}: {error}", place_of(recipe, key, &error))
}

/// The place of the list entry that is wrong, if it is one.
fn place_of(recipe: &Recipe, key: &str, error: &adapters::AttachError) -> String {
    match (error, &recipe.lora_target_modules) {
        (adapters::AttachError::NoMatch { target, .. }, _) if key == "lora_target_parameters" => {
            let index = recipe.lora_target_parameters.iter().position(|name| name == target).unwrap_or(0);
            recipe.at(&format!("{key}.{index}"))
        }
        (adapters::AttachError::NoMatch { target, .. }, Some(recipe::Targets::List(names))) => {
            let index = names.iter().position(|name| name == target).unwrap_or(0);
            recipe.at(&format!("{key}.{index}"))
        }
        (adapters::AttachError::Layer { .. }, _) => recipe.at("peft_layers_to_transform"),
        _ => recipe.at(key),
    }
}

fn full(recipe: &Recipe, spec: &DecoderSpec) -> Result<Adaptation> {
    // No gradient reaches what only helps a router to choose.
    let learnable = |parameter: &names::Parameter| parameter.kind != ParameterKind::RouterCorrection;
    let all: Vec<names::Parameter> = names::parameters(spec).into_iter().filter(learnable).collect();
    let mut patterns = Vec::new();
    for (index, pattern) in recipe.unfrozen_parameters.iter().enumerate() {
        let at = recipe.at(&format!("unfrozen_parameters.{index}"));
        let regex = Regex::new(pattern).map_err(|error| {
            anyhow!("{at}: `{pattern}` is no valid pattern: {error}\nhint: write a regular expression such as model.layers.2[0-9]+.mlp")
        })?;
        if !all.iter().any(|parameter| regex.is_match(&parameter.name).unwrap_or(false)) {
            bail!(
                "{at}: `{pattern}` matches no parameter\nhint: parameters are called {}, {} and so on",
                all[0].name,
                all[1].name
            );
        }
        patterns.push(regex);
    }
    let learns = |name: &str| patterns.is_empty() || patterns.iter().any(|regex| regex.is_match(name).unwrap_or(false));
    let chosen: Vec<&names::Parameter> = all.iter().filter(|parameter| learns(&parameter.name)).collect();
    Ok(Adaptation::Full {
        parameters: chosen.iter().map(|parameter| parameter.name.clone()).collect(),
        tensors: chosen
            .iter()
            .map(|parameter| TrainedTensor { name: parameter.name.clone(), shape: parameter.shape.clone() })
            .collect(),
    })
}
