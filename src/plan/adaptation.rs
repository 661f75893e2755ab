//! The trained part of a model: an adapter on chosen projections, or weights of the model itself.

use std::collections::HashSet;
use std::path::PathBuf;

use adapters::peft::SavedAdapter;
use adapters::{AdapterSpec, AttachError, Candidate, LowRankSpec, Method, Role, Targets, select, select_stacks};
use anyhow::{Context, Result, bail};
use fancy_regex::Regex;

use crate::export;
use crate::hint::hinted;
use crate::hub::{BaseModel, HubCache};
use crate::model::names::{self, ParameterKind, ProjectionName};
use crate::model::spec::{DecoderSpec, FeedForwardSpec};
use crate::open;
use crate::recipe::{AdapterKind, Place, Recipe};
use crate::text::nearest;
use crate::train::optimizers::TrainedTensor;

/// The trained part of a model.
#[allow(clippy::large_enum_variant, reason = "a plan has one")]
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
        continued: Option<Continued>,
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

/// An adapter to continue from.
#[derive(Debug, Clone)]
pub struct Continued {
    /// Its folder.
    pub folder: PathBuf,
    /// The targets whose rank or scaling is not that of the others.
    pub exceptions: Vec<(String, LowRankSpec)>,
    /// The base model that it names, if that is another one whose weights are not here to be compared.
    pub uncompared_base: Option<String>,
}

impl Adaptation {
    /// Decides what the recipe asks for, on the architecture `spec`.
    ///
    /// # Errors
    /// If a target or a pattern matches nothing, or there are no weights to adapt.
    pub fn resolve(recipe: &Recipe, spec: &DecoderSpec, base: &BaseModel) -> Result<Self> {
        match *recipe.adapter {
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
        bail!(hinted(
            format!(
                "{}: `{}` holds no weights, and an adapter on random weights is of no use",
                recipe.base_model.place(),
                base.folder.display()
            ),
            "name a folder with model.safetensors, or leave adapter blank to train a new model"
        ));
    }
    // The targets, and the key that names them, if any does.
    let (named, targets) = match &*recipe.lora_target_modules {
        _ if *recipe.lora_target_linear => {
            (Some((recipe.lora_target_linear.place(), "lora_target_linear")), Targets::AllLinear)
        }
        Some(targets) => (Some((recipe.lora_target_modules.place(), "lora_target_modules")), targets.clone()),
        None if !recipe.lora_target_parameters.is_empty() => (None, Targets::Names(Vec::new())),
        None => (None, Targets::AllLinear),
    };
    let targets_place = named.map_or(recipe.adapter.place(), |(place, _)| place);
    let low_rank = LowRankSpec {
        rank: *recipe.lora_r,
        alpha: *recipe.lora_alpha,
        dropout: *recipe.lora_dropout,
        rank_stabilised: *recipe.peft_use_rslora,
    };
    let mut adapter = AdapterSpec {
        method: if *recipe.peft_use_dora { Method::Dora(low_rank) } else { Method::LowRank(low_rank) },
        targets,
        parameters: recipe.lora_target_parameters.to_vec(),
        saved_modules: whole_modules(recipe, spec)?,
        layers: (*recipe.peft_layers_to_transform).clone(),
        seed: *recipe.seed,
    };
    let projections = names::projections(spec);
    let candidate = |name: &'_ ProjectionName| (name.path.clone(), name.role);
    let paths: Vec<(String, Role)> = projections.iter().map(candidate).collect();
    let candidates: Vec<Candidate> = paths.iter().map(|(path, role)| Candidate { path, role: *role }).collect();
    let mut targets = select(&adapter.targets, adapter.layers.as_deref(), &candidates)
        .map_err(|error| refused(target_place(recipe, targets_place, &error), error))?;
    let all_stacks = names::stacks(spec);
    let stack_names: Vec<&str> = all_stacks.iter().map(|stack| stack.name.as_str()).collect();
    let mut stacks = select_stacks(&adapter.parameters, adapter.layers.as_deref(), &stack_names)
        .map_err(|error| refused(parameter_place(recipe, &error), error))?;
    let saved = saved_adapter(recipe, spec)?;
    let uncompared_base = match &saved {
        Some(saved) => open::check_base(&saved.folder, base, &HubCache::from_environment())
            .with_context(|| recipe.lora_model_dir.place().to_string())?,
        None => None,
    };
    if let Some(saved) = &saved {
        adapter.method = continued_method(recipe, saved)?;
        let known = saved.targets();
        let kept: Vec<String> =
            paths.iter().map(|(path, _)| path).filter(|path| known.contains(*path)).cloned().collect();
        if let Some((place, key)) = named.filter(|_| kept != targets) {
            bail!(hinted(
                format!(
                    "{place}: the targets are not those of the adapter in {}, which changes {} projections",
                    saved.folder.display(),
                    kept.len()
                ),
                format!("leave {key} out; an adapter keeps its targets")
            ));
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
        bail!(hinted(
            format!(
                "{}: lora_r `{rank}` is more than the rank {highest} that the targets can have",
                recipe.lora_r.place()
            ),
            "choose a rank from 4 to 64; to train whole matrices leave adapter blank"
        ));
    }
    let magnitudes = matches!(adapter.method, Method::Dora(_));
    let tensor = |name: String, shape: &[usize]| TrainedTensor { name, shape: shape.to_vec() };
    let mut tensors = Vec::new();
    let rank_of = |target: &str| saved.as_ref().map_or(rank, |saved| saved.spec_of(target).rank);
    for ProjectionName { path, in_features, out_features, .. } in adapted {
        let rank = rank_of(path);
        tensors.push(tensor(format!("{path}.lora_A.weight"), &[rank, *in_features]));
        tensors.push(tensor(format!("{path}.lora_B.weight"), &[*out_features, rank]));
        if magnitudes {
            tensors.push(tensor(format!("{path}.lora_magnitude_vector"), &[*out_features]));
        }
    }
    for stack in all_stacks.iter().filter(|stack| stacks.contains(&stack.name)) {
        let rank = rank_of(&stack.name);
        tensors.push(tensor(format!("{}.lora_A", stack.name), &[stack.experts, rank, stack.in_features]));
        tensors.push(tensor(format!("{}.lora_B", stack.name), &[stack.experts, stack.out_features, rank]));
    }
    tensors.extend(adapter.saved_modules.iter().map(|path| tensor(names::weight(path), &[spec.vocab, spec.hidden])));
    let continued = saved.map(|saved| Continued {
        exceptions: saved.exceptions().map(|(path, spec)| (path.to_owned(), spec)).collect(),
        folder: saved.folder,
        uncompared_base,
    });
    Ok(Adaptation::Adapter { spec: adapter, targets, stacks, continued, tensors })
}

/// The modules that `lora_modules_to_save` names, by module path.
fn whole_modules(recipe: &Recipe, spec: &DecoderSpec) -> Result<Vec<String>> {
    let known: Vec<String> = names::shapes(spec).modules.into_iter().map(|(path, _)| path).collect();
    let mut paths = Vec::new();
    for (index, name) in recipe.lora_modules_to_save.iter().enumerate() {
        let at = recipe.lora_modules_to_save.item(index);
        let answers = |path: &&String| *path == name || path.ends_with(&format!(".{name}"));
        let Some(path) = known.iter().find(answers) else {
            let short: Vec<&str> = known.iter().map(|path| names::short(path)).collect();
            let tied = if spec.head.tied { "; the head of this model is its embedding" } else { "" };
            bail!(hinted(
                format!("{at}: `{name}` is not a module that can be trained as a whole"),
                format!("this model has {}{tied}", short.join(", "))
            ));
        };
        if spec.head.tied {
            bail!(hinted(
                format!(
                    "{at}: the embedding of this model is also its head, and a copy of one of them would part the two"
                ),
                format!(
                    "leave `{name}` out, or train the weights themselves with adapter: blank and unfrozen_parameters"
                )
            ));
        }
        paths.push(path.clone());
    }
    Ok(paths)
}

/// Refuses adapters on experts that PEFT cannot load.
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
        bail!(hinted(
            format!("{}: DoRA on experts is not supported, by PEFT either", recipe.peft_use_dora.place()),
            "leave peft_use_dora out, or name attention's projections in lora_target_modules"
        ));
    }
    check_whole_experts(recipe, spec, adapted)?;
    if stacked && adapter.method.low_rank().dropout > 0.0 {
        bail!(hinted(
            format!("{}: dropout on stacked experts is not supported, by PEFT either", recipe.lora_dropout.place()),
            "set lora_dropout: 0"
        ));
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
            bail!(hinted(
                format!(
                    "{}: layer {index} adapts `{}` in {gate}, `{}` in {up} and `{}` in {down} of its {} experts; PEFT loads all of them or none, and the first two only together",
                    recipe.lora_target_modules.place(),
                    experts.names.gate,
                    experts.names.up,
                    experts.names.down,
                    experts.count
                ),
                format!(
                    "name {} without a number of an expert",
                    [experts.names.gate, experts.names.up, experts.names.down].join(", ")
                )
            ));
        }
    }
    Ok(())
}

/// The adapter to continue from, checked against the architecture.
fn saved_adapter(recipe: &Recipe, spec: &DecoderSpec) -> Result<Option<SavedAdapter>> {
    let Some(folder) = &*recipe.lora_model_dir else {
        return Ok(None);
    };
    let at = || recipe.lora_model_dir.place().to_string();
    let folder = export::model_in(&recipe.locate(folder)).with_context(at)?;
    let saved = open::saved_adapter(&folder, spec).with_context(at)?;
    if let Some(path) = saved.merged_module() {
        bail!(hinted(
            format!(
                "{}: the adapter in {} has LoRA or trained tokens on `{path}`, with which training cannot continue",
                recipe.lora_model_dir.place(),
                saved.folder.display()
            ),
            "merge it with `tune merge`, and name the merged model as base_model"
        ));
    }
    if saved.parts_head() {
        bail!(hinted(
            format!(
                "{}: the adapter in {} gives the model, whose head is its embedding, a head of its own",
                recipe.lora_model_dir.place(),
                saved.folder.display()
            ),
            "merge it with `tune merge`, and name the merged model as base_model"
        ));
    }
    Ok(Some(saved))
}

/// Rank and scaling of an adapter to continue from, which the recipe may repeat but not change.
fn continued_method(recipe: &Recipe, saved: &SavedAdapter) -> Result<Method> {
    let spec = saved.method.low_rank();
    let written = [
        ("lora_r", recipe.lora_r.place(), recipe.lora_r.set().map(|rank| *rank as f64), spec.rank as f64),
        ("lora_alpha", recipe.lora_alpha.place(), recipe.lora_alpha.set().copied(), spec.alpha),
    ];
    for (key, place, value, own) in written {
        if let Some(value) = value.filter(|value| *value != own) {
            bail!(hinted(
                format!("{place}: {key} `{value}` differs from the {own} of the adapter in {}", saved.folder.display()),
                format!("leave {key} out; an adapter keeps its rank and scaling")
            ));
        }
    }
    if recipe.peft_use_rslora.set().is_some_and(|stabilised| *stabilised != spec.rank_stabilised) {
        bail!(hinted(
            format!(
                "{}: peft_use_rslora is `{}` for the adapter in {}",
                recipe.peft_use_rslora.place(),
                spec.rank_stabilised,
                saved.folder.display()
            ),
            "leave peft_use_rslora out; an adapter keeps its rank and scaling"
        ));
    }
    let dora = matches!(saved.method, Method::Dora(_));
    if recipe.peft_use_dora.set().is_some_and(|wanted| *wanted != dora) {
        bail!(hinted(
            format!(
                "{}: peft_use_dora is `{dora}` for the adapter in {}",
                recipe.peft_use_dora.place(),
                saved.folder.display()
            ),
            "leave peft_use_dora out; an adapter keeps its method"
        ));
    }
    Ok(saved.method.with(LowRankSpec { dropout: recipe.lora_dropout.set().copied().unwrap_or(spec.dropout), ..spec }))
}

/// The error at its place in the recipe, with the name that a misspelt target stands for.
fn refused(place: &Place, mut error: AttachError) -> anyhow::Error {
    if let AttachError::NoMatch { target, names, hint } = &mut error {
        let is_name = |part: &&str| names.iter().any(|name| name == part);
        let parts: Vec<&str> = target.split([',', '|', ' ']).map(str::trim).filter(|part| !part.is_empty()).collect();
        if !parts.is_empty() && parts.iter().all(is_name) {
            // As in PEFT, a text is an expression that the whole name must match.
            *hint = format!(
                "a text is a pattern for whole names, such as `.*{}`; write a list of names: [{}]",
                parts[0],
                parts.join(", ")
            );
        } else if let Some(name) = nearest(target, names.iter().map(String::as_str)) {
            *hint = format!("did you mean `{name}`? {hint}");
        }
    }
    anyhow::Error::from(error).context(place.to_string())
}

/// The place of the target that is wrong, and `otherwise` if it is none in particular.
fn target_place<'r>(recipe: &'r Recipe, otherwise: &'r Place, error: &AttachError) -> &'r Place {
    match (error, &*recipe.lora_target_modules) {
        (AttachError::NoMatch { target, .. }, Some(Targets::Names(names))) => names
            .iter()
            .position(|name| name == target)
            .map_or(otherwise, |index| recipe.lora_target_modules.item(index)),
        (AttachError::Layer { .. }, _) => recipe.peft_layers_to_transform.place(),
        _ => otherwise,
    }
}

/// The place of the stack of experts that is wrong.
fn parameter_place<'r>(recipe: &'r Recipe, error: &AttachError) -> &'r Place {
    let stacks = &recipe.lora_target_parameters;
    match error {
        AttachError::NoMatch { target, .. } => {
            stacks.iter().position(|name| name == target).map_or(stacks.place(), |index| stacks.item(index))
        }
        AttachError::Layer { .. } => recipe.peft_layers_to_transform.place(),
        _ => stacks.place(),
    }
}

fn full(recipe: &Recipe, spec: &DecoderSpec) -> Result<Adaptation> {
    // No gradient reaches what only helps a router to choose.
    let trainable = |parameter: &names::Parameter| parameter.kind != ParameterKind::RouterCorrection;
    let all: Vec<names::Parameter> = names::parameters(spec).into_iter().filter(trainable).collect();
    let mut patterns = Vec::new();
    for (index, pattern) in recipe.unfrozen_parameters.iter().enumerate() {
        let at = recipe.unfrozen_parameters.item(index);
        let regex = Regex::new(pattern).map_err(|error| {
            hinted(
                format!("{at}: `{pattern}` is not a valid pattern: {error}"),
                "write a regular expression such as model.layers.2[0-9]+.mlp",
            )
        })?;
        if !all.iter().any(|parameter| regex.is_match(&parameter.name).unwrap_or(false)) {
            bail!(hinted(
                format!("{at}: `{pattern}` matches no parameter"),
                format!("parameters are called {}, {} and so on", all[0].name, all[1].name)
            ));
        }
        patterns.push(regex);
    }
    let is_chosen =
        |name: &str| patterns.is_empty() || patterns.iter().any(|regex| regex.is_match(name).unwrap_or(false));
    let chosen: Vec<&names::Parameter> = all.iter().filter(|parameter| is_chosen(&parameter.name)).collect();
    Ok(Adaptation::Full {
        parameters: chosen.iter().map(|parameter| parameter.name.clone()).collect(),
        tensors: chosen
            .iter()
            .map(|parameter| TrainedTensor { name: parameter.name.clone(), shape: parameter.shape.clone() })
            .collect(),
    })
}
