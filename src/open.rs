//! A base model, from its name to a decoder, in four steps that every command shares: locate its files, resolve its
//! architecture and check the weights against it, load them, attach a saved adapter.

mod named_base;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use adapters::peft::{PeftError, SavedAdapter, attach_saved};
use burn::tensor::Device;
use thiserror::Error;

pub use named_base::check_base;

use crate::hub::{BaseModel, Hub, HubError, Listener, ModelFiles, Weights};
use crate::model::families::{self, ConfigError, ResolvedFamily};
use crate::model::inspect::parameter_counts;
use crate::model::names::{self, WeightsError};
use crate::model::spec::DecoderSpec;
use crate::model::{Decoder, Source, Storage, stored_values};

/// A model that cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Its `config.json` is not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights are not those of its `config.json`.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// One of its files cannot be read or is damaged.
    #[error(transparent)]
    Files(#[from] HubError),
    /// It has a configuration and no weights.
    #[error("`{name}` has no weights")]
    NoWeights {
        /// The base model as it was named.
        name: String,
    },
    /// Weights that were downloaded after the architecture was resolved, and differ from it.
    #[error(
        "the weights of `{name}`, which were just downloaded, have a head that is not the embedding although `config.json` says so"
    )]
    Head {
        /// The base model as it was named.
        name: String,
    },
    /// The files of an adapter cannot be read or are damaged.
    #[error(transparent)]
    Adapter(#[from] PeftError),
    /// An adapter on weights that are not those of the base model that it names.
    #[error("the adapter in {} was trained on `{named}`, whose weights are not those of `{given}`", folder.display())]
    OtherBase {
        /// The adapter's folder.
        folder: PathBuf,
        /// The base model that it names.
        named: String,
        /// The base model that it is put on.
        given: String,
    },
}

impl OpenError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            OpenError::Config(error) => return error.hint(),
            OpenError::Weights(error) => return error.hint(),
            OpenError::Files(error) => return error.hint(),
            OpenError::NoWeights { .. } => "train it first: a recipe with adapter: blank and this folder as base_model",
            OpenError::Head { .. } => "start again: now that the weights are there, their head is kept and planned for",
            OpenError::Adapter(error) => return error.hint(),
            OpenError::OtherBase { named, given, .. } => {
                return Some(format!("use the adapter with `{named}`, or train another one on `{given}`").into());
            }
        };
        Some(hint.into())
    }
}

/// Locates the base model `name`, a folder below one of `roots` or `org/name` of the hub, and downloads those of `parts`
/// that the cache lacks.
///
/// # Errors
/// When it is not available, or its files contradict each other.
pub fn locate(
    name: &str,
    roots: &[&Path],
    revision: Option<&str>,
    parts: ModelFiles,
    hub: &Hub,
    listener: &mut Listener<'_>,
) -> Result<BaseModel, HubError> {
    hub.provide_model(name, roots, revision, parts, listener)?;
    BaseModel::open_with(name, roots, revision, hub.cache())
}

/// Resolves the architecture of `base` and checks its weights, or the names that their index promises, against it.
///
/// A head in the files that differs from the embedding is kept although the configuration calls them one weight, as
/// transformers does since version 5.
///
/// # Errors
/// When the configuration is not supported, or the weights are those of another model.
pub fn resolve(base: &BaseModel) -> Result<ResolvedFamily, OpenError> {
    let mut model = families::resolve(&base.config, &base.config_path)?;
    if let Some(weights) = &base.weights {
        model.spec.head.tied &= is_tied(&model, weights)?;
        names::check_weights(&model.spec, &model.ignored, weights)?;
    }
    if let Some(missing) = &base.missing {
        names::check_names(&model.spec, &model.ignored, missing, &base.folder.display().to_string())?;
    }
    Ok(model)
}

/// False if `weights` have a head of their own that is not a copy of the embedding.
fn is_tied(model: &ResolvedFamily, weights: &Weights) -> Result<bool, OpenError> {
    let [embedding, head] = [names::embedding(&model.spec), names::head_weight(&model.spec)];
    let (Some(of_embedding), Some(of_head)) = (weights.info(&embedding), weights.info(&head)) else { return Ok(true) };
    if of_embedding.shape != of_head.shape {
        return Ok(false);
    }
    let is_same = if of_embedding.dtype == of_head.dtype {
        weights.bytes(&embedding)? == weights.bytes(&head)?
    } else {
        stored_values(weights, &embedding)? == stored_values(weights, &head)?
    };
    [embedding, head].iter().for_each(|name| weights.release(name));
    Ok(is_same)
}

/// Loads the weights of `base`, which is of the architecture `model`, onto `device` in the types of `storage`. A base
/// without weights is initialised at random from `seed`, or refused without one. `progress` gets the number of
/// parameters that are loaded and that of all, once before the first.
///
/// # Errors
/// When weights are missing, damaged, or those of another model.
pub fn load(
    base: &BaseModel,
    model: &ResolvedFamily,
    seed: Option<u64>,
    device: &Device,
    storage: &Storage,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Decoder, OpenError> {
    base.require_weights()?;
    let source = match (&base.weights, seed) {
        (Some(weights), _) => {
            // They may have been downloaded since the architecture was resolved.
            names::check_weights(&model.spec, &model.ignored, weights)?;
            if model.spec.head.tied && !is_tied(model, weights)? {
                return Err(OpenError::Head { name: base.name.clone() });
            }
            Source::Checkpoint(weights)
        }
        (None, Some(seed)) => Source::Random { seed },
        (None, None) => return Err(OpenError::NoWeights { name: base.name.clone() }),
    };
    let total = parameter_counts(&model.spec).total as usize;
    let mut done = 0;
    progress(done, total);
    let mut count = |parameters| {
        done += parameters;
        progress(done, total);
    };
    Ok(crate::model::load(&model.spec, &source, device, storage, &mut count)?)
}

/// Reads the adapter in `folder`, for a model of the architecture `spec`.
///
/// # Errors
/// When it cannot be read, or is for another model.
pub fn saved_adapter(folder: &Path, spec: &DecoderSpec) -> Result<SavedAdapter, PeftError> {
    SavedAdapter::read(folder, &names::shapes(spec), names::module_paths(spec))
}

/// Attaches the adapter in `folder` to `decoder`; with `dropout` in place of the one that the folder names.
///
/// # Errors
/// When the adapter cannot be read, or does not fit the decoder.
pub fn attach(decoder: &mut Decoder, folder: &Path, dropout: Option<f64>) -> Result<(), OpenError> {
    let mut saved = saved_adapter(folder, &decoder.spec)?;
    if let Some(dropout) = dropout {
        saved.set_dropout(dropout);
    }
    if saved.parts_head() {
        decoder.part_head();
    }
    let device = decoder.device().clone();
    Ok(attach_saved(&saved, decoder.adaptable(), &device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use crate::hub::fixtures::{Scratch, fixture};

    fn located(name: &str) -> BaseModel {
        BaseModel::open(name, &[fixture("models").as_path()], None).expect("a sound model")
    }

    #[test]
    fn weights_of_another_model_are_refused_when_resolving_and_when_loading() {
        let mut base = located("llama31");
        let model = resolve(&base).expect("a sound model");
        base.weights = located("llama32_tied").weights;
        assert!(matches!(resolve(&base), Err(OpenError::Weights(_))));
        let storage = Storage::of(burn::tensor::FloatDType::F32, true);
        let loaded = load(&base, &model, None, &device::host(), &storage, &mut |_, _| {});
        assert!(matches!(loaded, Err(OpenError::Weights(_))));
    }

    #[test]
    fn a_configuration_without_weights_loads_from_a_seed_alone() {
        let folder = Scratch::new("open-random");
        let config = std::fs::read(fixture("models/qwen3/config.json")).expect("the fixture has a configuration");
        folder.write("tiny/config.json", config);
        let base = BaseModel::open("tiny", &[folder.path()], None).expect("a configuration is enough");
        let model = resolve(&base).expect("a sound model");
        let storage = Storage::of(burn::tensor::FloatDType::F32, true);
        let mut heard = Vec::new();
        let mut opened =
            |seed| load(&base, &model, seed, &device::host(), &storage, &mut |done, total| heard.push((done, total)));
        assert!(matches!(opened(None), Err(OpenError::NoWeights { name }) if name == "tiny"));
        opened(Some(1)).expect("a seed is enough");
        let total = parameter_counts(&model.spec).total as usize;
        assert_eq!((heard.first(), heard.last()), (Some(&(0, total)), Some(&(total, total))));
    }
}
