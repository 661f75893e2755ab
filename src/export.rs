//! From a trained decoder to files that other programs load: an adapter folder, a merged checkpoint.
//!
//! Everything is written under a temporary name and renamed when whole, then loaded again from disk and
//! compared with the decoder that was trained.

mod companions;
mod folder;
mod merge;
mod merged;
mod verify;

use std::path::{Path, PathBuf};

use adapters::{AdapterSpec, peft};
use burn::tensor::FloatDType;
use thiserror::Error;

pub use companions::{Companions, GOLDEN_PROMPTS};
pub use folder::Staged;
pub use merge::{MergeBase, MergedForm};
pub use verify::{Divergence, Probe, Verification};

use crate::hub::{BaseModel, HubError};
use crate::model::{Decoder, Quantised, names};

/// What to write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExportSettings {
    /// A PEFT folder, `adapter/`.
    pub adapter: bool,
    /// A whole checkpoint, `merged/`.
    pub merged: bool,
    /// A whole checkpoint with linear maps in 4 bits, `bnb-4bit/`.
    pub bnb_4bit: Option<Quantised>,
    /// Into which weights an adapter on a 4-bit base is merged; none where the base is not in 4 bits.
    pub merge_base: Option<MergeBase>,
    /// Type of the written numbers; if unset the base's own for a checkpoint and f32 for an adapter.
    pub dtype: Option<FloatDType>,
}

/// Why an export failed.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A file or folder that cannot be written.
    #[error("{}: {source}\nhint: check that the folder can be written and the disk has room; checkpoint folders of the run, if there are any, hold what was learnt", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The base model's files.
    #[error(transparent)]
    Base(#[from] HubError),
    /// The adapter's files.
    #[error(transparent)]
    Adapter(#[from] peft::PeftError),
    /// Something that should not happen with checked shapes.
    #[error("{path}: {reason}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What was learnt is no number.
    #[error(
        "tensor `{tensor}` is not finite, so it is not written\nhint: training diverged: lower learning_rate, or add warmup_steps"
    )]
    NotFinite {
        /// The tensor, by its name in the checkpoint.
        tensor: String,
    },
    /// What was written does not compute what was trained.
    #[error("{folder}: {reason}\nhint: the export is not usable; please report this with the recipe", folder = folder.display())]
    Check {
        /// The folder that was checked.
        folder: PathBuf,
        /// What differs.
        reason: String,
    },
}

/// Writes the adapter of `decoder` to `folder`, with what travels with it.
///
/// # Errors
/// When a file cannot be written.
pub fn write_adapter(
    folder: &Path,
    decoder: &mut Decoder,
    spec: &AdapterSpec,
    base: &BaseModel,
    dtype: FloatDType,
    companions: &Companions,
    card: &str,
) -> Result<(), ExportError> {
    let staged = Staged::begin(folder)?;
    let reference = base.reference();
    let paths = names::module_paths(&decoder.spec);
    let origin = peft::Origin { base_model: &reference, revision: base.revision.as_deref(), paths };
    peft::write(staged.path(), spec, &origin, &decoder.adaptable(), dtype)?;
    companions.write(base, staged.path(), card)?;
    staged.finish()
}

/// Writes the whole model of `decoder`, adapters merged, to `folder` in the base's own names and layout.
///
/// # Errors
/// When the base cannot be read or a file cannot be written.
pub fn write_merged(
    folder: &Path,
    decoder: &mut Decoder,
    base: &BaseModel,
    form: &MergedForm,
    companions: &Companions,
    card: &str,
) -> Result<(), ExportError> {
    let staged = Staged::begin(folder)?;
    merged::write(staged.path(), decoder, base, form)?;
    companions.write(base, staged.path(), card)?;
    staged.finish()
}
