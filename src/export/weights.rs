//! The files of a whole checkpoint: the base's again, tensor by tensor, with the trained weights in them.
//!
//! A tensor that training did not touch is copied byte for byte unless another type is asked for. Only
//! one tensor is in memory at a time.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use adapters::peft::encode;
use burn::tensor::FloatDType;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensorError, View};
use serde_json::{Map, Value, json};

use super::merge::{MergedForm, MergedTensors, PackedTensor, Packing, raise_positions};
use super::{ExportError, write as write_file};
use crate::hub::{self, BaseModel, Encoding, INDEX_FILE, SINGLE_FILE, Weights};
use crate::model::spec::DecoderSpec;
use crate::model::{Decoder, families, names};
use crate::run_dir::failed;

/// Largest file of a checkpoint that has no files to follow, in bytes.
const SHARD_BYTES: usize = 5 << 30;

/// Writes weights, index and configuration into `folder`.
///
/// # Errors
/// When the base cannot be read, a value is not finite, or a file cannot be written.
pub(super) fn write(
    folder: &Path,
    decoder: &mut Decoder,
    base: &BaseModel,
    form: &MergedForm,
) -> Result<(), ExportError> {
    let own = base_dtype(&base.config);
    let mut files = match &base.weights {
        Some(weights) => files_of(weights),
        None => shards(decoder, form.dtype.unwrap_or(own)),
    };
    let has_index = files.len() > 1;
    settle_head(&mut files, &decoder.spec);
    let packed = packed_names(decoder, form);
    let head = names::head(&decoder.spec).path;
    let is_parted = !decoder.spec.head.tied
        && families::resolve(&base.config, &base.config_path).is_ok_and(|model| model.spec.head.tied);
    let merged = MergedTensors::of(decoder, base, form);
    let mut total = 0;
    let mut map = Map::new();
    for (file, tensors) in &files {
        let path = folder.join(file);
        let problem = RefCell::new(None);
        let mut views: Vec<(String, Written)> = Vec::new();
        for name in tensors {
            let info = base.weights.as_ref().and_then(|weights| weights.info(name));
            // Weights in fewer bits are written as they were computed with.
            let plain = info.is_none_or(|info| info.encoding == Encoding::Plain);
            let stored = info.filter(|_| plain).map_or(own, |info| float(info.dtype));
            let written = form.dtype.unwrap_or(stored);
            let merged = &merged;
            let tensor = Numbers { name, merged, plain, stored, written, shape: merged.shape(name), problem: &problem };
            match &form.packing {
                Some(packing) if packed.contains(name) => views.extend(tensor.pack(packing)?),
                _ => views.push((name.clone(), Written::Numbers(tensor))),
            }
        }
        for (name, view) in &views {
            total += view.data_len();
            map.insert(name.clone(), json!(file));
        }
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        safetensors::serialize_to_file(views, Some(metadata), &path).map_err(|error| match error {
            SafeTensorError::IoError(error) => ExportError::Write(failed(&path)(error)),
            error => ExportError::Content { path: path.clone(), reason: error.to_string() },
        })?;
        if let Some(error) = problem.into_inner() {
            return Err(error);
        }
        as_readable_as(&path, folder)?;
    }
    if let Some(weights) = &base.weights {
        weights.unchanged()?;
    }
    if has_index {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        write_json(&folder.join(INDEX_FILE), &index)?;
    }
    write_json(&folder.join("config.json"), &config(&base.config, form, own, &head, is_parted))
}

/// Leaves out the copy of a head that is the embedding: readers take a stale one for a head of its own. One that was parted
/// from the embedding goes beside it.
fn settle_head(files: &mut BTreeMap<String, Vec<String>>, spec: &DecoderSpec) {
    let (embedding, head) = (names::embedding(spec), names::head_weight(spec));
    if spec.head.tied {
        files.values_mut().for_each(|tensors| tensors.retain(|name| !names::is_copy_of_embedding(spec, name)));
        files.retain(|_, tensors| !tensors.is_empty());
    } else if !files.values().any(|tensors| tensors.contains(&head))
        && let Some(tensors) = files.values_mut().find(|tensors| tensors.contains(&embedding))
    {
        tensors.push(head);
    }
}

/// Gives a file, which the safetensors crate makes readable to its owner alone, the rights that its folder grants.
fn as_readable_as(file: &Path, folder: &Path) -> Result<(), ExportError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder).map_err(failed(folder))?.permissions().mode() & 0o666;
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).map_err(failed(file))?;
    }
    #[cfg(not(unix))]
    let _ = (file, folder);
    Ok(())
}

/// The names of the weights that are packed.
fn packed_names(decoder: &Decoder, form: &MergedForm) -> BTreeSet<String> {
    let Some(packing) = &form.packing else { return BTreeSet::new() };
    let projections = names::projections(&decoder.spec).into_iter();
    projections
        .filter(|name| packing.quantised.takes(&name.path, name.role))
        .map(|name| names::weight(&name.path))
        .collect()
}

/// One tensor of the output.
enum Written<'a> {
    /// Numbers, computed when they are written.
    Numbers(Numbers<'a>),
    /// Part of a packed weight.
    Packed(PackedTensor),
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Numbers(numbers) => numbers.dtype(),
            Self::Packed(tensor) => tensor.dtype,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Numbers(numbers) => &numbers.shape,
            Self::Packed(tensor) => &tensor.shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Numbers(numbers) => numbers.data(),
            Self::Packed(tensor) => Cow::Borrowed(&tensor.bytes),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.data_len(),
            Self::Packed(tensor) => tensor.bytes.len(),
        }
    }
}

/// One tensor of numbers, computed when it is written.
struct Numbers<'a> {
    name: &'a str,
    merged: &'a MergedTensors<'a>,
    /// True if the base's bytes are numbers of `stored` type.
    plain: bool,
    stored: FloatDType,
    written: FloatDType,
    shape: Vec<usize>,
    problem: &'a RefCell<Option<ExportError>>,
}

impl<'a> Numbers<'a> {
    fn bytes(&self) -> Result<Cow<'_, [u8]>, ExportError> {
        match self.merged.stored_bytes(self.name) {
            Some(bytes) if self.plain && self.stored == self.written => Ok(Cow::Borrowed(bytes?)),
            _ => Ok(Cow::Owned(encode(&self.merged.values(self.name)?, self.written))),
        }
    }

    /// The tensors that it is packed into, from the numbers that would be written.
    fn pack(&self, packing: &Packing) -> Result<Vec<(String, Written<'a>)>, ExportError> {
        let values = rounded(&self.merged.values(self.name)?, self.written);
        let tensors = (packing.tensors)(&packing.quantised, &values, &self.shape, self.written).into_iter();
        Ok(tensors.map(|tensor| (format!("{}{}", self.name, tensor.suffix), Written::Packed(tensor))).collect())
    }

    fn dtype(&self) -> Dtype {
        match self.written {
            FloatDType::BF16 => Dtype::BF16,
            FloatDType::F16 => Dtype::F16,
            _ => Dtype::F32,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        // The trait has no way to fail: the error is kept, and zeros keep the file's layout until it is thrown away.
        self.bytes().unwrap_or_else(|error| {
            self.problem.borrow_mut().get_or_insert(error);
            Cow::Owned(vec![0; self.data_len()])
        })
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * bytes_of(self.written)
    }
}

/// `values` as numbers of type `dtype`.
fn rounded(values: &[f32], dtype: FloatDType) -> Vec<f32> {
    let round = |value: &f32| match dtype {
        FloatDType::BF16 => bf16::from_f32(*value).to_f32(),
        FloatDType::F16 => f16::from_f32(*value).to_f32(),
        _ => *value,
    };
    values.iter().map(round).collect()
}

/// File names and the tensors in each, as the base has them.
fn files_of(weights: &Weights) -> BTreeMap<String, Vec<String>> {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, info) in weights.tensors() {
        let file =
            info.file.file_name().map_or_else(|| SINGLE_FILE.to_owned(), |file| file.to_string_lossy().into_owned());
        files.entry(file).or_default().push(name.to_owned());
    }
    files
}

/// File names and tensors for a model without files: one file, or shards of at most [`SHARD_BYTES`].
fn shards(decoder: &Decoder, dtype: FloatDType) -> BTreeMap<String, Vec<String>> {
    let mut groups: Vec<Vec<String>> = vec![Vec::new()];
    let mut size = 0;
    for parameter in names::parameters(&decoder.spec) {
        let bytes = parameter.elements() as usize * bytes_of(dtype);
        if size + bytes > SHARD_BYTES && size > 0 {
            groups.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(group) = groups.last_mut() {
            group.push(parameter.name);
        }
    }
    let count = groups.len();
    let name = |index: usize| match count {
        1 => SINGLE_FILE.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    };
    groups.into_iter().enumerate().map(|(index, group)| (name(index), group)).collect()
}

/// The base's configuration with the quantisation, the type and the head that were written.
fn config(base: &Value, form: &MergedForm, own: FloatDType, head: &str, is_parted: bool) -> Value {
    let mut config = base.clone();
    if let Some(positions) = form.positions {
        raise_positions(&mut config, positions);
    }
    if is_parted {
        untie(&mut config);
    }
    if let Some(object) = config.as_object_mut() {
        object.remove("quantization_config");
        if let Some(packing) = &form.packing {
            let config = (packing.config)(&packing.quantised, form.dtype.unwrap_or(own), head);
            object.insert("quantization_config".to_owned(), config);
        }
        if let Some(dtype) = form.dtype {
            let key = if object.contains_key("dtype") { "dtype" } else { "torch_dtype" };
            object.insert(key.to_owned(), json!(torch_name(dtype)));
        }
    }
    config
}

/// Says in every part of a configuration that the head is not the embedding.
fn untie(config: &mut Value) {
    const KEY: &str = "tie_word_embeddings";
    let Some(object) = config.as_object_mut() else { return };
    if let Some(text) = object.get_mut("text_config").and_then(Value::as_object_mut)
        && text.contains_key(KEY)
    {
        text.insert(KEY.to_owned(), json!(false));
    }
    object.insert(KEY.to_owned(), json!(false));
}

fn write_json(path: &Path, value: &Value) -> Result<(), ExportError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| failed(path)(error.into()))?;
    write_file(path, (text + "\n").as_bytes())
}

/// The type that a configuration names for its weights; f32 if it names none.
pub(super) fn base_dtype(config: &Value) -> FloatDType {
    match config.get("torch_dtype").or_else(|| config.get("dtype")).and_then(Value::as_str) {
        Some("bfloat16") => FloatDType::BF16,
        Some("float16") => FloatDType::F16,
        _ => FloatDType::F32,
    }
}

fn float(dtype: hub::Dtype) -> FloatDType {
    match dtype {
        hub::Dtype::BF16 => FloatDType::BF16,
        hub::Dtype::F16 => FloatDType::F16,
        _ => FloatDType::F32,
    }
}

/// PyTorch's name of a type.
pub(super) fn torch_name(dtype: FloatDType) -> &'static str {
    match dtype {
        FloatDType::BF16 => "bfloat16",
        FloatDType::F16 => "float16",
        _ => "float32",
    }
}

fn bytes_of(dtype: FloatDType) -> usize {
    match dtype {
        FloatDType::BF16 | FloatDType::F16 => 2,
        _ => 4,
    }
}
