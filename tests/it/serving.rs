//! What a server finds in exported folders: the tokens at which it stops, one chat template, one rule for tied heads, a
//! manifest; and equal folders of equal runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{
    Scratch, Stored, change_config, model, read_json, recipe_text, sample_rows, tensors, write_tensors,
};

const BOTH: (&str, &str) = ("export", "\n  formats: [adapter, merged]");

/// A base model that ends texts with `<|endoftext|>` (375) and whose template ends turns with `<|im_end|>` (377).
fn base_model(scratch: &Scratch) -> std::path::PathBuf {
    let folder = scratch.copy_model("qwen3");
    for file in ["config.json", "generation_config.json"] {
        let mut object = read_json(&folder.join(file));
        object["eos_token_id"] = json!(375);
        fs::write(folder.join(file), object.to_string()).unwrap();
    }
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let mut object = read_json(&folder.join(file));
        object["eos_token"] = json!("<|endoftext|>");
        if object.get("chat_template").is_some() {
            object["chat_template"] = json!(
                "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                 {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
            );
        }
        fs::write(folder.join(file), object.to_string()).unwrap();
    }
    folder
}

#[test]
fn a_base_model_tuned_to_a_template_stops_where_its_turns_end() {
    // transformers 5.24's `align_special_tokens` puts the tokenizer's end first and keeps those that were there.
    for (tokens, expected) in [("\n  eos_token: <|im_end|>", json!([377, 375])), ("", json!([375, 377]))] {
        let scratch = Scratch::new("serving-ends");
        let base = base_model(&scratch);
        scratch.run(&scratch.recipe("recipe.yaml", &base, &[("special_tokens", tokens), BOTH]));
        for folder in ["out/adapter", "out/merged"] {
            let written = read_json(&scratch.join(folder).join("generation_config.json"));
            assert_eq!(written["eos_token_id"], expected, "{folder}");
            for (key, value) in read_json(&base.join("generation_config.json")).as_object().unwrap() {
                assert!(key == "eos_token_id" || written[key] == *value, "{folder}: {key}");
            }
        }
        assert_eq!(read_json(&scratch.join("out/merged/config.json"))["eos_token_id"], expected);
        assert!(!scratch.join("out/adapter/config.json").exists());
        // The same from the adapter alone.
        let merged = scratch.tune(&["merge", "out/adapter", "--out", "merged"]);
        assert_eq!(merged.code, Some(0), "{}", merged.stderr);
        assert_eq!(read_json(&scratch.join("merged/generation_config.json"))["eos_token_id"], expected);
        assert_eq!(read_json(&scratch.join("merged/config.json"))["eos_token_id"], expected);
    }
}

#[test]
fn ends_reach_folders_without_generation_settings_and_no_others_are_added() {
    let scratch = Scratch::new("serving-no-settings");
    let base = base_model(&scratch);
    fs::remove_file(base.join("generation_config.json")).unwrap();
    change_config(&base, "pad_token_id", json!(375));
    scratch.run(&scratch.recipe("recipe.yaml", &base, &[BOTH]));
    for folder in ["out/adapter", "out/merged"] {
        let written = read_json(&scratch.join(folder).join("generation_config.json"));
        assert_eq!((&written["eos_token_id"], &written["pad_token_id"]), (&json!([375, 377]), &json!(375)), "{folder}");
    }
    // Texts end with the tokenizer's end alone: that of the template's turns is not trained.
    scratch.write("texts.jsonl", "{\"text\": \"A text.\"}\n{\"text\": \"Another text.\"}\n");
    let changes = [("datasets", "\n  - path: texts.jsonl\n    type: completion"), ("output_dir", "texts"), BOTH];
    scratch.run(&scratch.recipe("texts.yaml", &base, &changes));
    assert!(!scratch.join("texts/merged/generation_config.json").exists());
    assert_eq!(read_json(&scratch.join("texts/merged/config.json"))["eos_token_id"], 375);
}

#[test]
fn special_tokens_of_a_recipe_reach_the_ids_of_configurations() {
    let scratch = Scratch::new("serving-special");
    let base = base_model(&scratch);
    let tokens = "\n  pad_token: <|im_start|>";
    scratch.run(&scratch.recipe("recipe.yaml", &base, &[("special_tokens", tokens), BOTH]));
    for file in ["out/merged/config.json", "out/merged/generation_config.json", "out/adapter/generation_config.json"] {
        assert_eq!(read_json(&scratch.join(file))["pad_token_id"], 376, "{file}");
    }
}

#[test]
fn exported_folders_hold_one_chat_template() {
    let scratch = Scratch::new("serving-template");
    let own = scratch.copy_model("qwen3");
    fs::write(own.join("chat_template.json"), json!({ "chat_template": "{{ 'of a processor' }}" }).to_string())
        .unwrap();
    let template = |folder: &Path| -> (String, Value, Value) {
        let of = |file: &str| read_json(&folder.join(file))["chat_template"].clone();
        let jinja = fs::read_to_string(folder.join("chat_template.jinja")).unwrap();
        (jinja, of("tokenizer_config.json"), of("chat_template.json"))
    };
    scratch.run(&scratch.recipe("recipe.yaml", &own, &[("chat_template", "chatml"), BOTH]));
    for folder in ["out/adapter", "out/merged"] {
        let (jinja, of_config, of_processor) = template(&scratch.join(folder));
        assert!(jinja.contains("<|im_start|>"));
        assert_eq!((&of_config, &of_processor), (&json!(jinja), &json!(jinja)), "{folder}");
    }
    // Two that differ beside the tokenizer: the file wins, as in transformers.
    let config = own.join("tokenizer_config.json");
    let jinja = read_json(&config)["chat_template"].as_str().unwrap().to_owned();
    fs::write(own.join("chat_template.jinja"), &jinja).unwrap();
    let mut object = read_json(&config);
    object["chat_template"] = json!([{ "name": "default", "template": "{{ 'another' }}" }]);
    fs::write(&config, object.to_string()).unwrap();
    scratch.run(&scratch.recipe("second.yaml", &own, &[("output_dir", "second"), BOTH]));
    assert_eq!(template(&scratch.join("second/adapter")), (jinja.clone(), json!(jinja), json!(jinja)));
}

#[test]
fn a_head_beside_a_tied_embedding_is_kept_if_it_differs_and_left_out_if_not() {
    let scratch = Scratch::new("serving-tied");
    let base = scratch.copy_model("llama32_tied");
    let path = base.join("model.safetensors");
    let mut weights = tensors(&path);
    let embedding = weights["model.embed_tokens.weight"].clone();
    weights.insert("lm_head.weight".to_owned(), embedding.clone());
    write_tensors(&path, &weights);
    // A copy: the model is the same, and full fine-tuning does not leave a stale head beside the new embedding.
    let full =
        [("adapter", ""), ("lora_r", ""), ("lora_alpha", ""), ("lora_target_modules", ""), ("learning_rate", "1e-3")];
    let run = |name: &str, base: &Path, changes: &[(&str, &str)]| {
        let changes: Vec<(&str, &str)> = changes.iter().copied().chain([("output_dir", name)]).collect();
        scratch.run(&scratch.recipe(&format!("{name}.yaml"), base, &changes));
        (
            tensors(&scratch.join(name).join("merged/model.safetensors")),
            read_json(&scratch.join(name).join("merged/config.json")),
        )
    };
    let (plain, _) = run("plain", &model("llama32_tied"), &full);
    let (of_copy, config) = run("copy", &base, &full);
    assert!(of_copy == plain, "the copy of the head changes nothing");
    assert_ne!(of_copy["model.embed_tokens.weight"], embedding);
    assert_eq!(config["tie_word_embeddings"], true);
    // Another head: transformers 5.24 keeps it, and so does everything here.
    let halved: Vec<f32> = embedding.values().iter().map(|value| value / 2.0).collect();
    weights.insert("lm_head.weight".to_owned(), Stored::of(&embedding.shape, &halved));
    write_tensors(&path, &weights);
    let inspected = scratch.tune(&["inspect".as_ref(), base.as_os_str()]);
    assert!(inspected.stdout.contains("not tied"), "{}", inspected.stdout);
    let (kept, config) = run("kept", &base, &[("export", "\n  formats: [merged]")]);
    assert_eq!(kept["lm_head.weight"], weights["lm_head.weight"]);
    assert_eq!(config["tie_word_embeddings"], false, "every reader keeps it then");
    let (plain, _) = run("plain_lora", &model("llama32_tied"), &[("export", "\n  formats: [merged]")]);
    assert_ne!(kept["model.layers.0.self_attn.q_proj.weight"], plain["model.layers.0.self_attn.q_proj.weight"]);
}

/// The files below a folder by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())).collect()
}

#[test]
fn equal_runs_in_two_folders_write_equal_exports_with_a_manifest() {
    let mut written = Vec::new();
    for name in ["serving-equal-first", "serving-equal-the-second"] {
        let scratch = Scratch::new(name);
        let base = scratch.copy_model("qwen3");
        scratch.write("train.jsonl", sample_rows(8));
        scratch
            .write("kept.jsonl", sample_rows(12).lines().skip(8).map(|line| format!("{line}\n")).collect::<String>());
        let path = |file: &str| format!("\n  - path: {}\n    type: chat_template", scratch.join(file).display());
        let (train, kept) = (path("train.jsonl"), path("kept.jsonl"));
        let output = scratch.join(&format!("runs/{name}")).display().to_string();
        let changes = [
            ("datasets", train.as_str()),
            ("test_datasets", &kept),
            ("output_dir", &output),
            ("save_strategy", "epoch"),
            BOTH,
        ];
        let text = recipe_text(Path::new("qwen3"), &changes);
        scratch.run(&scratch.write("recipe.yaml", text));
        let folders = ["adapter", "merged"].map(|format| files(&Path::new(&output).join(format)));
        for files in &folders {
            let card = String::from_utf8(files["README.md"].clone()).unwrap();
            assert!(
                !card.contains("serving-equal") && !card.contains(base.parent().unwrap().to_str().unwrap()),
                "{card}"
            );
            assert!(
                card.contains("Trained with `tune run` on:\n\n- `train.jsonl`\n\nMeasured on:\n\n- `kept.jsonl`\n"),
                "{card}"
            );
            let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
            let listed = manifest["files"].as_object().unwrap();
            assert_eq!(listed.len() + 1, files.len());
            for (name, entry) in listed {
                let digest = Sha256::digest(&files[name]);
                let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!((&entry["bytes"], &entry["sha256"]), (&json!(files[name].len()), &json!(hex)), "{name}");
            }
        }
        let card = fs::read_to_string(Path::new(&output).join("checkpoint-4/README.md")).unwrap();
        assert!(!card.contains("serving-equal"), "{card}");
        written.push(folders);
    }
    for (first, second) in written[0].iter().zip(&written[1]) {
        assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
        for (name, bytes) in first {
            assert!(bytes == &second[name], "{name} differs");
        }
    }
}
