//! A base model's files: located, opened and checked against each other.
//!
//! In: the name in the recipe, a folder in Hugging Face layout or `org/name` of the hub, from the local cache or
//! downloaded into it. Out: `config.json` as JSON, the weights as mapped safetensors, the files that travel with them.
//! Nothing here knows what the configuration means, nor what a tensor is for.

mod access;
mod access_error;
mod cache;
mod client;
mod download;
mod encoding;
mod error;
#[cfg(test)]
pub(crate) mod fixtures;
mod header;
mod provide;
mod repository;
mod stamp;
#[cfg(test)]
mod tests;
mod transfer;
mod watch;
mod weights;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use access::Hub;
pub use access_error::AccessError;
pub use cache::HubCache;
pub use download::{Listener, Progress};
pub(crate) use encoding::is_beside;
pub use encoding::{Encoding, Nf4Infos};
pub use error::HubError;
pub use header::Dtype;
pub use provide::{DataSet, ModelFiles};
pub use weights::{
    INDEX_FILE, MissingWeights, Nf4Bytes, SINGLE_FILE, TensorInfo, WeightFile, Weights, find_non_finite,
};

use crate::text;

/// Files of a tokenizer, chat template included.
const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/default.jinja",
    "additional_chat_templates/tool_use.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
];

/// The file with the settings of generation.
pub const GENERATION_FILE: &str = "generation_config.json";

/// A base model's files.
#[derive(Debug)]
pub struct BaseModel {
    /// The folder with the files.
    pub folder: PathBuf,
    /// The base model as the recipe names it.
    pub name: String,
    /// The commit, if the model comes from the cache.
    pub revision: Option<String>,
    /// `config.json`, a JSON object.
    pub config: Value,
    /// The path of `config.json`.
    pub config_path: PathBuf,
    /// `generation_config.json`, a JSON object, if there is one.
    pub generation_config: Option<Value>,
    /// The weights; `None` for a configuration without weights, to be initialised at random, and where only their
    /// index is there.
    pub weights: Option<Weights>,
    /// The weights that are still to be downloaded, as far as their index lists them: enough to plan, not to train.
    pub missing: Option<MissingWeights>,
}

impl BaseModel {
    /// Opens the base model `name`: a folder below one of `roots` (tried in order; an absolute path is
    /// taken as it is), else a model of the user's Hugging Face cache at `revision` (`main` if `None`).
    ///
    /// A folder with `config.json` and no weights of any kind is a model to be initialised at random; one with an
    /// index of weights that are not there can be planned for; a snapshot of the cache with neither is an error, and
    /// so are weights in another format.
    pub fn open(name: &str, roots: &[&Path], revision: Option<&str>) -> Result<BaseModel, HubError> {
        BaseModel::open_with(name, roots, revision, &HubCache::from_environment())
    }

    /// As [`BaseModel::open`], with the cache named.
    pub fn open_with(
        name: &str,
        roots: &[&Path],
        revision: Option<&str>,
        cache: &HubCache,
    ) -> Result<BaseModel, HubError> {
        let located = cache::locate(name, roots, revision, cache)?;
        let folder = located.folder;
        let config_path = folder.join("config.json");
        if !config_path.exists() {
            return Err(without_config(name, folder, located.commit.is_some()));
        }
        let config = Value::Object(read_object(&config_path)?);
        let generation_path = folder.join(GENERATION_FILE);
        let generation_config = match generation_path.exists() {
            true => Some(Value::Object(read_object(&generation_path)?)),
            false => None,
        };
        let is_snapshot = located.commit.is_some();
        let mut missing = Weights::missing(&folder, is_snapshot)?;
        let weights = if missing.is_some() { None } else { Weights::open(&folder)? };
        if weights.is_none() && missing.is_none() && is_snapshot {
            let announced = provide::announced_weights(&folder);
            missing = announced.map(|(files, bytes)| MissingWeights { names: None, files, bytes: Some(bytes) });
        }
        if weights.is_none() && missing.is_none() {
            refuse_other_weights(&folder)?;
            if located.commit.is_some() {
                return Err(HubError::NoWeights { folder, name: name.to_owned() });
            }
        }
        Ok(BaseModel {
            folder,
            name: name.to_owned(),
            revision: located.commit,
            config,
            config_path,
            generation_config,
            weights,
            missing,
        })
    }

    /// True if there are no weights and none to be downloaded: the model is to be initialised at random.
    pub fn is_random(&self) -> bool {
        self.weights.is_none() && self.missing.is_none()
    }

    /// An error if the weights are still to be downloaded.
    pub fn require_weights(&self) -> Result<(), HubError> {
        match &self.missing {
            None => Ok(()),
            Some(missing) => Err(HubError::MissingWeights {
                folder: self.folder.clone(),
                files: missing.files,
                size: missing.bytes.map_or(String::new(), |bytes| format!(", {}", text::bytes(bytes))),
                name: self.name.clone(),
            }),
        }
    }

    /// The name by which others find it: that on the hub, or its folder, relative to the working folder if it lies below.
    pub fn reference(&self) -> String {
        if self.revision.is_some() {
            return self.name.clone();
        }
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        let working = std::env::current_dir().and_then(|folder| folder.canonicalize());
        let below = working.ok().and_then(|working| folder.strip_prefix(working).ok().map(Path::to_owned));
        below.filter(|path| !path.as_os_str().is_empty()).unwrap_or(folder).display().to_string()
    }

    /// The ids that end a generated text: `generation_config.json`'s, else `config.json`'s; may be none.
    pub fn eos_token_ids(&self) -> Result<Vec<u32>, HubError> {
        self.token_ids("eos_token_id")
    }

    /// The id or ids under `key` (such as `pad_token_id`) in `generation_config.json`, else in
    /// `config.json`; a number or a list of numbers. Missing, `null` and -1 mean none.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>, HubError> {
        let generation = self.generation_config.as_ref().and_then(|config| config.get(key));
        let (path, value) = match generation.filter(|value| !value.is_null()) {
            Some(value) => (self.folder.join(GENERATION_FILE), value),
            None => match self.config.get(key).or_else(|| self.config.get("text_config")?.get(key)) {
                Some(value) => (self.config_path.clone(), value),
                None => return Ok(Vec::new()),
            },
        };
        ids_in(&path, key, value)
    }

    /// `generation_config.json`, if there is one.
    pub fn generation_config_file(&self) -> Option<PathBuf> {
        Some(self.folder.join(GENERATION_FILE)).filter(|path| path.is_file())
    }
}

/// The ids that end a generated text, as `generation_config.json` in `folder` has them, if there is one.
pub fn generation_ends(folder: &Path) -> Result<Vec<u32>, HubError> {
    const KEY: &str = "eos_token_id";
    let path = folder.join(GENERATION_FILE);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    read_object(&path)?.get(KEY).map_or(Ok(Vec::new()), |value| ids_in(&path, KEY, value))
}

/// The ids in a number or a list of numbers; `null` and -1 mean none.
fn ids_in(path: &Path, key: &str, value: &Value) -> Result<Vec<u32>, HubError> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match value {
        Value::Null => Some(Vec::new()),
        // Written by old versions of transformers for a token that the model does not have.
        Value::Number(number) if number.as_i64() == Some(-1) => Some(Vec::new()),
        Value::Array(values) => values.iter().map(id).collect(),
        value => id(value).map(|id| vec![id]),
    };
    ids.ok_or_else(|| HubError::TokenId { path: path.to_owned(), key: key.to_owned(), value: value.to_string() })
}

/// The tokenizer's files in `folder` that exist, chat template included.
pub fn tokenizer_files(folder: &Path) -> Vec<PathBuf> {
    let paths = TOKENIZER_FILES.iter().map(|name| folder.join(name));
    paths.filter(|path| path.is_file()).collect()
}

/// Reads a JSON file that holds an object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, HubError> {
    let text = stamp::read(path).map_err(|source| HubError::Read { path: path.to_owned(), source })?;
    let wrong = |reason: String| HubError::Json { path: path.to_owned(), reason };
    // Some editors put a byte order mark first; JSON has none.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(wrong("the file does not hold a JSON object".to_owned())),
        Err(error) => Err(wrong(format!("not JSON: {error}"))),
    }
}

fn without_config(name: &str, folder: PathBuf, from_cache: bool) -> HubError {
    let adapter_path = folder.join("adapter_config.json");
    if adapter_path.exists() {
        let config = read_object(&adapter_path).unwrap_or_default();
        let base = config.get("base_model_name_or_path").and_then(Value::as_str);
        return HubError::Adapter { folder, base: base.unwrap_or("unknown").to_owned() };
    }
    let hint = match from_cache {
        true => format!("without `--offline` and HF_HUB_OFFLINE the missing files of `{name}` are downloaded"),
        false => "name the folder that holds the model's `config.json`".to_owned(),
    };
    HubError::NoConfig { folder, hint }
}

/// Weights that are there but not read must not end as a random initialisation.
fn refuse_other_weights(folder: &Path) -> Result<(), HubError> {
    let failed = |source| HubError::Read { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let extension = path.extension().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let hint = match extension.as_str() {
            "safetensors" => "download `model.safetensors.index.json`, or name the single file `model.safetensors`",
            "bin" if name.starts_with("pytorch_model") => {
                "pickled weights can run code and are never opened: convert them with `save_pretrained(..., \
                 safe_serialization=True)`, or use a revision with safetensors"
            }
            "pt" | "pth" | "ckpt" => "convert the weights to safetensors, or use a revision that has them",
            "gguf" | "h5" | "msgpack" | "onnx" => "use the model's safetensors checkpoint",
            _ => continue,
        };
        return Err(HubError::Format { path, hint });
    }
    Ok(())
}
