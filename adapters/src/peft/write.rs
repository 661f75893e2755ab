//! Writing an adapter as a PEFT folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use burn::tensor::FloatDType;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use super::saved::{stack_keys, stack_layout};
use super::{CONFIG, ModulePaths, PREFIX, PeftError, WEIGHTS, content, encode};
use crate::attach::{Adaptable, AdapterSpec, Candidate, Method, Targets, select};
use crate::expert_stack::ExpertStack;
use crate::low_rank::LowRankSpec;
use crate::parameter::Parameter;
use crate::projection::{Projection, Role, Update};

/// The configuration's entries beside the update itself.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    /// The base model as the recipe names it.
    pub base_model: &'a str,
    /// Its revision, if the recipe pins one.
    pub revision: Option<&'a str>,
    /// The paths of its modules.
    pub paths: ModulePaths,
}

/// One tensor of the file.
struct Entry {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Writes what was attached to `decoder` by `spec` as a PEFT folder in `dtype` (f32, bf16 or f16).
///
/// # Errors
/// When a file cannot be written.
pub fn write(
    folder: &Path,
    spec: &AdapterSpec,
    origin: &Origin,
    decoder: &Adaptable,
    dtype: FloatDType,
) -> Result<(), PeftError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PeftError::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let path = folder.join(WEIGHTS);
    let stored = match dtype {
        FloatDType::BF16 => Dtype::BF16,
        FloatDType::F16 => Dtype::F16,
        _ => Dtype::F32,
    };
    let entries = entries(spec, origin, decoder, &path)?;
    let encoded = entries.iter().map(|entry| (entry, encode(&entry.values, dtype)));
    let encoded: Vec<(&Entry, Vec<u8>)> = encoded.collect();
    let mut views = Vec::with_capacity(encoded.len());
    for (entry, bytes) in &encoded {
        let view = TensorView::new(stored, entry.shape.clone(), bytes)
            .map_err(|error| content(&path, error.to_string(), "report this"))?;
        views.push((entry.name.as_str(), view));
    }
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|error| content(&path, error.to_string(), "report this"))?;
    fs::write(&path, bytes).map_err(failed(&path))?;
    let path = folder.join(CONFIG);
    let config = serde_json::to_string_pretty(&config_json(spec, origin, decoder))
        .map_err(|error| content(&path, error.to_string(), "report this"))?;
    fs::write(&path, config + "\n").map_err(failed(&path))
}

/// The tensors of the file.
fn entries(spec: &AdapterSpec, origin: &Origin, decoder: &Adaptable, path: &Path) -> Result<Vec<Entry>, PeftError> {
    let values = |parameter: &Parameter| {
        let data = parameter.plain().cast(FloatDType::F32).into_data();
        data.try_to_vec::<f32>().map_err(|error| content(path, error.to_string(), "report this"))
    };
    let mut entries: Vec<Entry> = Vec::new();
    for projection in &decoder.projections {
        let Some(update) = &projection.update else { continue };
        let key = format!("{PREFIX}{}", origin.paths.in_class(projection.name()));
        let mut add = |end: &str, parameter: &Parameter| {
            let (name, shape) = (format!("{key}.{end}"), parameter.shape().to_vec());
            entries.push(Entry { name, shape, values: values(parameter)? });
            Ok::<(), PeftError>(())
        };
        add("lora_A.weight", &update.low_rank().a)?;
        add("lora_B.weight", &update.low_rank().b)?;
        if let Update::Dora(dora) = update {
            add("lora_magnitude_vector", &dora.magnitude)?;
        }
    }
    let adapted = decoder.stacks.iter().filter(|stack| stack.update.is_some());
    let names: Vec<String> = adapted.clone().map(|stack| stack.name().to_owned()).collect();
    let keys = stack_keys(&names, names.iter().map(String::as_str));
    for (stack, (_, key)) in adapted.zip(keys) {
        let Some(update) = &stack.update else { continue };
        let layout = stack_layout(update.spec, stack.sizes(), stack.is_swapped());
        let matrices = layout.to_peft(&values(&update.a)?, &values(&update.b)?);
        for ((end, values), shape) in ["lora_A", "lora_B"].iter().zip(matrices).zip(layout.shapes()) {
            let name = format!("{PREFIX}{}.{end}.weight", origin.paths.in_class(&key));
            entries.push(Entry { name, shape: shape.to_vec(), values });
        }
    }
    for (path, parameter) in decoder.modules.iter().filter(|(path, _)| spec.saved_modules.contains(path)) {
        let name = format!("{PREFIX}{}.weight", origin.paths.in_class(path));
        entries.push(Entry { name, shape: parameter.shape().to_vec(), values: values(parameter)? });
    }
    if let Some(entry) = entries.iter().find(|entry| entry.values.iter().any(|value| !value.is_finite())) {
        let reason = format!("tensor `{}` is not finite, so it is not written", entry.name);
        return Err(content(path, reason, "training diverged: lower learning_rate, or add warmup_steps"));
    }
    Ok(entries)
}

fn config_json(spec: &AdapterSpec, origin: &Origin, decoder: &Adaptable) -> Value {
    let low_rank = spec.method.low_rank();
    let short = |path: &String| path.rsplit('.').next().unwrap_or_default().to_owned();
    let saved: Vec<String> = spec.saved_modules.iter().map(short).collect();
    let routed = decoder.projections.iter().any(|one| one.role() == Role::Expert && one.update.is_some());
    let stacks = target_parameters(decoder);
    // PEFT refuses to load an adapter on experts with dropout, which loading does not need.
    let dropout = if routed || !stacks.is_empty() { 0.0 } else { low_rank.dropout };
    let mut config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin.base_model,
        "revision": origin.revision,
        "r": low_rank.rank,
        "lora_alpha": number(low_rank.alpha),
        "lora_dropout": dropout,
        "target_modules": target_modules(decoder, origin.paths),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "use_rslora": low_rank.rank_stabilised,
        "use_dora": matches!(spec.method, Method::Dora(_)),
        "rank_pattern": patterns(decoder, origin.paths, &|one| (one.rank != low_rank.rank).then(|| json!(one.rank))),
        "alpha_pattern": patterns(decoder, origin.paths, &|one| (one.alpha != low_rank.alpha).then(|| number(one.alpha))),
        "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
        "init_lora_weights": true,
    });
    if let (false, Some(object)) = (stacks.is_empty(), config.as_object_mut()) {
        object.insert("target_parameters".to_owned(), json!(stacks));
    }
    config
}

/// PEFT wants an integer where alpha is one.
fn number(alpha: f64) -> Value {
    if alpha.fract() == 0.0 { json!(alpha as i64) } else { json!(alpha) }
}

/// The values that `differs` has for adapted projections and stacks, by their paths in the class.
fn patterns(decoder: &Adaptable, paths: ModulePaths, differs: &dyn Fn(LowRankSpec) -> Option<Value>) -> Value {
    let update = |one: &&mut Projection| Some((one.name().to_owned(), one.update.as_ref()?.low_rank().spec));
    let stack = |one: &&mut ExpertStack| Some((one.name().to_owned(), one.update.as_ref()?.spec));
    let specs = decoder.projections.iter().filter_map(update).chain(decoder.stacks.iter().filter_map(stack));
    specs.filter_map(|(name, spec)| Some((paths.in_class(&name), differs(spec)?))).collect::<Map<_, _>>().into()
}

/// Short names where they choose the same modules on this model, else whole paths: also in a class that holds other
/// models beside the decoder, whose modules may be called alike.
fn target_modules(decoder: &Adaptable, paths: ModulePaths) -> Vec<String> {
    let candidate = |path, role| Candidate { path, role };
    let all: Vec<Candidate> = decoder.projections.iter().map(|one| candidate(one.name(), one.role())).collect();
    let adapted = decoder.projections.iter().filter(|projection| projection.update.is_some());
    let adapted: Vec<&str> = adapted.map(|projection| projection.name()).collect();
    let short: BTreeSet<&str> = adapted.iter().filter_map(|path| path.rsplit('.').next()).collect();
    let short: Vec<String> = short.into_iter().map(str::to_owned).collect();
    match select(&Targets::Names(short.clone()), None, &all) {
        Ok(chosen) if chosen == adapted && paths.is_alone() => short,
        _ => adapted.into_iter().map(|path| paths.in_class(path)).collect(),
    }
}

/// The stacks by their last two components where those choose the same, else by their whole names.
fn target_parameters(decoder: &Adaptable) -> Vec<String> {
    let end =
        |name: &str| name.rsplitn(3, '.').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(".");
    let adapted = decoder.stacks.iter().filter(|stack| stack.update.is_some());
    let adapted: Vec<&str> = adapted.map(|stack| stack.name()).collect();
    let short: BTreeSet<String> = adapted.iter().map(|name| end(name)).collect();
    let chosen = decoder.stacks.iter().filter(|stack| short.contains(&end(stack.name()))).count();
    match chosen == adapted.len() {
        true => short.into_iter().collect(),
        false => adapted.into_iter().map(str::to_owned).collect(),
    }
}
