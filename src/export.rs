//! From a trained decoder to files that other programs load: an adapter folder, a merged checkpoint.
//!
//! Everything is written under a temporary name and renamed when whole, then loaded again from disk and
//! compared with the decoder that was trained.

mod companions;
mod merge;
mod merged;
mod verify;

use std::path::{Path, PathBuf};

use adapters::{AdapterSpec, peft};
use burn::tensor::FloatDType;
use thiserror::Error;

pub use companions::{Companions, GOLDEN_PROMPTS};
pub use merge::{MergeBase, MergedForm};
pub use verify::{Divergence, Probe, Verification};

use crate::hub::{BaseModel, HubError};
use crate::model::{Decoder, Quantised, names};
use crate::run_dir::{Staged, WriteError, failed};

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
    #[error(transparent)]
    Write(#[from] WriteError),
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

/// Writes a file into a folder that becomes whole as a whole.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    Ok(std::fs::write(path, bytes).map_err(failed(path))?)
}

/// The adapter of a decoder, to be written.
#[derive(Debug, Clone, Copy)]
pub struct AdapterForm<'a> {
    /// What was attached.
    pub spec: &'a AdapterSpec,
    /// Type of the written numbers.
    pub dtype: FloatDType,
}

/// Writes the adapter of `decoder` to `folder`, with what travels with it.
///
/// # Errors
/// When a file cannot be written.
pub fn write_adapter(
    folder: &Path,
    decoder: &mut Decoder,
    form: AdapterForm,
    base: &BaseModel,
    companions: &Companions,
    card: &str,
) -> Result<(), ExportError> {
    let staged = Staged::begin(folder)?;
    write_adapter_into(staged.path(), decoder, form, base, companions, card)?;
    Ok(staged.finish()?)
}

/// As [`write_adapter`], file by file into a folder that is there and stays whatever happens.
///
/// # Errors
/// When a file cannot be written.
pub fn write_adapter_into(
    folder: &Path,
    decoder: &mut Decoder,
    form: AdapterForm,
    base: &BaseModel,
    companions: &Companions,
    card: &str,
) -> Result<(), ExportError> {
    let reference = base.reference();
    let paths = names::module_paths(&decoder.spec);
    let origin = peft::Origin { base_model: &reference, revision: base.revision.as_deref(), paths };
    peft::write(folder, form.spec, &origin, &decoder.adaptable(), form.dtype)?;
    companions.write(base, folder, card)
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
    write_merged_into(staged.path(), decoder, base, form, companions, card)?;
    Ok(staged.finish()?)
}

/// As [`write_merged`], file by file into a folder that is there and stays whatever happens.
///
/// # Errors
/// When the base cannot be read or a file cannot be written.
pub fn write_merged_into(
    folder: &Path,
    decoder: &mut Decoder,
    base: &BaseModel,
    form: &MergedForm,
    companions: &Companions,
    card: &str,
) -> Result<(), ExportError> {
    merged::write(folder, decoder, base, form)?;
    companions.write(base, folder, card)
}
