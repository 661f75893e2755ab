//! The recipe as it is written: one YAML file in, one checked struct out.
//!
//! Keys are Axolotl's flat keys. Every key is either honoured and a field of [`Recipe`], or an
//! implementation hint and listed in [`Recipe::hints`], or refused with its place and advice; all
//! refusals of a file come in one [`Problems`]. Defaults are not applied here: a field that was
//! not written is `None` or empty, and the plan decides.

mod axolotl;
mod card;
mod checks;
mod dataset;
mod environment;
mod hints;
mod keys;
mod overrides;
mod problem;
mod read;
mod reader;
mod refused;
mod scalars;
mod tree;
mod values;
mod written;
mod yaml;

#[cfg(test)]
mod circulating;
#[cfg(test)]
mod habits;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use datasets::Defect;

pub use card::{CardConfig, card_configs};
pub use dataset::{CHAT_TEMPLATES, DATASET_TYPES, DatasetEntry};
pub use hints::Hint;
pub use problem::{Problem, Problems};
pub use values::{
    AdapterKind, BnbConfig, Cadence, ChatTemplate, DeviceChoice, DtypeName, Excess, Export, MergeBase, MicroBatchSize,
    SpecialTokens, Steps, Targets, Toggle, TrainOnEnd, ValSetSize,
};

use crate::train::optimizers::OptimizerKind;
use crate::train::schedules::ScheduleKind;
use problem::{Place, Source};

/// Everything a recipe says, key by key, before any default and without a look at model or data.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The file as the user named it.
    pub path: PathBuf,
    /// The file's text, verbatim.
    pub text: String,
    /// The `key=value` overrides in the order they were given.
    pub overrides: Vec<String>,
    /// Keys that were accepted and have no effect here, with the reason.
    pub hints: Vec<Hint>,

    /// Folder or hub name of the base model.
    pub base_model: String,
    /// Revision of the base model on the hub.
    pub revision_of_model: Option<String>,
    /// Folder or hub name of the tokenizer, where it is not the base model's.
    pub tokenizer_config: Option<String>,
    /// The Python class the model is loaded with; to be checked against the model's folder.
    pub model_type: Option<String>,
    /// The Python class the tokenizer is loaded with; to be checked against the model's folder.
    pub tokenizer_type: Option<String>,
    /// Special tokens that replace the tokenizer's own.
    pub special_tokens: SpecialTokens,

    /// The adapter method; `None` trains the weights themselves.
    pub adapter: Option<AdapterKind>,
    /// Whether the base is quantised to 8 bits; only `false` is accepted.
    pub load_in_8bit: Option<bool>,
    /// Whether the base is quantised to 4 bits, as `adapter: qlora` needs it.
    pub load_in_4bit: Option<bool>,
    /// How the base is quantised to 4 bits.
    pub bnb_config: BnbConfig,
    /// Rank of the low-rank update, at least 1.
    pub lora_r: Option<usize>,
    /// Numerator of the update's scale, above 0.
    pub lora_alpha: Option<f64>,
    /// Share of activations dropped before the update, in [0, 1).
    pub lora_dropout: Option<f64>,
    /// Which projections get an update.
    pub lora_target_modules: Option<Targets>,
    /// Whether every linear projection but the head gets an update.
    pub lora_target_linear: Option<bool>,
    /// Stacks of experts that get an update, by parameter name or its last components.
    pub lora_target_parameters: Vec<String>,
    /// Modules that are trained as a whole beside the updates.
    pub lora_modules_to_save: Vec<String>,
    /// Whether weights are stored transposed; only `false` is accepted.
    pub lora_fan_in_fan_out: Option<bool>,
    /// An adapter folder to continue from.
    pub lora_model_dir: Option<String>,
    /// Layers that get an update; `None` for all.
    pub peft_layers_to_transform: Option<Vec<usize>>,
    /// Whether the scale is `alpha / sqrt(r)`.
    pub peft_use_rslora: Option<bool>,
    /// Whether the update is DoRA's.
    pub peft_use_dora: Option<bool>,
    /// PEFT's default initialisation; only `true` is accepted.
    pub peft_init_lora_weights: Option<bool>,
    /// Regular expressions of the parameters that full fine-tuning trains; empty for all.
    pub unfrozen_parameters: Vec<String>,

    /// Sources of rows to train on, at least one.
    pub datasets: Vec<DatasetEntry>,
    /// Sources of rows that are only evaluated.
    pub test_datasets: Vec<DatasetEntry>,
    /// How many training rows are held out; `None` also for a written zero.
    pub val_set_size: Option<ValSetSize>,
    /// Folder that keeps tokenised rows from run to run.
    pub dataset_prepared_path: Option<String>,
    /// Defects of rows that do not end a run, even if most rows share them.
    pub allow_defects: Vec<Defect>,
    /// Bytes of memory that the plan may need.
    pub max_memory: Option<u64>,
    /// Whether the rows of all data sets are shuffled together.
    pub shuffle_merged_datasets: Option<bool>,
    /// Which chat template turns conversations into text.
    pub chat_template: Option<ChatTemplate>,
    /// The template itself, or a file that holds it.
    pub chat_template_jinja: Option<String>,
    /// Whether prompts are trained on too.
    pub train_on_inputs: Option<bool>,
    /// Tokens that end a turn, on top of the end-of-sequence token.
    pub eot_tokens: Vec<String>,
    /// Longest example in tokens, at least 2.
    pub sequence_len: Option<usize>,
    /// What happens to longer examples.
    pub excess_length_strategy: Option<Excess>,
    /// Whether several documents share a row.
    pub sample_packing: Option<bool>,
    /// Whether held-out rows are packed too.
    pub eval_sample_packing: Option<bool>,
    /// Whether every row is padded to `sequence_len`.
    pub pad_to_sequence_len: Option<bool>,

    /// Rows per micro-batch.
    pub micro_batch_size: Option<MicroBatchSize>,
    /// Micro-batches per step.
    pub gradient_accumulation_steps: Option<usize>,
    /// Rows per step; a multiple of `micro_batch_size`, and their quotient is the accumulation.
    pub batch_size: Option<usize>,
    /// Rows per evaluation micro-batch.
    pub eval_batch_size: Option<usize>,
    /// Passes over the data, above 0; may be fractional.
    pub num_epochs: Option<f64>,
    /// Optimizer steps at most, beside `num_epochs`; `None` also for a written 0 or -1.
    pub max_steps: Option<usize>,
    /// The optimizer.
    pub optimizer: Option<&'static OptimizerKind>,
    /// Peak learning rate, above 0.
    pub learning_rate: f64,
    /// Course of the learning rate after the warm-up.
    pub lr_scheduler: Option<&'static ScheduleKind>,
    /// Where a cosine ends, as a share of the peak, in [0, 1].
    pub cosine_min_lr_ratio: Option<f64>,
    /// Steps of warm-up.
    pub warmup_steps: Option<usize>,
    /// Warm-up as a share of all steps, in [0, 1].
    pub warmup_ratio: Option<f64>,
    /// Decoupled weight decay, at least 0.
    pub weight_decay: Option<f64>,
    /// Decay of the first moment, in [0, 1).
    pub adam_beta1: Option<f64>,
    /// Decay of the second moment, in [0, 1).
    pub adam_beta2: Option<f64>,
    /// Term that keeps the quotient finite, above 0.
    pub adam_epsilon: Option<f64>,
    /// Global norm that gradients are clipped to; 0 for no clipping.
    pub max_grad_norm: Option<f64>,
    /// Loss above which a step counts against the run; `None` also for a written 0.
    pub loss_watchdog_threshold: Option<f64>,
    /// Such steps in a row that end the run, and steps in a row without a finite loss and gradient that fail it;
    /// `None` also for a written 0.
    pub loss_watchdog_patience: Option<usize>,
    /// Scale of the noise on embeddings, above 0.
    pub neftune_noise_alpha: Option<f64>,
    /// Whether computation is in bfloat16.
    pub bf16: Option<Toggle>,
    /// Whether computation is in float16, with a scaled loss.
    pub fp16: Option<Toggle>,
    /// Whether float32 products may use TF32.
    pub tf32: Option<Toggle>,
    /// Whether layers are recomputed in the backward pass.
    pub gradient_checkpointing: Option<Toggle>,
    /// Seed of order, initialisation, dropout and noise.
    pub seed: Option<u64>,

    /// When to evaluate.
    pub eval_strategy: Option<Cadence>,
    /// Steps between evaluations.
    pub eval_steps: Option<Steps>,
    /// Evaluations per epoch.
    pub evals_per_epoch: Option<usize>,
    /// When to save.
    pub save_strategy: Option<Cadence>,
    /// Steps between checkpoints.
    pub save_steps: Option<Steps>,
    /// Checkpoints per epoch.
    pub saves_per_epoch: Option<usize>,
    /// How many checkpoints are kept.
    pub save_total_limit: Option<usize>,
    /// Whether the state with the lowest held-out loss is exported, of those that were saved.
    pub load_best_model_at_end: Option<bool>,
    /// Evaluations in a row without a lower held-out loss after which training ends, at least 1.
    pub early_stopping_patience: Option<usize>,
    /// Whether a run whose folder holds checkpoints goes on from the newest.
    pub auto_resume_from_checkpoints: Option<bool>,
    /// A checkpoint folder to go on from.
    pub resume_from_checkpoint: Option<String>,
    /// Steps between logged lines.
    pub logging_steps: Option<usize>,
    /// Folder that the run is written to.
    pub output_dir: Option<String>,

    /// The device to train on.
    pub device: Option<DeviceChoice>,
    /// What is written at the end.
    pub export: Export,

    /// Every value as a text, by its dotted key; a hash in place of what came from the environment.
    pub values: BTreeMap<String, String>,

    /// Where every written key is, by its dotted name.
    places: BTreeMap<String, Place>,
}

impl Recipe {
    /// Reads and checks the file at `path` with `overrides` (`key=value`) on top.
    ///
    /// # Errors
    /// Every problem of the file and of the overrides, sorted by position.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Recipe, Problems> {
        let text = read_limited(path)?;
        Recipe::from_text(path, &text, overrides, &|name| std::env::var(name).ok())
    }

    /// Checks `text` as the content of `path`; `env` looks up environment variables.
    ///
    /// # Errors
    /// Every problem of the text and of the overrides, sorted by position.
    pub fn from_text(
        path: &Path,
        text: &str,
        overrides: &[String],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Recipe, Problems> {
        let source = Source::new(path, overrides);
        read::recipe(&source, text, env)
    }

    /// The place of a dotted key as written, for messages: `recipe.yaml:9:3`, or
    /// `--set key=value`; of the closest enclosing key where it was not written itself, and the
    /// file name alone where there is none.
    pub fn at(&self, key: &str) -> String {
        let source = Source::new(&self.path, &self.overrides);
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return source.name(*place);
            }
            match key.rfind('.') {
                Some(dot) => key = &key[..dot],
                None => return source.name(Place::Whole),
            }
        }
    }

    /// Where a relative path of the recipe points: into the recipe's folder if it exists there,
    /// else to the working folder.
    pub fn locate(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        let beside = self.path.parent().map(|folder| folder.join(path));
        match beside {
            Some(beside) if path.is_relative() && beside.exists() => beside,
            _ => path.to_path_buf(),
        }
    }
}

/// The text of a recipe file, refused when it cannot be read, is too large or is no UTF-8.
fn read_limited(path: &Path) -> Result<String, Problems> {
    let refuse = |message: String, hint: &str| {
        let at = path.display().to_string();
        Problems(vec![Problem { at, message, hint: hint.to_owned() }])
    };
    let file = std::fs::File::open(path)
        .map_err(|error| refuse(format!("cannot be read: {error}"), "check the path of the recipe"))?;
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to know, and also ends endless files such as devices.
    file.take(yaml::MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(format!("cannot be read: {error}"), "a recipe is a YAML file"))?;
    if bytes.len() > yaml::MAX_BYTES {
        return Err(refuse(yaml::too_large(), "data belongs into files of its own that `datasets` names"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
        refuse(format!("line {line} is no UTF-8 text"), "save the recipe as UTF-8")
    })
}
