//! The recipe's top level, key by key: this is its schema.
//!
//! Text becomes a tree, overrides and variables are put in, and the tree is read into [`Recipe`].

use std::collections::BTreeMap;

use super::dataset;
use super::hints;
use super::problem::{Found, Place, Problems, Source};
use super::reader::{BELOW_ONE, Findings, NOT_NEGATIVE, POSITIVE, SHARE, Section};
use super::values::{AdapterKind, Excess};
use super::yaml::{Node, Value};
use super::{Recipe, axolotl, checks, environment, keys, overrides, tree, written};

/// Reads `text` as a recipe.
pub(super) fn recipe(source: &Source, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Recipe, Problems> {
    let mut found = Found::default();
    let Some(mut root) = tree::parse(text, None, &mut found) else {
        found.into_result(source)?;
        // A text that is no tree was reported; an empty list is the honest rest.
        return Err(Problems(Vec::new()));
    };
    overrides::apply(&mut root, &source.overrides, &mut found);
    let as_written = written::by_key(&root);
    environment::expand(&mut root, env, &mut found);

    let mut places = BTreeMap::new();
    record_places(&root, "", &mut places);
    let findings = Findings::new(source, found);
    let mut recipe = top(&findings, &root, text, places);
    recipe.values = written::without_environment(as_written, written::by_key(&root));
    let Findings { problems, hints, .. } = findings;
    problems.into_inner().into_result(source)?;
    let mut hints = hints.into_inner();
    hints.sort_by_key(|(place, _)| *place);
    recipe.hints = hints.into_iter().map(|(_, hint)| hint).collect();
    Ok(recipe)
}

/// Every key's place by dotted name: its value's, or its own where the value is a block.
fn record_places(node: &Node, name: &str, places: &mut BTreeMap<String, Place>) {
    let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
    match &node.value {
        Value::Scalar { .. } => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = format!("{prefix}{index}");
                record_places(item, &name, places);
                places.insert(name, item.at);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let name = format!("{prefix}{}", entry.key);
                record_places(&entry.node, &name, places);
                let block = !matches!(entry.node.value, Value::Scalar { .. });
                places.insert(name, if block { entry.at } else { entry.node.at });
            }
        }
    }
}

fn top(findings: &Findings<'_>, root: &Node, text: &str, places: BTreeMap<String, Place>) -> Recipe {
    let source = findings.source;
    let mut top = Section::new(findings, "", root);
    // What is missing from the file is nowhere in it.
    top.at = Place::Whole;
    let (allow_defects, max_memory) = keys::preflight(&mut top);
    let recipe = Recipe {
        path: source.path.clone(),
        text: text.to_owned(),
        overrides: source.overrides.clone(),
        hints: Vec::new(),

        base_model: top.text("base_model").unwrap_or_default(),
        revision_of_model: top.text("revision_of_model"),
        tokenizer_config: top.text("tokenizer_config"),
        model_type: top.text("model_type"),
        tokenizer_type: top.text("tokenizer_type"),
        special_tokens: keys::special_tokens(&mut top),

        adapter: top.choice("adapter", &[("lora", AdapterKind::Lora), ("qlora", AdapterKind::Qlora)]),
        load_in_8bit: top.only(
            "load_in_8bit",
            false,
            "8-bit bases are not built yet; `adapter: qlora` with `load_in_4bit: true` takes less",
        ),
        load_in_4bit: top.flag("load_in_4bit"),
        bnb_config: keys::bnb_config(&mut top),
        lora_r: top.whole("lora_r", 1),
        lora_alpha: top.number("lora_alpha", &POSITIVE),
        lora_dropout: top.number("lora_dropout", &BELOW_ONE),
        lora_target_modules: keys::targets(&mut top),
        lora_target_linear: top.flag("lora_target_linear"),
        lora_target_parameters: top.texts("lora_target_parameters").unwrap_or_default(),
        lora_modules_to_save: top.texts("lora_modules_to_save").unwrap_or_default(),
        lora_fan_in_fan_out: top.only(
            "lora_fan_in_fan_out",
            false,
            "it is for models whose weights are stored transposed, which none of the families here are",
        ),
        lora_model_dir: top.text("lora_model_dir"),
        peft_layers_to_transform: keys::layers(&mut top),
        peft_use_rslora: top.flag("peft_use_rslora"),
        peft_use_dora: top.flag("peft_use_dora"),
        peft_init_lora_weights: top.only(
            "peft_init_lora_weights",
            true,
            "PEFT's default initialisation is what is used: A Kaiming-uniform, B zero",
        ),
        unfrozen_parameters: keys::parameter_patterns(&mut top),

        datasets: keys::entries(&mut top, "datasets"),
        test_datasets: keys::entries(&mut top, "test_datasets"),
        val_set_size: keys::val_set_size(&mut top),
        dataset_prepared_path: top.text("dataset_prepared_path"),
        allow_defects,
        max_memory,
        shuffle_merged_datasets: top.flag("shuffle_merged_datasets"),
        chat_template: dataset::chat_template(&mut top),
        chat_template_jinja: top.text("chat_template_jinja"),
        train_on_inputs: top.flag("train_on_inputs"),
        eot_tokens: top.texts("eot_tokens").unwrap_or_default(),
        sequence_len: top.whole("sequence_len", 2),
        excess_length_strategy: top.choice(
            "excess_length_strategy",
            &[("drop", Excess::Drop), ("truncate", Excess::Truncate), ("raise", Excess::Raise)],
        ),
        sample_packing: top.flag("sample_packing"),
        eval_sample_packing: top.flag("eval_sample_packing"),
        pad_to_sequence_len: top.flag("pad_to_sequence_len"),

        micro_batch_size: keys::micro_batch_size(&mut top),
        gradient_accumulation_steps: top.whole("gradient_accumulation_steps", 1),
        batch_size: top.whole("batch_size", 1),
        eval_batch_size: top.whole("eval_batch_size", 1),
        num_epochs: top.number("num_epochs", &POSITIVE),
        max_steps: keys::max_steps(&mut top),
        optimizer: keys::optimizer(&mut top),
        learning_rate: top.number("learning_rate", &POSITIVE).unwrap_or_default(),
        lr_scheduler: keys::scheduler(&mut top),
        cosine_min_lr_ratio: top.number("cosine_min_lr_ratio", &SHARE),
        warmup_steps: top.whole("warmup_steps", 0),
        warmup_ratio: top.number("warmup_ratio", &SHARE),
        weight_decay: top.number("weight_decay", &NOT_NEGATIVE),
        adam_beta1: top.number("adam_beta1", &BELOW_ONE),
        adam_beta2: top.number("adam_beta2", &BELOW_ONE),
        adam_epsilon: top.number("adam_epsilon", &POSITIVE),
        max_grad_norm: top.number("max_grad_norm", &NOT_NEGATIVE),
        loss_watchdog_threshold: keys::watchdog_threshold(&mut top),
        loss_watchdog_patience: top.whole("loss_watchdog_patience", 0).filter(|patience| *patience > 0),
        neftune_noise_alpha: top.number("neftune_noise_alpha", &POSITIVE),
        bf16: keys::toggle(&mut top, "bf16"),
        fp16: keys::toggle(&mut top, "fp16"),
        tf32: keys::toggle(&mut top, "tf32"),
        gradient_checkpointing: keys::checkpointing(&mut top),
        seed: keys::seed(&mut top),

        eval_strategy: keys::cadence(&mut top, "eval_strategy"),
        eval_steps: keys::steps(&mut top, "eval_steps"),
        evals_per_epoch: keys::per_epoch(&mut top, "evals_per_epoch"),
        save_strategy: keys::cadence(&mut top, "save_strategy"),
        save_steps: keys::steps(&mut top, "save_steps"),
        saves_per_epoch: keys::per_epoch(&mut top, "saves_per_epoch"),
        save_total_limit: top.whole("save_total_limit", 1),
        load_best_model_at_end: top.flag("load_best_model_at_end"),
        early_stopping_patience: top.whole("early_stopping_patience", 0).filter(|patience| *patience > 0),
        auto_resume_from_checkpoints: top.flag("auto_resume_from_checkpoints"),
        resume_from_checkpoint: keys::checkpoint(&mut top),
        logging_steps: top.whole("logging_steps", 1),
        output_dir: top.text("output_dir"),

        device: keys::device(&mut top),
        export: keys::export(&mut top),

        values: BTreeMap::new(),
        places,
    };
    hints::read(&mut top);
    checks::check(&top, &recipe);
    top.finish(axolotl::TOP);
    recipe
}
