//! The three refusals at every depth, and contradictions between keys.

use std::path::Path;

use super::{AdapterKind, Problem, Problems, Recipe, checks};
use crate::train::optimizers::OPTIMIZERS;
use crate::train::schedules::SCHEDULES;

/// A recipe with all that is required on its first three lines.
pub(super) const BASE: &str = "base_model: m\nlearning_rate: 1e-4\ndatasets: [{path: a.jsonl, type: alpaca}]\n";

/// Reads `text` in a small environment.
pub(super) fn with(text: &str, overrides: &[&str]) -> Result<Recipe, Problems> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let env = |name: &str| match name {
        "HOME_MODEL" => Some("models/home".to_owned()),
        "STEPS" => Some("7".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    Recipe::from_text(Path::new("dir/recipe.yaml"), text, &overrides, &env)
}

/// The recipe of the required lines and `text`.
pub(super) fn good(text: &str) -> Recipe {
    match with(&format!("{BASE}{text}"), &[]) {
        Ok(recipe) => recipe,
        Err(problems) => panic!("{problems}"),
    }
}

/// The problems of `text`; none if it is accepted.
pub(super) fn problems(text: &str, overrides: &[&str]) -> Vec<Problem> {
    match with(text, overrides) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems,
    }
}

/// The only problem of `text` below the required lines.
pub(super) fn bad(text: &str) -> Problem {
    let mut all = problems(&format!("{BASE}{text}"), &[]);
    assert_eq!(all.len(), 1, "{text}: {all:#?}");
    all.remove(0)
}

pub(super) fn assert_problem(problem: &Problem, at: &str, message: &str, hint: &str) {
    assert_eq!(problem.at, at);
    assert!(problem.message.contains(message), "{problem}");
    assert!(problem.hint.contains(hint), "{problem}");
}

/// A text, and the place, a part of the message and a part of the hint of what is wrong with it.
pub(super) type Case = (&'static str, &'static str, &'static str, &'static str);

/// Each text below the required lines has one problem; places are `line:column`.
pub(super) fn refused(cases: &[Case]) {
    for (text, at, message, hint) in cases {
        assert_problem(&bad(text), &format!("dir/recipe.yaml:{at}"), message, hint);
    }
}

#[test]
fn an_unknown_key_is_refused_at_its_key_with_the_closest_name() {
    refused(&[
        ("lora_rr: 8\n", "4:1", "unknown key `lora_rr`", "did you mean `lora_r`?"),
        ("lora_target_liner: true\n", "4:1", "unknown key", "`lora_target_linear`"),
        ("per_device_train_batch_size: 4\n", "4:1", "unknown", "`micro_batch_size`"),
        ("wandb_projcet:\n", "4:1", "unknown key", "`wandb_project`"),
        ("zzzzzzzz: 4\n", "4:1", "unknown key", "nothing here has a similar name"),
    ]);
}

#[test]
fn an_unknown_key_is_refused_at_every_depth() {
    let text = "base_model: m\nlearning_rate: 1\ndatasets:\n  - path: a\n    typ: alpaca\nexport:\n  fromats: [adapter]\n\
                special_tokens:\n  pad_tokn: x\n";
    let found = problems(text, &[]);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert_problem(&found[0], "dir/recipe.yaml:5:5", "unknown key `datasets.0.typ`", "`type`");
    assert_problem(&found[1], "dir/recipe.yaml:7:3", "unknown key `export.fromats`", "`formats`");
    assert_problem(&found[2], "dir/recipe.yaml:9:3", "unknown key `special_tokens.pad_tokn`", "`pad_token`");
}

#[test]
fn a_real_key_that_is_not_implemented_is_refused_with_advice_at_every_depth() {
    refused(&[
        ("rl: grpo\n", "4:1", "`rl` is an Axolotl key", "supervised"),
        ("gates: {eval_loss: {max: 1}}\n", "4:1", "`gates` is a key of recipes", "remove"),
        ("export:\n  for: [peft]\n", "5:3", "`export.for`", "`formats`"),
        (
            "test_datasets:\n  - path: b\n    preprocess_shards: 4\n",
            "6:5",
            "`test_datasets.0.preprocess_shards` is an Axolotl key",
            "`shards`",
        ),
        (
            "gradient_checkpointing_kwargs: {preserve_rng_state: false}\n",
            "4:33",
            "`gradient_checkpointing_kwargs.preserve_rng_state`",
            "remove",
        ),
    ]);
}

#[test]
fn keys_that_are_not_implemented_pass_at_the_values_that_switch_them_off() {
    good(
        "deepspeed:\nfsdp: []\nfsdp_config: {}\ntrust_remote_code: false\ngroup_by_length: no\nwandb_mode: disabled\n",
    );
    good(
        "load_best_model_at_end: false\nearly_stopping_patience: 0\nsave_safetensors: true\nstrict: true\nwandb_project: ''\n",
    );
    refused(&[
        ("save_safetensors: false\n", "4:1", "`save_safetensors`", "always"),
        ("metric_for_best_model: rouge\n", "4:1", "`metric_for_best_model`", "lowest held-out loss"),
    ]);
    good("metric_for_best_model: eval_loss\ngreater_is_better: false\nresume_from_checkpoint: false\n");
}

#[test]
fn keys_of_the_best_state_and_of_resuming_need_what_they_speak_of() {
    good("val_set_size: 0.1\nload_best_model_at_end: true\nearly_stopping_patience: 3\n");
    refused(&[
        ("load_best_model_at_end: true\n", "4:25", "`load_best_model_at_end` needs held-out rows", "val_set_size"),
        (
            "val_set_size: 0.1\neval_strategy: 'no'\nearly_stopping_patience: 2\n",
            "6:26",
            "`early_stopping_patience: 2` contradicts `eval_strategy: no`",
            "evaluations",
        ),
        ("resume_from_checkpoint: true\n", "4:25", "`resume_from_checkpoint`", "auto_resume_from_checkpoints"),
    ]);
}

#[test]
fn an_unsupported_value_is_refused_at_the_value_with_the_accepted_ones() {
    let problem = bad("lr_scheduler: cosin\n");
    assert_problem(
        &problem,
        "dir/recipe.yaml:4:15",
        "`lr_scheduler` does not support the text `cosin`",
        "did you mean `cosine`?",
    );
    assert_problem(&problem, "dir/recipe.yaml:4:15", "", "accepted: cosine, linear, constant, constant_with_warmup");
    refused(&[
        ("save_strategy: best\n", "4:16", "`save_strategy`", "accepted: no, steps, epoch"),
        ("load_in_8bit: true\n", "4:15", "only `false`", "not supported yet"),
        ("peft_init_lora_weights: pissa\n", "4:25", "only `true`", "Kaiming"),
        ("export: {formats: [adapter, gguf]}\n", "4:29", "`export.formats.1`", "adapter, merged"),
        ("plugins:\n  - my.Plugin\n", "5:5", "`plugins.0`", "LigerPlugin"),
        ("chat_template: chatmll\n", "4:16", "`chat_template`", "did you mean `chatml`?"),
        ("attn_implementation: fp8\n", "4:22", "`attn_implementation`", "sdpa"),
        ("test_datasets: [{path: b, type: alpacca}]\n", "4:33", ".type`", "did you mean `alpaca`?"),
        ("test_datasets: [{path: b, ds_type: parqet}]\n", "4:36", ".ds_type`", "did you mean `parquet`?"),
    ]);
}

#[test]
fn a_wrong_type_is_refused_with_the_accepted_type_and_the_given_value() {
    refused(&[
        ("lora_r: many\n", "4:9", "takes an integer of at least 1, not the text `many`", "integer"),
        ("sequence_len: 1\n", "4:15", "at least 2, not `1`", ""),
        ("sequence_len: 0x10\n", "4:15", "not the text `0x10`", ""),
        ("sequence_len: 010\n", "4:15", "not `010`", ""),
        ("micro_batch_size: 1e300\n", "4:19", "not `1e300`", ""),
        ("lora_dropout: 1.0\n", "4:15", "from 0 to below 1", ""),
        ("warmup_ratio: nan\n", "4:15", "not the text `nan`", ""),
        ("sample_packing: maybe\n", "4:17", "takes true or false", ""),
        ("flash_attention: 2\n", "4:18", "takes true or false, not `2`", ""),
        ("eot_tokens: x\n", "4:13", "a list of texts", ""),
        ("output_dir: [a]\n", "4:13", "a text, not the list `[a]`", ""),
        ("special_tokens: x\n", "4:17", "a mapping", ""),
        ("test_datasets: {path: a}\n", "4:16", "a list of mappings", ""),
        ("test_datasets: [a.jsonl]\n", "4:17", "`test_datasets.0` takes a mapping", ""),
        ("val_set_size: 1.0\n", "4:15", "a share of the rows below 1", ""),
        ("unfrozen_parameters: ['^a$', 'b$[:32000]']\n", "4:22", "range of rows", "brackets"),
    ]);
}

#[test]
fn all_problems_come_in_one_report_sorted_by_position() {
    let found = with("lora_rr: 1\ndatasets: [{type: alpaca}]\nbf16: 3\nrl: dpo\n", &["seed=x"]);
    let Err(report) = found else { panic!("accepted") };
    assert_eq!(
        report.to_string(),
        "dir/recipe.yaml:1:1: unknown key `lora_rr`\nhint: did you mean `lora_r`?\n\
         dir/recipe.yaml:2:12: `datasets.0.path` is missing\nhint: name a file, a folder or a data set of the hub: `path: data/train.jsonl`\n\
         dir/recipe.yaml:3:7: `bf16` takes true, false or auto, not `3`\n\
         hint: accepted: true, false or auto; a key with a default may also be left out\n\
         dir/recipe.yaml:4:1: `rl` is an Axolotl key that is not implemented here\n\
         hint: only supervised fine-tuning is implemented; remove it\n\
         --set seed=x: `seed` takes an integer of at least 0, not the text `x`\n\
         hint: accepted: an integer of at least 0; a key with a default may also be left out\n\
         dir/recipe.yaml: `base_model` is missing\n\
         hint: name a model folder or a hub model: `base_model: Qwen/Qwen3-0.6B`\n\
         dir/recipe.yaml: `learning_rate` is missing\n\
         hint: there is no default; `learning_rate: 2e-4` is usual for LoRA, `2e-5` for full fine-tuning"
    );
    let many: String = (0..300).map(|index| format!("key{index}: 1\n")).collect();
    assert_eq!(problems(&many, &[]).len(), 101);
}

#[test]
fn contradictions_name_both_places() {
    let found = bad("evals_per_epoch: 2\neval_steps: 50\n");
    assert_problem(
        &found,
        "dir/recipe.yaml:5:13",
        "`eval_steps: 50` contradicts `evals_per_epoch: 2` (at dir/recipe.yaml:4:18)",
        "keep one",
    );
    let found = bad("eval_steps: 5\neval_strategy: no\n");
    assert_problem(&found, "dir/recipe.yaml:5:16", "contradicts `eval_steps: 5` (at dir/recipe.yaml:4:13)", "steps");
    refused(&[
        ("warmup_steps: 5\nwarmup_ratio: 0.1\n", "5:15", "contradicts `warmup_steps: 5`", "keep one"),
        ("save_strategy: steps\n", "4:16", "does not say how many", "`save_steps`"),
        ("save_steps: 3\nsave_strategy: epoch\n", "5:16", "contradicts `save_steps: 3`", "save_strategy: steps"),
        ("evals_per_epoch: 4\neval_strategy: epoch\n", "5:16", "contradicts `evals_per_epoch", "eval_strategy: steps"),
        ("lora_r: 8\n", "4:9", "no effect without an adapter", "adapter: lora"),
        ("adapter: lora\nlora_r: 8\n", "4:10", "has no target", "lora_target_linear"),
        ("batch_size: 6\nmicro_batch_size: 4\n", "4:13", "not a multiple", "whole number"),
        (
            "batch_size: 8\nmicro_batch_size: 2\ngradient_accumulation_steps: 2\n",
            "4:13",
            "disagrees with `gradient_accumulation_steps: 2` (at dir/recipe.yaml:6:30)",
            "remove",
        ),
        ("micro_batch_size: auto\n", "4:19", "`micro_batch_size: auto` needs `batch_size`", "rows of a step"),
        (
            "micro_batch_size: auto\nbatch_size: 8\ngradient_accumulation_steps: 2\n",
            "6:30",
            "`gradient_accumulation_steps: 2` contradicts `micro_batch_size: auto` (at dir/recipe.yaml:4:19)",
            "it follows from `batch_size`",
        ),
        ("loss_watchdog_threshold: -1\n", "4:26", "a number above 0", ""),
        ("val_set_size: 0.1\ntest_datasets: [{path: b}]\n", "5:16", "contradicts `val_set_size", "one of them"),
        ("chat_template: jinja\n", "4:16", "has no template", "chat_template_jinja"),
        ("lr_scheduler: linear\ncosine_min_lr_ratio: 0.1\n", "5:22", "contradicts", "cosine"),
    ]);
}

#[test]
fn keys_that_others_override_are_noted_and_not_refused() {
    let hints = |text: &str| {
        let recipe = good(text);
        recipe.hints.iter().map(|hint| format!("{}: {}", hint.key, hint.why)).collect::<Vec<_>>()
    };
    let noted: [(&str, &[&str]); 8] = [
        ("save_strategy: 'no'\nsaves_per_epoch: 4\n", &["save_strategy: `saves_per_epoch` overrides it"]),
        (
            "save_strategy: epoch\nsaves_per_epoch: 1\nnum_epochs: 3\n",
            &["save_strategy: `saves_per_epoch` overrides it"],
        ),
        (
            "save_strategy: 'no'\nsaves_per_epoch: 1\n",
            &["saves_per_epoch: it is no more than one checkpoint in the run, so `save_strategy` holds"],
        ),
        (
            "auto_resume_from_checkpoints: true\nresume_from_checkpoint: out/checkpoint-1\n",
            &["auto_resume_from_checkpoints: `resume_from_checkpoint` overrides it"],
        ),
        (
            "evals_per_epoch: 4\nval_set_size: 0\n",
            &["evals_per_epoch: no rows are held out: `val_set_size` and `test_datasets` do that"],
        ),
        ("eval_strategy: 'no'\nval_set_size: 0\n", &[]),
        ("eval_steps: 4\nval_set_size: 0.1\n", &[]),
        ("adam_beta2: 0.95\nweight_decay: 0.1\nadam_epsilon: 1e-6\nadam_beta1: 0.8\n", &[]),
    ];
    for (text, expected) in noted {
        assert_eq!(hints(text), expected, "{text}");
    }
}

#[test]
fn lora_on_a_base_in_4_bits_is_qlora() {
    let lora = good(
        "adapter: lora\nload_in_4bit: true\nlora_target_linear: true\nbnb_config_kwargs: {bnb_4bit_quant_type: nf4}\n",
    );
    assert_eq!(lora.adapter, Some(AdapterKind::Qlora));
    assert_eq!(lora.values["adapter"], "lora", "a run is identified by what was written");
    let plain = good("adapter: lora\nload_in_4bit: false\nlora_target_linear: true\n");
    assert_eq!(plain.adapter, Some(AdapterKind::Lora));
    refused(&[
        ("adapter: qlora\nlora_target_linear: true\n", "4:10", "needs `load_in_4bit: true`", "adapter: lora"),
        ("load_in_4bit: true\n", "4:15", "no effect without an adapter", "adapter: lora"),
    ]);
}

#[test]
fn a_key_of_another_place_or_program_leads_to_its_own() {
    refused(&[
        ("bnb_4bit_quant_type: nf4\n", "4:1", "unknown key", "belongs to `bnb_config_kwargs`"),
        ("llm_int8_threshold: 6\n", "4:1", "unknown key", "belongs to `bnb_config_kwargs`"),
        (
            "special_tokens: {eot_tokens: [x]}\n",
            "4:18",
            "`special_tokens.eot_tokens`",
            "`eot_tokens` belongs to the top level",
        ),
        ("export: {output_dir: x}\n", "4:10", "`export.output_dir`", "`output_dir` belongs to the top level"),
        ("max_memory: 3GB\n", "4:1", "`max_memory` is an Axolotl key", ""),
        ("field_messages: x\n", "4:1", "unknown key", "belongs to an entry of `datasets`"),
        ("val_datasets: [{path: b}]\n", "4:1", "unknown key", "did you mean `test_datasets`?"),
        ("validation_data: b\n", "4:1", "unknown key", "did you mean `test_datasets`?"),
        ("data_seed: 3\n", "4:1", "unknown key", "did you mean `seed`?"),
        ("report_to: wandb\n", "4:1", "`report_to` is a key of transformers", "`metrics.jsonl`"),
        ("report_to: [tensorboard]\n", "4:1", "`report_to` is a key of transformers", "`metrics.jsonl`"),
        (
            "test_datasets: [{path: b, field_prompt: q}]\n",
            "4:27",
            "`test_datasets.0.field_prompt`",
            "`field_instruction`",
        ),
        ("test_datasets: [{path: b, field_completion: a}]\n", "4:27", ".field_completion`", "`field_output`"),
        ("push_to_hub: true\n", "4:1", "`push_to_hub` is a key of transformers", "nothing is uploaded"),
    ]);
    good("report_to: none\ndo_train: true\npush_to_hub: false\noverwrite_output_dir: false\n");
    let required = problems("base_model: m\nlearning_rate: 0\ndatasets: [{path: a}]\n", &[]).remove(0);
    assert_problem(
        &required,
        "dir/recipe.yaml:2:16",
        "takes a number above 0, not `0`",
        "`learning_rate: 2e-4` is usual",
    );
    assert!(!required.hint.contains("left out"), "{}", required.hint);
}

#[test]
fn defaults_of_the_schema_are_the_first_rows_of_their_tables() {
    let recipe = good("");
    assert_eq!(recipe.optimizer.names[0].name, OPTIMIZERS[0].names[0].name);
    assert_eq!(recipe.lr_scheduler.name, SCHEDULES[0].name);
    let default = |key: &str| super::schema::default_of(key).unwrap();
    assert_eq!(default("optimizer"), OPTIMIZERS[0].names[0].name);
    assert_eq!(default("lr_scheduler"), SCHEDULES[0].name);
}

#[test]
fn settings_that_an_optimizer_does_not_read_are_named() {
    let recipe = good("adam_beta1: 0.8\nadam_beta2: 0.95\nadam_epsilon: 1e-6\nweight_decay: 0.1\n");
    let unread = |reads: &[&str]| checks::unread(&recipe, reads).iter().map(|key| &*key.key).collect::<Vec<_>>();
    assert_eq!(unread(&["weight_decay"]), ["adam_beta1", "adam_beta2", "adam_epsilon"]);
    assert_eq!(unread(&["adam_beta1", "adam_beta2", "weight_decay"]), ["adam_epsilon"]);
    assert_eq!(unread(OPTIMIZERS[0].reads), [""; 0]);
    let none = good("weight_decay: 0\n");
    assert!(checks::unread(&none, &[]).is_empty());
}
