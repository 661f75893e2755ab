//! The top level of a recipe, one row per key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use adapters::Targets;
use datasets::{Excess, HeldOut, SpecialTokenOverrides};
use serde_json::{Map, Value as Json};

use super::OnResume::{Changeable, NotCompared};
use super::sections::{BnbConfig, DatasetEntry, Export, Preflight};
use super::{Key, Keys, NOT_IN_AXOLOTL, NoEffect, PLAIN, Refused, Row, keys};
use crate::device::DeviceChoice;
use crate::recipe::kinds::{
    BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, cadence, chat_template, checkpoint, checkpointing, choice, decimal,
    device, excess, flag, held_out, layers, micro_batch_size, only, optimizer, parameter_patterns, schedule, section,
    sections, seed, step_limit, steps, targets, template_variables, text, texts, threshold, toggle, whole,
    whole_or_zero,
};
use crate::recipe::problem::Position;
use crate::recipe::reader::Section;
use crate::recipe::values::{AdapterKind, Cadence, ChatTemplate, MicroBatchSize, Steps, Toggle};
use crate::recipe::{Hint, Setting, no_effect, refused};
use crate::train::optimizers::OptimizerKind;
use crate::train::schedules::ScheduleKind;

/// The default of evaluations and of checkpoints.
const ONE_CADENCE: &str = "once per epoch";

keys! {
    /// Everything a recipe says, key by key, without a look at model or data.
    pub struct Recipe {
        /// The file as the user named it.
        pub path: PathBuf,
        /// The file's text, verbatim.
        pub text: String,
        /// The `key=value` overrides in the order they were given.
        pub overrides: Vec<String>,
        /// Keys that were accepted and have no effect here, with the reason.
        pub hints: Vec<Hint>,
        /// Every value as a text, by its dotted key; a hash in place of what came from the environment.
        pub values: BTreeMap<String, String>,
        /// The place of every written key, by its dotted name.
        pub(in crate::recipe) places: BTreeMap<String, Position>,
    }
    no_effect no_effect::TOP;
    refused refused::axolotl::TOP;

    "Base model" {
        /// Folder or hub name of the base model.
        base_model: String = text(), {
            is_required: true,
            resume: Changeable,
            known_as: "model model_name_or_path model_name pretrained_model_name_or_path",
            hint: "name a model folder or a hub model: `base_model: Qwen/Qwen3-0.6B`",
        };
        /// Revision of the base model on the hub.
        revision_of_model: Option<String> = text(), { otherwise: "the branch `main`", resume: Changeable };
        /// Folder of the tokenizer, if it is not the base model's.
        tokenizer_config: Option<String> = text(), { otherwise: "as `base_model`", resume: Changeable };
        /// The Python class of the model; it must be that of the model's `config.json`.
        model_type: Option<String> = text(), {
            otherwise: "not checked",
            axolotl: "No code is chosen by it: the family is read from `config.json`.",
        };
        /// The Python class of the tokenizer; it must be that of `tokenizer_config.json`.
        tokenizer_type: Option<String> = text(), {
            otherwise: "not checked",
            axolotl: "No code is chosen by it: the tokenizer is read from `tokenizer.json`.",
        };
        /// Special tokens that replace the tokenizer's own.
        special_tokens: SpecialTokenOverrides = section::<SpecialTokenOverrides>(), { otherwise: "the tokenizer's own" };
    }

    "Adapter" {
        /// The adapter method: low-rank updates on frozen projections, for `qlora` on a base in 4 bits; blank trains
        /// the weights themselves.
        adapter: Option<AdapterKind> = choice([("lora", AdapterKind::Lora), ("qlora", AdapterKind::Qlora)]), {
            otherwise: "blank: full fine-tuning",
            axolotl: "`lora` with `load_in_4bit: true` means `qlora`; Axolotl 0.19 leaves the base unquantised then.",
            known_as: "finetuning_type peft_type",
        };
        /// Loads the base in 8 bits.
        load_in_8bit: bool = only(false), {
            default: Some("false"),
            hint: "8-bit bases are not supported yet; `adapter: qlora` with `load_in_4bit: true` takes less",
        };
        /// Loads the base in 4 bits, which `adapter: qlora` needs.
        load_in_4bit: bool = flag(), { default: Some("false"), known_as: "quantization_bit" };
        /// The form of a base in 4 bits.
        bnb_config_kwargs: BnbConfig = section::<BnbConfig>();
        /// Rank of the low-rank update.
        lora_r: usize = whole(1), { default: Some("8"), known_as: "lora_rank rank" };
        /// Numerator of the update's scale: `lora_alpha / lora_r`.
        lora_alpha: f64 = decimal(POSITIVE), { default: Some("16"), known_as: "alpha" };
        /// Share of activations that are dropped before the update.
        lora_dropout: f64 = decimal(BELOW_ONE), { default: Some("0"), known_as: "dropout" };
        /// The projections that get an update: names, an expression for the whole name, or all but the head.
        lora_target_modules: Option<Targets> = targets(), {
            otherwise: "none; an adapter needs a target",
            known_as: "target_modules lora_targets lora_target",
        };
        /// Gives every linear projection but the head an update.
        lora_target_linear: bool = flag(), { default: Some("false") };
        /// Stacks of experts that get an update, by parameter name or its last components.
        lora_target_parameters: Vec<String> = texts(), { otherwise: "none" };
        /// Modules that are trained as a whole beside the updates.
        lora_modules_to_save: Vec<String> = texts(), { otherwise: "none" };
        /// Takes weights as stored transposed.
        lora_fan_in_fan_out: bool = only(false), {
            default: Some("false"),
            hint: "it is for models whose weights are stored transposed, which none of the families here are",
        };
        /// An adapter folder to continue from; its rank, scale and targets hold.
        lora_model_dir: Option<String> = text(), { otherwise: "a new adapter" };
        /// Numbers of the layers that get an update.
        peft_layers_to_transform: Option<Vec<usize>> = layers(), { otherwise: "all layers" };
        /// Scales the update by `lora_alpha / sqrt(lora_r)`.
        peft_use_rslora: bool = flag(), { default: Some("false"), known_as: "use_rslora" };
        /// Trains DoRA's magnitudes as well.
        peft_use_dora: bool = flag(), { default: Some("false") };
        /// PEFT's default initialisation: A Kaiming-uniform, B zero.
        peft_init_lora_weights: bool = only(true), {
            default: Some("true"),
            hint: "PEFT's default initialisation is what is used: A Kaiming-uniform, B zero",
        };
        /// Regular expressions of the parameters that full fine-tuning trains.
        unfrozen_parameters: Vec<String> = parameter_patterns(), {
            otherwise: "all parameters",
            axolotl: "Ranges of rows after an expression are refused.",
        };
    }

    "Data" {
        /// Sources of rows to train on, at least one.
        datasets: Vec<DatasetEntry> = sections::<DatasetEntry>(), {
            is_required: true,
            resume: Changeable,
            known_as: "dataset train_datasets train_dataset data",
            hint: "name at least one: `datasets: [{path: train.jsonl, type: alpaca}]`",
        };
        /// Sources of rows that are only evaluated; the entries are those of `datasets`.
        test_datasets: Vec<DatasetEntry> = sections::<DatasetEntry>(), {
            otherwise: "none",
            resume: Changeable,
            known_as: "eval_datasets eval_dataset eval_data validation_datasets validation_dataset validation_data \
                       valid_datasets val_datasets val_dataset val_data dev_datasets test_dataset test_data",
        };
        /// Training rows that are held out for evaluation: a share, or a number of rows.
        val_set_size: Option<HeldOut> = held_out(), {
            otherwise: "none",
            known_as: "val_size validation_split validation_size eval_size test_size val_split",
            axolotl: "A number of rows counts from 2, since Axolotl reads 1 as all rows.",
        };
        /// Folder that keeps tokenised rows from run to run.
        dataset_prepared_path: Option<String> = text(), { otherwise: "none are kept", resume: Changeable };
        /// Shuffles the rows of all data sets together, in every epoch. Without it `val_set_size` holds out the last rows.
        shuffle_merged_datasets: bool = flag(), { default: Some("true") };
        /// The chat template that turns conversations into text.
        chat_template: Option<ChatTemplate> = chat_template(), {
            otherwise: "the tokenizer's own",
            axolotl: "`{% generation %}` tags in a template decide what of the assistant is trained; a template may call \
                      its messages by any name; `phi_4` writes no system message of its own.",
            known_as: "template",
        };
        /// The template itself, or a file that holds it.
        chat_template_jinja: Option<String> = text(), { otherwise: "none" };
        /// Further variables of the chat template, such as `enable_thinking: false`.
        chat_template_kwargs: Map<String, Json> = template_variables(), { otherwise: "none" };
        /// Trains on prompts too; of conversations on every turn and its end, not on the markers and roles of the template.
        train_on_inputs: bool = flag(), { default: Some("false") };
        /// Tokens that end a turn, on top of the end-of-sequence token.
        eot_tokens: Vec<String> = texts(), {
            otherwise: "none",
            axolotl: "The token with which the template closes an answer, and those of `generation_config.json`, need not \
                      be named.",
        };
        /// Longest example in tokens; with packing also the length of a row.
        sequence_len: Option<usize> = whole(2), {
            otherwise: "512, or the positions of the base model if it has fewer",
            known_as: "max_seq_length max_seq_len max_length cutoff_len seq_length seq_len block_size model_max_length",
        };
        /// Treatment of longer examples.
        excess_length_strategy: Excess = excess(), { default: Some("drop") };
        /// Puts several documents into a row; each attends only within itself.
        sample_packing: bool = flag(), { default: Some("false"), known_as: "packing" };
        /// Packs held-out rows too.
        eval_sample_packing: Option<bool> = flag(), { otherwise: "as `sample_packing`" };
        /// Pads every row to `sequence_len`.
        pad_to_sequence_len: bool = flag(), { default: Some("false") };
    }

    "Training" {
        /// Rows that go through the model at a time; `auto`: as many of the `batch_size` rows of a step as memory
        /// allows.
        micro_batch_size: MicroBatchSize = micro_batch_size(), {
            default: Some("1"),
            axolotl: "`auto` is not a value there.",
            known_as: "per_device_train_batch_size",
        };
        /// Micro-batches per step.
        gradient_accumulation_steps: Option<usize> = whole(1), {
            otherwise: "`batch_size / micro_batch_size`, or 1",
            known_as: "gradient_accumulation grad_accumulation_steps grad_accum accumulation_steps",
        };
        /// Rows per step; a multiple of `micro_batch_size`.
        batch_size: Option<usize> = whole(1), {
            otherwise: "`micro_batch_size * gradient_accumulation_steps`",
            axolotl: "Without `gradient_accumulation_steps`, Axolotl 0.19 counts steps of so many rows and trains on \
                      `micro_batch_size` of each.",
        };
        /// Rows per evaluation micro-batch.
        eval_batch_size: Option<usize> = whole(1), {
            otherwise: "as `micro_batch_size`",
            resume: Changeable,
            known_as: "per_device_eval_batch_size",
        };
        /// Passes over the data; may be fractional.
        num_epochs: f64 = decimal(POSITIVE), {
            default: Some("1"),
            resume: Changeable,
            axolotl: "Every epoch ends with its last row: a last, partial accumulation window is still a step, normalised by \
                      its own tokens. Axolotl counts `ceil(rows * epochs / batch)` steps over the whole run, and with \
                      packing leaves incomplete batches out; the plan names its number where it differs.",
            known_as: "epochs num_train_epochs",
        };
        /// Optimizer steps of the run; it overrides `num_epochs`, also where that means more epochs.
        max_steps: Option<usize> = step_limit(), {
            otherwise: "by `num_epochs`",
            resume: Changeable,
            axolotl: "With -1, which means that there is no bound, Axolotl has no warm-up by share.",
        };
        /// The optimizer: Adam with decoupled weight decay, with its state in 32 or in 8 bits.
        optimizer: &'static OptimizerKind = optimizer(), { default: Some("adamw_torch"), known_as: "optim" };
        /// Peak learning rate.
        learning_rate: f64 = decimal(POSITIVE), {
            is_required: true,
            known_as: "lr",
            hint: "there is no default; `learning_rate: 2e-4` is usual for LoRA, `2e-5` for full fine-tuning",
        };
        /// Course of the learning rate after the warm-up; `constant` has no warm-up.
        lr_scheduler: &'static ScheduleKind = schedule(), { default: Some("cosine"), known_as: "scheduler lr_scheduler_type" };
        /// End of a cosine, as a share of the peak.
        cosine_min_lr_ratio: f64 = decimal(SHARE), { default: Some("0") };
        /// Steps of warm-up, of which the first has learning rate 0; 1 means 2.
        warmup_steps: Option<usize> = whole(0), {
            otherwise: "by `warmup_ratio`",
            known_as: "num_warmup_steps lr_warmup_steps",
        };
        /// Warm-up as a share of all steps, or of those of `num_epochs` where `max_steps` is more: rounded down, and 1
        /// step becomes 2.
        warmup_ratio: Option<f64> = decimal(SHARE), { otherwise: "0.03, and at most 100 steps" };
        /// Decoupled weight decay.
        weight_decay: f64 = decimal(NOT_NEGATIVE), { default: Some("0") };
        /// Decay of the first moment.
        adam_beta1: Option<f64> = decimal(BELOW_ONE), { otherwise: "the optimizer's own; 0.9 for AdamW" };
        /// Decay of the second moment.
        adam_beta2: Option<f64> = decimal(BELOW_ONE), { otherwise: "the optimizer's own; 0.999 for AdamW" };
        /// Term that keeps the quotient of the moments finite.
        adam_epsilon: Option<f64> = decimal(POSITIVE), { otherwise: "the optimizer's own; 1e-8 for AdamW" };
        /// Global norm that gradients are clipped to; 0 for no clipping.
        max_grad_norm: f64 = decimal(NOT_NEGATIVE), {
            default: Some("1"),
            known_as: "max_norm gradient_clipping clip_grad_norm",
        };
        /// Loss above which a step counts against the run.
        loss_watchdog_threshold: Option<f64> = threshold(), { otherwise: "none" };
        /// Consecutive steps above the threshold that end the run, and consecutive steps without a finite loss and
        /// gradient that fail it.
        loss_watchdog_patience: usize = whole_or_zero(), { default: Some("3") };
        /// Scale of the noise on embeddings (NEFTune).
        neftune_noise_alpha: Option<f64> = decimal(POSITIVE), { otherwise: "no noise" };
        /// Computes in bfloat16.
        bf16: Option<Toggle> = toggle(), { otherwise: "`auto`: on CUDA" };
        /// Computes in float16, with a scaled loss.
        fp16: Option<Toggle> = toggle(), { otherwise: "`auto`: not unless asked for" };
        /// Multiplies float32 matrices in TF32.
        tf32: Option<Toggle> = toggle(), {
            otherwise: "`auto`: on CUDA",
            resume: Changeable,
            axolotl: "`false` is refused where products are in TF32 in any case.",
        };
        /// Recomputes layers in the backward pass; `auto`: if memory is short.
        gradient_checkpointing: Toggle = checkpointing(), {
            default: Some("false"),
            resume: Changeable,
            known_as: "use_gradient_checkpointing",
            axolotl: "`auto` is not a value there; `offload` recomputes, and keeps the layers' inputs on the device.",
        };
        /// Seed of order, initialisation, dropout and noise.
        seed: u64 = seed(), { default: Some("42"), known_as: "random_seed data_seed" };
    }

    "Evaluation and checkpoints" {
        /// Times of evaluation: every `eval_steps`, at the end of each epoch, or never.
        eval_strategy: Option<Cadence> = cadence(), {
            otherwise: ONE_CADENCE,
            resume: Changeable,
            axolotl: "Without any of the three keys, Axolotl does not evaluate during training.",
        };
        /// Steps between evaluations; below 1 a share of all steps.
        eval_steps: Option<Steps> = steps(), { otherwise: ONE_CADENCE, resume: Changeable };
        /// Evaluations per epoch.
        evals_per_epoch: Option<usize> = whole_or_zero(), { otherwise: ONE_CADENCE, resume: Changeable };
        /// Times of checkpoints: every `save_steps`, at the end of each epoch, or never.
        save_strategy: Option<Cadence> = cadence(), {
            otherwise: ONE_CADENCE,
            resume: Changeable,
            axolotl: "As there, `saves_per_epoch` overrides it where that is more than one checkpoint in the run.",
        };
        /// Steps between checkpoints; below 1 a share of all steps.
        save_steps: Option<Steps> = steps(), { otherwise: ONE_CADENCE, resume: Changeable };
        /// Checkpoints per epoch.
        saves_per_epoch: Option<usize> = whole_or_zero(), { otherwise: ONE_CADENCE, resume: Changeable };
        /// Checkpoints that are kept.
        save_total_limit: usize = whole(1), { default: Some("4"), resume: Changeable };
        /// Exports the saved state with the lowest held-out loss, and not the last.
        load_best_model_at_end: Option<bool> = flag(), {
            otherwise: "`true` where both cadences are in steps and every checkpoint has an evaluation",
            resume: Changeable,
            axolotl: "A written `true` holds for cadences in epochs too.",
        };
        /// Consecutive evaluations without a lower held-out loss after which training ends.
        early_stopping_patience: Option<usize> = whole_or_zero(), { otherwise: "none", resume: Changeable };
        /// Resumes from the newest checkpoint of `output_dir`, if there is one; `resume_from_checkpoint` overrides it.
        auto_resume_from_checkpoints: bool = flag(), { default: Some("false"), resume: NotCompared };
        /// A checkpoint folder to resume from.
        resume_from_checkpoint: Option<String> = checkpoint(), { otherwise: "none", resume: NotCompared };
        /// Steps between logged lines.
        logging_steps: usize = whole(1), { default: Some("1"), resume: Changeable };
        /// Folder that the run is written to.
        output_dir: Option<String> = text(), {
            otherwise: "`runs/` and the recipe's name",
            resume: NotCompared,
            known_as: "output out_dir",
        };
    }

    "Device, export and limits" {
        /// The device to train on.
        device: DeviceChoice = device(), {
            default: Some("auto"),
            resume: Changeable,
            axolotl: NOT_IN_AXOLOTL,
            hint: "; `cuda:1` is the second of its kind, `vulkan:cpu` and `wgpu:cpu` are the software rasterizer",
        };
        /// The files that are written at the end.
        export: Export = section::<Export>(), { resume: Changeable, axolotl: NOT_IN_AXOLOTL };
        /// Limits that are checked before training.
        preflight: Preflight = section::<Preflight>(), { resume: Changeable, axolotl: NOT_IN_AXOLOTL };
    }
}
