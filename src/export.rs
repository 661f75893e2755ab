//! Exports of a trained decoder to folders that other programs load.
//!
//! [`FORMATS`] lists what can be written. Every folder is written under a temporary name and renamed when whole, then
//! read again from disk and compared with the decoder that was trained.

mod companions;
mod formats;
mod merge;
mod probe;
mod product;
mod weights;

use std::borrow::Cow;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use adapters::{AdapterSpec, peft};
use burn::tensor::FloatDType;
use thiserror::Error;

pub use companions::{Companions, Ends, GOLDEN_PROMPTS};
pub use formats::{
    CardWords, Content, Divergence, Expected, FORMATS, Format, MERGED, Need, Prompt, Subject, UnmetNeed, choose, native,
};
pub use merge::{MergeBase, MergedForm, PackedTensor, Packing, raise_positions};
pub use probe::{Probe, ProbeDivergence, Verification};
pub use product::{is_adapter, model_in};

use crate::hub::{BaseModel, HubError};
use crate::model::{Decoder, DeviceFailure, Quantised, Storage};
use crate::open::OpenError;
use crate::run_dir::{WriteError, failed};

/// The formats to write and the settings that they share.
#[derive(Debug, Clone, Default)]
pub struct ExportSettings {
    /// The formats, in the order of [`FORMATS`].
    pub formats: Vec<&'static Format>,
    /// Type of the written numbers; if unset, the base's own for a whole model and f32 for an adapter.
    pub dtype: Option<FloatDType>,
    /// The weights that an adapter on a 4-bit base is merged into; unset where the base is not in 4 bits.
    pub merge_base: Option<MergeBase>,
    /// True if the base's files have the weights as they were before they were quantised.
    pub has_original_weights: bool,
    /// The 4-bit form of the base in training; unset where the base is not in 4 bits.
    pub quantised: Option<Quantised>,
    /// Positions that a written configuration promises, if they are more than the base's.
    pub positions: Option<usize>,
}

/// The inputs of a format beside the trained decoder.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The settings that all formats share.
    pub settings: &'a ExportSettings,
    /// The base model's files.
    pub base: &'a BaseModel,
    /// The adapter that was trained; `None` for full fine-tuning.
    pub adapter: Option<&'a AdapterSpec>,
    /// The files beside the weights.
    pub companions: &'a Companions,
    /// The text of the model card.
    pub card: &'a dyn Fn(&Format) -> String,
}

/// A folder that was written and read again.
#[derive(Debug)]
pub struct Exported {
    /// Its format.
    pub format: &'static Format,
    /// The folder.
    pub folder: PathBuf,
    /// Its distance from the model that it must hold.
    pub verification: Verification,
    /// The model that it must hold, in words.
    pub model: &'static str,
    /// The distance of each way to merge from the trained decoder, where a choice was made.
    pub divergences: Vec<Divergence>,
}

/// An export that failed.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A file or folder that cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The base model's files.
    #[error(transparent)]
    Base(#[from] HubError),
    /// The adapter's files.
    #[error(transparent)]
    Adapter(#[from] peft::PeftError),
    /// The device, while logits were computed.
    #[error("the logits of the model to export cannot be computed")]
    Device(#[from] DeviceFailure),
    /// A tensor or file that cannot be made of checked shapes.
    #[error("{path}: {reason}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A trained value that is not a number.
    #[error("tensor `{tensor}` is not finite, so it is not written")]
    NotFinite {
        /// The tensor, by its name in the checkpoint.
        tensor: String,
    },
    /// A written folder that does not compute what was trained.
    #[error("{folder}: {reason}", folder = folder.display())]
    Check {
        /// The folder.
        folder: PathBuf,
        /// The difference.
        reason: String,
    },
}

impl ExportError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            ExportError::Write(error) => return error.hint(),
            ExportError::Base(error) => return error.hint(),
            ExportError::Adapter(error) => return error.hint(),
            ExportError::Device(_) | ExportError::Content { .. } => return None,
            ExportError::NotFinite { .. } => "training diverged: lower learning_rate, or add warmup_steps",
            ExportError::Check { .. } => "the export is not usable; please report this with the recipe",
        };
        Some(hint.into())
    }
}

impl ExportError {
    /// The error of a written folder that does not open.
    fn unusable(folder: &Path, error: OpenError) -> Self {
        match error {
            OpenError::Files(error) => error.into(),
            OpenError::Adapter(error) => error.into(),
            error => Self::check(folder, error),
        }
    }

    fn check(folder: &Path, reason: impl Display) -> Self {
        Self::Check { folder: folder.to_owned(), reason: reason.to_string() }
    }
}

/// Writes `decoder` to each folder in its format, reads the folders again and compares them with `probe`, which was taken
/// of `decoder`; they are loaded as `storage` says.
///
/// # Errors
/// When a folder cannot be written, or computes something else than was trained.
pub fn export(
    folders: Vec<(&'static Format, PathBuf)>,
    mut decoder: Decoder,
    probe: &Probe,
    storage: &Storage,
    job: &Job,
) -> Result<Vec<Exported>, ExportError> {
    let mut written = Vec::with_capacity(folders.len());
    for (format, folder) in folders {
        let expected = (format.expected)(probe, &decoder, job)?;
        format.write(&folder, &mut decoder, job)?;
        written.push((format, folder, expected));
    }
    let mut exported = Vec::with_capacity(written.len());
    let mut verified = |format, folder: PathBuf, expected: Expected, decoder: &Decoder, dtype| {
        let verification = expected.probe.as_ref().unwrap_or(probe).compare(decoder, &folder, dtype)?;
        let Expected { model, divergences, .. } = expected;
        exported.push(Exported { format, folder, verification, model, divergences });
        Ok::<(), ExportError>(())
    };
    // Adapters first: they are read onto the trained decoder, which then makes room for whole models.
    let mut whole = Vec::new();
    for (format, folder, expected) in written {
        match format.content {
            Content::Adapter(read) => {
                let dtype = read(&folder, &mut decoder, job)?;
                verified(format, folder, expected, &decoder, dtype)?;
            }
            Content::Model(read) => whole.push((format, folder, expected, read)),
        }
    }
    let device = decoder.device().clone();
    drop(decoder);
    for (format, folder, expected, read) in whole {
        let (decoder, dtype) = read(&folder, storage, &device)?;
        verified(format, folder, expected, &decoder, dtype)?;
    }
    Ok(exported)
}

/// Writes a file into a folder that appears when it is whole.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    Ok(std::fs::write(path, bytes).map_err(failed(path))?)
}
