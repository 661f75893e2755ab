//! The two files of an adapter folder, read as far as they are believed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Map, Value};

use super::{CONFIG, PREFIX, PeftError, WEIGHTS, content};

/// Most bytes of `adapter_config.json`, whose targets may be written out module by module.
const CONFIG_BYTES: u64 = 64_000_000;

/// Most bytes of a header of safetensors, as in the reference implementation.
const HEADER_BYTES: u64 = 100_000_000;

/// Shapes and values by name.
pub(super) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors of `adapter_model.safetensors` in `folder`, which has at most `most` bytes beside its header, by their names
/// without the prefix that all have.
///
/// # Errors
/// When the file is missing or broken, is larger, or holds no tensors.
pub(super) fn read_tensors(folder: &Path, most: u64) -> Result<Tensors, PeftError> {
    let path = folder.join(WEIGHTS);
    let bytes = read_file(&path, most + HEADER_BYTES)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        content(
            &path,
            format!("not a valid safetensors file: {error}"),
            "copy the adapter again; the file may be cut short",
        )
    })?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let Some(inside) = name.strip_prefix(PREFIX) else {
            return Err(content(
                &path,
                format!("tensor `{name}` does not begin with `{PREFIX}`"),
                "only adapters in PEFT's layout can be read",
            ));
        };
        tensors.insert(inside.to_owned(), (view.shape().to_vec(), to_f32(&view, &name, &path)?));
    }
    if tensors.is_empty() {
        return Err(content(&path, "holds no tensors".to_owned(), "the adapter was never trained or never written"));
    }
    Ok(tensors)
}

/// The object in `adapter_config.json` of `folder`.
pub(super) fn read_config(folder: &Path) -> Result<Map<String, Value>, PeftError> {
    let path = folder.join(CONFIG);
    serde_json::from_slice(&read_file(&path, CONFIG_BYTES)?)
        .map_err(|error| content(&path, format!("not a JSON object: {error}"), "write the folder again"))
}

fn to_f32(view: &TensorView, name: &str, path: &Path) -> Result<Vec<f32>, PeftError> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::BF16 => Ok(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        Dtype::F16 => Ok(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        other => Err(content(path, format!("tensor `{name}` has dtype {other:?}"), "accepted: F32, BF16, F16")),
    }
}

/// The bytes of a file that must be one, and have at most `most` bytes.
fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, PeftError> {
    let failed = |source| PeftError::File { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    // What waits for a writer, or has no end, is not opened.
    if !metadata.is_file() {
        return Err(failed(Error::new(ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let mut bytes = Vec::new();
    if metadata.len() <= most {
        fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(failed)?;
    }
    if metadata.len() > most || bytes.len() as u64 > most {
        let reason = format!("it has more than the {most} bytes that it may have for this model");
        return Err(content(path, reason, "name the base model that the adapter was trained on"));
    }
    Ok(bytes)
}
