//! The identity of a run: recipe, data, base model, program. A checkpoint resumes the same run only.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::errors;
use crate::hint::hinted;
use crate::hub::BaseModel;
use crate::recipe::{self, OnResume, Recipe};
use crate::run_dir::{hash_file, hex};
use crate::text::nearest;

/// The identity of a run, as its checkpoints hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The version of the program.
    pub(super) version: String,
    /// SHA-256 of the recipe's values.
    recipe_sha256: String,
    /// The recipe's values by key.
    recipe: BTreeMap<String, String>,
    /// Hash of the tokens of training and evaluation rows, and of which of them are trained on.
    pub(super) data: String,
    /// The base model: a commit of the hub, or a hash of its files.
    pub(super) base_model: String,
}

impl Identity {
    /// The identity of a prepared run; reads the base model's files from end to end unless they are a commit of the hub.
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

    /// Compares this identity, that of the checkpoint in `folder`, with that of the run `now`.
    ///
    /// # Errors
    /// When they differ in more than the keys in `allowed`; the message names the differences.
    pub(super) fn check(&self, now: &Identity, allowed: &[String], folder: &Path) -> Result<()> {
        check_recipes(&self.recipe, &now.recipe, allowed, folder)?;
        let hint = "name another output_dir to train on what is there now";
        if self.base_model != now.base_model {
            bail!(hinted(
                format!(
                    "{}: the base model has changed since it was saved: its files have other bytes",
                    folder.display()
                ),
                hint
            ));
        }
        if self.data != now.data {
            bail!(hinted(
                format!(
                    "{}: the data have changed since it was saved: the rows of `datasets` give other tokens",
                    folder.display()
                ),
                hint
            ));
        }
        Ok(())
    }
}

/// An identity that is computed on a thread of its own, since that reads the base model's files from end to end.
#[derive(Debug, Clone)]
pub(super) struct PendingIdentity(Arc<OnceLock<Result<Identity, String>>>);

impl PendingIdentity {
    /// An identity that is known.
    pub(super) fn known(identity: Identity) -> Self {
        Self(Arc::new(OnceLock::from(Ok(identity))))
    }

    /// Starts to compute it.
    pub(super) fn begin(compute: impl FnOnce() -> Result<Identity> + Send + 'static) -> Self {
        let pending = Self(Arc::new(OnceLock::new()));
        let place = Arc::clone(&pending.0);
        std::thread::spawn(move || {
            let identity = panic::catch_unwind(AssertUnwindSafe(compute)).unwrap_or_else(|_| Err(anyhow!("a panic")));
            // Nothing else sets it.
            let _ = place.set(identity.map_err(|error| errors::render(&error)));
        });
        pending
    }

    /// Waits for it.
    ///
    /// # Errors
    /// When the base model's files could not be read.
    pub(super) fn wait(&self) -> Result<Identity> {
        self.0.wait().clone().map_err(|error| anyhow!(error))
    }
}

/// The values of the recipe that are part of a run's identity.
pub(super) fn values(recipe: &Recipe) -> BTreeMap<String, String> {
    let counts = |key: &str| recipe::on_resume(key) != OnResume::NotCompared;
    recipe.values.iter().filter(|(key, _)| counts(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The differences between two recipes, by key, in words.
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

/// Refuses keys that may not change within a run.
///
/// # Errors
/// When `allowed` names one.
pub(super) fn check_allowed(allowed: &[String]) -> Result<()> {
    let changeable = recipe::changeable();
    let Some(key) = allowed.iter().find(|key| !changeable.contains(&key.as_str())) else { return Ok(()) };
    let accepted = format!(
        "accepted: {}; any other change makes it another run, which needs another output_dir",
        changeable.join(", ")
    );
    if recipe::is_key(key) {
        bail!(hinted(format!("--allow-change {key}: `{key}` cannot change within a run"), accepted));
    }
    let advice = match (key.split_once(['=', '.']), nearest(key, changeable.iter().copied())) {
        (Some((name, _)), _) if recipe::is_key(name) => format!("name the key alone: `--allow-change {name}`"),
        (_, Some(name)) => format!("did you mean `{name}`?"),
        _ => accepted,
    };
    bail!(hinted(format!("--allow-change {key}: unknown key `{key}`"), advice))
}

/// Compares two recipes, but for the keys in `allowed`.
///
/// # Errors
/// When they differ; the message names the keys.
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
    let hint = if keys.iter().all(|key| recipe::on_resume(key) == OnResume::Changeable) {
        let options: Vec<String> = keys.iter().map(|key| format!("--allow-change {key}")).collect();
        format!("add {} to resume with the change", options.join(" "))
    } else {
        "name another output_dir for another run, or restore the recipe".to_owned()
    };
    let changed: Vec<String> = changed.into_iter().map(|(_, words)| words).collect();
    bail!(hinted(format!("{}: the recipe has changed: {}", folder.display(), changed.join("; ")), hint))
}

/// A hash of the adapter that `recipe` continues from, if it does.
pub(super) fn hash_of_adapter(recipe: &Recipe) -> Option<String> {
    let folder = recipe.locate(recipe.lora_model_dir.as_deref()?);
    let mut hasher = Sha256::new();
    // One that cannot be read is refused elsewhere.
    hash_file(&folder.join("adapter_model.safetensors"), &mut hasher).ok()?;
    Some(format!("sha256:{}", hex(hasher)))
}

/// A commit of the hub, whose files were checked when they were downloaded, or a hash of configuration and weights.
pub(super) fn hash_of(base: &BaseModel) -> Result<String> {
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
