//! The base model that an adapter names, compared with the one that it is put on.

use std::path::Path;

use adapters::peft::SavedAdapter;

use super::OpenError;
use crate::hub::{BaseModel, HubCache, Weights};

/// Bytes at the beginning of each tensor that are compared.
const COMPARED_BYTES: usize = 1 << 16;

/// Compares `base` with the model that the adapter in `folder` names. Returns that name where it is another one and its
/// weights are not here to be compared.
///
/// # Errors
/// When the weights are here and differ, or the adapter's configuration cannot be read.
pub fn check_base(folder: &Path, base: &BaseModel, cache: &HubCache) -> Result<Option<String>, OpenError> {
    let (Some(named), revision) = SavedAdapter::base_model_of(folder)? else { return Ok(None) };
    let is_same_name = named == base.name || named == base.reference();
    if is_same_name && (revision.is_none() || revision == base.revision) {
        return Ok(None);
    }
    let Ok(other) = BaseModel::open_with(&named, &[Path::new("")], revision.as_deref(), cache) else {
        return Ok((!is_same_name).then_some(named));
    };
    if is_same_folder(&other.folder, &base.folder) {
        return Ok(None);
    }
    match (&other.weights, &base.weights) {
        (Some(of_named), Some(of_given)) => match is_equal(of_named, of_given) {
            Some(true) => Ok(None),
            Some(false) => Err(OpenError::OtherBase { folder: folder.to_owned(), named, given: base.name.clone() }),
            None => Ok(Some(named)),
        },
        _ => Ok((!is_same_name).then_some(named)),
    }
}

fn is_same_folder(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// True if the tensors of two checkpoints have the same shapes and begin alike; `None` if they are written in different
/// types. Tensors that only one of them has do not count: some writers leave out the copy of a tied head.
fn is_equal(one: &Weights, other: &Weights) -> Option<bool> {
    let mut shared = 0;
    for (name, info) in one.tensors() {
        let Some(of_other) = other.info(name) else { continue };
        shared += 1;
        if of_other.dtype != info.dtype {
            return None;
        }
        let (Ok(bytes), Ok(bytes_of_other)) = (one.bytes(name), other.bytes(name)) else { return None };
        let compared = COMPARED_BYTES.min(bytes.len());
        if of_other.shape != info.shape || bytes[..compared] != bytes_of_other[..compared] {
            return Some(false);
        }
    }
    Some(shared > 0)
}
