//! An adapter folder that PEFT or this project wrote, read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use super::config::AdapterConfig;
use super::experts::{self, Layout};
use super::files::{Tensors, read_config, read_tensors};
use super::modules::{self, ModuleChange};
use super::{CONFIG, ModulePaths, PREFIX, PeftError, WEIGHTS, content};
use crate::attach::{Method, answers_to};
use crate::expert_stack::StackUpdate;
use crate::low_rank::{LowRank, LowRankSpec};
use crate::parameter::Parameter;

/// An adapter as read from its folder.
#[derive(Debug)]
pub struct SavedAdapter {
    /// The folder that it was read from.
    pub folder: PathBuf,
    /// The base model that its configuration names.
    pub base_model: Option<String>,
    /// The method that adapts each target, with the rank and scaling of those that no pattern names.
    pub method: Method,
    /// Stacks of experts that it names, by parameter name or its last components.
    pub parameters: Vec<String>,
    config: AdapterConfig,
    /// By name in the file, the prefix that all have taken off.
    tensors: Tensors,
    /// The targets' names in the checkpoint, and in the file.
    targets: BTreeMap<String, String>,
    /// Rank, scaling and dropout of each projection and stack among the targets, by its name in the checkpoint.
    specs: BTreeMap<String, LowRankSpec>,
    /// How the embedding and the head are changed, by path.
    modules: BTreeMap<String, ModuleChange>,
    parts_head: bool,
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
    /// The path of the head, if it is the embedding.
    pub tied_head: Option<String>,
    /// Modules that no adapter can change here, by path.
    pub others: Vec<String>,
}

impl SavedAdapter {
    /// Reads a folder that PEFT or this project wrote, for a model with these `shapes` at these `paths`.
    ///
    /// # Errors
    /// When a file is missing or broken, the adapter is of a kind that this project does not run, or a tensor does
    /// not fit the model.
    pub fn read(folder: &Path, shapes: &Shapes, paths: ModulePaths) -> Result<Self, PeftError> {
        let config_path = folder.join(CONFIG);
        let config = AdapterConfig::read(&read_config(folder)?, &config_path)?;
        let tensors = read_tensors(folder, most_bytes(shapes, config.highest_rank()))?;
        let mut saved = Self {
            folder: folder.to_owned(),
            base_model: config.base_model.clone(),
            method: config.method,
            parameters: config.parameters.clone(),
            config,
            tensors,
            targets: BTreeMap::new(),
            specs: BTreeMap::new(),
            modules: BTreeMap::new(),
            parts_head: false,
        };
        saved.targets = saved.match_targets(shapes, paths)?;
        let stacks = shapes.stacks.iter().map(|(name, ..)| (name, false));
        let adapted = shapes.projections.iter().map(|(path, ..)| (path, true)).chain(stacks);
        for (name, is_module) in adapted.filter(|(name, _)| saved.targets.contains_key(*name)) {
            let path = paths.in_class(name);
            if is_module && ![path.as_str(), name, saved.key(name)].iter().any(|path| saved.config.adapts(path)) {
                let whole = format!("{}.weight", saved.key(name));
                if saved.tensors.contains_key(&whole) {
                    return Err(saved.unread(&whole, &path));
                }
                let reason = format!(
                    "`target_modules` does not name `{path}`, for which there are tensors, so that PEFT leaves them out"
                );
                return Err(content(&config_path, reason, "add it to `target_modules`, or remove the tensors"));
            }
            let spec = saved.config.spec_of(&path);
            saved.specs.insert(name.clone(), spec);
        }
        saved.read_modules(shapes, paths)?;
        saved.check(shapes)?;
        Ok(saved)
    }

    /// The base model that the configuration in `folder` names, and its revision.
    ///
    /// # Errors
    /// When the configuration is missing or is not JSON, or the adapter is of a kind that this project does not run.
    pub fn base_model_of(folder: &Path) -> Result<(Option<String>, Option<String>), PeftError> {
        let config = AdapterConfig::read(&read_config(folder)?, &folder.join(CONFIG))?;
        Ok((config.base_model, config.revision))
    }

    /// The names in the checkpoint of everything that it changes: paths of projections and modules, parameter names of stacks.
    pub fn targets(&self) -> BTreeSet<String> {
        self.targets.keys().cloned().collect()
    }

    /// Rank, scaling and dropout of a projection or stack.
    pub fn spec_of(&self, target: &str) -> LowRankSpec {
        self.specs.get(target).copied().unwrap_or_else(|| self.method.low_rank())
    }

    /// The projections and stacks whose rank or scaling is not that of the others.
    pub fn exceptions(&self) -> impl Iterator<Item = (&str, LowRankSpec)> {
        let usual = self.method.low_rank();
        let differs = move |(_, spec): &(&String, &LowRankSpec)| (spec.rank, spec.alpha) != (usual.rank, usual.alpha);
        self.specs.iter().filter(differs).map(|(name, spec)| (name.as_str(), *spec))
    }

    /// Replaces the dropout on the way into every update.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.method = self.method.with(LowRankSpec { dropout, ..self.method.low_rank() });
        self.specs.values_mut().for_each(|spec| spec.dropout = dropout);
    }

    /// A module that it changes other than by a weight of its own in place of the base's: training cannot continue there.
    pub fn merged_module(&self) -> Option<&str> {
        let merged = |change: &ModuleChange| !matches!(change, ModuleChange::Whole);
        self.modules.iter().find(|(_, change)| merged(change)).map(|(path, _)| path.as_str())
    }

    /// True if it changes the embedding or the head alone where the base model has one weight for both.
    pub fn parts_head(&self) -> bool {
        self.parts_head
    }

    /// The update of one projection.
    ///
    /// # Errors
    /// When a matrix is missing or its shape does not fit `[rank, inputs]` and `[outputs, rank]`.
    pub fn low_rank(&self, path: &str, inputs: usize, outputs: usize, device: &Device) -> Result<LowRank, PeftError> {
        let spec = self.spec_of(path);
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
        let spec = self.spec_of(name);
        let layout = stack_layout(spec, sizes, swapped);
        let [a, b] = self.matrices(name, layout.shapes())?;
        let [a, b] = layout.to_ours(a, b);
        Ok(StackUpdate::from_host(spec, a, b, sizes, device))
    }

    /// The weight of the module at `path` as the adapter makes it of `base`, flat, f32.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn module(&self, path: &str, base: &Parameter, device: &Device) -> Result<Tensor<1>, PeftError> {
        let key = self.key(path);
        let shape = [base.shape()[0], base.shape()[1]];
        let get = |end: &str, shape: &[usize]| self.tensor(&format!("{key}{end}"), shape);
        let Some(change) = self.modules.get(path) else {
            return Err(PeftError::UnknownModule { module: path.to_owned(), folder: self.folder.clone() });
        };
        if let ModuleChange::Whole = change {
            return Ok(vector(get(".weight", &shape)?, device));
        }
        // PEFT stores the weight of an adapted embedding or head beside its update, and reads it again.
        let stored = change.base_ends().iter().find(|end| self.tensors.contains_key(&format!("{key}{end}")));
        let base = match stored {
            Some(end) => vector(get(end, &shape)?, device),
            None => base.plain().cast(FloatDType::F32),
        };
        change.apply(base, shape, &get, device)
    }

    /// Matches tensors with targets; an error for the first that belongs to none.
    fn match_targets(&self, shapes: &Shapes, paths: ModulePaths) -> Result<BTreeMap<String, String>, PeftError> {
        let mut by_key: BTreeMap<String, String> = BTreeMap::new();
        let modules = shapes.modules.iter().map(|(path, _)| path).chain(&shapes.tied_head);
        let plain = shapes.projections.iter().map(|(path, ..)| path).chain(modules);
        by_key.extend(plain.map(|path| (paths.in_class(path), path.clone())));
        for (name, key) in stack_keys(&self.parameters, shapes.stacks.iter().map(|(name, ..)| name.as_str())) {
            by_key.insert(paths.in_class(&key), name);
        }
        let mut targets = BTreeMap::new();
        for tensor in self.tensors.keys() {
            let key = modules::ENDS.iter().find_map(|end| tensor.strip_suffix(end)).unwrap_or(tensor);
            let found = by_key.get(key).or_else(|| by_key.get(&paths.in_class(&paths.in_checkpoint(key))));
            let Some(target) = found else {
                return Err(self.unknown(tensor, key, shapes, paths));
            };
            targets.insert(target.clone(), key.to_owned());
        }
        Ok(targets)
    }

    /// The error for a tensor that belongs to nothing that an adapter can change.
    fn unknown(&self, tensor: &str, key: &str, shapes: &Shapes, paths: ModulePaths) -> PeftError {
        let inside = |path: &str| key == path || key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        let all = shapes.projections.iter().map(|(path, ..)| path).chain(&shapes.others);
        match all.map(|path| paths.in_class(path)).find(|path| inside(path)) {
            Some(module) => self.unread(tensor, &module),
            None if !self.parameters.is_empty() && shapes.stacks.is_empty() => content(
                &self.folder.join(CONFIG),
                format!(
                    "`target_parameters` names experts in one tensor, `{key}`, but this base model keeps each expert apart"
                ),
                "merge the adapter with PEFT (`merge_and_unload`, `save_pretrained`), and name the merged model",
            ),
            None => PeftError::UnknownModule { module: key.to_owned(), folder: self.folder.clone() },
        }
    }

    fn unread(&self, tensor: &str, module: &str) -> PeftError {
        content(
            &self.folder.join(WEIGHTS),
            format!("tensor `{PREFIX}{tensor}` changes `{module}` in a way that is not supported"),
            "read are LoRA and DoRA of linear maps and of stacked experts, and LoRA, trained tokens and whole weights of \
             embedding and head: merge the adapter with PEFT (`merge_and_unload`, `save_pretrained`), and name the merged model",
        )
    }

    /// Finds out how the embedding and the head are changed.
    fn read_modules(&mut self, shapes: &Shapes, paths: ModulePaths) -> Result<(), PeftError> {
        let modules = shapes.modules.iter().map(|(path, _)| path).chain(&shapes.tied_head);
        let changed: Vec<&String> = modules.filter(|path| self.targets.contains_key(*path)).collect();
        for path in changed {
            let key = self.key(path);
            let has = |end: &str| self.tensors.contains_key(&format!("{key}{end}"));
            let spec = self.config.spec_of(&paths.in_class(path));
            let is_embedding = shapes.modules.first().is_some_and(|(embedding, _)| embedding == path);
            let is_named = |name: &Option<String>| name.as_ref().map_or(is_embedding, |name| answers_to(path, name));
            let rows = self.config.token_rows.iter().find(|(name, _)| is_named(name));
            let change = ModuleChange::read(&has, spec, rows.map(|(_, rows)| rows.as_slice()));
            let Some(change) = change.filter(|_| !has(".lora_magnitude_vector")) else {
                return Err(self.unread(&format!("{key}.*"), key));
            };
            if let (ModuleChange::Rows(rows), Some((_, shape))) = (&change, shapes.modules.first())
                && let Some(id) = rows.iter().find(|id| **id >= shape[0])
            {
                return Err(content(
                    &self.folder.join(CONFIG),
                    format!("`trainable_token_indices` has {id}, but the embedding has {} rows", shape[0]),
                    "name the base model that the adapter was trained on",
                ));
            }
            self.modules.insert(path.clone(), change);
        }
        match &shapes.tied_head {
            Some(head) => self.part_or_share(head),
            None => Ok(()),
        }
    }

    /// Decides whether a `head` that is the embedding stays so. As in PEFT, LoRA and copies of a module change it alone;
    /// trained rows and a plain weight change both.
    fn part_or_share(&mut self, head: &str) -> Result<(), PeftError> {
        let saved = |path: &str| self.config.saved_modules.iter().any(|name| answers_to(path, name));
        let alone = |(path, change): &(&String, &ModuleChange)| match change {
            ModuleChange::Whole => saved(path),
            ModuleChange::Embedding(_) | ModuleChange::Linear(_) => true,
            ModuleChange::Rows(_) => false,
        };
        if let Some((path, _)) = self.modules.iter().find(alone) {
            if self.config.ties_weights {
                return Err(content(
                    &self.folder.join(CONFIG),
                    format!("`ensure_weight_tying: true` with a change of `{path}` is not supported"),
                    "merge the adapter with PEFT (`merge_and_unload`, `save_pretrained`), and name the merged model",
                ));
            }
            self.parts_head = true;
            return Ok(());
        }
        if self.modules.contains_key(head) {
            let weight = |path: &str| self.tensors.get(&format!("{}.weight", self.key(path)));
            let embedding = self.modules.keys().find(|path| *path != head);
            if embedding.is_none_or(|embedding| weight(embedding) != weight(head)) {
                let key = self.key(head);
                return Err(self.unread(&format!("{key}.*"), key));
            }
            // The copy of a weight that stays shared.
            let copy = format!("{}.weight", self.key(head));
            self.tensors.remove(&copy);
            self.modules.remove(head);
            self.targets.remove(head);
        }
        Ok(())
    }

    /// Reads everything once, so that attaching cannot fail, and checks that nothing is left over.
    fn check(&self, shapes: &Shapes) -> Result<(), PeftError> {
        let mut used: BTreeSet<String> = BTreeSet::new();
        let mut read = |target: &str, end: &str, shape: &[usize]| {
            let name = format!("{}{end}", self.key(target));
            self.tensor(&name, shape)?;
            used.insert(name);
            Ok::<(), PeftError>(())
        };
        let has = |name: &String| self.targets.contains_key(name);
        for (path, inputs, outputs) in shapes.projections.iter().filter(|(path, ..)| has(path)) {
            let rank = self.spec_of(path).rank;
            read(path, ".lora_A.weight", &[rank, *inputs])?;
            read(path, ".lora_B.weight", &[*outputs, rank])?;
            if let Method::Dora(_) = self.method {
                read(path, ".lora_magnitude_vector", &[*outputs])?;
            }
        }
        for (name, sizes, swapped) in shapes.stacks.iter().filter(|(name, ..)| has(name)) {
            let [a, b] = stack_layout(self.spec_of(name), *sizes, *swapped).shapes();
            read(name, ".lora_A.weight", &a)?;
            read(name, ".lora_B.weight", &b)?;
        }
        for (path, change) in &self.modules {
            // Embedding and head have one shape.
            let Some((_, shape)) = shapes.modules.first() else { continue };
            for (end, shape) in change.tensors([shape[0], shape[1]]) {
                read(path, end, &shape)?;
            }
            for end in
                change.base_ends().iter().filter(|end| self.tensors.contains_key(&format!("{}{end}", self.key(path))))
            {
                read(path, end, shape)?;
            }
        }
        match self.tensors.keys().find(|name| !used.contains(*name)) {
            Some(name) => {
                let module = modules::ENDS.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                Err(self.unread(name, module))
            }
            None => Ok(()),
        }
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
    let answers = |name: &str| wanted.iter().any(|target| answers_to(name, target));
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

/// Bytes of the largest file that an adapter of `rank` on a model of `shapes` can be, in f32, beside its header.
fn most_bytes(shapes: &Shapes, rank: usize) -> u64 {
    let rank = rank as u64;
    let projections = shapes.projections.iter();
    let projections = projections.map(|(_, inputs, outputs)| rank * (inputs + outputs) as u64 + *outputs as u64);
    let stacks = shapes
        .stacks
        .iter()
        .map(|(_, [experts, inputs, outputs], _)| *experts as u64 * rank * (inputs + outputs) as u64);
    let weight = |shape: &[usize]| shape.iter().map(|size| *size as u64).product::<u64>();
    let update = |shape: &[usize]| rank * shape.iter().map(|size| *size as u64).sum::<u64>();
    // Twice: embedding and head may be one weight in the model and two in the file.
    let modules = shapes.modules.iter().map(|(_, shape)| 2 * (weight(shape) + update(shape)));
    4 * projections.chain(stacks).chain(modules).sum::<u64>()
}
