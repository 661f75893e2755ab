//! The folder that a base model's name stands for: a folder as it is, or a snapshot in the local Hugging Face cache.
//!
//! Nothing is downloaded here. The cache is the one that `hf download` and this program fill:
//! `models--org--name/refs/REVISION` holds a commit, `snapshots/COMMIT` the files.

use std::env;
use std::path::{Path, PathBuf};

use super::access_error::AccessError;
use super::error::HubError;
use crate::text::similar_path;

/// A local Hugging Face cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCache {
    folder: Option<PathBuf>,
}

impl HubCache {
    /// The cache in `folder`.
    pub fn at(folder: &Path) -> HubCache {
        HubCache { folder: Some(folder.to_owned()) }
    }

    /// The user's cache: `HF_HUB_CACHE`, else `hub` in [`HubCache::home`].
    pub fn from_environment() -> HubCache {
        HubCache { folder: variable("HF_HUB_CACHE").or_else(|| HubCache::home().map(|home| home.join("hub"))) }
    }

    /// The folder of all files of the hub: `HF_HOME`, else `huggingface` in `XDG_CACHE_HOME` or
    /// `~/.cache`.
    pub(super) fn home() -> Option<PathBuf> {
        variable("HF_HOME").or_else(|| {
            let caches = variable("XDG_CACHE_HOME").or_else(|| env::home_dir().map(|home| home.join(".cache")));
            caches.map(|caches| caches.join("huggingface"))
        })
    }

    /// The folder of the cache.
    pub(super) fn folder(&self) -> Result<&Path, AccessError> {
        self.folder.as_deref().ok_or(AccessError::NoCache)
    }

    /// The commit of a repository that `revision` means, if its files were downloaded; `folder` is the repository's.
    pub(super) fn commit(&self, folder: &Path, revision: &str) -> Option<String> {
        let folder = self.folder.as_ref()?.join(folder);
        if !is_revision(revision) {
            return None;
        }
        let branch = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
        let commit = branch.as_deref().map_or(revision, str::trim);
        (is_plain_commit(commit) && folder.join("snapshots").join(commit).is_dir()).then(|| commit.to_owned())
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A folder with a base model's files.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) folder: PathBuf,
    /// The commit, if the folder is a snapshot of the cache.
    pub(super) commit: Option<String>,
}

/// Finds the folder that `name` means: below one of `roots` (an absolute path as it is), else in `cache`.
pub(super) fn locate(
    name: &str,
    roots: &[&Path],
    revision: Option<&str>,
    cache: &HubCache,
) -> Result<Located, HubError> {
    let mut tried: Vec<PathBuf> = Vec::new();
    // Joining an absolute path to a root gives the path itself, for which any root will do.
    let anywhere = [Path::new("")];
    let roots = if Path::new(name).is_absolute() { &anywhere } else { roots };
    if !name.is_empty() {
        for root in roots {
            let path = root.join(name);
            if path.is_dir() {
                return match revision {
                    None => Ok(Located { folder: path, commit: None }),
                    Some(revision) => Err(HubError::RevisionOfFolder { folder: path, revision: revision.to_owned() }),
                };
            }
            if path.is_file() {
                return Err(HubError::NotAFolder { path });
            }
            if !tried.contains(&path) {
                tried.push(path);
            }
        }
    }
    if let (true, Some(place)) = (is_hub_name(name), &cache.folder) {
        let repository = PathBuf::from(format!("models--{}", name.replace('/', "--")));
        let folder = place.join(&repository);
        if folder.is_dir() {
            let revision = revision.unwrap_or("main");
            return match cache.commit(&repository, revision) {
                Some(commit) => Ok(Located { folder: folder.join("snapshots").join(&commit), commit: Some(commit) }),
                None => {
                    let (name, revision) = (name.to_owned(), revision.to_owned());
                    Err(HubError::NoSuchRevision { folder, name, revision })
                }
            };
        }
        tried.push(folder);
    }
    // A run's folder stands for what it exported.
    let marks = ["config.json", "adapter_config.json", "recipe.yaml"];
    let is_model = |folder: &Path| marks.iter().any(|name| folder.join(name).is_file());
    let meant = tried.iter().find_map(|path| similar_path(path, is_model));
    let hint = if is_hub_name(name) && name.contains('/') {
        "without `--offline` and HF_HUB_OFFLINE it is downloaded; or give the folder that holds its `config.json`"
    } else {
        "give the folder that holds the model's `config.json`, or a model as `org/name`"
    };
    let tried: Vec<String> = tried.iter().map(|path| format!("`{}`", path.display())).collect();
    let tried = if tried.is_empty() { "nothing".to_owned() } else { tried.join(", ") };
    let hint = match meant {
        Some(folder) => format!("did you mean `{}`?", folder.display()),
        None => hint.to_owned(),
    };
    Err(HubError::NotFound { name: name.to_owned(), tried, hint })
}

/// `org/name`, or a bare `name` as the oldest models have it.
pub(super) fn is_hub_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            // The cache writes `org/name` as `org--name`.
            && !part.contains("--")
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
    };
    match name.split_once('/') {
        Some((organisation, name)) => part(organisation) && part(name),
        None => part(name),
    }
}

/// A branch (`main`), a reference (`refs/pr/1`) or a commit that does not lead out of the cache.
pub(super) fn is_revision(revision: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\\');
    revision.split('/').all(part)
}

pub(super) fn is_plain_commit(commit: &str) -> bool {
    !commit.is_empty() && commit.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_')
}
