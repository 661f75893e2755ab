//! Checks across keys that need nothing but the recipe.
//!
//! Each names the keys that contradict each other, at the place of the later one.

use super::problem::Place;
use super::reader::Section;
use super::values::{AdapterKind, Cadence, ChatTemplate, MicroBatchSize};
use super::{Recipe, hints};
use crate::train::schedules::SCHEDULES;

/// Reports what is missing and what contradicts itself.
pub(super) fn check(top: &Section<'_>, recipe: &Recipe) {
    required(top);
    adapter(top, recipe);
    batch(top, recipe);
    schedule(top, recipe);
    template(top, recipe);
    if recipe.val_set_size.is_some() && !recipe.test_datasets.is_empty() {
        contradiction(top, "val_set_size", "test_datasets", "held-out rows come from one of them: remove the other");
    }
    let evaluates = Times {
        strategy: ("eval_strategy", recipe.eval_strategy),
        steps: ("eval_steps", recipe.eval_steps.is_some()),
        per_epoch: ("evals_per_epoch", recipe.evals_per_epoch.is_some()),
    };
    cadence(top, &evaluates);
    let saves = Times {
        strategy: ("save_strategy", recipe.save_strategy),
        steps: ("save_steps", recipe.save_steps.is_some()),
        per_epoch: ("saves_per_epoch", recipe.saves_per_epoch.is_some()),
    };
    cadence(top, &saves);
    if recipe.auto_resume_from_checkpoints == Some(true) && recipe.resume_from_checkpoint.is_some() {
        contradiction(
            top,
            "auto_resume_from_checkpoints",
            "resume_from_checkpoint",
            "the one takes the newest checkpoint of `output_dir`, the other the one it names: keep one of them",
        );
    }
    for key in ["early_stopping_patience", "load_best_model_at_end"] {
        let wanted = match key {
            "early_stopping_patience" => recipe.early_stopping_patience.is_some(),
            _ => recipe.load_best_model_at_end == Some(true),
        };
        if wanted && recipe.val_set_size.is_none() && recipe.test_datasets.is_empty() {
            let message = format!("`{key}` needs held-out rows, and none are held out");
            top.findings.problem(top.place(key), message, "add `val_set_size` or `test_datasets`");
        }
        if wanted && recipe.eval_strategy == Some(Cadence::No) {
            contradiction(top, key, "eval_strategy", "it needs evaluations");
        }
    }
    if recipe.load_best_model_at_end == Some(true) && recipe.save_strategy == Some(Cadence::No) {
        contradiction(top, "load_best_model_at_end", "save_strategy", "the best state must have been saved");
    }
}

fn required(top: &Section<'_>) {
    let needed = [
        ("base_model", "name a model folder or a hub model: `base_model: Qwen/Qwen3-0.6B`"),
        ("datasets", "name at least one: `datasets: [{path: train.jsonl, type: alpaca}]`"),
        ("learning_rate", "there is no default; `learning_rate: 2e-4` is usual for LoRA, `2e-5` for full fine-tuning"),
    ];
    for (key, hint) in needed {
        if top.lacks(key) {
            // A key that was left blank has a place, a missing one has only the file's.
            top.findings.problem(top.place(key), format!("`{key}` is missing"), hint);
        }
    }
}

fn adapter(top: &Section<'_>, recipe: &Recipe) {
    if top.has("adapter") {
        let targeted = recipe.lora_target_linear == Some(true)
            || ["lora_target_modules", "lora_target_parameters", "lora_model_dir"].iter().any(|key| top.has(key));
        if !targeted {
            let hint = "add `lora_target_linear: true`, or name projections: `lora_target_modules: [q_proj, v_proj]`";
            let message = format!("`adapter: {}` has no target", kind(recipe));
            top.findings.problem(top.place("adapter"), message, hint);
        }
        four_bits(top, recipe);
        if !recipe.unfrozen_parameters.is_empty() {
            contradiction(
                top,
                "unfrozen_parameters",
                "adapter",
                "it is for full fine-tuning: an adapter freezes all weights of the base",
            );
        }
        return;
    }
    let written = [
        ("load_in_4bit", recipe.load_in_4bit == Some(true)),
        ("bnb_config_kwargs", top.has("bnb_config_kwargs")),
        ("export.merge_base", recipe.export.merge_base.is_some()),
        ("lora_r", recipe.lora_r.is_some()),
        ("lora_alpha", recipe.lora_alpha.is_some()),
        ("lora_dropout", recipe.lora_dropout.is_some_and(|dropout| dropout > 0.0)),
        ("lora_target_modules", recipe.lora_target_modules.is_some()),
        ("lora_target_linear", recipe.lora_target_linear == Some(true)),
        ("lora_model_dir", recipe.lora_model_dir.is_some()),
        ("peft_layers_to_transform", recipe.peft_layers_to_transform.is_some()),
        ("peft_use_rslora", recipe.peft_use_rslora == Some(true)),
        ("peft_use_dora", recipe.peft_use_dora == Some(true)),
        ("lora_target_parameters", !recipe.lora_target_parameters.is_empty()),
        ("lora_modules_to_save", !recipe.lora_modules_to_save.is_empty()),
    ];
    for (key, _) in written.iter().filter(|(_, written)| *written) {
        let message = format!("`{key}` has no effect without an adapter{}", written_at(top, "adapter"));
        let place = top.place(key.split('.').next().unwrap_or(key));
        top.findings.problem(place, message, "write `adapter: lora`, or remove the key for full fine-tuning");
    }
}

/// The adapter as a recipe calls it.
fn kind(recipe: &Recipe) -> &'static str {
    if recipe.adapter == Some(AdapterKind::Qlora) { "qlora" } else { "lora" }
}

/// Whether the base is in 4 bits, the adapter and `load_in_4bit` must say alike.
fn four_bits(top: &Section<'_>, recipe: &Recipe) {
    if recipe.adapter == Some(AdapterKind::Qlora) {
        if recipe.load_in_4bit != Some(true) {
            let message = format!("`adapter: qlora` needs `load_in_4bit: true`{}", written_at(top, "load_in_4bit"));
            top.findings.problem(top.place("adapter"), message, "add it, or write `adapter: lora`");
        }
        return;
    }
    if recipe.load_in_4bit == Some(true) {
        contradiction(top, "load_in_4bit", "adapter", "a base in 4 bits is trained with `adapter: qlora`");
    }
    for key in ["bnb_config_kwargs", "export.merge_base"] {
        let written = match key {
            "export.merge_base" => recipe.export.merge_base.is_some(),
            _ => top.has(key),
        };
        if written {
            let message = format!("`{key}` has no effect without a base in 4 bits{}", written_at(top, "adapter"));
            let place = top.place(key.split('.').next().unwrap_or(key));
            top.findings.problem(place, message, "write `adapter: qlora` and `load_in_4bit: true`, or remove the key");
        }
    }
}

fn batch(top: &Section<'_>, recipe: &Recipe) {
    if recipe.micro_batch_size == Some(MicroBatchSize::Auto) {
        if recipe.batch_size.is_none() && !top.has("batch_size") {
            let hint = "add `batch_size: 32`, say: the rows of a step, of which as many go through the model at a time as memory allows";
            top.findings.problem(top.place("micro_batch_size"), "`micro_batch_size: auto` needs `batch_size`", hint);
        }
        if recipe.gradient_accumulation_steps.is_some() {
            let hint = "remove it; it follows from `batch_size` and the micro-batches that fit";
            contradiction(top, "gradient_accumulation_steps", "micro_batch_size", hint);
        }
        return;
    }
    let Some(batch) = recipe.batch_size else {
        return;
    };
    let micro = match recipe.micro_batch_size {
        Some(MicroBatchSize::Rows(rows)) => rows,
        _ => 1,
    };
    if batch % micro != 0 {
        let message = format!(
            "`batch_size: {batch}` is no multiple of `micro_batch_size: {micro}`{}",
            written_at(top, "micro_batch_size")
        );
        top.findings.problem(top.place("batch_size"), message, "a step is a whole number of micro-batches");
    } else if let Some(accumulation) = recipe.gradient_accumulation_steps.filter(|steps| *steps != batch / micro) {
        let message = format!(
            "`batch_size: {batch}` disagrees with `gradient_accumulation_steps: {accumulation}`{} times `micro_batch_size: {micro}`",
            written_at(top, "gradient_accumulation_steps"),
        );
        top.findings.problem(
            top.place("batch_size"),
            message,
            "remove `batch_size`; it is the product of the other two",
        );
    }
}

fn schedule(top: &Section<'_>, recipe: &Recipe) {
    if recipe.warmup_steps.is_some_and(|steps| steps > 0) && recipe.warmup_ratio.is_some_and(|ratio| ratio > 0.0) {
        contradiction(top, "warmup_steps", "warmup_ratio", "keep one of them");
    }
    let Some(kind) = recipe.lr_scheduler else { return };
    if let Some(why) = kind.no_warmup {
        for key in ["warmup_steps", "warmup_ratio"] {
            if let Some(node) = top.node(key) {
                hints::same_result(top, key, node, why);
            }
        }
    }
    if recipe.cosine_min_lr_ratio.is_some() && !kind.has_floor {
        let with_floor: Vec<&str> = SCHEDULES.iter().filter(|kind| kind.has_floor).map(|kind| kind.name).collect();
        let hint = format!("it needs `lr_scheduler: {}`", with_floor.join("` or `"));
        contradiction(top, "cosine_min_lr_ratio", "lr_scheduler", &hint);
    }
}

fn template(top: &Section<'_>, recipe: &Recipe) {
    let hint = "add `chat_template_jinja` with the template, or a file that holds it";
    if recipe.chat_template == Some(ChatTemplate::Jinja) && recipe.chat_template_jinja.is_none() {
        top.findings.problem(top.place("chat_template"), "`chat_template: jinja` has no template", hint);
    }
    let other = recipe.chat_template.as_ref().is_some_and(|template| *template != ChatTemplate::Jinja);
    if recipe.chat_template_jinja.is_some() && other {
        contradiction(
            top,
            "chat_template_jinja",
            "chat_template",
            "write `chat_template: jinja`, or remove one of them",
        );
    }
}

/// How often something happens, as the recipe says it.
struct Times {
    strategy: (&'static str, Option<Cadence>),
    steps: (&'static str, bool),
    per_epoch: (&'static str, bool),
}

fn cadence(top: &Section<'_>, times: &Times) {
    let (strategy, cadence) = times.strategy;
    if times.steps.1 && times.per_epoch.1 {
        contradiction(top, times.steps.0, times.per_epoch.0, "keep one of them");
    }
    // As many steps as an epoch has, divided: that is a cadence in steps.
    for (key, written) in [times.steps, times.per_epoch] {
        if written && matches!(cadence, Some(Cadence::No | Cadence::Epoch)) {
            contradiction(top, key, strategy, &format!("write `{strategy}: steps`, or remove one of them"));
        }
    }
    if cadence == Some(Cadence::Steps) && !times.steps.1 && !times.per_epoch.1 {
        let message = format!("`{strategy}: steps` does not say how many");
        let hint = format!("add `{}` or `{}`", times.steps.0, times.per_epoch.0);
        top.findings.problem(top.place(strategy), message, hint);
    }
}

/// Reports two keys that exclude each other, at the later one and naming the other's place.
fn contradiction(top: &Section<'_>, one: &str, other: &str, hint: &str) {
    let (one, other) = if top.place(one) < top.place(other) { (other, one) } else { (one, other) };
    let shown = |key: &str| match top.node(key) {
        Some(node) if super::scalars::scalar(node).is_some() => {
            format!("`{key}: {}`", node.shown())
        }
        _ => format!("`{key}`"),
    };
    let message = format!("{} contradicts {}{}", shown(one), shown(other), written_at(top, other));
    top.findings.problem(top.place(one), message, hint);
}

/// ` (at PLACE)` of a key that was written, nothing for one that was not.
fn written_at(top: &Section<'_>, key: &str) -> String {
    match top.place(key) {
        Place::Whole => String::new(),
        place => format!(" (at {})", top.findings.source.name(place)),
    }
}
