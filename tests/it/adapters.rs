//! Adapters that PEFT saved: each merges to the model that PEFT computes, or is refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use serde_json::{Value, json};
use tune::hub::BaseModel;
use tune::model::Storage;
use tune::{device, open};

use crate::harness::{Finished, Scratch, model, project, read_json, recipe_text, sample_rows, tensors, write_tensors};
use crate::parity::fixture;

/// The folder of an adapter that PEFT saved, with the logits that it computes.
fn case(name: &str) -> PathBuf {
    project().join("tests/fixtures/adapters").join(name)
}

/// The base model of a case.
fn base(name: &str) -> PathBuf {
    model(read_json(&case(name).join("case.json"))["base"].as_str().unwrap())
}

/// The logits of the model in `folder` on the ids of a case.
fn logits(folder: &Path, ids: &[i64]) -> Vec<f32> {
    let base = BaseModel::open(&folder.display().to_string(), &[Path::new("")], None).unwrap();
    let resolved = open::resolve(&base).unwrap();
    let storage = Storage::of(FloatDType::F32, true);
    let decoder = open::load(&base, &resolved, None, &device::host(), &storage, &mut |_, _| ()).unwrap();
    let tokens = ids.iter().map(|id| u32::try_from(*id).unwrap()).collect();
    let example = datasets::Example { tokens, trained: vec![false; ids.len()], file: 0, line: 1 };
    fixture::logits(&decoder, &fixture::in_rows(&[example], ids.len()))
}

fn distance(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn merge(scratch: &Scratch, adapter: &Path, base: &Path, out: &str) -> Finished {
    scratch.tune(&[
        "merge".as_ref(),
        adapter.as_os_str(),
        "--base".as_ref(),
        base.as_os_str(),
        "--out".as_ref(),
        out.as_ref(),
    ])
}

/// A copy of the adapter of a case with `changes` to its configuration.
fn changed(scratch: &Scratch, name: &str, changes: &Value) -> PathBuf {
    let from = case(name).join("adapter");
    let mut config = read_json(&from.join("adapter_config.json"));
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let path = scratch.write("changed/adapter_config.json", config.to_string());
    fs::copy(from.join("adapter_model.safetensors"), scratch.join("changed/adapter_model.safetensors")).unwrap();
    path.parent().unwrap().to_owned()
}

#[test]
fn every_saved_adapter_merges_to_the_logits_of_peft() {
    let scratch = Scratch::new("adapters-merge");
    let cases = fixture::cases("adapters");
    assert!(cases.len() >= 14, "{cases:?}");
    for name in cases {
        let merged = merge(&scratch, &case(&name).join("adapter"), &base(&name), &name);
        assert_eq!(merged.code, Some(0), "{name}: {}", merged.stderr);
        let stored = fixture::Tensors::read(&format!("adapters/{name}/logits.safetensors"));
        let found = logits(&scratch.join(&name), stored.integers("ids"));
        let (of_peft, of_base) = (stored.floats("adapted"), stored.floats("base"));
        let (error, effect) = (distance(&found, of_peft), distance(of_base, of_peft));
        assert!(error < 2e-4 && effect > 0.5, "{name}: {error:.1e} from PEFT, which moves logits by {effect:.1e}");
        // A head that is the embedding stays so, unless the adapter changes one of them alone.
        let parted = ["tied_embedding", "tied_head", "tied_copy"].contains(&name.as_str());
        let was_tied = read_json(&base(&name).join("config.json"))["tie_word_embeddings"] == true;
        let config = read_json(&scratch.join(&name).join("config.json"));
        assert_eq!(config["tie_word_embeddings"] == true, was_tied && !parted, "{name}");
        let has_head = tensors(&scratch.join(&name).join("model.safetensors")).contains_key("lm_head.weight");
        assert_eq!(has_head, !was_tied || parted, "{name}");
    }
}

#[test]
fn adapters_that_are_more_than_a_low_rank_update_are_refused_everywhere() {
    let scratch = Scratch::new("adapters-refused");
    scratch.write("rows.jsonl", sample_rows(8));
    for (key, value) in [
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("alora_invocation_tokens", json!([1, 2, 3])),
        ("kasa_config", json!({ "beta": 1e-4 })),
        ("lora_bias", json!(true)),
        ("bias", json!("all")),
        ("layer_replication", json!([[0, 2], [1, 3]])),
        ("a_key_of_tomorrow", json!("on")),
    ] {
        let adapter = changed(&scratch, "eva", &json!({ key: value }));
        let recipe = recipe_text(&base("eva"), &[("lora_model_dir", "changed"), ("lora_r", ""), ("lora_alpha", "")]);
        let recipe = scratch.write("recipe.yaml", recipe);
        let generated = scratch.tune(&[
            "generate".as_ref(),
            adapter.as_os_str(),
            "--base".as_ref(),
            base("eva").as_os_str(),
            "--prompt".as_ref(),
            "Hi".as_ref(),
        ]);
        let checked = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
        for refused in [merge(&scratch, &adapter, &base("eva"), "merged"), generated, checked] {
            assert_eq!(refused.code, Some(2), "{key}: {}{}", refused.stdout, refused.stderr);
            assert!(
                refused.stderr.contains(&format!("`{key}: {value}` is not supported\nhint: ")),
                "{}",
                refused.stderr
            );
            assert!(!scratch.join("merged").exists());
        }
    }
}

#[test]
fn tensors_that_peft_would_leave_out_or_that_nothing_reads_are_refused() {
    let scratch = Scratch::new("adapters-tensors");
    let adapter = changed(&scratch, "eva", &json!({ "target_modules": ["q_proj"] }));
    let refused = merge(&scratch, &adapter, &base("eva"), "merged");
    assert!(
        refused.stderr.contains("`target_modules` does not name `model.layers.0.self_attn.v_proj`"),
        "{}",
        refused.stderr
    );
    let adapter = changed(&scratch, "eva", &json!({}));
    let path = adapter.join("adapter_model.safetensors");
    let whole = tensors(&path);
    let some = whole.values().next().unwrap().clone();
    for (name, message) in [
        ("model.layers.0.self_attn.q_proj.bias", "changes `model.layers.0.self_attn.q_proj"),
        ("model.layers.0.self_attn.q_proj.weight", "changes `model.layers.0.self_attn.q_proj"),
        ("model.layers.0.self_attn.q_proj.lora_B.bias", "changes `model.layers.0.self_attn.q_proj"),
        ("model.norm.weight", "changes `model.norm`"),
        ("model.layers.0.input_layernorm.weight", "changes `model.layers.0.input_layernorm`"),
        ("score.weight", "for a module `score` that this base model does not have"),
    ] {
        let mut more = whole.clone();
        more.insert(format!("base_model.model.{name}"), some.clone());
        write_tensors(&path, &more);
        let refused = merge(&scratch, &adapter, &base("eva"), "merged");
        assert_eq!(refused.code, Some(2), "{name}: {}", refused.stderr);
        assert!(refused.stderr.contains(message), "{name}: {}", refused.stderr);
    }
}

#[test]
fn training_continues_from_ranks_and_scalings_of_patterns_and_writes_them_again() {
    let scratch = Scratch::new("adapters-continue");
    let adapter = case("patterns").join("adapter").display().to_string();
    let changes = [
        ("lora_model_dir", adapter.as_str()),
        ("lora_r", ""),
        ("lora_alpha", ""),
        ("lora_target_modules", ""),
        ("learning_rate", "1e-9"),
        ("export", "\n  formats: [adapter, merged]"),
    ];
    let recipe = scratch.recipe("recipe.yaml", &base("patterns"), &changes);
    let finished = scratch.run(&recipe);
    assert!(finished.stderr.contains("patterns        6 modules with another rank or scaling"), "{}", finished.stderr);
    let stored = fixture::Tensors::read("adapters/patterns/logits.safetensors");
    let found = logits(&scratch.join("out/merged"), stored.integers("ids"));
    assert!(distance(&found, stored.floats("adapted")) < 1e-3, "a step of nothing changes nothing");
    // Read as PEFT reads it: what was written merges to the same.
    let merged = merge(&scratch, &scratch.join("out/adapter"), &base("patterns"), "again");
    assert_eq!(merged.code, Some(0), "{}", merged.stderr);
    assert!(distance(&logits(&scratch.join("again"), stored.integers("ids")), &found) < 1e-4);
    let config = read_json(&scratch.join("out/adapter/adapter_config.json"));
    assert_eq!(config["rank_pattern"]["model.layers.1.self_attn.q_proj"], 6);
    assert_eq!(config["alpha_pattern"]["model.layers.0.self_attn.v_proj"], 16);
    assert_eq!(config["alpha_pattern"].get("model.layers.1.self_attn.v_proj"), None);
}

#[test]
fn training_does_not_continue_where_an_adapter_changed_embedding_or_head() {
    let scratch = Scratch::new("adapters-no-continue");
    for (name, message) in [
        ("embedding", "LoRA or trained tokens on `model.embed_tokens`"),
        ("head", "LoRA or trained tokens on `lm_head`"),
        ("tokens", "LoRA or trained tokens on `model.embed_tokens`"),
        ("tied_copy", "a head of its own"),
    ] {
        let adapter = case(name).join("adapter").display().to_string();
        let changes =
            [("lora_model_dir", adapter.as_str()), ("lora_r", ""), ("lora_alpha", ""), ("lora_target_modules", "")];
        let recipe = scratch.recipe("recipe.yaml", &base(name), &changes);
        let refused = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
        assert_eq!(refused.code, Some(2), "{name}: {}", refused.stdout);
        assert!(refused.stderr.contains(message) && refused.stderr.contains("tune merge"), "{}", refused.stderr);
    }
}

#[test]
fn an_adapter_is_not_put_on_other_weights_than_those_that_it_names() {
    let scratch = Scratch::new("adapters-base");
    let own = scratch.copy_model("llama31");
    fs::rename(&own, scratch.join("own")).unwrap();
    let other = scratch.copy_model("llama31");
    let path = other.join("model.safetensors");
    let mut weights = tensors(&path);
    weights.get_mut("model.layers.1.self_attn.q_proj.weight").unwrap().bytes[2] ^= 0x40;
    write_tensors(&path, &weights);
    let adapter = changed(&scratch, "eva", &json!({ "base_model_name_or_path": "own" }));
    let refused = merge(&scratch, &adapter, &other, "merged");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let expected = format!("was trained on `own`, whose weights are not those of `{}`", other.display());
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    let text = recipe_text(&other, &[("lora_model_dir", "changed"), ("lora_r", ""), ("lora_alpha", "")]);
    scratch.write("rows.jsonl", sample_rows(8));
    let checked = scratch.tune(&["check".as_ref(), scratch.write("recipe.yaml", &text).as_os_str()]);
    assert_eq!(checked.code, Some(2), "{}", checked.stdout);
    assert!(checked.stderr.contains("was trained on `own`"), "{}", checked.stderr);
    // A copy of the same weights is the same model.
    let merged = merge(&scratch, &adapter, &model("llama31"), "same");
    assert_eq!((merged.code, merged.stderr.contains("look at")), (Some(0), false), "{}", merged.stderr);
    // One that is not here cannot be compared, which is said.
    fs::rename(scratch.join("own"), scratch.join("gone")).unwrap();
    let merged = merge(&scratch, &adapter, &other, "unknown");
    assert_eq!(merged.code, Some(0), "{}", merged.stderr);
    assert!(
        merged.stderr.contains("look at         the adapter was trained on `own`, which is not here"),
        "{}",
        merged.stderr
    );
    let checked = scratch.tune(&["check", "recipe.yaml"]);
    assert!(
        checked.stdout.contains("look at         the adapter to continue from was trained on `own`"),
        "{}",
        checked.stdout
    );
}

#[test]
fn the_folder_of_a_run_stands_for_what_it_exported() {
    let scratch = Scratch::new("adapters-run-folder");
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3"), &[]));
    let inspected = scratch.tune(&["inspect", "out"]);
    assert_eq!(inspected.code, Some(0), "{}", inspected.stderr);
    assert!(inspected.stdout.starts_with("adapter         lora, r 4, alpha 8"), "{}", inspected.stdout);
    let [of_run, of_adapter] =
        ["out", "out/adapter"].map(|folder| scratch.tune(&["generate", folder, "--prompt", "Hi", "--max-tokens", "4"]));
    assert_eq!((of_run.code, &of_run.stdout), (Some(0), &of_adapter.stdout), "{}", of_run.stderr);
    let merged = scratch.tune(&["merge", "out", "--out", "merged"]);
    assert_eq!(merged.code, Some(0), "{}", merged.stderr);
    let changes = [("lora_model_dir", "out"), ("output_dir", "second"), ("lora_r", ""), ("lora_alpha", "")];
    scratch.run(&scratch.recipe("second.yaml", &model("qwen3"), &changes));
    fs::remove_file(scratch.join("out/summary.json")).unwrap();
    let unfinished = scratch.tune(&["generate", "out", "--prompt", "Hi"]);
    assert_eq!(unfinished.code, Some(2), "{}", unfinished.stderr);
    assert!(unfinished.stderr.contains("has not exported a model\nhint: finish the run with `tune resume out`"));
    let whole = scratch.tune(&["merge", "merged", "--out", "again"]);
    assert!(whole.code == Some(2) && whole.stderr.contains("not the folder of an adapter"), "{}", whole.stderr);
}
