//! Checks across keys that need nothing but the recipe.
//!
//! Each names the keys that contradict each other, at the place of the later one.

use super::Recipe;
use super::problem::Position;
use super::reader::Findings;
use super::setting::{Setting, Written};
use super::values::{AdapterKind, Cadence, ChatTemplate, MicroBatchSize, Steps};
use crate::train::schedules::SCHEDULES;

/// Reports contradictions.
pub(super) fn check(findings: &Findings, recipe: &Recipe) {
    adapter(findings, recipe);
    batch(findings, recipe);
    schedule(findings, recipe);
    template(findings, recipe);
    let (held_out, tests) = (&recipe.val_set_size, &recipe.test_datasets);
    if held_out.is_some() && !tests.is_empty() {
        let hint = "held-out rows come from one of them: remove the other";
        contradiction(findings, held_out.written(), tests.written(), hint);
    }
    cadence(findings, &recipe.eval_strategy, &recipe.eval_steps, &recipe.evals_per_epoch);
    cadence(findings, &recipe.save_strategy, &recipe.save_steps, &recipe.saves_per_epoch);
    let per_epoch = recipe.evals_per_epoch.written();
    let evaluates = recipe.evals_per_epoch.is_some() && *recipe.eval_strategy != Some(Cadence::Steps);
    if recipe.eval_strategy.is_some() && evaluates {
        let strategy = recipe.eval_strategy.written();
        contradiction(findings, per_epoch, strategy, "write `eval_strategy: steps`, or remove one of them");
    }
    overridden(findings, recipe);
    let loads_best = *recipe.load_best_model_at_end == Some(true);
    let patience = recipe.early_stopping_patience.is_some().then_some(recipe.early_stopping_patience.written());
    let best = loads_best.then_some(recipe.load_best_model_at_end.written());
    for key in [patience, best].into_iter().flatten() {
        if held_out.is_none() && tests.is_empty() {
            let message = format!("`{}` needs held-out rows, and none are held out", key.key);
            findings.problem(key.at, message, "add `val_set_size` or `test_datasets`");
        }
        if *recipe.eval_strategy == Some(Cadence::No) {
            contradiction(findings, key, recipe.eval_strategy.written(), "it needs evaluations");
        }
    }
    if loads_best && *recipe.save_strategy == Some(Cadence::No) && !saves_by_epoch(recipe) {
        let (best, saves) = (recipe.load_best_model_at_end.written(), recipe.save_strategy.written());
        contradiction(findings, best, saves, "the best state must have been saved");
    }
}

/// True if `saves_per_epoch` is more than one checkpoint in the whole run: then it holds, and not `save_strategy`.
fn saves_by_epoch(recipe: &Recipe) -> bool {
    recipe.saves_per_epoch.is_some_and(|times| times as f64 * *recipe.num_epochs > 1.0)
}

/// Notes keys that are accepted and overridden by others, as in Axolotl.
fn overridden(findings: &Findings, recipe: &Recipe) {
    let note = |key: &Written, why: &str| {
        if let Some(text) = &key.text {
            findings.note(key.at, &key.key, text.clone(), why);
        }
    };
    let strategy = &recipe.save_strategy;
    if recipe.saves_per_epoch.is_some() && matches!(**strategy, Some(Cadence::No | Cadence::Epoch)) {
        if saves_by_epoch(recipe) {
            note(strategy.written(), "`saves_per_epoch` overrides it");
        } else {
            note(
                recipe.saves_per_epoch.written(),
                "it is no more than one checkpoint in the run, so `save_strategy` holds",
            );
        }
    }
    if *recipe.auto_resume_from_checkpoints && recipe.resume_from_checkpoint.is_some() {
        note(recipe.auto_resume_from_checkpoints.written(), "`resume_from_checkpoint` overrides it");
    }
    if recipe.val_set_size.is_none() && recipe.test_datasets.is_empty() {
        let unused = [
            (recipe.eval_steps.is_some(), recipe.eval_steps.written()),
            (recipe.evals_per_epoch.is_some(), recipe.evals_per_epoch.written()),
            (!matches!(*recipe.eval_strategy, None | Some(Cadence::No)), recipe.eval_strategy.written()),
        ];
        for (_, key) in unused.iter().filter(|(is_set, _)| *is_set) {
            note(key, "no rows are held out: `val_set_size` and `test_datasets` do that");
        }
    }
    for key in unread(recipe, recipe.optimizer.reads) {
        note(key, "the chosen `optimizer` does not read it");
    }
}

/// The settings of optimizers that the recipe writes and that one that `reads` only those has no use for.
pub(super) fn unread<'r>(recipe: &'r Recipe, reads: &[&str]) -> Vec<&'r Written> {
    let settings = [
        (recipe.adam_beta1.is_some(), recipe.adam_beta1.written()),
        (recipe.adam_beta2.is_some(), recipe.adam_beta2.written()),
        (recipe.adam_epsilon.is_some(), recipe.adam_epsilon.written()),
        (*recipe.weight_decay > 0.0, recipe.weight_decay.written()),
    ];
    let is_unread = |(is_set, key): &(bool, &Written)| *is_set && !reads.contains(&&*key.key);
    settings.into_iter().filter(is_unread).map(|(_, key)| key).collect()
}

fn adapter(findings: &Findings, recipe: &Recipe) {
    let written = recipe.adapter.written();
    if written.is_written {
        let targets = [
            recipe.lora_target_modules.written(),
            recipe.lora_target_parameters.written(),
            recipe.lora_model_dir.written(),
        ];
        if !*recipe.lora_target_linear && targets.iter().all(|key| !key.is_written) {
            let hint = "add `lora_target_linear: true`, or name projections: `lora_target_modules: [q_proj, v_proj]`";
            findings.problem(written.at, format!("`adapter: {}` has no target", kind(recipe)), hint);
        }
        four_bits(findings, recipe);
        if !recipe.unfrozen_parameters.is_empty() {
            let hint = "it is for full fine-tuning: an adapter freezes all weights of the base";
            contradiction(findings, recipe.unfrozen_parameters.written(), written, hint);
        }
        return;
    }
    let without_effect = [
        (*recipe.load_in_4bit, recipe.load_in_4bit.written()),
        (recipe.bnb_config_kwargs.written().is_written, recipe.bnb_config_kwargs.written()),
        (recipe.export.merge_base.is_some(), recipe.export.merge_base.written()),
        (recipe.lora_r.is_set(), recipe.lora_r.written()),
        (recipe.lora_alpha.is_set(), recipe.lora_alpha.written()),
        (*recipe.lora_dropout > 0.0, recipe.lora_dropout.written()),
        (recipe.lora_target_modules.is_some(), recipe.lora_target_modules.written()),
        (*recipe.lora_target_linear, recipe.lora_target_linear.written()),
        (recipe.lora_model_dir.is_some(), recipe.lora_model_dir.written()),
        (recipe.peft_layers_to_transform.is_some(), recipe.peft_layers_to_transform.written()),
        (*recipe.peft_use_rslora, recipe.peft_use_rslora.written()),
        (*recipe.peft_use_dora, recipe.peft_use_dora.written()),
        (!recipe.lora_target_parameters.is_empty(), recipe.lora_target_parameters.written()),
        (!recipe.lora_modules_to_save.is_empty(), recipe.lora_modules_to_save.written()),
    ];
    for (_, key) in without_effect.iter().filter(|(wanted, _)| *wanted) {
        let message = format!("`{}` has no effect without an adapter{}", key.key, place_in_words(findings, written));
        findings.problem(key.at, message, "write `adapter: lora`, or remove the key for full fine-tuning");
    }
}

/// The adapter as a recipe calls it.
fn kind(recipe: &Recipe) -> &'static str {
    if *recipe.adapter == Some(AdapterKind::Qlora) { "qlora" } else { "lora" }
}

/// The adapter and `load_in_4bit` must agree about the base; `adapter: lora` on a base in 4 bits is what `qlora` means.
fn four_bits(findings: &Findings, recipe: &Recipe) {
    let (adapter, four_bits) = (recipe.adapter.written(), recipe.load_in_4bit.written());
    if *recipe.adapter == Some(AdapterKind::Qlora) {
        if !*recipe.load_in_4bit {
            let place = place_in_words(findings, four_bits);
            let message = format!("`adapter: qlora` needs `load_in_4bit: true`{place}");
            findings.problem(adapter.at, message, "add it, or write `adapter: lora`");
        }
        return;
    }
    if *recipe.load_in_4bit {
        return;
    }
    let without_effect = [
        (recipe.bnb_config_kwargs.written().is_written, recipe.bnb_config_kwargs.written()),
        (recipe.export.merge_base.is_some(), recipe.export.merge_base.written()),
    ];
    for (_, key) in without_effect.iter().filter(|(wanted, _)| *wanted) {
        let place = place_in_words(findings, adapter);
        let message = format!("`{}` has no effect without a base in 4 bits{place}", key.key);
        findings.problem(key.at, message, "write `adapter: qlora` and `load_in_4bit: true`, or remove the key");
    }
}

fn batch(findings: &Findings, recipe: &Recipe) {
    let (micro_batch_size, batch_size) = (recipe.micro_batch_size.written(), recipe.batch_size.written());
    let accumulation = &recipe.gradient_accumulation_steps;
    let rows = match *recipe.micro_batch_size {
        MicroBatchSize::Rows(rows) => rows,
        MicroBatchSize::Auto => {
            if !batch_size.is_written {
                let hint = "add `batch_size: 32`, say: the rows of a step, of which as many go through the model at a time as memory allows";
                findings.problem(micro_batch_size.at, "`micro_batch_size: auto` needs `batch_size`", hint);
            }
            if accumulation.is_some() {
                let hint = "remove it; it follows from `batch_size` and the micro-batches that fit";
                contradiction(findings, accumulation.written(), micro_batch_size, hint);
            }
            return;
        }
    };
    let Some(batch) = *recipe.batch_size else {
        return;
    };
    if batch % rows != 0 {
        let place = place_in_words(findings, micro_batch_size);
        let message = format!("`batch_size: {batch}` is not a multiple of `micro_batch_size: {rows}`{place}");
        findings.problem(batch_size.at, message, "a step is a whole number of micro-batches");
    } else if let Some(steps) = accumulation.filter(|steps| *steps != batch / rows) {
        let place = place_in_words(findings, accumulation.written());
        let message = format!(
            "`batch_size: {batch}` disagrees with `gradient_accumulation_steps: {steps}`{place} times `micro_batch_size: {rows}`"
        );
        findings.problem(batch_size.at, message, "remove `batch_size`; it is the product of the other two");
    }
}

fn schedule(findings: &Findings, recipe: &Recipe) {
    let (steps, ratio) = (&recipe.warmup_steps, &recipe.warmup_ratio);
    if steps.is_some_and(|steps| steps > 0) && ratio.is_some_and(|ratio| ratio > 0.0) {
        contradiction(findings, steps.written(), ratio.written(), "keep one of them");
    }
    let scheduler = *recipe.lr_scheduler;
    if let Some(why) = scheduler.no_warmup {
        for key in [steps.written(), ratio.written()] {
            if let Some(text) = &key.text {
                findings.note(key.at, &key.key, text.clone(), why);
            }
        }
    }
    if recipe.cosine_min_lr_ratio.is_set() && !scheduler.has_floor {
        let with_floor: Vec<&str> = SCHEDULES.iter().filter(|kind| kind.has_floor).map(|kind| kind.name).collect();
        let hint = format!("it needs `lr_scheduler: {}`", with_floor.join("` or `"));
        contradiction(findings, recipe.cosine_min_lr_ratio.written(), recipe.lr_scheduler.written(), &hint);
    }
}

fn template(findings: &Findings, recipe: &Recipe) {
    let (template, jinja) = (&recipe.chat_template, &recipe.chat_template_jinja);
    if **template == Some(ChatTemplate::Jinja) && jinja.is_none() {
        let hint = "add `chat_template_jinja` with the template, or a file that holds it";
        findings.problem(template.written().at, "`chat_template: jinja` has no template", hint);
    }
    let other = template.as_ref().is_some_and(|template| *template != ChatTemplate::Jinja);
    if jinja.is_some() && other {
        let hint = "write `chat_template: jinja`, or remove one of them";
        contradiction(findings, jinja.written(), template.written(), hint);
    }
}

/// The keys that say how often something happens must agree.
fn cadence(
    findings: &Findings,
    strategy: &Setting<Option<Cadence>>,
    steps: &Setting<Option<Steps>>,
    per_epoch: &Setting<Option<usize>>,
) {
    let written = strategy.written();
    if steps.is_some() && per_epoch.is_some() {
        contradiction(findings, steps.written(), per_epoch.written(), "keep one of them");
    }
    if steps.is_some() && matches!(**strategy, Some(Cadence::No | Cadence::Epoch)) {
        let hint = format!("write `{}: steps`, or remove one of them", written.key);
        contradiction(findings, steps.written(), written, &hint);
    }
    if **strategy == Some(Cadence::Steps) && steps.is_none() && per_epoch.is_none() {
        let message = format!("`{}: steps` does not say how many", written.key);
        let hint = format!("add `{}` or `{}`", steps.written().key, per_epoch.written().key);
        findings.problem(written.at, message, hint);
    }
}

/// Reports two keys that exclude each other, at the later one and naming the other's place.
fn contradiction(findings: &Findings, one: &Written, other: &Written, hint: &str) {
    let (one, other) = if one.at < other.at { (other, one) } else { (one, other) };
    let shown = |key: &Written| match &key.text {
        Some(text) => format!("`{}: {text}`", key.key),
        None => format!("`{}`", key.key),
    };
    let message = format!("{} contradicts {}{}", shown(one), shown(other), place_in_words(findings, other));
    findings.problem(one.at, message, hint);
}

/// ` (at PLACE)` of a key that was written, nothing for one that was not.
fn place_in_words(findings: &Findings, key: &Written) -> String {
    match key.at {
        Position::Whole => String::new(),
        position => format!(" (at {})", findings.source.name(position)),
    }
}
