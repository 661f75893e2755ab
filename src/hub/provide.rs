//! The files of a repository that are needed: those that are in the cache already, and the download of the others.
//!
//! Of a model: configuration, tokenizer and the index of the weights for a plan, then safetensors; pickles are
//! never asked for. Of a data set: what its reader chooses from the list of its files.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::access::Hub;
use super::access_error::AccessError;
use super::cache::is_revision;
use super::client::Client;
use super::download::{Listener, Progress, Snapshot, download, pause};
use super::error::HubError;
use super::repository::{Kind, Listing, RemoteFile, Repository};
use super::weights::{INDEX_FILE, SINGLE_FILE, shards};
use super::{GENERATION_FILE, TOKENIZER_FILES};
use crate::text::similar_path;

/// Longest list of files that is read.
const LISTING_BYTES: u64 = 256 << 20;

/// The files of a model that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFiles {
    /// Enough to plan: configuration, tokenizer, the index of the weights.
    Plan,
    /// The weights too.
    Weights,
}

impl Hub {
    /// Provides `needed` of the model `name` in the cache, downloading what is missing; does nothing for a folder, and
    /// nothing offline: opening the model reports what is missing.
    ///
    /// # Errors
    /// When the hub does not have it or does not give it, or the cache cannot be written.
    pub fn provide_model(
        &self,
        name: &str,
        roots: &[&Path],
        revision: Option<&str>,
        needed: ModelFiles,
        listener: &mut Listener<'_>,
    ) -> Result<(), HubError> {
        let is_local = roots.iter().any(|root| root.join(name).exists());
        let revision = revision.unwrap_or("main");
        let repository = Repository::named(Kind::Model, name).filter(|_| !is_local && is_revision(revision));
        let (Some(repository), None) = (repository, self.offline) else { return Ok(()) };
        let known = self.cache.commit(&repository.folder(), revision);
        if let Some(commit) = &known {
            let snapshot = Snapshot::of(self.cache.folder()?, &repository, commit);
            if is_whole(&snapshot, needed)? {
                return Ok(());
            }
        }
        let client = Client::of(self);
        let listing = self
            .listing(&client, &repository, revision, known, listener)
            .map_err(|error| with_tried_folders(error, name, roots))?;
        let snapshot = Snapshot::of(self.cache.folder()?, &repository, &listing.commit);
        let weights = weight_file(&listing, &repository)?;
        download(self, &client, &repository, &snapshot, &plan_files(&listing), listener)?;
        if needed == ModelFiles::Plan {
            return Ok(());
        }
        let files = match weights == SINGLE_FILE {
            true => vec![SINGLE_FILE.to_owned()],
            false => shards(&snapshot.folder().join(INDEX_FILE))?.into_iter().collect(),
        };
        let files = find(&listing, &repository, &files)?;
        Ok(download(self, &client, &repository, &snapshot, &files, listener)?)
    }

    /// The data set `name` at `revision` (`main` if `None`), with the list of its files; `None` for a name that is not
    /// `org/name`.
    ///
    /// # Errors
    /// When the hub does not have it or does not give it; offline, when it is not in the cache.
    pub fn data_set(
        &self,
        name: &str,
        revision: Option<&str>,
        listener: &mut Listener<'_>,
    ) -> Result<Option<DataSet<'_>>, AccessError> {
        let Some(repository) = Repository::named(Kind::Dataset, name) else { return Ok(None) };
        let revision = revision.unwrap_or("main");
        if !is_revision(revision) {
            return Err(AccessError::NoRevision { what: repository.words(), revision: revision.to_owned() });
        }
        let known = self.cache.commit(&repository.folder(), revision);
        let cache = self.cache.folder()?;
        let client = Client::of(self);
        let listed = known.as_ref().and_then(|commit| Snapshot::of(cache, &repository, commit).listed());
        let listing = match (listed, self.offline, known) {
            (Some(listing), _, _) => listing,
            (None, None, known) => self.listing(&client, &repository, revision, known, listener)?,
            (None, Some(_), Some(commit)) => {
                let folder = Snapshot::of(cache, &repository, &commit).folder();
                Listing { files: files_below(&folder, &folder), commit }
            }
            (None, Some(why), None) => {
                let what = format!("{}, revision `{revision}`,", repository.words());
                return Err(AccessError::Offline { what, folder: cache.join(repository.folder()), why });
            }
        };
        let snapshot = Snapshot::of(cache, &repository, &listing.commit);
        Ok(Some(DataSet { hub: self, client, repository, snapshot, listing }))
    }

    /// The files of a revision as the hub lists them, kept in the cache.
    fn listing(
        &self,
        client: &Client<'_>,
        repository: &Repository,
        revision: &str,
        known: Option<String>,
        listener: &mut Listener<'_>,
    ) -> Result<Listing, AccessError> {
        // A branch that moved on since it was downloaded is left at the commit that is in the cache.
        let asked = known.as_deref().unwrap_or(revision);
        let listener = RefCell::new(listener);
        let waiting = |wait: Duration| {
            (*listener.borrow_mut())(Progress::Waiting { seconds: wait.as_secs_f64() });
            pause(wait, &|| true)
        };
        let route = repository.listing_route(asked);
        let text = client.text(repository, &route, asked, LISTING_BYTES, &waiting)?;
        let listing = Listing::read(&text).map_err(|problem| AccessError::Answer {
            address: self.endpoint.clone(),
            answer: format!("something other than a list of files ({problem})"),
            file: format!("`{route}`"),
        })?;
        Snapshot::of(self.cache.folder()?, repository, &listing.commit).save(&listing, revision)?;
        Ok(listing)
    }
}

/// A data set of the hub at a commit.
pub struct DataSet<'h> {
    hub: &'h Hub,
    client: Client<'h>,
    repository: Repository,
    snapshot: Snapshot,
    listing: Listing,
}

impl DataSet<'_> {
    /// The commit.
    pub fn commit(&self) -> &str {
        &self.listing.commit
    }

    /// The paths of its files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.listing.files.iter().map(|file| file.path.as_str())
    }

    /// Provides these of its files in the cache, and returns the folder that they lie in.
    ///
    /// # Errors
    /// When one is not among [`DataSet::files`], or the download fails.
    pub fn provide(&self, paths: &[String], listener: &mut Listener<'_>) -> Result<PathBuf, AccessError> {
        let files = find(&self.listing, &self.repository, paths)?;
        if let Some(why) = self.hub.offline
            && let Some(missing) = files.iter().find(|file| !self.snapshot.has(file))
        {
            let what = format!("`{}` of {}", missing.path, self.repository.words());
            return Err(AccessError::Offline { what, folder: self.snapshot.folder(), why });
        }
        download(self.hub, &self.client, &self.repository, &self.snapshot, &files, listener)?;
        Ok(self.snapshot.folder())
    }
}

/// Number of files and bytes of the weights that were listed for a snapshot that lacks them.
pub(super) fn announced_weights(snapshot: &Path) -> Option<(usize, u64)> {
    let listing = Snapshot::at(snapshot)?.listed()?;
    Some((1, listing.file(SINGLE_FILE)?.size))
}

/// True if nothing of `needed` is missing in a snapshot, as far as is known without asking the hub.
fn is_whole(snapshot: &Snapshot, needed: ModelFiles) -> Result<bool, HubError> {
    let folder = snapshot.folder();
    let has = |name: &str| folder.join(name).is_file();
    let planned = match snapshot.listed() {
        Some(listing) => plan_files(&listing).iter().all(|file| snapshot.has(file)),
        // Filled by another program: what no plan does without is there, and the rest as far as the model has it.
        None => has("config.json") && has("tokenizer.json"),
    };
    let weights = match has(SINGLE_FILE) {
        true => true,
        false if has(INDEX_FILE) => {
            needed == ModelFiles::Plan || shards(&folder.join(INDEX_FILE))?.iter().all(|file| has(file))
        }
        false => needed == ModelFiles::Plan && announced_weights(&folder).is_some(),
    };
    Ok(planned && weights)
}

/// The files that a plan is made from; the configuration last, so that where it is the others are.
fn plan_files(listing: &Listing) -> Vec<&RemoteFile> {
    let names = TOKENIZER_FILES.iter().chain(&[GENERATION_FILE, INDEX_FILE, "config.json"]);
    names.filter_map(|name| listing.file(name)).collect()
}

/// The file that holds or lists the weights.
fn weight_file(listing: &Listing, repository: &Repository) -> Result<&'static str, AccessError> {
    let lacks = |file: &str, hint: &str| AccessError::NoFile {
        what: repository.words(),
        file: file.to_owned(),
        hint: hint.to_owned(),
    };
    if listing.file("adapter_config.json").is_some() && listing.file("config.json").is_none() {
        let hint = "it holds an adapter: name its base model, and the downloaded adapter's folder as lora_model_dir";
        return Err(lacks("`config.json`", hint));
    }
    if listing.file("config.json").is_none() {
        return Err(lacks("`config.json`", "name the repository with the model's original files"));
    }
    if let Some(name) = [SINGLE_FILE, INDEX_FILE].into_iter().find(|name| listing.file(name).is_some()) {
        return Ok(name);
    }
    let ends = |suffix: &str| listing.files.iter().any(|file| file.path.ends_with(suffix));
    let hint = if ends(".bin") || ends(".pt") || ends(".pth") {
        "its weights are pickled, which can run code: they are never downloaded; use a revision or a copy with safetensors"
    } else {
        "name the repository with the model's original weights"
    };
    Err(lacks("`model.safetensors` and no index of such files", hint))
}

/// The listed files at these paths.
fn find<'l>(
    listing: &'l Listing,
    repository: &Repository,
    paths: &[String],
) -> Result<Vec<&'l RemoteFile>, AccessError> {
    let one = |path: &String| {
        listing.file(path).ok_or_else(|| AccessError::NoFile {
            what: repository.words(),
            file: format!("`{path}`"),
            hint: "another revision may have it".to_owned(),
        })
    };
    paths.iter().map(one).collect()
}

/// Files that are there, as a list: all that is known of a data set that another program downloaded.
fn files_below(root: &Path, folder: &Path) -> Vec<RemoteFile> {
    let mut files = Vec::new();
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files.extend(files_below(root, &path));
        } else if let (Ok(metadata), Ok(below)) = (path.metadata(), path.strip_prefix(root)) {
            let path = below.to_string_lossy().replace('\\', "/");
            files.push(RemoteFile { path, size: metadata.len(), hash: String::new() });
        }
    }
    files
}

/// Adds the folders that were tried: a name that the hub does not know may be a folder that is misspelt.
fn with_tried_folders(error: AccessError, name: &str, roots: &[&Path]) -> AccessError {
    match error {
        AccessError::NoRepository { what, endpoint, hint, .. } => {
            let places: Vec<String> = roots.iter().map(|root| format!("`{}`", root.join(name).display())).collect();
            let is_model = |folder: &Path| folder.join("config.json").is_file();
            let meant = roots.iter().find_map(|root| similar_path(&root.join(name), is_model));
            let meant = meant.map_or(String::new(), |folder| format!("; did you mean `{}`?", folder.display()));
            let tried = format!("; nor is there a folder {}{meant}", places.join(" or "));
            AccessError::NoRepository { what, endpoint, tried, hint }
        }
        error => error,
    }
}
