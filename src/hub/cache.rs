//! Where a base model's name leads: a folder, or a snapshot in the local Hugging Face cache.
//!
//! Nothing is downloaded. The cache is the one that `hf download` fills:
//! `models--org--name/refs/REVISION` holds a commit, `snapshots/COMMIT` the files.

use std::env;
use std::path::{Path, PathBuf};

use super::error::HubError;

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

    /// The user's cache: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `huggingface/hub` in `XDG_CACHE_HOME`
    /// or `~/.cache`.
    pub fn from_environment() -> HubCache {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder =
            variable("HF_HUB_CACHE").or_else(|| variable("HF_HOME").map(|home| home.join("hub"))).or_else(|| {
                let caches = variable("XDG_CACHE_HOME").or_else(|| env::home_dir().map(|home| home.join(".cache")));
                caches.map(|caches| caches.join("huggingface").join("hub"))
            });
        HubCache { folder }
    }
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
    if let (true, Some(cache)) = (is_hub_name(name), &cache.folder) {
        let folder = cache.join(format!("models--{}", name.replace('/', "--")));
        if folder.is_dir() {
            return snapshot(name, folder, revision.unwrap_or("main"));
        }
        tried.push(folder);
    }
    let hint = if is_hub_name(name) && name.contains('/') {
        format!("download it with `hf download {name}`, or give the folder that holds its `config.json`")
    } else {
        "give the folder that holds the model's `config.json`, or a model as `org/name`".to_owned()
    };
    let tried: Vec<String> = tried.iter().map(|path| format!("`{}`", path.display())).collect();
    let tried = if tried.is_empty() { "nothing".to_owned() } else { tried.join(", ") };
    Err(HubError::NotFound { name: name.to_owned(), tried, hint })
}

fn snapshot(name: &str, folder: PathBuf, revision: &str) -> Result<Located, HubError> {
    let snapshots = folder.join("snapshots");
    let found = is_revision(revision)
        .then(|| {
            let branch = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
            let commit = branch.as_deref().map_or(revision, str::trim);
            let path = snapshots.join(commit);
            (is_plain_commit(commit) && path.is_dir()).then(|| (path, commit.to_owned()))
        })
        .flatten();
    match found {
        Some((path, commit)) => Ok(Located { folder: path, commit: Some(commit) }),
        None => Err(HubError::NoSuchRevision { folder, name: name.to_owned(), revision: revision.to_owned() }),
    }
}

/// `org/name`, or a bare `name` as the oldest models have it.
fn is_hub_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
    };
    match name.split_once('/') {
        Some((organisation, name)) => part(organisation) && part(name),
        None => part(name),
    }
}

/// A branch (`main`), a reference (`refs/pr/1`) or a commit that does not lead out of the cache.
fn is_revision(revision: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\\');
    revision.split('/').all(part)
}

fn is_plain_commit(commit: &str) -> bool {
    !commit.is_empty() && commit.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_')
}
