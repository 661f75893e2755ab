//! What learns: an adapter on chosen projections, or weights of the model itself.

use std::path::PathBuf;

use adapters::peft::{PeftError, SavedAdapter};
use adapters::{AdapterSpec, LowRankSpec, Targets, select};
use anyhow::{Result, anyhow, bail};
use fancy_regex::Regex;

use crate::hub::BaseModel;
use crate::model::names;
use crate::model::spec::DecoderSpec;
use crate::recipe::{self, AdapterKind, Recipe};

/// What learns.
#[derive(Debug, Clone)]
pub enum Adaptation {
    /// Low-rank updates; everything else is frozen.
    Adapter {
        /// Rank, targets and the rest.
        spec: AdapterSpec,
        /// The projections that get one, by module path.
        targets: Vec<String>,
        /// An adapter to continue from.
        continued: Option<PathBuf>,
        /// Values that learn.
        trainable: u64,
    },
    /// Weights of the model.
    Full {
        /// Names of the parameters that learn.
        parameters: Vec<String>,
        /// Values that learn.
        trainable: u64,
    },
}

impl Adaptation {
    /// What the recipe asks for, on the architecture `spec`.
    ///
    /// # Errors
    /// When a target or a pattern matches nothing, or there are no weights to adapt.
    pub fn resolve(recipe: &Recipe, spec: &DecoderSpec, base: &BaseModel) -> Result<Self> {
        match recipe.adapter {
            Some(AdapterKind::Lora) => lora(recipe, spec, base),
            None => full(recipe, spec),
        }
    }

    /// Values that learn.
    pub fn trainable(&self) -> u64 {
        match self {
            Self::Adapter { trainable, .. } | Self::Full { trainable, .. } => *trainable,
        }
    }
}

fn lora(recipe: &Recipe, spec: &DecoderSpec, base: &BaseModel) -> Result<Adaptation> {
    if base.weights.is_none() {
        bail!(
            "{}: `{}` holds no weights, and an adapter on random weights learns nothing of use\nhint: name a folder with model.safetensors, or leave adapter blank to train a new model",
            recipe.at("base_model"),
            base.folder.display(),
        );
    }
    let (key, targets) = match (&recipe.lora_target_modules, recipe.lora_target_linear) {
        (_, Some(true)) => ("lora_target_linear", Targets::AllLinear),
        (Some(recipe::Targets::AllLinear), _) => ("lora_target_modules", Targets::AllLinear),
        (Some(recipe::Targets::List(names)), _) => ("lora_target_modules", Targets::Names(names.clone())),
        (Some(recipe::Targets::Regex(pattern)), _) => ("lora_target_modules", Targets::Pattern(pattern.clone())),
        (None, _) => ("adapter", Targets::AllLinear),
    };
    let saved = saved_adapter(recipe, spec)?;
    let mut adapter = AdapterSpec {
        low_rank: LowRankSpec {
            rank: recipe.lora_r.unwrap_or(8),
            alpha: recipe.lora_alpha.unwrap_or(16.0),
            dropout: recipe.lora_dropout.unwrap_or(0.0),
            rank_stabilised: recipe.peft_use_rslora.unwrap_or(false),
        },
        targets,
        layers: recipe.peft_layers_to_transform.clone(),
        seed: recipe.seed.unwrap_or(42),
    };
    let projections = names::projections(spec);
    let paths: Vec<&str> = projections.iter().map(|projection| projection.path.as_str()).collect();
    let mut targets = select(&adapter.targets, adapter.layers.as_deref(), &paths)
        .map_err(|error| anyhow!("{}: {error}", place_of(recipe, key, &error)))?;
    if let Some(saved) = &saved {
        adapter.low_rank = kept(recipe, saved)?;
        let kept: Vec<&str> =
            paths.iter().copied().filter(|path| saved.modules().any(|module| module == *path)).collect();
        if key != "adapter" && kept != targets {
            bail!(
                "{}: the targets are not those of the adapter in {}, which changes {} projections\nhint: leave {key} out; an adapter keeps its targets",
                recipe.at(key),
                saved.folder.display(),
                kept.len(),
            );
        }
        targets = kept.into_iter().map(str::to_owned).collect();
    }
    let rank = adapter.low_rank.rank;
    let highest = projections
        .iter()
        .filter(|projection| targets.contains(&projection.path))
        .map(|projection| projection.in_features.min(projection.out_features))
        .max();
    if let Some(highest) = highest.filter(|highest| rank > *highest) {
        bail!(
            "{}: lora_r `{rank}` is more than the rank {highest} that the targets can have\nhint: choose a rank from 4 to 64; to train whole matrices leave adapter blank",
            recipe.at("lora_r"),
        );
    }
    let trainable = projections
        .iter()
        .filter(|projection| targets.contains(&projection.path))
        .map(|projection| (rank * (projection.in_features + projection.out_features)) as u64)
        .sum();
    Ok(Adaptation::Adapter { spec: adapter, targets, continued: saved.map(|saved| saved.folder), trainable })
}

/// The adapter to continue from, checked against the architecture.
fn saved_adapter(recipe: &Recipe, spec: &DecoderSpec) -> Result<Option<SavedAdapter>> {
    let Some(folder) = &recipe.lora_model_dir else {
        return Ok(None);
    };
    let projections = names::projections(spec);
    let modules: Vec<(&str, usize, usize)> = projections
        .iter()
        .map(|projection| (projection.path.as_str(), projection.in_features, projection.out_features))
        .collect();
    let read = || {
        let saved = SavedAdapter::read(&recipe.locate(folder))?;
        saved.check(&modules)?;
        Ok(saved)
    };
    let refused = |error: PeftError| anyhow!("{}: {error}", recipe.at("lora_model_dir"));
    read().map(Some).map_err(refused)
}

/// Rank and scaling of an adapter to continue from, which the recipe may repeat but not change.
fn kept(recipe: &Recipe, saved: &SavedAdapter) -> Result<LowRankSpec> {
    let spec = saved.spec;
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
    Ok(LowRankSpec { dropout: recipe.lora_dropout.unwrap_or(spec.dropout), ..spec })
}

/// The place of the list entry that is wrong, if it is one.
fn place_of(recipe: &Recipe, key: &str, error: &adapters::AttachError) -> String {
    match (error, &recipe.lora_target_modules) {
        (adapters::AttachError::NoMatch { target, .. }, Some(recipe::Targets::List(names))) => {
            let index = names.iter().position(|name| name == target).unwrap_or(0);
            recipe.at(&format!("{key}.{index}"))
        }
        (adapters::AttachError::Layer { .. }, _) => recipe.at("peft_layers_to_transform"),
        _ => recipe.at(key),
    }
}

fn full(recipe: &Recipe, spec: &DecoderSpec) -> Result<Adaptation> {
    let all = names::parameters(spec);
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
        trainable: chosen.iter().map(|parameter| parameter.elements()).sum(),
    })
}
