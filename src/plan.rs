//! Every decision of a run, made before any work: the recipe against the base model's files.
//!
//! The plan fills the settings that the parts below own. What depends on the number of rows (steps,
//! warm-up, cadences, memory) follows in [`Steps`] once the data are tokenised.

mod adaptation;
mod data;
mod estimate;
mod look_at;
mod precision;
mod quantisation;
mod steps;
mod text;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use datasets::{DatasetSettings, SpecialTokenOverrides, TemplateChoice};

pub use adaptation::Adaptation;
pub(crate) use data::sources;
pub use estimate::Estimate;
pub use precision::Precision;
pub use steps::Steps;
pub(crate) use text::warnings;
pub use text::{adapter_method, plan_text};

use crate::device::{self, OpenDevice};
use crate::errors::{kept, together};
use crate::export::{self, ExportSettings, Subject};
use crate::hint::hinted;
use crate::hub::BaseModel;
use crate::model::families::{self, ResolvedFamily};
use crate::model::spec::{FeedForwardSpec, LayerSpec};
use crate::model::{Storage, StoredSize};
use crate::open;
use crate::recipe::{Place, Recipe};

/// Every decision that needs no data.
#[derive(Debug)]
pub struct Plan {
    /// Family and architecture of the base model.
    pub model: ResolvedFamily,
    /// The trained part: an adapter, or weights of the model itself.
    pub adaptation: Adaptation,
    /// The source of examples, and their batching.
    pub dataset: DatasetSettings,
    /// The chat template.
    pub template: TemplateChoice,
    /// Special tokens that the recipe replaces.
    pub special_tokens: SpecialTokenOverrides,
    /// End-of-turn tokens that the recipe adds.
    pub eot_tokens: Vec<String>,
    /// The folder of the tokenizer.
    pub tokenizer: PathBuf,
    /// The device that computes.
    pub device: OpenDevice,
    /// The types that it computes in.
    pub precision: Precision,
    /// The form in which the base's parameters are stored in memory.
    pub storage: Storage,
    /// The bytes that they take in this form.
    pub stored: StoredSize,
    /// The files that are written at the end.
    pub export: ExportSettings,
    /// The run's folder.
    pub run_dir: PathBuf,
    /// Seed of order, initialisation, dropout and noise.
    pub seed: u64,
}

impl Plan {
    /// Makes every decision that the recipe and the base model's files allow.
    ///
    /// # Errors
    /// If they contradict each other, or ask for what is not there; the message has the place.
    pub fn resolve(recipe: &Recipe, base: &BaseModel) -> Result<Self> {
        let model = open::resolve(base)?;
        // What does not depend on each other is all checked, and reported together.
        let mut problems = Vec::new();
        kept(check_python_classes(recipe, base), &mut problems);
        let device = device::open(*recipe.device).with_context(|| recipe.device.place().to_string());
        let computed = kept(device, &mut problems).and_then(|device| {
            let routed = |layer: &LayerSpec| matches!(layer.feed_forward, FeedForwardSpec::Experts(_));
            let routers = model.spec.layers.iter().any(routed);
            let precision = kept(Precision::resolve(recipe, &device, routers), &mut problems)?;
            let storage = quantisation::storage(recipe, &model.spec, base, &precision, device.is_host);
            Some((kept(storage, &mut problems)?, precision, device))
        });
        let adaptation = kept(Adaptation::resolve(recipe, &model.spec, base), &mut problems);
        let tokenizer = match &*recipe.tokenizer_config {
            Some(folder) => recipe.locate(folder),
            None => base.folder.clone(),
        };
        kept(check_tokenizer_class(recipe, &tokenizer), &mut problems);
        let template = kept(data::template(recipe, &tokenizer), &mut problems);
        let seed = *recipe.seed;
        let on_host = computed.as_ref().is_none_or(|(_, _, device)| device.is_host);
        let dataset = kept(data::settings(recipe, &model.spec, seed, on_host), &mut problems);
        let (Some((storage, precision, device)), Some(adaptation), Some(template), Some(dataset), true) =
            (computed, adaptation, template, dataset, problems.is_empty())
        else {
            return Err(together(problems));
        };
        Ok(Self {
            dataset,
            export: export_settings(recipe, base, &model, &adaptation, &storage)?,
            stored: storage.size(&model.spec, base.weights.as_ref(), promises_half(base)),
            storage,
            run_dir: run_dir(recipe),
            eot_tokens: recipe.eot_tokens.to_vec(),
            model,
            adaptation,
            template,
            special_tokens: (*recipe.special_tokens).clone(),
            tokenizer,
            device,
            precision,
            seed,
        })
    }
}

/// True if weights that are still to be downloaded are in 16 bits, as far as the configuration tells.
fn promises_half(base: &BaseModel) -> bool {
    let dtype = base.config.get("torch_dtype").or_else(|| base.config.get("dtype"));
    base.missing.is_some() && dtype.is_some_and(|dtype| dtype == "bfloat16" || dtype == "float16")
}

/// Accepts Axolotl's names of Python classes where they agree with the folder.
fn check_python_classes(recipe: &Recipe, base: &BaseModel) -> Result<()> {
    let architecture = base.config["architectures"][0].as_str().unwrap_or_default();
    if let Some(class) = &*recipe.model_type
        && !["AutoModelForCausalLM", "AutoModel", architecture].contains(&class.as_str())
    {
        bail!(hinted(
            format!(
                "{}: model_type `{class}` does not match {}, whose architecture is `{architecture}`",
                recipe.model_type.place(),
                base.config_path.display()
            ),
            "leave model_type out; the architecture is read from config.json"
        ));
    }
    Ok(())
}

/// Does the same for the tokenizer's class, of which the fast variant is read in any case.
fn check_tokenizer_class(recipe: &Recipe, folder: &std::path::Path) -> Result<()> {
    let config = data::tokenizer_config(folder);
    let Some(own) = config["tokenizer_class"].as_str() else { return Ok(()) };
    let slow = |class: &str| class.trim_end_matches("Fast").to_owned();
    if let Some(class) = &*recipe.tokenizer_type
        && class != "AutoTokenizer"
        && slow(own) != "PreTrainedTokenizer"
        && slow(class) != slow(own)
    {
        bail!(hinted(
            format!(
                "{}: tokenizer_type `{class}` does not match {}, whose tokenizer_class is `{own}`",
                recipe.tokenizer_type.place(),
                folder.display()
            ),
            "leave tokenizer_type out; the tokenizer is read from tokenizer.json"
        ));
    }
    Ok(())
}

fn export_settings(
    recipe: &Recipe,
    base: &BaseModel,
    model: &ResolvedFamily,
    adaptation: &Adaptation,
    storage: &Storage,
) -> Result<ExportSettings> {
    let subject = Subject { base, model, adapter: adaptation.adapter() };
    let formats =
        export::choose(&recipe.export.formats, &subject).with_context(|| recipe.export.formats.place().to_string())?;
    Ok(ExportSettings {
        positions: longer_positions(recipe, base, model),
        formats,
        dtype: *recipe.export.dtype,
        merge_base: quantisation::merge_base(recipe, storage, base)?,
        has_original_weights: quantisation::stored(base).is_none(),
        quantised: storage.quantised.clone(),
    })
}

/// The positions that exports promise: those of a longer `sequence_len`, as in Axolotl, unless the rotary embedding is
/// computed from their number, which would make another model.
fn longer_positions(recipe: &Recipe, base: &BaseModel, model: &ResolvedFamily) -> Option<usize> {
    let positions = recipe.sequence_len.filter(|length| *length > model.spec.max_positions)?;
    let mut config = base.config.clone();
    export::raise_positions(&mut config, positions);
    let mut raised = families::resolve(&config, &base.config_path).ok()?;
    raised.spec.max_positions = model.spec.max_positions;
    (raised == *model).then_some(positions)
}

/// The folder of the recipe's run: the one it names, or `runs/` and the recipe's own name.
pub fn run_dir(recipe: &Recipe) -> PathBuf {
    match &*recipe.output_dir {
        Some(folder) => recipe.locate(folder),
        None => PathBuf::from("runs").join(recipe.path.file_stem().unwrap_or_default()),
    }
}

/// Reads a file that the recipe names at `place`.
fn read_text(place: &Place, path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{place}: `{}` cannot be read", path.display()))
}
