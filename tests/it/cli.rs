//! The commands beside `tune run`: what they print, where, and with which exit code.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Scratch, model};

#[test]
fn check_prints_the_plan_to_stdout_and_writes_nothing() {
    let scratch = Scratch::new("cli-check");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[]);
    let before = scratch.listing();
    let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for decision in
        ["family          qwen3", "targets         4 projections: q_proj, v_proj", "steps           4 of 1 x 2"]
    {
        assert!(finished.stdout.contains(decision), "{decision}: {}", finished.stdout);
    }
    for name in ["layers", "trainable", "tokens", "learning rate", "device          cpu, f32", "memory", "files"] {
        assert!(finished.stdout.contains(name), "{name}: {}", finished.stdout);
    }
    assert_eq!(before, scratch.listing());
}

#[test]
fn check_measures_a_step_on_request_and_writes_nothing() {
    let scratch = Scratch::new("cli-measure");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[]);
    let before = scratch.listing();
    let finished = scratch.tune(&["check".as_ref(), "--measure".as_ref(), recipe.as_os_str()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let time = finished.stdout.lines().last().unwrap();
    assert!(time.starts_with("time            about ") && time.contains(" for 4 steps (a micro-batch of "), "{time}");
    assert_eq!(before, scratch.listing());
    let contradiction =
        scratch.tune(&["check".as_ref(), "--measure".as_ref(), "--recipe-only".as_ref(), recipe.as_os_str()]);
    assert_eq!(contradiction.code, Some(2), "{}", contradiction.stderr);
}

#[test]
fn a_recipe_is_judged_alone_without_model_and_data() {
    let scratch = Scratch::new("cli-recipe-only");
    let recipe = scratch.write(
        "recipe.yaml",
        "base_model: org/nowhere\nadapter: lora\nlora_r: 8\nlora_target_linear: true\ndatasets:\n  - path: nowhere.jsonl\n    type: alpaca\nlearning_rate: 2e-4\nflash_attention: true\nwandb_project:\n",
    );
    let finished = scratch.tune(&["check".as_ref(), "--recipe-only".as_ref(), recipe.as_os_str()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("flash_attention"), "a hint is listed: {}", finished.stdout);
}

#[test]
fn overrides_replace_keys_and_are_named_in_their_own_errors() {
    let scratch = Scratch::new("cli-set");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[]);
    let check = |set: &str| scratch.tune(&["check", recipe.to_str().unwrap(), "--set", set]);
    let finished = check("max_steps=2");
    assert!(finished.stdout.contains("steps           2 of"), "{}", finished.stdout);
    let finished = check("lora_rr=8");
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("--set lora_rr=8"), "{}", finished.stderr);
    assert!(finished.stderr.contains("hint: did you mean `lora_r`?"), "{}", finished.stderr);
}

#[test]
fn preview_marks_what_is_trained_and_counts() {
    let scratch = Scratch::new("cli-preview");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[]);
    let finished = scratch.tune(&["preview".as_ref(), recipe.as_os_str(), "--rows".as_ref(), "2".as_ref()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(finished.stdout.matches("⟦{\"team\": ").count(), 2, "{}", finished.stdout);
    assert!(finished.stdout.contains("\"}<|im_end|>⟧"), "the end-of-turn token is trained: {}", finished.stdout);
    assert!(finished.stdout.contains("train rows           24\n"), "{}", finished.stdout);
    assert!(finished.stdout.contains("tokens per row, and number of rows:\n"), "{}", finished.stdout);
}

#[test]
fn preview_is_json_for_programs_and_finds_a_line() {
    let scratch = Scratch::new("cli-preview-json");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[]);
    let preview = |options: &[&str]| {
        let arguments = ["preview", recipe.to_str().unwrap()].iter().chain(options).copied().collect::<Vec<_>>();
        scratch.tune(&arguments)
    };
    let finished = preview(&["--json", "--line", "7"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let shown: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert!(shown["examples"][0]["location"].as_str().unwrap().ends_with("rows.jsonl:7"), "{shown}");
    assert_eq!((shown["examples"].as_array().unwrap().len(), &shown["counts"]["rows"]), (1, &json!(24)));
    assert_eq!(shown["counts"]["conversations"], 24);
    let trained = shown["examples"][0]["pieces"].as_array().unwrap().iter().filter(|piece| piece["trained"] == true);
    assert_eq!(trained.count(), 1);
    let numbers = |key: &str| -> Vec<i64> { serde_json::from_value(shown["examples"][0][key].clone()).unwrap() };
    let (ids, labels) = (numbers("input_ids"), numbers("labels"));
    assert_eq!(shown["examples"][0]["tokens"], ids.len());
    assert!(ids.len() == labels.len() && labels.iter().zip(&ids).all(|(label, id)| label == id || *label == -100));
    assert_eq!(shown["examples"][0]["trained_tokens"], labels.iter().filter(|label| **label != -100).count());
    let finished = preview(&["--line", "25"]);
    assert!(finished.code == Some(2) && finished.stderr.contains("`25`"), "{}", finished.stderr);
    let drawn = || preview(&["--json", "--random", "--rows", "4"]).stdout;
    assert_eq!(drawn(), drawn());
}

/// The ids and labels that another program would read are those of a pretokenized row, so that they come back as they are.
#[test]
fn preview_s_ids_and_labels_are_those_of_pretokenized_rows() {
    let scratch = Scratch::new("cli-preview-ids");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[]);
    let shown = |recipe: &Path| -> Value {
        let finished = scratch.tune(&["preview", recipe.to_str().unwrap(), "--json", "--rows", "3"]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        serde_json::from_str(&finished.stdout).unwrap()
    };
    let examples = shown(&recipe)["examples"].as_array().unwrap().clone();
    let row = |example: &Value| json!({"input_ids": example["input_ids"], "labels": example["labels"]}).to_string();
    scratch.write("ids.jsonl", examples.iter().map(row).collect::<Vec<_>>().join("\n"));
    let datasets = "\n  - path: ids.jsonl\n    type: pretokenized";
    let recipe = scratch.recipe("ids.yaml", &model("qwen3"), &[("datasets", datasets)]);
    let again = shown(&recipe)["examples"].as_array().unwrap().clone();
    assert_eq!((examples.len(), again.len()), (3, 3));
    for (example, again) in examples.iter().zip(&again) {
        for key in ["input_ids", "labels", "pieces", "trained_tokens"] {
            assert_eq!(example[key], again[key], "{key}");
        }
    }
}

#[test]
fn a_device_s_ceilings_are_measured_on_request() {
    let scratch = Scratch::new("ceilings");
    let measured = scratch.tune(&["devices", "--measure", "cpu", "--size", "64"]);
    assert_eq!(measured.code, Some(0), "{}", measured.stderr);
    for (row, unit) in [("cpu        f32   product of 64 cubed", "TFLOP/s"), ("cpu        copy of 128 KiB", "GB/s")] {
        let line = measured.stdout.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("{row}"));
        let rate = line[row.len()..].split(unit).next().unwrap().trim();
        assert!(rate.parse::<f64>().unwrap() >= 0.0 && line.contains(unit), "{line}");
    }
    assert_eq!(scratch.tune(&["devices", "--measure", "cpu", "--size", "3"]).code, Some(2));
    assert_eq!(scratch.tune(&["devices", "--measure", "toaster"]).code, Some(2));
}

#[test]
fn inspect_and_devices_tell_what_is_there() {
    let scratch = Scratch::new("cli-inspect");
    let folder = model("mistral_sw");
    let finished = scratch.tune(&["inspect".as_ref(), folder.as_os_str()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished.stdout.contains("mistral") && finished.stdout.contains("model.safetensors"),
        "{}",
        finished.stdout
    );
    let finished = scratch.tune(&["devices"]);
    assert!(finished.code == Some(0) && finished.stdout.starts_with("cpu"), "{}", finished.stdout);
    let reason =
        if cfg!(feature = "cuda") { "`cuda:0` was not found: " } else { "`cuda` is not in this build\nhint: " };
    assert!(finished.stdout.contains("cuda:0") || finished.stderr.contains(reason), "{}", finished.stderr);
}

#[test]
fn an_adapter_and_its_merge_say_the_same() {
    let scratch = Scratch::new("cli-merge");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("max_steps", "8"), ("num_epochs", "2")]);
    scratch.run(&recipe);
    let generate = |what: &str| {
        let ask = ["generate", what, "--prompt", "Where is my invoice?", "--max-tokens", "12", "--device", "cpu"];
        let finished = scratch.tune(&ask);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    };
    let said = generate("out/adapter");
    assert_eq!(said, generate("out/adapter"), "greedy answers repeat");
    let finished = scratch.tune(&["merge", "out/adapter", "--out", "whole"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(said, generate("whole"));
    let again = scratch.tune(&["merge", "out/adapter", "--out", "whole"]);
    assert_eq!(again.code, Some(2), "nothing is overwritten: {}", again.stderr);
}

#[test]
fn an_unknown_command_is_the_caller_s_mistake() {
    let scratch = Scratch::new("cli-unknown");
    assert_eq!(scratch.tune(&["trian"]).code, Some(2));
}

#[test]
fn a_fallback_template_stands_in_only_where_the_tokenizer_has_none() {
    let scratch = Scratch::new("cli-fallback");
    let changes = [("chat_template", "tokenizer_default_fallback_chatml")];
    let folder = scratch.copy_model("qwen3");
    let recipe = scratch.recipe("recipe.yaml", &folder, &changes);
    let template = || scratch.tune(&["check".as_ref(), recipe.as_os_str()]).stdout;
    assert!(template().contains("template        the tokenizer's"), "{}", template());
    let config = folder.join("tokenizer_config.json");
    let mut without: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    without.as_object_mut().unwrap().remove("chat_template");
    std::fs::write(&config, without.to_string()).unwrap();
    assert!(template().contains("template        chatml"), "{}", template());
}

#[test]
fn a_tokenizer_type_must_fit_the_folder() {
    let scratch = Scratch::new("cli-tokenizer-type");
    let check = |class: &str| {
        let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("tokenizer_type", class)]);
        scratch.tune(&["check".as_ref(), recipe.as_os_str()])
    };
    assert_eq!(check("Qwen2TokenizerFast").code, Some(0));
    let refused = check("LlamaTokenizer");
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("tokenizer_type `LlamaTokenizer`"), "{}", refused.stderr);
}

/// Each command line is refused with exit code 2, and its answer has all of these.
fn answered(scratch: &Scratch, cases: &[(&[&str], &[&str])]) {
    for (arguments, expected) in cases {
        let finished = scratch.tune(arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.stderr);
        for part in *expected {
            assert!(finished.stderr.contains(part), "{arguments:?}: `{part}` is not in\n{}", finished.stderr);
        }
        assert!(finished.stderr.starts_with("error: ") && finished.stderr.contains("\nhint: "), "{}", finished.stderr);
    }
}

#[test]
fn commands_and_options_of_other_programs_lead_to_those_here() {
    let scratch = Scratch::new("cli-mistakes");
    answered(
        &scratch,
        &[
            (&["train", "recipe.yaml"], &["`train` is not a command", "`tune run recipe.yaml`"]),
            (&["finetune"], &["`tune run recipe.yaml`"]),
            (&["chat"], &["`tune generate MODEL --prompt TEXT`"]),
            (&["serve"], &["vLLM or transformers"]),
            (&["eval"], &["`val_set_size` or `test_datasets`"]),
            (&["init"], &["copy one of the recipes", "`tune schema --markdown`"]),
            (&["export"], &["export: {formats: [adapter, merged]}"]),
            (&["preprocess"], &["`tune preview RECIPE`"]),
            (&["validate"], &["`tune check RECIPE`"]),
            (&["runn"], &["did you mean `tune run`?"]),
            (&["recipe.yaml"], &["`tune run recipe.yaml` trains"]),
            (&["xyz"], &["accepted: run, resume, check"]),
            (&["run", "recipe.yaml", "--max_steps", "3"], &["`--max_steps`", "`--set max_steps=3`"]),
            (&["run", "recipe.yaml", "--max-steps=3"], &["`--set max_steps=3`"]),
            (&["run", "recipe.yaml", "--epochs", "3"], &["`--set num_epochs=3`"]),
            (&["check", "recipe.yaml", "--lr", "1e-4"], &["`--set learning_rate=1e-4`"]),
            (
                &["run", "recipe.yaml", "--lora-target-modules", "[q_proj, v_proj]"],
                &["`--set lora_target_modules='[q_proj, v_proj]'`"],
            ),
            (&["run", "recipe.yaml", "--sample_packing"], &["`--set sample_packing=VALUE`"]),
            (&["run", "recipe.yaml", "max_steps=3"], &["`max_steps=3`", "`--set max_steps=3`"]),
            (&["run", "--config", "recipe.yaml"], &["`tune run recipe.yaml`"]),
            (&["preview", "recipe.yaml", "--row", "3"], &["did you mean `--rows`?"]),
            (&["check", "recipe.yaml", "--offlin"], &["did you mean `--offline`?"]),
            (&["run", "recipe.yaml", "other.yaml"], &["unexpected argument `other.yaml`", "one at a time"]),
            (&["run", "recipe.yaml", "--xyz"], &["accepted: --set, --allow-change"]),
            (&["run", "recipe.yaml", "--allow-change", "max_step"], &["cannot be read"]),
        ],
    );
}

#[test]
fn a_path_that_is_not_there_leads_to_the_one_that_was_meant() {
    let scratch = Scratch::new("cli-paths");
    scratch.copy_model("qwen3");
    scratch.write("models/tiny/config.json", "{}");
    let recipe =
        scratch.recipe("recipe.yaml", std::path::Path::new("qwen3"), &[("max_steps", "1"), ("output_dir", "my run")]);
    answered(
        &scratch,
        &[
            (&["check", "recpie.yaml"], &["recpie.yaml: cannot be read", "did you mean `recipe.yaml`?"]),
            (&["check", "rows.jsonl"], &["rows.jsonl: this is not a recipe", "named in its `datasets`"]),
            (&["check", "recipe.yaml", "--set", "base_model=qwn3"], &["did you mean `qwen3`?"]),
            (&["check", "recipe.yaml", "--set", "base_model=./modles/tiny"], &["did you mean `./models/tiny`?"]),
            (&["inspect", "./qwen"], &["did you mean `./qwen3`?"]),
            (&["generate", "qwem3", "--prompt", "x"], &["did you mean `qwen3`?"]),
            (&["resume", "recipe.yaml"], &["this is a recipe, of which there is no run yet: `tune run recipe.yaml`"]),
            (&["resume", "nowhere"], &["name the output_dir of a run"]),
        ],
    );
    scratch.run(&recipe);
    answered(
        &scratch,
        &[
            (&["generate", "my runs", "--prompt", "x"], &["did you mean `my run`?"]),
            (&["merge", "my run/adaptr", "--out", "new"], &["did you mean `my run/adapter`?"]),
            (&["resume", "my runs"], &["did you mean `tune resume 'my run'`?"]),
            (&["resume", "my run/adapter"], &["did you mean `tune resume 'my run'`?"]),
            (&["resume", "recipe.yaml"], &["whose run is resumed with `tune resume 'my run'`"]),
            (&["run", "my run"], &["did you mean `my run/recipe.yaml`?", "`tune resume 'my run'`"]),
            (
                &["resume", "my run", "--allow-change", "max_step"],
                &["unknown key `max_step`", "did you mean `max_steps`?"],
            ),
            (
                &["resume", "my run", "--allow-change", "max_steps=9"],
                &["name the key alone: `--allow-change max_steps`"],
            ),
            (&["resume", "my run", "--allow-change", "lora_r"], &["`lora_r` cannot change", "accepted: "]),
        ],
    );
    let finished = scratch.tune(&["generate", "~/nothing", "--prompt", "x"]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    let home = [("HOME", scratch.join("").display().to_string())];
    let home: Vec<(&str, &str)> = home.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let set = ["--set", "base_model=~/qwen3", "--set", "datasets.0.path=~/rows.jsonl"];
    let checked = scratch.tune_with(&home, &[&["check", "recipe.yaml"][..], &set].concat());
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
}

#[test]
fn a_text_that_is_a_name_of_a_projection_is_told_to_be_a_pattern() {
    let scratch = Scratch::new("cli-pattern");
    for (target, list) in
        [("q_proj", "[q_proj]"), ("'q_proj,v_proj'", "[q_proj, v_proj]"), ("q_proj|v_proj", "[q_proj, v_proj]")]
    {
        scratch.recipe("recipe.yaml", &model("qwen3"), &[("lora_target_modules", target)]);
        let finished = scratch.tune(&["check", "recipe.yaml"]);
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        let hint =
            format!("hint: a text is a pattern for whole names, such as `.*q_proj`; write a list of names: {list}");
        assert!(finished.stderr.contains(&hint), "{}", finished.stderr);
        assert!(!finished.stderr.contains("did you mean"), "{}", finished.stderr);
    }
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("lora_target_modules", "'.*q_proj'")]);
    assert_eq!(scratch.tune(&["check", "recipe.yaml"]).code, Some(0));
}

#[test]
fn problems_with_model_data_and_settings_come_together() {
    let scratch = Scratch::new("cli-together");
    let data = ("datasets", "\n  - path: rows.json\n    type: chat_template\n  - path: more.jsonl\n    type: alpaca");
    scratch.write("more.jsonl", "{}");
    let changes =
        [data, ("lora_target_modules", "[q_porj]"), ("model_type", "Gpt2"), ("chat_template_jinja", "nowhere")];
    scratch.recipe("recipe.yaml", &model("qwen3"), &changes);
    let all = [
        "recipe.yaml:5:23: adapter target `q_porj`",
        "model_type `Gpt2`",
        "`nowhere` is neither",
        "rows.json`",
        "rows.jsonl`?",
    ];
    answered(&scratch, &[(&["check", "recipe.yaml"], &all), (&["run", "recipe.yaml"], &all)]);
    let both = ["base model `qwn3` is neither", "rows.json`"];
    answered(&scratch, &[(&["check", "recipe.yaml", "--set", "base_model=qwn3"], &both)]);
}

#[cfg(unix)]
#[test]
fn a_check_and_a_preview_need_no_folder_to_write_to() {
    let scratch = Scratch::new("cli-unwritable");
    scratch.write("file", "");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("output_dir", "file/out")]);
    let checked = scratch.tune(&["check", "recipe.yaml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(checked.stdout.contains("\nlook at         output_dir `file/out` cannot be written"), "{}", checked.stdout);
    let shown = scratch.tune(&["preview", "recipe.yaml", "--json"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let refused = scratch.tune(&["run".as_ref(), recipe.as_os_str()]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("recipe.yaml:16:13: output_dir `file/out` cannot be written"),
        "{}",
        refused.stderr
    );
}
