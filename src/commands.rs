//! The commands beside `tune run`: check a recipe, preview its data, inspect a model; merge; generate.

mod calibrate;
mod ceilings;
mod preview;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use adapters::peft::SavedAdapter;
use anyhow::{Context, Result, bail};
use datasets::{GoldenPrompt, Message, MicroBatch, SpecialTokenOverrides, TemplateChoice, TextForm, Tokenizer};

use crate::device::{self, DeviceChoice, FloatDType, OpenDevice};
use crate::errors;
use crate::export::{
    Companions, Ends, ExportSettings, GOLDEN_PROMPTS, Job, MERGED, Probe, Verification, export, is_adapter, model_in,
};
use crate::generate::{self, GenerateSettings};
use crate::hint::hinted;
use crate::hub::{self, BaseModel, Hub, HubError, ModelFiles};
use crate::model::{Decoder, Storage, inspect};
use crate::open;
use crate::plan::adapter_method;
use crate::recipe::Recipe;
use crate::report::{Report, printable};
use crate::run::{Failure, prepare};
use crate::text::{counted, line, similar_path};

pub use ceilings::ceilings;
pub use preview::{PreviewOptions, preview};

/// Tokens on which a merged model is compared with the adapted one.
const PROBE_TOKENS: usize = 64;

/// The depth of `tune check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The recipe alone, without model and data.
    Recipe,
    /// The plan.
    Plan,
    /// The plan, and the measured duration of a step.
    Measured,
}

/// Checks a recipe as far as `depth` says, and prints its plan.
///
/// # Errors
/// When the recipe, the model or the data are wrong.
pub fn check(recipe: Recipe, depth: Depth, hub: &Hub, report: &mut Report) -> Result<(), Failure> {
    if depth == Depth::Recipe {
        for hint in &recipe.hints {
            let mut text = String::new();
            line(&mut text, "no effect", &format!("{}: `{}: {}`, because {}", hint.at, hint.key, hint.value, hint.why));
            report.print_table(&text);
        }
        report.print(&format!("{}: every key and value is accepted\n", recipe.path.display()));
        return Ok(());
    }
    let prepared = prepare(recipe, hub, report).map_err(Failure::of_preparation)?;
    report.print_table(&prepared.text);
    if depth == Depth::Measured {
        let time = calibrate::calibrate(prepared, hub, report)?;
        report.print_table(&time);
    }
    Ok(())
}

/// Prints the description of a base model, or of an adapter and the base model that it names.
///
/// # Errors
/// When its files contradict each other.
pub fn inspect(model: &str, hub: &Hub, report: &mut Report) -> Result<(), Failure> {
    let describe = |report: &mut Report| -> Result<String> {
        let folder = model_in(Path::new(model))?;
        let mut text = String::new();
        let base = if is_adapter(&folder) {
            let base = base_of(&folder, None, ModelFiles::Plan, hub, report)?;
            let saved = open::saved_adapter(&folder, &open::resolve(&base)?.spec)?;
            line(&mut text, "adapter", &format!("{}, {}", adapter_method(&saved.method), folder.display()));
            line(&mut text, "changes", &counted(saved.targets().len(), "module"));
            base
        } else {
            locate(&folder.to_string_lossy(), None, ModelFiles::Plan, hub, report)?
        };
        text += &inspect::describe(&base, &open::resolve(&base)?)?;
        Ok(text)
    };
    let text = describe(report).map_err(Failure::of_preparation)?;
    report.print_table(&printable(&text));
    Ok(())
}

/// Prints the devices of this machine, and the reasons for GPUs that are missing.
pub fn devices(report: &Report) {
    for device in device::list() {
        let able = |dtype, name: &str| if device.supports(dtype) { name.to_owned() } else { format!("no {name}") };
        let (bf16, f16) = (able(FloatDType::BF16, "bf16"), able(FloatDType::F16, "f16"));
        report.print(&format!("{:<10} {bf16}, {f16}\n", device.name));
    }
    for choice in [DeviceChoice::Cuda(0), DeviceChoice::Wgpu(0)] {
        if let Err(error) = device::open(choice) {
            report.say(&errors::render(&error.into()));
        }
    }
}

/// Merges an adapter into its base model and writes the checkpoint to `out`.
///
/// # Errors
/// When the adapter does not fit the base, or the result cannot be written.
pub fn merge(adapter: &Path, base: Option<&str>, out: &Path, hub: &Hub, report: &mut Report) -> Result<(), Failure> {
    let device = device::open(DeviceChoice::Cpu).map_err(|error| Failure::Input(error.into()))?;
    let adapter = model_in(adapter).map_err(|error| Failure::Input(error.into()))?;
    if !is_adapter(&adapter) {
        let holds_one = |folder: &Path| is_adapter(folder) || folder.join("adapter").is_dir();
        let hint = match similar_path(&adapter, holds_one).filter(|_| !adapter.exists()) {
            Some(folder) => format!("did you mean `{}`?", folder.display()),
            None => "name a folder with adapter_config.json; a merged model needs no merging".to_owned(),
        };
        let other = hinted(format!("{} is not the folder of an adapter", adapter.display()), hint);
        return Err(Failure::Input(other.into()));
    }
    let loaded = Loaded::adapter(&adapter, base, &device, hub, report).map_err(Failure::of_preparation)?;
    if out.exists() {
        let occupied = hinted(format!("`{}` already exists", out.display()), "name a new folder with --out");
        return Err(Failure::Input(occupied.into()));
    }
    let (Verification { difference, .. }, moved) = loaded.merge(out).map_err(Failure::Work)?;
    report.say(&format!(
        "merged into {} (loaded again: logits within {difference:.1e} of the model with the adapter, which moves them by {moved:.1e})",
        out.display()
    ));
    if moved == 0.0 {
        report.say("look at         the adapter changes nothing: the merged model is the base model");
    } else if difference > moved / 2.0 {
        report.say("look at         rounding to the type of the base model's numbers moves the logits as far as the adapter does");
    }
    Ok(())
}

/// The arguments of `tune generate`.
#[derive(Debug)]
pub struct GenerateOptions<'a> {
    /// A model folder, an adapter folder or a hub name.
    pub model: &'a str,
    /// The base model, if it is not the one that the adapter names.
    pub base: Option<&'a str>,
    /// The user's message.
    pub prompt: &'a str,
    /// The system message.
    pub system: Option<&'a str>,
    /// If set, the prompt is used as it is, without the chat template.
    pub raw: bool,
    /// Device to compute on.
    pub device: DeviceChoice,
    /// Sampling settings.
    pub settings: GenerateSettings,
}

/// Prints the answer of a model or adapter.
///
/// # Errors
/// When it cannot be loaded, or the device fails.
pub fn generate(options: &GenerateOptions, hub: &Hub, report: &mut Report) -> Result<(), Failure> {
    let device = device::open(options.device).map_err(|error| Failure::Input(error.into()))?;
    let folder = model_in(Path::new(options.model)).map_err(|error| Failure::Input(error.into()))?;
    let loaded = if is_adapter(&folder) {
        Loaded::adapter(&folder, options.base, &device, hub, report)
    } else {
        Loaded::base(&folder.to_string_lossy(), &device, hub, report)
    };
    let mut loaded = loaded.map_err(Failure::of_preparation)?;
    loaded.attach().map_err(Failure::Input)?;
    let (tokenizer, prompt) = loaded.prompt(options, report).map_err(Failure::Input)?;
    let mut written = Vec::new();
    let mut shown = String::new();
    let on_terminal = std::io::stdout().is_terminal();
    let mut show = |token: u32| {
        written.push(token);
        let text = tokenizer.decode_without_special(&written).unwrap_or_default();
        // A character may take several tokens; until it is whole, decoding ends in a replacement character.
        if let Some(new) = text.strip_prefix(&shown).filter(|_| !text.ends_with('\u{fffd}')) {
            // Another program gets the model's text unchanged.
            report.print(&if on_terminal { printable(new) } else { new.into() });
            shown = text;
        }
    };
    generate::generate(&loaded.decoder, &prompt, tokenizer.end_of_turn_ids(), &options.settings, &mut show)
        .map_err(|error| Failure::Work(error.into()))?;
    report.print("\n");
    Ok(())
}

/// A decoder with the files it came from.
struct Loaded {
    base: BaseModel,
    decoder: Decoder,
    storage: Storage,
    /// The folder of the tokenizer and the chat template: the adapter's if it has them.
    tokenizer: PathBuf,
    /// The adapter that is still to be attached.
    adapter: Option<PathBuf>,
}

impl Loaded {
    fn base(name: &str, device: &OpenDevice, hub: &Hub, report: &mut Report) -> Result<Self> {
        Self::load(locate(name, None, ModelFiles::Weights, hub, report)?, device, report)
    }

    fn load(base: BaseModel, device: &OpenDevice, report: &mut Report) -> Result<Self> {
        let model = open::resolve(&base)?;
        let storage = Storage::of(FloatDType::F32, device.is_host);
        let mut progress = |done, total| report.weights(done, total);
        let decoder = open::load(&base, &model, None, &device.device, &storage, &mut progress)?;
        Ok(Self { tokenizer: base.folder.clone(), base, decoder, storage, adapter: None })
    }

    fn adapter(folder: &Path, base: Option<&str>, device: &OpenDevice, hub: &Hub, report: &mut Report) -> Result<Self> {
        let mut loaded = Self::load(base_of(folder, base, ModelFiles::Weights, hub, report)?, device, report)?;
        open::saved_adapter(folder, &loaded.decoder.spec)?;
        loaded.adapter = Some(folder.to_owned());
        if folder.join("tokenizer.json").is_file() {
            loaded.tokenizer = folder.to_owned();
        }
        Ok(loaded)
    }

    fn attach(&mut self) -> Result<()> {
        if let Some(folder) = self.adapter.take() {
            open::attach(&mut self.decoder, &folder, None)?;
        }
        Ok(())
    }

    /// A prompt of the training, if the folder has one.
    fn golden_prompt(&self) -> Result<Option<GoldenPrompt>> {
        let path = self.tokenizer.join(GOLDEN_PROMPTS);
        if !path.is_file() {
            return Ok(None);
        }
        let read = || -> Result<Vec<GoldenPrompt>> { Ok(serde_json::from_slice(&std::fs::read(&path)?)?) };
        let prompts = read().with_context(|| path.display().to_string())?;
        Ok(prompts.into_iter().next())
    }

    /// The tokenizer, and the ids with which a text ends: those beside the tokenizer and the base model's.
    fn tokenizer(&self) -> Result<Tokenizer> {
        let mut ends = self.base.eos_token_ids()?;
        ends.extend(hub::generation_ends(&self.tokenizer)?);
        Ok(Tokenizer::open(
            &self.tokenizer,
            &TemplateChoice::TokenizerDefault,
            &SpecialTokenOverrides::default(),
            &[],
            &ends,
        )?)
    }

    fn prompt(&self, options: &GenerateOptions, report: &Report) -> Result<(Tokenizer, Vec<u32>)> {
        let tokenizer = self.tokenizer()?;
        let golden = self.golden_prompt()?;
        let form: Option<TextForm> = golden.as_ref().and_then(GoldenPrompt::text_form);
        let special_tokens = form.as_ref().is_none_or(|form| form.special_tokens);
        let prompt = if options.raw || !(tokenizer.has_template() || form.is_some()) {
            tokenizer.encode(options.prompt, special_tokens)?
        } else if let Some(form) = form {
            if options.system.is_some() {
                bail!(hinted(
                    format!(
                        "{}: the model was trained on plain text, which has no system message",
                        self.tokenizer.display()
                    ),
                    "leave --system out; golden_prompts.json shows the prompts of the training"
                ));
            }
            report.say(
                "the model was trained on plain text: the prompt is given in that form, without the chat template",
            );
            tokenizer.encode(&form.prompt(options.prompt), special_tokens)?
        } else {
            let system = options.system.map(|text| Message::new("system", text));
            let messages: Vec<Message> = system.into_iter().chain([Message::new("user", options.prompt)]).collect();
            let variables = golden.map_or_else(serde_json::Map::new, GoldenPrompt::training_variables);
            tokenizer.encode(&tokenizer.render(&messages, None, true, &variables)?, false)?
        };
        if let Some(id) = prompt.iter().find(|id| **id as usize >= self.decoder.spec.vocab) {
            bail!(hinted(
                format!(
                    "{}: the tokenizer has the id {id}, but the model's embedding has only {} rows",
                    self.tokenizer.display(),
                    self.decoder.spec.vocab
                ),
                "use the tokenizer that came with the model"
            ));
        }
        Ok((tokenizer, prompt))
    }

    /// Merges the adapter; returns the check of what was written, and how far the adapter moves the logits.
    fn merge(mut self, out: &Path) -> Result<(Verification, f32)> {
        // Ids from the whole vocabulary: an adapter may change the embedding of a few tokens alone.
        let vocab = self.decoder.spec.vocab;
        let length = PROBE_TOKENS.min(vocab);
        let tokens: Vec<i32> = (0..length).map(|index| (index * vocab / length) as i32).collect();
        let batch = MicroBatch {
            rows: 1,
            width: length,
            targets: vec![0; length],
            trained: vec![false; length],
            documents: vec![0; length],
            positions: (0..length as i32).collect(),
            real_tokens: length,
            tokens,
        };
        let of_base = Probe::take(&self.decoder, batch.clone())?;
        self.attach()?;
        let probe = Probe::take(&self.decoder, batch)?;
        let moved = of_base.divergence(&probe).difference;
        let tokenizer = self.tokenizer()?;
        // With the base model's own tokenizer nothing is known of the tokens that end a trained turn.
        let is_own = self.tokenizer != self.base.folder;
        let ends = if is_own { tokenizer.end_of_turn_ids().to_vec() } else { Vec::new() };
        let ends = Ends { tokenizer: tokenizer.eos_id().filter(|_| is_own), trained: ends };
        let card = format!("An adapter merged into `{}`.\n", self.base.name);
        let job = Job {
            settings: &ExportSettings::default(),
            base: &self.base,
            adapter: None,
            companions: &Companions::of(&self.tokenizer, ends),
            card: &|_| card.clone(),
        };
        let exported = export(vec![(MERGED, out.to_owned())], self.decoder, &probe, &self.storage, &job)?;
        let verification = exported.first().map(|exported| exported.verification).context("one folder was written")?;
        Ok((verification, moved))
    }
}

/// The base model of the adapter in `folder`: `given`, or the one that the adapter names.
fn base_of(folder: &Path, given: Option<&str>, parts: ModelFiles, hub: &Hub, report: &mut Report) -> Result<BaseModel> {
    let (named, revision) = SavedAdapter::base_model_of(folder)?;
    let name = given.map(str::to_owned).or(named).ok_or_else(|| {
        hinted(format!("{}: the adapter does not name its base model", folder.display()), "name it with --base")
    })?;
    let hint = || {
        format!(
            "{} is an adapter for the base model `{name}`; name another location of it with --base",
            folder.display()
        )
    };
    let revision = revision.as_deref().filter(|_| given.is_none());
    let base = locate(&name, revision, parts, hub, report).with_context(hint)?;
    if given.is_some()
        && let Some(named) = open::check_base(folder, &base, hub.cache())?
    {
        report.say(&format!(
            "look at         the adapter was trained on `{named}`, which is not here to be compared with `{}`: on other weights it means nothing",
            base.name
        ));
    }
    Ok(base)
}

fn locate(
    name: &str,
    revision: Option<&str>,
    parts: ModelFiles,
    hub: &Hub,
    report: &mut Report,
) -> Result<BaseModel, HubError> {
    open::locate(name, &[Path::new("")], revision, parts, hub, &mut |progress| report.download(progress))
}
