//! What a run was made of: recipe, data, base model, program. A run goes on only with the same.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hub::BaseModel;
use crate::recipe::Recipe;
use crate::run_dir::{hash_file, hex};

/// Keys that say where a run is and where it begins, not what it is.
const NOT_COMPARED: [&str; 3] = ["output_dir", "auto_resume_from_checkpoints", "resume_from_checkpoint"];

/// Keys that may change within a run if the user says so: how long it is, what it tells and writes, where it computes,
/// and where the same model and the same rows lie.
const CHANGEABLE: [&str; 24] = [
    "num_epochs",
    "max_steps",
    "early_stopping_patience",
    "load_best_model_at_end",
    "eval_strategy",
    "eval_steps",
    "evals_per_epoch",
    "eval_batch_size",
    "save_strategy",
    "save_steps",
    "saves_per_epoch",
    "save_total_limit",
    "logging_steps",
    "export",
    "preflight",
    "device",
    "tf32",
    "gradient_checkpointing",
    "dataset_prepared_path",
    "base_model",
    "revision_of_model",
    "tokenizer_config",
    "datasets",
    "test_datasets",
];

/// What a checkpoint remembers of where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The version of the program.
    pub(super) version: String,
    /// SHA-256 of the recipe's values.
    recipe_sha256: String,
    /// The recipe's values by key.
    recipe: BTreeMap<String, String>,
    /// Hash of the tokens to train on and to evaluate on, and of which of them count.
    data: String,
    /// The base model: a commit of the hub, or a hash of its files.
    base_model: String,
}

impl Origin {
    /// Of a run that is prepared; reads the base model's files from end to end unless they are a commit of the hub.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn of(recipe: &Recipe, data: String, base: &BaseModel) -> Result<Self> {
        let recipe = values(recipe);
        let mut hasher = Sha256::new();
        for (key, value) in &recipe {
            hasher.update(format!("{key}={value:?}\n"));
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self { version, recipe_sha256: hex(hasher), recipe, data, base_model: hash_of(base)? })
    }

    /// An error that names what differs between `self`, of which `folder` is, and `now`, but for keys in `allowed`.
    ///
    /// # Errors
    /// As it says.
    pub(super) fn check(&self, now: &Origin, allowed: &[String], folder: &Path) -> Result<()> {
        check_recipes(&self.recipe, &now.recipe, allowed, folder)?;
        let hint = "name another output_dir to train on what is there now";
        if self.base_model != now.base_model {
            bail!("{}: the base model has changed since: its files have other bytes\nhint: {hint}", folder.display());
        }
        if self.data != now.data {
            bail!(
                "{}: the data have changed since: the rows of `datasets` give other tokens\nhint: {hint}",
                folder.display()
            );
        }
        Ok(())
    }
}

/// An origin that is found out on a thread of its own, since that reads the base model's files from end to end.
#[derive(Debug, Clone)]
pub(super) struct Traced(Arc<OnceLock<Result<Origin, String>>>);

impl Traced {
    /// An origin that is known.
    pub(super) fn known(origin: Origin) -> Self {
        Self(Arc::new(OnceLock::from(Ok(origin))))
    }

    /// Begins to find it out.
    pub(super) fn begin(trace: impl FnOnce() -> Result<Origin> + Send + 'static) -> Self {
        let traced = Self(Arc::new(OnceLock::new()));
        let place = Arc::clone(&traced.0);
        std::thread::spawn(move || {
            let found = panic::catch_unwind(AssertUnwindSafe(trace)).unwrap_or_else(|_| Err(anyhow!("a panic")));
            // Nobody else sets it.
            let _ = place.set(found.map_err(|error| format!("{error:#}")));
        });
        traced
    }

    /// Waits for it.
    ///
    /// # Errors
    /// When the base model's files could not be read.
    pub(super) fn wait(&self) -> Result<Origin> {
        self.0.wait().clone().map_err(|error| anyhow!(error))
    }
}

/// The recipe's values that make a run what it is.
pub(super) fn values(recipe: &Recipe) -> BTreeMap<String, String> {
    let counts = |key: &str| !NOT_COMPARED.contains(&key);
    recipe.values.iter().filter(|(key, _)| counts(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What differs between two recipes, key by key, in words.
pub(super) fn differences<'a>(
    before: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> Vec<(&'a str, String)> {
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let changed = keys.into_iter().filter(|key| before.get(*key) != now.get(*key));
    let shown =
        |value: Option<&String>| value.map_or("not set".to_owned(), |value| format!("`{}`", value.escape_debug()));
    let words =
        |key: &'a String| (key.as_str(), format!("`{key}` was {}, is {}", shown(before.get(key)), shown(now.get(key))));
    changed.map(words).collect()
}

/// An error if `allowed` names a key that may not change within a run.
///
/// # Errors
/// As it says.
pub(super) fn check_allowed(allowed: &[String]) -> Result<()> {
    match allowed.iter().find(|key| !CHANGEABLE.contains(&key.as_str())) {
        Some(key) => bail!(
            "--allow-change {key}: `{key}` cannot change within a run\nhint: accepted: {}; with anything else it is another run, which needs another output_dir",
            CHANGEABLE.join(", "),
        ),
        None => Ok(()),
    }
}

/// An error that names the keys in which two recipes differ, but for those in `allowed`.
///
/// # Errors
/// As it says.
pub(super) fn check_recipes(
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    allowed: &[String],
    folder: &Path,
) -> Result<()> {
    let top = |key: &str| key.split('.').next().unwrap_or(key).to_owned();
    let mut changed = differences(before, now);
    changed.retain(|(key, _)| !allowed.contains(&top(key)));
    if changed.is_empty() {
        return Ok(());
    }
    let keys: BTreeSet<String> = changed.iter().map(|(key, _)| top(key)).collect();
    let hint = match keys.iter().all(|key| CHANGEABLE.contains(&key.as_str())) {
        true => {
            let options: Vec<String> = keys.iter().map(|key| format!("--allow-change {key}")).collect();
            format!("{} goes on with the change", options.join(" "))
        }
        false => "name another output_dir for another run, or put the recipe back".to_owned(),
    };
    let changed: Vec<String> = changed.into_iter().map(|(_, words)| words).collect();
    bail!("{}: the recipe has changed since: {}\nhint: {hint}", folder.display(), changed.join("; "))
}

/// A commit of the hub, whose files were checked when they were downloaded, or a hash of configuration and weights.
fn hash_of(base: &BaseModel) -> Result<String> {
    if let Some(commit) = &base.revision {
        return Ok(format!("{}@{commit}", base.name));
    }
    let mut hasher = Sha256::new();
    let files = base.weights.as_ref().map(|weights| weights.files()).unwrap_or_default();
    let paths = std::iter::once(base.config_path.clone()).chain(files.into_iter().map(|file| file.path));
    for path in paths {
        let bytes =
            hash_file(&path, &mut hasher).map_err(|error| anyhow!("{} cannot be read: {error}", path.display()))?;
        hasher.update(bytes.to_le_bytes());
    }
    Ok(format!("sha256:{}", hex(hasher)))
}
