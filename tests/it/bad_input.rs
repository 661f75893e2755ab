//! Bad input: the exit code, the place, the value, a hint; no panic, and nothing left behind.

use std::fs;
use std::path::Path;

use crate::harness::{Finished, LEFT_OUT, Scratch, change_config, header, model, sample_rows};

/// Runs `tune run recipe.yaml`, which must refuse and leave every file as it was.
fn refused(scratch: &Scratch, expected: &[&str]) {
    refused_with(scratch, &["run", "recipe.yaml"], 2, expected);
}

fn refused_with(scratch: &Scratch, arguments: &[&str], code: i32, expected: &[&str]) {
    let before = scratch.listing();
    let Finished { code: found, stdout, stderr } = scratch.tune(arguments);
    assert_eq!(found, Some(code), "{stderr}");
    assert!(stdout.is_empty(), "{stdout}");
    for part in expected {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
    assert!(stderr.starts_with("error: ") || stderr.contains("\nerror: "), "{stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("internal error"), "{stderr}");
    assert!(!stderr.lines().last().unwrap().contains("os error"), "the cause comes before the hint: {stderr}");
    assert_eq!(before, scratch.listing(), "{stderr}");
}

/// A folder with the small recipe on qwen3, changed.
fn changed(name: &str, changes: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new(name);
    scratch.recipe("recipe.yaml", &model("qwen3"), changes);
    scratch
}

/// A folder with the small recipe on a copy of qwen3 that `damage` has changed.
fn damaged(name: &str, damage: impl Fn(&Path)) -> Scratch {
    let scratch = Scratch::new(name);
    let folder = scratch.copy_model("qwen3");
    damage(&folder);
    scratch.recipe("recipe.yaml", &folder, &[]);
    scratch
}

#[test]
fn misspelt_keys_at_two_depths_are_reported_together() {
    let datasets = "\n  - path: rows.jsonl\n    tpye: chat_template";
    let scratch = changed("typo", &[("datasets", datasets), ("learning_rat", "1e-3")]);
    refused(
        &scratch,
        &["recipe.yaml:8:5: ", "tpye`", "`type`", "recipe.yaml:17:1: ", "`learning_rat`", "`learning_rate`"],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_shown_with_its_place() {
    let scratch = changed("type", &[("lora_r", "many"), ("micro_batch_size", "[2]")]);
    refused(&scratch, &["recipe.yaml:3:9: ", "`many`", "recipe.yaml:10:"]);
}

#[test]
fn broken_yaml_and_values_out_of_range_are_refused() {
    let scratch = changed("range", &[("learning_rate", "-1"), ("micro_batch_size", "0")]);
    refused(&scratch, &["recipe.yaml:10:", "`0`", "recipe.yaml:12:", "`-1`"]);
    scratch.write("recipe.yaml", "base_model: [a\nadapter: lora\n");
    refused(&scratch, &["recipe.yaml:"]);
}

#[test]
fn a_missing_recipe_is_named() {
    let scratch = Scratch::new("no-recipe");
    refused(&scratch, &["recipe.yaml"]);
}

#[test]
fn a_missing_base_model_is_named_with_every_place_looked_at() {
    let scratch = changed("no-model", &[("base_model", "nobody/nothing")]);
    refused(&scratch, &["recipe.yaml:1:13: ", "`nobody/nothing`", "models--nobody--nothing", "without `--offline`"]);
}

#[test]
fn a_missing_data_file_is_named() {
    let scratch = changed("no-data", &[("datasets", "\n  - path: row.jsonl")]);
    refused(&scratch, &["recipe.yaml:7:", "`row.jsonl`", "rows.jsonl"]);
}

#[test]
fn a_truncated_checkpoint_is_refused() {
    let scratch = damaged("truncated", |folder| {
        let path = folder.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1000]).unwrap();
    });
    refused(&scratch, &["qwen3/model.safetensors: truncated", "download the file again"]);
}

#[test]
fn a_header_that_lies_about_sizes_is_refused() {
    let scratch = damaged("header", |folder| {
        let path = folder.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let (mut entries, data) = header(&bytes);
        entries["model.norm.weight"]["shape"] = serde_json::json!([65]);
        let text = entries.to_string();
        let mut written = (text.len() as u64).to_le_bytes().to_vec();
        written.extend(text.bytes());
        written.extend(&bytes[data..]);
        fs::write(path, written).unwrap();
    });
    refused(&scratch, &["model.safetensors: tensor `model.norm.weight`", "[65]"]);
}

#[test]
fn a_header_longer_than_any_file_is_refused() {
    let scratch = damaged("header-length", |folder| {
        fs::write(folder.join("model.safetensors"), u64::MAX.to_le_bytes()).unwrap();
    });
    refused(&scratch, &["model.safetensors: ", "`18446744073709551615`"]);
}

#[test]
fn shapes_that_contradict_the_configuration_are_refused() {
    let scratch = damaged("shape", |folder| change_config(folder, "intermediate_size", serde_json::json!(113)));
    refused(&scratch, &["model.safetensors: ", "`model.layers.0.mlp.gate_proj.weight`", "`[112, 64]`", "[113, 64]"]);
}

#[test]
fn weights_that_are_not_finite_are_refused_before_a_run_folder_exists() {
    let scratch = damaged("nan", |folder| {
        let path = folder.join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let (entries, data) = header(&bytes);
        let start = entries["model.norm.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
        bytes[data + start + 12..data + start + 16].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(path, bytes).unwrap();
    });
    refused(&scratch, &["model.safetensors: tensor `model.norm.weight`", "`NaN`", "element 3"]);
}

#[test]
fn an_unknown_family_is_refused_by_name() {
    let scratch = damaged("family", |folder| change_config(folder, "model_type", serde_json::json!("zebra")));
    refused(&scratch, &["config.json: ", "`zebra`", "qwen3"]);
}

#[test]
fn an_unsupported_configuration_value_is_refused_by_name() {
    let scratch = damaged("config", |folder| change_config(folder, "hidden_act", serde_json::json!("tanh_of_doom")));
    refused(&scratch, &["config.json: ", "hidden_act", "tanh_of_doom"]);
}

#[test]
fn broken_json_is_named_with_its_line() {
    let scratch = changed("json", &[]);
    let mut rows: Vec<String> = sample_rows(320).lines().map(str::to_owned).collect();
    rows[309].truncate(40);
    scratch.write("rows.jsonl", rows.join("\n"));
    refused(&scratch, &["rows.jsonl:310: broken JSON"]);
}

#[test]
fn a_row_with_the_wrong_field_is_named_with_its_line() {
    let scratch = changed("field", &[]);
    scratch.write("rows.jsonl", sample_rows(3) + "{\"message\": []}\n");
    refused(&scratch, &["rows.jsonl:4: ", "`message`", "`messages`"]);
}

#[test]
fn a_row_with_an_unknown_role_is_named_with_its_line() {
    let scratch = changed("role", &[]);
    let row = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "narrator", "content": 3}]}"#;
    scratch.write("rows.jsonl", sample_rows(1) + row + "\n");
    refused(&scratch, &["rows.jsonl:2: "]);
}

#[test]
fn a_template_that_raises_says_what_it_says() {
    let template = "\"{{ raise_exception('no guests after ' ~ 8) }}\"";
    let scratch = changed("raises", &[("chat_template", "jinja"), ("chat_template_jinja", template)]);
    refused(&scratch, &["no guests after 8"]);
}

#[test]
fn a_template_that_does_not_parse_is_refused() {
    let template = "\"{% for message in messages %}\"";
    let scratch = changed("template", &[("chat_template", "jinja"), ("chat_template_jinja", template)]);
    refused(&scratch, &["recipe.yaml:18:22: ", "template"]);
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("chat_template_jinja", "missing.jinja")]);
    refused(&scratch, &["recipe.yaml:17:22: ", "`missing.jinja`"]);
}

#[test]
fn an_empty_data_set_is_refused() {
    let scratch = changed("empty", &[]);
    scratch.write("rows.jsonl", "");
    refused(&scratch, &["rows.jsonl: ", "no rows"]);
}

#[test]
fn holding_out_every_row_is_refused() {
    let scratch = changed("all-held-out", &[("val_set_size", "24")]);
    refused(&scratch, &["recipe.yaml:17:15: ", "`24`"]);
}

#[test]
fn an_output_folder_that_cannot_be_written_is_refused() {
    let scratch = changed("read-only", &[("output_dir", "rows.jsonl/inside")]);
    refused(&scratch, &["recipe.yaml:16:13: ", "`rows.jsonl/inside`"]);
    if cfg!(target_os = "linux") {
        scratch.recipe("recipe.yaml", &model("qwen3"), &[("output_dir", "/proc/tune")]);
        refused(&scratch, &["recipe.yaml:16:13: ", "`/proc/tune`"]);
    }
}

#[test]
fn an_output_folder_with_other_files_is_refused() {
    let scratch = changed("occupied", &[]);
    scratch.write("out/thesis.tex", "years of work");
    refused(&scratch, &["recipe.yaml:16:13: ", "`out`", "not empty"]);
}

#[test]
fn a_target_that_matches_nothing_is_refused_at_its_entry() {
    let scratch = changed("target", &[("lora_target_modules", "[q_proj, v_porj]")]);
    refused(&scratch, &["recipe.yaml:5:31: ", "`v_porj`", "did you mean `v_proj`?"]);
    let scratch = changed("target-pattern", &[("lora_target_modules", "LEFT.*"), ("peft_layers_to_transform", "[0]")]);
    refused(&scratch, &["recipe.yaml:5:22: ", "`LEFT.*`"]);
}

#[test]
fn a_rank_that_no_target_can_have_is_refused() {
    let scratch = changed("rank", &[("lora_r", "100000000")]);
    refused(&scratch, &["recipe.yaml:3:9: lora_r `100000000`", "rank 64"]);
}

#[test]
fn a_layer_that_does_not_exist_is_refused() {
    let scratch = changed("layer", &[("peft_layers_to_transform", "[0, 7]")]);
    refused(&scratch, &["recipe.yaml:17:1: ", "`7`", "0 to 1"]);
}

#[test]
fn a_pattern_of_parameters_that_matches_nothing_is_refused_at_its_entry() {
    let lora = [("adapter", ""), ("lora_r", LEFT_OUT), ("lora_alpha", LEFT_OUT), ("lora_target_modules", LEFT_OUT)];
    let unfrozen = ("unfrozen_parameters", "\n  - mlp\n  - model.layers.9");
    let scratch = changed("unfrozen", &[lora.as_slice(), &[unfrozen]].concat());
    refused(&scratch, &["recipe.yaml:16:5: ", "`model.layers.9`"]);
}

#[test]
fn a_run_that_ends_at_the_first_step_of_its_warm_up_is_refused() {
    let changes = [("max_steps", "1"), ("warmup_steps", "10"), ("lr_scheduler", "cosine")];
    refused(&changed("warm-up", &changes), &["recipe.yaml:17:15: ", "10 warm-up steps", "hint: set warmup_steps: 0"]);
}

#[test]
fn a_plan_that_needs_more_memory_than_allowed_is_refused() {
    let scratch = changed("memory", &[("preflight", "{max_memory: 1MiB}")]);
    refused(&scratch, &["recipe.yaml:17:25: the run needs about ", "1.0 MiB is allowed: weights ", "temporary "]);
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("preflight", "{max_memory: 24}")]);
    refused(&scratch, &["recipe.yaml:17:25: ", "`preflight.max_memory` takes a size such as 22GiB"]);
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("preflight", "{max_memory: 1.5 GB}")]);
    let planned = scratch.tune(&["check", "recipe.yaml"]);
    assert_eq!(planned.code, Some(0), "{}", planned.stderr);
    assert!(planned.stdout.contains("; 1.40 GiB allowed"), "{}", planned.stdout);
}

#[test]
fn a_row_that_is_too_long_is_refused_where_the_recipe_says_raise() {
    let scratch = changed("too-long", &[("sequence_len", "32"), ("excess_length_strategy", "raise")]);
    refused(&scratch, &["rows.jsonl:1: ", "32"]);
}

#[test]
fn rows_that_are_all_too_long_are_refused() {
    let scratch = changed("all-too-long", &[("sequence_len", "32")]);
    refused(&scratch, &["recipe.yaml:7:", "24 of 24", "`sequence_len` 32"]);
}

#[test]
fn rows_with_tokens_beyond_the_embedding_are_refused() {
    let larger = crate::harness::project().join("examples/tiny-base").display().to_string();
    let scratch = changed("vocabulary", &[("tokenizer_config", &larger)]);
    refused(&scratch, &["rows.jsonl:1: ", "only 400 rows", "the tokenizer is that of another model"]);
}

#[test]
fn a_model_without_tokenizer_is_refused() {
    let scratch = damaged("no-tokenizer", |folder| fs::remove_file(folder.join("tokenizer.json")).unwrap());
    refused(&scratch, &["tokenizer.json"]);
}

#[test]
fn lora_on_a_model_without_weights_is_refused() {
    let scratch = damaged("no-weights", |folder| fs::remove_file(folder.join("model.safetensors")).unwrap());
    refused(&scratch, &["recipe.yaml:1:13: ", "qwen3"]);
}

#[test]
fn pickled_weights_are_refused() {
    let scratch = damaged("pickled", |folder| {
        fs::rename(folder.join("model.safetensors"), folder.join("pytorch_model.bin")).unwrap();
    });
    refused(&scratch, &["pytorch_model.bin", "safetensors"]);
}

#[test]
fn a_device_that_is_not_in_the_build_is_refused_with_the_feature_that_adds_it() {
    let scratch = changed("device", &[("device", "cuda")]);
    if cfg!(feature = "cuda") {
        return;
    }
    refused(&scratch, &["recipe.yaml:15:9: ", "`cuda`", "--features cuda"]);
}

#[test]
fn an_unknown_device_is_refused_with_the_accepted_ones() {
    let scratch = changed("unknown-device", &[("device", "toaster")]);
    refused(&scratch, &["recipe.yaml:15:9: ", "`toaster`", "cuda"]);
}

#[test]
fn an_adapter_export_of_full_fine_tuning_is_refused() {
    let lora = [("adapter", ""), ("lora_r", LEFT_OUT), ("lora_alpha", LEFT_OUT), ("lora_target_modules", LEFT_OUT)];
    let scratch = changed("no-adapter", &[lora.as_slice(), &[("export", "\n  formats: [adapter]")]].concat());
    refused(&scratch, &["recipe.yaml:15:3: ", "`adapter`"]);
}

#[test]
fn an_adapter_to_continue_from_must_fit_model_and_recipe() {
    let scratch = changed("continue", &[("lora_model_dir", "nowhere")]);
    refused(&scratch, &["recipe.yaml:17:17: ", "nowhere"]);
    let fixture = |name: &str| crate::harness::project().join("tests/fixtures/lora").join(name).join("final");
    let with = |name: &str, changes: &[(&str, &str)]| {
        let folder = fixture(name).display().to_string();
        let changes = [&[("lora_model_dir", folder.as_str())], changes].concat();
        scratch.recipe("recipe.yaml", &model("qwen3"), &changes);
    };
    let from_adapter = [("lora_r", LEFT_OUT), ("lora_alpha", LEFT_OUT), ("lora_target_modules", LEFT_OUT)];
    with("llama31_all_linear", &from_adapter);
    refused(&scratch, &["recipe.yaml:14:17: ", "does not have", "hint: name the base model"]);
    with("qwen3_all_linear", &[("lora_r", "3"), from_adapter[1], from_adapter[2]]);
    refused(&scratch, &["recipe.yaml:3:9: lora_r `3`", "leave lora_r out"]);
    with("qwen3_all_linear", &from_adapter[..2]);
    refused(&scratch, &["recipe.yaml:3:1: the targets", "14 projections"]);
}

#[test]
fn merging_refuses_an_occupied_folder_and_a_folder_that_is_no_adapter() {
    let scratch = Scratch::new("merge");
    let adapter = crate::harness::project().join("tests/fixtures/lora/qwen3_all_linear/final").display().to_string();
    let base = model("qwen3").display().to_string();
    scratch.write("taken/file", "mine");
    refused_with(&scratch, &["merge", &adapter, "--base", &base, "--out", "taken"], 2, &["`taken`"]);
    refused_with(&scratch, &["merge", &base, "--out", "new"], 2, &["adapter_config.json"]);
    let other = model("llama31").display().to_string();
    refused_with(&scratch, &["merge", &adapter, "--base", &other, "--out", "new"], 2, &["shape"]);
    refused_with(&scratch, &["merge", &adapter, "--base", "nowhere", "--out", "new"], 2, &["`nowhere`"]);
    refused_with(&scratch, &["merge", &adapter, "--base", &base, "--out", "taken/file/x"], 1, &["taken/file"]);
}

#[test]
fn sampling_settings_that_mean_nothing_are_refused() {
    let scratch = Scratch::new("sampling");
    let base = model("qwen3").display().to_string();
    for setting in ["--temperature=-1", "--temperature=nan", "--top-p=0", "--top-p=1.5"] {
        let finished = scratch.tune(&["generate", &base, "--prompt", "hi", "--device", "cpu", setting]);
        assert_eq!(finished.code, Some(2), "{setting}: {}", finished.stderr);
        assert!(finished.stderr.contains("accepted: a number"), "{}", finished.stderr);
    }
}

#[test]
fn generating_and_inspecting_refuse_what_is_no_model() {
    let scratch = Scratch::new("no-model-commands");
    refused_with(&scratch, &["generate", "nowhere", "--prompt", "hi"], 2, &["`nowhere`"]);
    refused_with(&scratch, &["inspect", "nowhere"], 2, &["`nowhere`"]);
    let folder = scratch.copy_model("qwen3");
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    refused_with(&scratch, &["generate", "qwen3", "--prompt", "hi", "--device", "cpu"], 2, &["qwen3", "no weights"]);
}
