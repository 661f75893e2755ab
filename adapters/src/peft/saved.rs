//! An adapter folder that PEFT or this project wrote, read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

use super::experts::{self, Layout};
use super::{CONFIG, ModulePaths, PREFIX, PeftError, WEIGHTS, content};
use crate::attach::Method;
use crate::expert_stack::StackUpdate;
use crate::low_rank::{LowRank, LowRankSpec};

/// Most bytes of `adapter_config.json`, whose targets may be written out module by module.
const CONFIG_BYTES: u64 = 64_000_000;

/// Most bytes of a header of safetensors, as in the reference implementation.
const HEADER_BYTES: u64 = 100_000_000;

/// Highest rank that is believed.
const MOST_RANK: u64 = 1 << 20;

/// An adapter as read from its folder.
#[derive(Debug)]
pub struct SavedAdapter {
    /// The folder that it was read from.
    pub folder: PathBuf,
    /// The base model that its configuration names.
    pub base_model: Option<String>,
    /// The method that adapts each target.
    pub method: Method,
    /// Stacks of experts that it names, by parameter name or its last components.
    pub parameters: Vec<String>,
    /// By name in the file, the prefix that all have taken off.
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// The targets' names in the checkpoint, and in the file.
    targets: BTreeMap<String, String>,
}

/// Everything that an adapter can be for in a model, by name and size.
#[derive(Debug, Clone, Default)]
pub struct Shapes {
    /// Linear maps: path, input features, output features.
    pub projections: Vec<(String, usize, usize)>,
    /// Stacks of experts: parameter name; experts, input features, output features; whether PEFT swaps the latter.
    pub stacks: Vec<(String, [usize; 3], bool)>,
    /// Modules that can be trained as a whole: path, shape of the weight.
    pub modules: Vec<(String, Vec<usize>)>,
}

impl SavedAdapter {
    /// Reads a folder that PEFT or this project wrote, for a model with these `shapes` at these `paths`.
    ///
    /// # Errors
    /// When a file is missing or broken, the adapter is of a kind that this project does not run, or a tensor does
    /// not fit the model.
    pub fn read(folder: &Path, shapes: &Shapes, paths: ModulePaths) -> Result<Self, PeftError> {
        let config_path = folder.join(CONFIG);
        let config: Value = serde_json::from_slice(&read_file(&config_path, CONFIG_BYTES)?)
            .map_err(|error| content(&config_path, format!("not valid JSON: {error}"), "write the folder again"))?;
        let method = read_method(&config, &config_path)?;
        let path = folder.join(WEIGHTS);
        let bytes = read_file(&path, most_bytes(shapes, method.low_rank().rank))?;
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
            return Err(content(
                &path,
                "holds no tensors".to_owned(),
                "the adapter was never trained or never written",
            ));
        }
        let base_model = config["base_model_name_or_path"].as_str().map(str::to_owned);
        let parameters = texts(&config["target_parameters"]);
        let folder = folder.to_owned();
        let mut saved = Self { folder, base_model, method, parameters, tensors, targets: BTreeMap::new() };
        saved.targets = saved.match_targets(shapes, paths)?;
        saved.check(shapes)?;
        Ok(saved)
    }

    /// The base model that the configuration in `folder` names, and its revision.
    ///
    /// # Errors
    /// When the configuration is missing or is not JSON.
    pub fn base_model_of(folder: &Path) -> Result<(Option<String>, Option<String>), PeftError> {
        let path = folder.join(CONFIG);
        let config: Value = serde_json::from_slice(&read_file(&path, CONFIG_BYTES)?)
            .map_err(|error| content(&path, format!("not valid JSON: {error}"), "write the folder again"))?;
        let text = |key: &str| config[key].as_str().map(str::to_owned);
        Ok((text("base_model_name_or_path"), text("revision")))
    }

    /// The names in the checkpoint of everything that it changes: paths of projections and modules, parameter names of stacks.
    pub fn targets(&self) -> BTreeSet<String> {
        self.targets.keys().cloned().collect()
    }

    /// The update of one projection.
    ///
    /// # Errors
    /// When a matrix is missing or its shape does not fit `[rank, inputs]` and `[outputs, rank]`.
    pub fn low_rank(&self, path: &str, inputs: usize, outputs: usize, device: &Device) -> Result<LowRank, PeftError> {
        let spec = self.method.low_rank();
        let [a, b] = self.matrices(path, [[spec.rank, inputs], [outputs, spec.rank]])?;
        Ok(LowRank::from_host(spec, a.to_vec(), b.to_vec(), inputs, outputs, device))
    }

    /// The lengths of one projection's output rows, `[outputs]`, if this is DoRA.
    ///
    /// # Errors
    /// When they are missing or of another number.
    pub fn magnitude(&self, path: &str, outputs: usize, device: &Device) -> Result<Option<Tensor<1>>, PeftError> {
        match self.method {
            Method::LowRank(_) => Ok(None),
            Method::Dora(_) => {
                let values = self.tensor(&format!("{}.lora_magnitude_vector", self.key(path)), &[outputs])?;
                Ok(Some(vector(values, device)))
            }
        }
    }

    /// The update of one stack of `[experts, inputs, outputs]`; `swapped` as in [`Shapes::stacks`].
    ///
    /// # Errors
    /// When a matrix is missing or of another shape.
    pub fn stack_update(
        &self,
        name: &str,
        sizes: [usize; 3],
        swapped: bool,
        device: &Device,
    ) -> Result<StackUpdate, PeftError> {
        let spec = self.method.low_rank();
        let layout = stack_layout(spec, sizes, swapped);
        let [a, b] = self.matrices(name, layout.shapes())?;
        let [a, b] = layout.to_ours(a, b);
        Ok(StackUpdate::from_host(spec, a, b, sizes, device))
    }

    /// The weight of a module that was trained as a whole, flat.
    ///
    /// # Errors
    /// When it is missing or of another shape.
    pub fn module(&self, path: &str, shape: &[usize], device: &Device) -> Result<Tensor<1>, PeftError> {
        Ok(vector(self.tensor(&format!("{}.weight", self.key(path)), shape)?, device))
    }

    /// Matches tensors with targets; an error for the first that belongs to none.
    fn match_targets(&self, shapes: &Shapes, paths: ModulePaths) -> Result<BTreeMap<String, String>, PeftError> {
        let mut by_key: BTreeMap<String, String> = BTreeMap::new();
        let plain = shapes.projections.iter().map(|(path, ..)| path).chain(shapes.modules.iter().map(|(path, _)| path));
        by_key.extend(plain.map(|path| (paths.in_class(path), path.clone())));
        for (name, key) in stack_keys(&self.parameters, shapes.stacks.iter().map(|(name, ..)| name.as_str())) {
            by_key.insert(paths.in_class(&key), name);
        }
        let mut targets = BTreeMap::new();
        for tensor in self.tensors.keys() {
            let ends = [".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".weight"];
            let key = ends.iter().find_map(|end| tensor.strip_suffix(end)).unwrap_or(tensor);
            let found = by_key.get(key).or_else(|| by_key.get(&paths.in_class(&paths.in_checkpoint(key))));
            let Some(target) = found else {
                return Err(PeftError::UnknownModule { module: key.to_owned(), folder: self.folder.clone() });
            };
            targets.insert(target.clone(), key.to_owned());
        }
        Ok(targets)
    }

    /// Reads everything once, so that attaching cannot fail.
    fn check(&self, shapes: &Shapes) -> Result<(), PeftError> {
        let spec = self.method.low_rank();
        let has = |name: &String| self.targets.contains_key(name);
        for (path, inputs, outputs) in shapes.projections.iter().filter(|(path, ..)| has(path)) {
            self.matrices(path, [[spec.rank, *inputs], [*outputs, spec.rank]])?;
            if let Method::Dora(_) = self.method {
                self.tensor(&format!("{}.lora_magnitude_vector", self.key(path)), &[*outputs])?;
            }
        }
        for (name, sizes, swapped) in shapes.stacks.iter().filter(|(name, ..)| has(name)) {
            self.matrices(name, stack_layout(spec, *sizes, *swapped).shapes())?;
        }
        for (path, shape) in shapes.modules.iter().filter(|(path, _)| has(path)) {
            self.tensor(&format!("{}.weight", self.key(path)), shape)?;
        }
        Ok(())
    }

    fn key<'a>(&'a self, target: &'a str) -> &'a str {
        self.targets.get(target).map_or(target, String::as_str)
    }

    fn matrices(&self, target: &str, shapes: [[usize; 2]; 2]) -> Result<[&[f32]; 2], PeftError> {
        let key = self.key(target);
        Ok([
            self.tensor(&format!("{key}.lora_A.weight"), &shapes[0])?,
            self.tensor(&format!("{key}.lora_B.weight"), &shapes[1])?,
        ])
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<&[f32], PeftError> {
        let path = self.folder.join(WEIGHTS);
        match self.tensors.get(name) {
            None => Err(content(
                &path,
                format!("tensor `{PREFIX}{name}` is missing"),
                "every target needs all of its tensors: write the adapter again",
            )),
            Some((found, _)) if found != shape => Err(content(
                &path,
                format!("tensor `{PREFIX}{name}` has shape {found:?}, the base model needs {shape:?}"),
                "name the base model that the adapter was trained on",
            )),
            Some((_, values)) if values.iter().any(|value| !value.is_finite()) => Err(content(
                &path,
                format!("tensor `{PREFIX}{name}` holds values that are not finite"),
                "the training run diverged; lower the learning rate",
            )),
            Some((_, values)) => Ok(values),
        }
    }
}

/// The stacks among `names` that `wanted` names, each with the key of its module as PEFT nests it.
pub(super) fn stack_keys<'a>(wanted: &[String], names: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let answers = |name: &str| wanted.iter().any(|target| crate::attach::answers_to(name, target));
    let chosen: Vec<&str> = names.filter(|name| answers(name)).collect();
    let module = |name: &str| name.rsplit_once('.').map_or(String::new(), |(module, _)| module.to_owned());
    let mut keys = Vec::with_capacity(chosen.len());
    for (index, name) in chosen.iter().enumerate() {
        let beside = |other: &&&str| module(other) == module(name);
        let (place, count) = (chosen[..index].iter().filter(beside).count(), chosen.iter().filter(beside).count());
        keys.push(((*name).to_owned(), experts::key(name, place, count)));
    }
    keys
}

pub(super) fn stack_layout(spec: LowRankSpec, [experts, inputs, outputs]: [usize; 3], swapped: bool) -> Layout {
    Layout { experts, inputs, outputs, rank: spec.rank, swapped }
}

fn vector(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::F32))
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn read_method(config: &Value, path: &Path) -> Result<Method, PeftError> {
    let refuse = |key: &str, accepted: &str| {
        content(path, format!("`{key}: {}` is not supported", config[key]), &format!("accepted: {accepted}"))
    };
    if config["peft_type"] != "LORA" {
        return Err(refuse("peft_type", "LORA"));
    }
    for key in ["fan_in_fan_out", "lora_bias", "use_qalora"] {
        if config[key].as_bool() == Some(true) {
            return Err(refuse(key, "false"));
        }
    }
    if config["bias"].as_str().is_some_and(|bias| bias != "none") {
        return Err(refuse("bias", "none"));
    }
    for key in ["rank_pattern", "alpha_pattern", "layer_replication"] {
        let empty = match &config[key] {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if !empty {
            return Err(refuse(key, "unset"));
        }
    }
    let rank = config["r"].as_u64().filter(|rank| (1..=MOST_RANK).contains(rank));
    let rank = rank.ok_or_else(|| refuse("r", &format!("an integer from 1 to {MOST_RANK}")))?;
    let alpha = config["lora_alpha"].as_f64().filter(|alpha| *alpha > 0.0 && *alpha < f64::from(f32::MAX));
    let alpha = alpha.ok_or_else(|| refuse("lora_alpha", "a number above 0 that f32 holds"))?;
    let dropout = config["lora_dropout"].as_f64().unwrap_or(0.0);
    if !(0.0..1.0).contains(&dropout) {
        return Err(refuse("lora_dropout", "a number from 0 to below 1"));
    }
    let spec = LowRankSpec {
        rank: rank as usize,
        alpha,
        dropout,
        rank_stabilised: config["use_rslora"].as_bool().unwrap_or(false),
    };
    Ok(if config["use_dora"].as_bool() == Some(true) { Method::Dora(spec) } else { Method::LowRank(spec) })
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

/// Bytes of the largest file that an adapter of `rank` on a model of `shapes` can be, in f32, its header included.
fn most_bytes(shapes: &Shapes, rank: usize) -> u64 {
    let rank = rank as u64;
    let projections = shapes.projections.iter();
    let projections = projections.map(|(_, inputs, outputs)| rank * (inputs + outputs) as u64 + *outputs as u64);
    let stacks = shapes
        .stacks
        .iter()
        .map(|(_, [experts, inputs, outputs], _)| *experts as u64 * rank * (inputs + outputs) as u64);
    let modules = shapes.modules.iter().map(|(_, shape)| shape.iter().map(|size| *size as u64).product());
    4 * projections.chain(stacks).chain(modules).sum::<u64>() + HEADER_BYTES
}
