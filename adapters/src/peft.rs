//! PEFT's adapter folder, reading and writing: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Tensor names are `base_model.model.` + module path + `.lora_A.weight` `[r, in]` or `.lora_B.weight`
//! `[out, r]`, without an adapter's name in them: PEFT binds nothing else and only warns about the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use thiserror::Error;

use crate::attach::select;
use crate::low_rank::{LowRank, LowRankSpec};
use crate::projection::{Projection, Update};
use crate::{AdapterSpec, Targets};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// What can be wrong with an adapter folder.
#[derive(Debug, Error)]
pub enum PeftError {
    /// A file that cannot be read or written.
    #[error("{}: {source}\nhint: an adapter folder holds {CONFIG} and {WEIGHTS}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that is not what its name says.
    #[error("{}: {reason}\nhint: {hint}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// Tensors for a module that the model does not have.
    #[error("{}: the adapter is for a module `{module}` that this base model does not have\nhint: name the base model that the adapter was trained on", folder.display())]
    UnknownModule {
        /// The module path.
        module: String,
        /// The adapter folder.
        folder: PathBuf,
    },
}

/// An adapter as read from its folder.
#[derive(Debug)]
pub struct SavedAdapter {
    /// Where it was read from.
    pub folder: PathBuf,
    /// The base model that its configuration names.
    pub base_model: Option<String>,
    /// Rank, alpha and the rest.
    pub spec: LowRankSpec,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl SavedAdapter {
    /// Reads a folder that PEFT or this project wrote.
    ///
    /// # Errors
    /// When a file is missing or broken, or the adapter is of a kind that this project does not run.
    pub fn read(folder: &Path) -> Result<Self, PeftError> {
        let config_path = folder.join(CONFIG);
        let config: Value = serde_json::from_slice(&read_file(&config_path)?)
            .map_err(|error| content(&config_path, format!("no valid JSON: {error}"), "write the folder again"))?;
        let spec = read_spec(&config, &config_path)?;
        let path = folder.join(WEIGHTS);
        let bytes = read_file(&path)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| {
            content(
                &path,
                format!("no valid safetensors file: {error}"),
                "copy the adapter again; the file may be cut short",
            )
        })?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let module = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(".weight"));
            let Some(module) = module.filter(|rest| rest.ends_with(".lora_A") || rest.ends_with(".lora_B")) else {
                return Err(content(
                    &path,
                    format!("tensor `{name}` is no LoRA matrix"),
                    "only plain LoRA adapters on linear projections can be read",
                ));
            };
            tensors.insert(module.to_owned(), (view.shape().to_vec(), to_f32(&view, &name, &path)?));
        }
        if tensors.is_empty() {
            return Err(content(
                &path,
                "holds no tensors".to_owned(),
                "the adapter was never trained or never written",
            ));
        }
        let base_model = config["base_model_name_or_path"].as_str().map(str::to_owned);
        Ok(Self { folder: folder.to_owned(), base_model, spec, tensors })
    }

    /// The module paths that the adapter changes.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().filter_map(|name| name.strip_suffix(".lora_A"))
    }

    /// The update of one module.
    ///
    /// # Errors
    /// When a matrix is missing or its shape does not fit `[rank, inputs]` and `[outputs, rank]`.
    pub fn low_rank(&self, module: &str, inputs: usize, outputs: usize, device: &Device) -> Result<LowRank, PeftError> {
        let [a, b] = self.matrices(module, inputs, outputs)?;
        Ok(LowRank::from_host(self.spec, a.to_vec(), b.to_vec(), inputs, outputs, device))
    }

    /// Checks that every matrix belongs to one of `modules`, each a path with its inputs and outputs, and fits it.
    ///
    /// # Errors
    /// As [`attach_saved`](crate::attach_saved), before there is a model to attach to.
    pub fn check(&self, modules: &[(&str, usize, usize)]) -> Result<(), PeftError> {
        for module in self.modules() {
            let Some((_, inputs, outputs)) = modules.iter().find(|(path, ..)| *path == module) else {
                return Err(PeftError::UnknownModule { module: module.to_owned(), folder: self.folder.clone() });
            };
            self.matrices(module, *inputs, *outputs)?;
        }
        Ok(())
    }

    fn matrices(&self, module: &str, inputs: usize, outputs: usize) -> Result<[&[f32]; 2], PeftError> {
        let rank = self.spec.rank;
        Ok([
            self.matrix(&format!("{module}.lora_A"), &[rank, inputs])?,
            self.matrix(&format!("{module}.lora_B"), &[outputs, rank])?,
        ])
    }

    fn matrix(&self, name: &str, shape: &[usize]) -> Result<&[f32], PeftError> {
        let path = self.folder.join(WEIGHTS);
        match self.tensors.get(name) {
            None => Err(content(
                &path,
                format!("tensor `{PREFIX}{name}.weight` is missing"),
                "both lora_A and lora_B must be there",
            )),
            Some((found, _)) if found != shape => Err(content(
                &path,
                format!("tensor `{PREFIX}{name}.weight` has shape {found:?}, the base model needs {shape:?}"),
                "name the base model that the adapter was trained on",
            )),
            Some((_, values)) if values.iter().any(|value| !value.is_finite()) => Err(content(
                &path,
                format!("tensor `{PREFIX}{name}.weight` holds values that are not finite"),
                "the training run diverged; lower the learning rate",
            )),
            Some((_, values)) => Ok(values),
        }
    }
}

/// What the configuration says beside the update itself.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    /// The base model as the recipe names it.
    pub base_model: &'a str,
    /// Its revision, if the recipe pins one.
    pub revision: Option<&'a str>,
}

/// Writes the updates of `projections` as a PEFT folder in `dtype` (f32, bf16 or f16).
///
/// # Errors
/// When a file cannot be written.
pub fn write(
    folder: &Path,
    spec: &AdapterSpec,
    origin: &Origin,
    projections: &[&mut Projection],
    dtype: FloatDType,
) -> Result<(), PeftError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PeftError::File { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for projection in projections {
        if let Some(Update::LowRank(update)) = &projection.update {
            for (side, parameter) in [("lora_A", &update.a), ("lora_B", &update.b)] {
                let values = parameter
                    .plain()
                    .into_data()
                    .try_to_vec::<f32>()
                    .map_err(|error| content(folder, error.to_string(), "report this"))?;
                tensors.push((
                    format!("{PREFIX}{}.{side}.weight", projection.name()),
                    parameter.shape().to_vec(),
                    encode(&values, dtype),
                ));
            }
        }
    }
    let stored = match dtype {
        FloatDType::BF16 => Dtype::BF16,
        FloatDType::F16 => Dtype::F16,
        _ => Dtype::F32,
    };
    let mut views = Vec::with_capacity(tensors.len());
    for (name, shape, bytes) in &tensors {
        let view = TensorView::new(stored, shape.clone(), bytes)
            .map_err(|error| content(folder, error.to_string(), "report this"))?;
        views.push((name.clone(), view));
    }
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let path = folder.join(WEIGHTS);
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|error| content(&path, error.to_string(), "report this"))?;
    fs::write(&path, bytes).map_err(failed(&path))?;
    let path = folder.join(CONFIG);
    let config = serde_json::to_string_pretty(&config_json(spec, origin, projections))
        .map_err(|error| content(&path, error.to_string(), "report this"))?;
    fs::write(&path, config + "\n").map_err(failed(&path))
}

fn config_json(spec: &AdapterSpec, origin: &Origin, projections: &[&mut Projection]) -> Value {
    let low_rank = spec.low_rank;
    // PEFT wants an integer where alpha is one.
    let alpha = if low_rank.alpha.fract() == 0.0 { json!(low_rank.alpha as i64) } else { json!(low_rank.alpha) };
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin.base_model,
        "revision": origin.revision,
        "r": low_rank.rank,
        "lora_alpha": alpha,
        "lora_dropout": low_rank.dropout,
        "target_modules": target_modules(projections),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "use_rslora": low_rank.rank_stabilised,
        "use_dora": false,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": null,
        "init_lora_weights": true,
    })
}

/// Short names where they choose the same modules on this model, else whole paths.
fn target_modules(projections: &[&mut Projection]) -> Vec<String> {
    let paths: Vec<&str> = projections.iter().map(|projection| projection.name()).collect();
    let adapted: Vec<&str> = projections
        .iter()
        .filter(|projection| projection.update.is_some())
        .map(|projection| projection.name())
        .collect();
    let short: BTreeSet<String> =
        adapted.iter().filter_map(|path| path.rsplit('.').next()).map(str::to_owned).collect();
    let short: Vec<String> = short.into_iter().collect();
    match select(&Targets::Names(short.clone()), None, &paths) {
        Ok(chosen) if chosen == adapted => short,
        _ => adapted.into_iter().map(str::to_owned).collect(),
    }
}

fn read_spec(config: &Value, path: &Path) -> Result<LowRankSpec, PeftError> {
    let refuse = |key: &str, accepted: &str| {
        content(path, format!("`{key}: {}` is not supported", config[key]), &format!("accepted: {accepted}"))
    };
    if config["peft_type"] != "LORA" {
        return Err(refuse("peft_type", "LORA"));
    }
    for key in ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"] {
        if config[key].as_bool() == Some(true) {
            return Err(refuse(key, "false"));
        }
    }
    if config["bias"].as_str().is_some_and(|bias| bias != "none") {
        return Err(refuse("bias", "none"));
    }
    for key in ["rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters", "layer_replication"] {
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
    let rank = config["r"].as_u64().filter(|&rank| rank > 0).ok_or_else(|| refuse("r", "a positive integer"))?;
    let alpha = config["lora_alpha"].as_f64().ok_or_else(|| refuse("lora_alpha", "a number"))?;
    Ok(LowRankSpec {
        rank: rank as usize,
        alpha,
        dropout: config["lora_dropout"].as_f64().unwrap_or(0.0),
        rank_stabilised: config["use_rslora"].as_bool().unwrap_or(false),
    })
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

/// Little-endian bytes of `values` in `dtype`.
pub fn encode(values: &[f32], dtype: FloatDType) -> Vec<u8> {
    match dtype {
        FloatDType::BF16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
        FloatDType::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, PeftError> {
    fs::read(path).map_err(|source| PeftError::File { path: path.to_owned(), source })
}

fn content(path: &Path, reason: String, hint: &str) -> PeftError {
    PeftError::Content { path: path.to_owned(), reason, hint: hint.to_owned() }
}
