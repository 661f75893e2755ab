//! The merged checkpoint: the base's files again, tensor by tensor, with what was learnt in them.
//!
//! A tensor that training did not touch is copied byte for byte unless another type is asked for. Only
//! one tensor is in memory at a time.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use adapters::nf4::{Nf4, Nf4Part};
use adapters::peft::encode;
use adapters::{ExpertStack, Projection, Weight};
use burn::tensor::{FloatDType, Tensor};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensorError, View};
use serde_json::{Map, Value, json};

use super::merge::{MergeBase, MergedForm};
use super::{ExportError, write as write_file};
use crate::hub::{self, BaseModel, Encoding, INDEX_FILE, SINGLE_FILE, Weights};
use crate::model::{Decoder, Quantised, names, stored_values};
use crate::run_dir::failed;

/// Largest file of a checkpoint that has no files to follow, in bytes.
const SHARD_BYTES: usize = 5 << 30;

pub(super) fn write(
    folder: &Path,
    decoder: &mut Decoder,
    base: &BaseModel,
    form: &MergedForm,
) -> Result<(), ExportError> {
    let own = base_dtype(&base.config);
    let files = match &base.weights {
        Some(weights) => files_of(weights),
        None => shards(decoder, form.dtype.unwrap_or(own)),
    };
    let quantised = quantised_names(decoder, form);
    let head = names::head(&decoder.spec).path;
    let changed = changed_tensors(decoder, base, form);
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
            let shape = info.map_or_else(|| changed[name].shape(), |info| info.shape.clone());
            let value = changed.get(name);
            let merged = Merged { name, value, base, form, plain, stored, written, shape, problem: &problem };
            if quantised.contains(name) {
                views.extend(merged.codes(form)?.into_iter().map(|(name, part)| (name, Written::Part(part))));
            } else {
                views.push((name.clone(), Written::Numbers(merged)));
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
    if files.len() > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        write_json(&folder.join(INDEX_FILE), &index)?;
    }
    write_json(&folder.join("config.json"), &config(&base.config, form, own, &head))
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

/// A tensor that is not as the base's files have it.
enum Changed<'a> {
    /// A value, flat, and its shape.
    Value(Box<Tensor<1>>, Vec<usize>),
    /// A weight into which an update is folded when it is written, or that was quantised for training.
    Projection(&'a Projection),
    /// The same for the experts of a layer.
    Stack(&'a ExpertStack),
}

impl Changed<'_> {
    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Value(_, shape) => shape.clone(),
            Self::Projection(projection) => vec![projection.outputs(), projection.inputs()],
            Self::Stack(stack) => stack.sizes().to_vec(),
        }
    }

    fn value(&self, base: &BaseModel, form: &MergedForm) -> Result<Tensor<1>, ExportError> {
        Ok(match self {
            Self::Value(value, _) => value.as_ref().clone(),
            Self::Projection(projection) => form.merged(projection, base)?.reshape([-1]),
            Self::Stack(stack) => stack.merged_weight().reshape([-1]),
        })
    }
}

/// All that differs from the base's files; everything where there are no files.
fn changed_tensors<'a>(decoder: &'a mut Decoder, base: &BaseModel, form: &MergedForm) -> BTreeMap<String, Changed<'a>> {
    let all = base.weights.is_none();
    let mut changed = BTreeMap::new();
    decoder.visit(&mut |name, parameter| {
        // Adapter matrices are no tensors of the checkpoint; their effect comes with the merged weights.
        if (all || parameter.is_trainable()) && !names::is_adapter(name) {
            let shape = parameter.shape().to_vec();
            changed.insert(name.to_owned(), Changed::Value(Box::new(parameter.plain()), shape));
        }
    });
    let adaptable = decoder.adaptable();
    for projection in adaptable.projections {
        let was_quantised = matches!(projection.weight, Weight::Nf4(_)) && form.base == Some(MergeBase::Quantised);
        if projection.update.is_some() || was_quantised {
            changed.insert(names::weight(projection.name()), Changed::Projection(projection));
        }
    }
    for stack in adaptable.stacks.into_iter().filter(|stack| stack.update.is_some()) {
        changed.insert(stack.name().to_owned(), Changed::Stack(stack));
    }
    changed
}

/// The names of the weights that become codes.
fn quantised_names(decoder: &Decoder, form: &MergedForm) -> BTreeSet<String> {
    let Some(quantised) = &form.quantised else { return BTreeSet::new() };
    let projections = names::projections(&decoder.spec).into_iter();
    projections.filter(|name| quantised.takes(&name.path, name.role)).map(|name| names::weight(&name.path)).collect()
}

/// One tensor of the output.
enum Written<'a> {
    /// Numbers, computed when they are written.
    Numbers(Merged<'a>),
    /// Of a quantised weight.
    Part(Nf4Part),
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Numbers(merged) => merged.dtype(),
            Self::Part(part) if part.is_f32 => Dtype::F32,
            Self::Part(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Numbers(merged) => &merged.shape,
            Self::Part(part) => &part.shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Numbers(merged) => merged.data(),
            Self::Part(part) => Cow::Borrowed(&part.bytes),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Numbers(merged) => merged.data_len(),
            Self::Part(part) => part.bytes.len(),
        }
    }
}

/// One tensor of numbers, computed when it is written.
struct Merged<'a> {
    name: &'a str,
    value: Option<&'a Changed<'a>>,
    base: &'a BaseModel,
    form: &'a MergedForm,
    /// Whether the base's bytes are numbers of `stored` type.
    plain: bool,
    stored: FloatDType,
    written: FloatDType,
    shape: Vec<usize>,
    problem: &'a RefCell<Option<ExportError>>,
}

impl Merged<'_> {
    fn values(&self) -> Result<Vec<f32>, ExportError> {
        let Some(changed) = self.value else {
            return match &self.base.weights {
                Some(weights) => Ok(stored_values(weights, self.name)?),
                None => Ok(Vec::new()),
            };
        };
        let data = changed.value(self.base, self.form)?.cast(FloatDType::F32).try_into_data();
        let values = data
            .map_err(|error| format!("{error:?}"))
            .and_then(|data| data.try_to_vec::<f32>().map_err(|error| format!("{error:?}")));
        let values = values.map_err(|reason| ExportError::Content { path: self.name.into(), reason })?;
        match hub::find_non_finite(&values) {
            None => Ok(values),
            Some(_) => Err(ExportError::NotFinite { tensor: self.name.to_owned() }),
        }
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, ExportError> {
        match &self.base.weights {
            Some(weights) if self.value.is_none() && self.plain && self.stored == self.written => {
                Ok(Cow::Borrowed(weights.bytes(self.name)?))
            }
            _ => Ok(Cow::Owned(encode(&self.values()?, self.written))),
        }
    }

    /// The tensors of this weight in 4 bits, quantised from the numbers that would be written.
    fn codes(&self, form: &MergedForm) -> Result<Vec<(String, Nf4Part)>, ExportError> {
        let double = form.quantised.as_ref().is_some_and(|quantised| quantised.spec.double);
        let packed = Nf4::quantise(&rounded(&self.values()?, self.written), double, self.written);
        let parts = packed.parts(&self.shape).into_iter();
        Ok(parts.map(|part| (format!("{}{}", self.name, part.ending), part)).collect())
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

/// The base's configuration with the quantisation and the type that was written.
fn config(base: &Value, form: &MergedForm, own: FloatDType, head: &str) -> Value {
    let mut config = base.clone();
    if let Some(object) = config.as_object_mut() {
        object.remove("quantization_config");
        if let Some(quantised) = &form.quantised {
            let dtype = form.dtype.unwrap_or(own);
            object.insert("quantization_config".to_owned(), quantization_config(quantised, dtype, head));
        }
        if let Some(dtype) = form.dtype {
            let key = if object.contains_key("dtype") { "dtype" } else { "torch_dtype" };
            object.insert(key.to_owned(), json!(torch_name(dtype)));
        }
    }
    config
}

/// What transformers needs to know of weights in 4 bits.
fn quantization_config(quantised: &Quantised, dtype: FloatDType, head: &str) -> Value {
    // A list of modules replaces transformers' own, on which the head is.
    let skipped = match quantised.skipped.as_slice() {
        [] => Value::Null,
        names => json!(names.iter().map(String::as_str).chain([names::short(head)]).collect::<BTreeSet<&str>>()),
    };
    json!({
        "quant_method": "bitsandbytes",
        "load_in_4bit": true,
        "load_in_8bit": false,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": quantised.spec.double,
        "bnb_4bit_compute_dtype": torch_name(dtype),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": skipped,
    })
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
