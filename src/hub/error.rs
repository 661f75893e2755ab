//! Errors about the files of a base model.
//!
//! Every message names the place (a file, a tensor) and quotes the value in backticks; the hint is apart.

use std::borrow::Cow;
use std::path::PathBuf;

use super::access_error::AccessError;
use crate::text::grouped;

/// An error about the files of a base model.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither a folder nor a model in the local cache.
    #[error("base model `{name}` is neither a folder nor in the local Hugging Face cache (looked at {tried})")]
    NotFound {
        /// The base model as the recipe names it.
        name: String,
        /// The places that were tried, in words.
        tried: String,
        /// The hint.
        hint: String,
    },
    /// The hub or its cache cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The path is a file where a folder is expected.
    #[error("base model `{}` is a file; a folder in Hugging Face layout is needed", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// A folder with an adapter, not with a model.
    #[error("{}: this folder holds an adapter (of base model `{base}`), not a base model", folder.display())]
    Adapter {
        /// The adapter's folder.
        folder: PathBuf,
        /// The base model that its `adapter_config.json` names.
        base: String,
    },
    /// A folder without `config.json`.
    #[error("{}: no `config.json` in this folder", folder.display())]
    NoConfig {
        /// The folder.
        folder: PathBuf,
        /// The hint.
        hint: String,
    },
    /// The cache has the model, but not this revision.
    #[error("{}: revision `{revision}` of `{name}` is not in the cache", folder.display())]
    NoSuchRevision {
        /// The model's folder in the cache.
        folder: PathBuf,
        /// The model.
        name: String,
        /// The revision asked for.
        revision: String,
    },
    /// A revision of something that has none.
    #[error("{}: revision `{revision}` of a folder; only a model of the Hugging Face cache has revisions", folder.display())]
    RevisionOfFolder {
        /// The folder.
        folder: PathBuf,
        /// The revision asked for.
        revision: String,
    },
    /// A file could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file that another program changed while it was in use.
    #[error("{}: the file changed while it was being read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A JSON file that is not valid, or not of the expected form.
    #[error("{}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The problem, and what is accepted.
        reason: String,
    },
    /// Weights in a format that is not read.
    #[error("{}: weights in a format that is not read; safetensors is (`model.safetensors`, or shards with `model.safetensors.index.json`)", path.display())]
    Format {
        /// A file of that format.
        path: PathBuf,
        /// The hint.
        hint: &'static str,
    },
    /// A snapshot of the cache without weights: an interrupted or partial download.
    #[error("{}: no weights in this snapshot of `{name}`", folder.display())]
    NoWeights {
        /// The snapshot.
        folder: PathBuf,
        /// The model.
        name: String,
    },
    /// Weights that are still to be downloaded.
    #[error("{}: the weights of `{name}` are not there ({files} files{size})", folder.display())]
    MissingWeights {
        /// The model's folder.
        folder: PathBuf,
        /// Files of the weights.
        files: usize,
        /// Their size, in words.
        size: String,
        /// The model.
        name: String,
    },
    /// A file that is shorter than its header implies.
    #[error("{}: truncated: the header promises {} bytes, the file has {}", path.display(), grouped(*promised), grouped(*actual))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The length that the header implies.
        promised: u64,
        /// The length of the file.
        actual: u64,
    },
    /// A safetensors header that cannot be read.
    #[error("{}: not a usable safetensors file: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
        /// The hint.
        hint: &'static str,
    },
    /// A header's entry that contradicts itself, another entry or the file.
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The problem.
        reason: String,
    },
    /// An index that does not fit its shards.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A tensor was asked for that the weights do not have.
    #[error("{}: no tensor `{tensor}` in the weights", folder.display())]
    NoTensor {
        /// The model's folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor whose values are not plain floating-point numbers.
    #[error("{}: tensor `{tensor}` is `{dtype}`; F32, BF16 and F16 are accepted", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type as the header spells it.
        dtype: &'static str,
    },
    /// A weight that is not a number or infinite.
    #[error("{}: tensor `{tensor}` has the value `{value}` at element {index}; weights must be finite", path.display())]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Position in the tensor, row by row.
        index: usize,
        /// The value there.
        value: f32,
    },
    /// A value in `config.json` or `generation_config.json` that is not a token id.
    #[error("{}: `{key}` is `{value}`; a token id or a list of token ids is accepted", path.display())]
    TokenId {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value there.
        value: String,
    },
}

impl HubError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            HubError::NotFound { hint, .. } => hint,
            HubError::Access(error) => return error.hint(),
            HubError::NotAFolder { .. } => "name the folder that holds `config.json` and the safetensors files",
            HubError::Adapter { .. } => "name the base model itself, or merge the adapter first with `tune merge`",
            HubError::NoConfig { hint, .. } => hint,
            HubError::NoSuchRevision { .. } => "without `--offline` and HF_HUB_OFFLINE it is downloaded",
            HubError::RevisionOfFolder { .. } => "leave the revision out, or name the model as `org/name`",
            HubError::Read { .. } => "check that the file exists and may be read",
            HubError::Changed { .. } => "let nothing write to a base model that is in use, and start again",
            HubError::Json { .. } => "download the file again, or correct it",
            HubError::Format { hint, .. } => hint,
            HubError::NoWeights { .. } => "without `--offline` and HF_HUB_OFFLINE they are downloaded",
            HubError::MissingWeights { .. } => {
                "`tune check` needs none; those of a model named `org/name` are downloaded without `--offline` and HF_HUB_OFFLINE"
            }
            HubError::Truncated { .. } => "download the file again",
            HubError::Header { hint, .. } => hint,
            HubError::Tensor { .. } => "the file is damaged or was written wrongly: download it again",
            HubError::Index { .. } => "download the model again, all of its files from one revision",
            HubError::NoTensor { .. } => "`tune inspect` shows what the model has",
            HubError::Dtype { .. } => "use the unquantised checkpoint of the model",
            HubError::NonFinite { .. } => "the checkpoint is damaged or its training diverged: use another one",
            HubError::TokenId { .. } => "correct the file",
        };
        Some(hint.into())
    }
}
