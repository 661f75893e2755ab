//! The merged checkpoint: the base's files again, tensor by tensor, with what was learnt in them.
//!
//! A tensor that training did not touch is copied byte for byte unless another type is asked for. Only
//! one tensor is in memory at a time.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use adapters::peft::encode;
use burn::tensor::{FloatDType, Tensor};
use safetensors::tensor::{Dtype, View};
use serde_json::{Map, Value, json};

use super::ExportError;
use super::folder::{failed, write as write_file};
use crate::hub::{self, BaseModel, Encoding, INDEX_FILE, SINGLE_FILE, Weights};
use crate::model::{Decoder, names};

/// Largest file of a checkpoint that has no files to follow, in bytes.
const SHARD_BYTES: usize = 5 << 30;

pub(super) fn write(
    folder: &Path,
    decoder: &mut Decoder,
    base: &BaseModel,
    dtype: Option<FloatDType>,
) -> Result<(), ExportError> {
    let changed = changed_tensors(decoder, base.weights.is_none());
    let own = base_dtype(&base.config);
    let files = match &base.weights {
        Some(weights) => files_of(weights),
        None => shards(decoder, dtype.unwrap_or(own)),
    };
    let mut total = 0;
    let mut map = Map::new();
    for (file, tensors) in &files {
        let path = folder.join(file);
        let problem = RefCell::new(None);
        let views: Vec<(String, Merged)> = tensors
            .iter()
            .map(|name| {
                let info = base.weights.as_ref().and_then(|weights| weights.info(name));
                // Weights in fewer bits are written as they were computed with.
                let plain = info.is_none_or(|info| info.encoding == Encoding::Plain);
                let stored = info.filter(|_| plain).map_or(own, |info| float(info.dtype));
                let written = dtype.unwrap_or(stored);
                let shape = info.map_or_else(|| changed[name].shape.clone(), |info| info.shape.clone());
                let value = changed.get(name).map(|tensor| &tensor.value);
                let copied = base.weights.as_ref().filter(|_| value.is_none());
                (name.clone(), Merged { name, value, copied, plain, stored, written, shape, problem: &problem })
            })
            .collect();
        for (name, view) in &views {
            total += view.data_len();
            map.insert(name.clone(), json!(file));
        }
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        safetensors::serialize_to_file(views, Some(metadata), &path)
            .map_err(|error| ExportError::Content { path: path.clone(), reason: error.to_string() })?;
        if let Some(error) = problem.into_inner() {
            return Err(error);
        }
        as_readable_as(&path, folder)?;
    }
    if files.len() > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        write_json(&folder.join(INDEX_FILE), &index)?;
    }
    write_json(&folder.join("config.json"), &config(&base.config, dtype))
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

/// A tensor that training changed: its value, flat, f32, and its shape.
struct Changed {
    value: Tensor<1>,
    shape: Vec<usize>,
}

/// All that differs from the base's files; with `all`, everything, since there are no files.
fn changed_tensors(decoder: &mut Decoder, all: bool) -> BTreeMap<String, Changed> {
    let mut changed = BTreeMap::new();
    decoder.visit(&mut |name, parameter| {
        // Adapter matrices are no tensors of the checkpoint; their effect comes with the merged weights.
        if (all || parameter.is_trainable()) && !names::is_adapter(name) {
            let shape = parameter.shape().to_vec();
            changed.insert(name.to_owned(), Changed { value: parameter.plain(), shape });
        }
    });
    let adaptable = decoder.adaptable();
    for projection in adaptable.projections.iter().filter(|projection| projection.update.is_some()) {
        let shape = vec![projection.outputs(), projection.inputs()];
        let value = projection.merged_weight().reshape([-1]);
        changed.insert(names::weight(projection.name()), Changed { value, shape });
    }
    for stack in adaptable.stacks.iter().filter(|stack| stack.update.is_some()) {
        let value = stack.merged_weight().reshape([-1]);
        changed.insert(stack.name().to_owned(), Changed { value, shape: stack.sizes().to_vec() });
    }
    changed
}

/// One tensor of the output, computed when it is written.
struct Merged<'a> {
    name: &'a str,
    value: Option<&'a Tensor<1>>,
    copied: Option<&'a Weights>,
    /// Whether the base's bytes are numbers of `stored` type.
    plain: bool,
    stored: FloatDType,
    written: FloatDType,
    shape: Vec<usize>,
    problem: &'a RefCell<Option<ExportError>>,
}

impl Merged<'_> {
    fn bytes(&self) -> Result<Cow<'_, [u8]>, ExportError> {
        match (self.value, self.copied) {
            (None, Some(weights)) if self.plain && self.stored == self.written => {
                Ok(Cow::Borrowed(weights.bytes(self.name)?))
            }
            (None, Some(weights)) => Ok(Cow::Owned(encode(&weights.to_f32(self.name)?, self.written))),
            (Some(value), _) => {
                let data = value.clone().cast(FloatDType::F32).try_into_data();
                let values = data
                    .map_err(|error| format!("{error:?}"))
                    .and_then(|data| data.try_to_vec::<f32>().map_err(|error| format!("{error:?}")));
                let values = values.map_err(|reason| ExportError::Content { path: self.name.into(), reason })?;
                Ok(Cow::Owned(encode(&values, self.written)))
            }
            (None, None) => Ok(Cow::Owned(Vec::new())),
        }
    }
}

impl View for Merged<'_> {
    fn dtype(&self) -> Dtype {
        match self.written {
            FloatDType::BF16 => Dtype::BF16,
            FloatDType::F16 => Dtype::F16,
            _ => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
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

/// The base's configuration without quantisation, and with the type that was written.
fn config(base: &Value, dtype: Option<FloatDType>) -> Value {
    let mut config = base.clone();
    if let Some(object) = config.as_object_mut() {
        object.remove("quantization_config");
        if let Some(dtype) = dtype {
            let key = if object.contains_key("dtype") { "dtype" } else { "torch_dtype" };
            object.insert(key.to_owned(), json!(torch_name(dtype)));
        }
    }
    config
}

fn write_json(path: &Path, value: &Value) -> Result<(), ExportError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| failed(path)(error.into()))?;
    write_file(path, (text + "\n").as_bytes())
}

/// The type that a configuration names for its weights; f32 if it names none.
fn base_dtype(config: &Value) -> FloatDType {
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

fn torch_name(dtype: FloatDType) -> &'static str {
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
