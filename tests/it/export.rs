//! Exports as their readers require them: names, shapes, metadata, configuration, files.

use std::fs;

use datasets::{Message, SpecialTokenOverrides, TemplateChoice, Tokenizer};
use serde_json::{Value, json};

use crate::harness::{Scratch, metadata, model, read_json, sample_rows, tensors};

#[test]
fn an_adapter_is_named_as_peft_names_it() {
    let scratch = Scratch::new("export-adapter");
    let changes = [("lora_target_modules", "[q_proj, down_proj]"), ("peft_use_rslora", "true")];
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3"), &changes));
    let folder = scratch.join("out/adapter");
    let file = folder.join("adapter_model.safetensors");
    assert_eq!(metadata(&file), json!({"format": "pt"}));
    let written = tensors(&file);
    let mut expected = Vec::new();
    for layer in 0..2 {
        for (module, inputs, outputs) in [("mlp.down_proj", 112, 64), ("self_attn.q_proj", 64, 96)] {
            let path = format!("base_model.model.model.layers.{layer}.{module}");
            expected.push((format!("{path}.lora_A.weight"), vec![4, inputs]));
            expected.push((format!("{path}.lora_B.weight"), vec![outputs, 4]));
        }
    }
    let found: Vec<(String, Vec<usize>)> =
        written.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
    assert_eq!(found, expected);
    assert!(written.values().all(|tensor| tensor.dtype == "F32"));
    let config = read_json(&folder.join("adapter_config.json"));
    for (key, value) in [
        ("peft_type", json!("LORA")),
        ("task_type", json!("CAUSAL_LM")),
        ("r", json!(4)),
        ("lora_alpha", json!(8)),
        ("lora_dropout", json!(0.0)),
        ("target_modules", json!(["down_proj", "q_proj"])),
        ("bias", json!("none")),
        ("use_rslora", json!(true)),
        ("use_dora", json!(false)),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        ("modules_to_save", json!(null)),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert!(folder.join("tokenizer.json").is_file(), "the tokenizer travels with the adapter");
}

#[test]
fn a_merged_checkpoint_has_the_base_s_names_and_untouched_bytes() {
    let scratch = Scratch::new("export-merged");
    let changes = [("export", "\n  formats: [merged]")];
    scratch.run(&scratch.recipe("recipe.yaml", &model("llama32_tied"), &changes));
    let folder = scratch.join("out/merged");
    let (before, after) =
        (tensors(&model("llama32_tied").join("model.safetensors")), tensors(&folder.join("model.safetensors")));
    assert!(!after.contains_key("lm_head.weight"), "a tied head stays tied");
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, tensor) in &before {
        let adapted = name.contains("q_proj") || name.contains("v_proj");
        assert_eq!(tensor != &after[name], adapted, "{name}");
    }
    assert_eq!(metadata(&folder.join("model.safetensors")), json!({"format": "pt"}));
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        let same = fs::read(folder.join(file)).unwrap() == fs::read(model("llama32_tied").join(file)).unwrap();
        assert!(same || file == "config.json", "{file} is copied");
    }
    assert!(!scratch.join("out/adapter").exists(), "only what was asked for is written");
}

#[test]
fn exports_carry_the_tokenizer_that_was_trained_with() {
    let scratch = Scratch::new("export-tokenizer");
    let folder = scratch.copy_model("qwen3");
    let mut config = read_json(&folder.join("tokenizer_config.json"));
    config["comment"] = json!("the recipe's own");
    let tokenizer = scratch.join("tokenizer");
    fs::create_dir_all(&tokenizer).unwrap();
    fs::write(tokenizer.join("tokenizer_config.json"), config.to_string()).unwrap();
    fs::copy(folder.join("tokenizer.json"), tokenizer.join("tokenizer.json")).unwrap();
    let own = config["eos_token"].as_str().unwrap().to_owned();
    let changes = [
        ("tokenizer_config", "tokenizer"),
        ("special_tokens", &*format!("\n  pad_token: \"{own}\"")),
        ("save_strategy", "steps"),
        ("save_steps", "2"),
        ("export", "\n  formats: [adapter, merged]"),
    ];
    scratch.run(&scratch.recipe("recipe.yaml", &folder, &changes));
    for part in ["adapter", "merged", "checkpoint-2"] {
        let written = read_json(&scratch.join("out").join(part).join("tokenizer_config.json"));
        assert_eq!((&written["comment"], &written["pad_token"]), (&json!("the recipe's own"), &json!(own)), "{part}");
        assert!(scratch.join("out").join(part).join("generation_config.json").is_file(), "{part}");
    }
}

#[test]
fn golden_prompts_render_and_tokenise_the_same_from_every_export() {
    let scratch = Scratch::new("export-golden");
    // A template that is not the tokenizer's own, so that only the exported one can give the same.
    let template = "{% for m in messages %}{{ '<|im_start|>' + m.role + ': ' + m.content + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant: ' }}{% endif %}";
    scratch.write("own.jinja", template);
    let changes = [
        ("chat_template", "jinja"),
        ("chat_template_jinja", "own.jinja"),
        ("save_strategy", "steps"),
        ("save_steps", "2"),
        ("export", "\n  formats: [adapter, merged]"),
    ];
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3"), &changes));
    let merged = scratch.tune(&["merge", "out/adapter", "--out", "again"]);
    assert_eq!(merged.code, Some(0), "{}", merged.stderr);
    for folder in ["out/adapter", "out/merged", "out/checkpoint-2", "again"] {
        let folder = scratch.join(folder);
        let choice = TemplateChoice::TokenizerDefault;
        let tokenizer = Tokenizer::open(&folder, &choice, &SpecialTokenOverrides::default(), &[], &[]).unwrap();
        let prompts = read_json(&folder.join("golden_prompts.json"));
        let prompts = prompts.as_array().unwrap();
        assert_eq!(prompts.len(), 3);
        for prompt in prompts {
            let message =
                |message: &Value| Message::new(message["role"].as_str().unwrap(), message["content"].as_str().unwrap());
            let messages: Vec<Message> = prompt["messages"].as_array().unwrap().iter().map(message).collect();
            let variables = prompt["template_variables"].as_object().unwrap();
            let text = tokenizer.render(&messages, None, true, variables).unwrap();
            assert_eq!(prompt["text"], text);
            assert!(text.starts_with("<|im_start|>") && text.ends_with("assistant: "), "{text}");
            assert_eq!(prompt["input_ids"], json!(tokenizer.encode(&text, false).unwrap()));
        }
    }
}

#[test]
fn shards_stay_shards() {
    let scratch = Scratch::new("export-shards");
    let changes = [("export", "\n  formats: [merged]\n  dtype: bf16")];
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3_sharded"), &changes));
    let folder = scratch.join("out/merged");
    let index = read_json(&folder.join("model.safetensors.index.json"));
    let base = read_json(&model("qwen3_sharded").join("model.safetensors.index.json"));
    assert_eq!(index["weight_map"], base["weight_map"]);
    let mut bytes = 0;
    for (name, file) in index["weight_map"].as_object().unwrap() {
        let tensor = &tensors(&folder.join(file.as_str().unwrap()))[name];
        assert_eq!(tensor.dtype, "BF16", "{name}");
        bytes += tensor.bytes.len();
    }
    assert_eq!(index["metadata"]["total_size"], json!(bytes));
    assert_eq!(read_json(&folder.join("config.json"))["torch_dtype"], json!("bfloat16"));
}

#[cfg(unix)]
#[test]
fn others_may_read_what_is_written() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("export-mode");
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3"), &[("export", "\n  formats: [adapter, merged]")]));
    let mode = |file: &str| fs::metadata(scratch.join("out").join(file)).unwrap().permissions().mode() & 0o777;
    let ordinary = mode("adapter/adapter_config.json");
    assert_eq!(mode("merged/model.safetensors"), ordinary);
    assert_eq!(mode("adapter/adapter_model.safetensors"), ordinary);
}

#[test]
fn a_longer_sequence_raises_the_positions_that_an_export_promises() {
    let scratch = Scratch::new("export-positions");
    let export = ("export", "\n  formats: [adapter, merged]");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("sequence_len", "600"), ("max_steps", "1"), export]);
    let long = sample_rows(1).replace("Sort the ticket", &"Sort the ticket ".repeat(42));
    scratch.write("rows.jsonl", sample_rows(8) + &long);
    let finished = scratch.run(&recipe);
    let plan = &finished.stderr;
    assert!(
        plan.contains("sequence_len 600 is longer than the 512 positions of the base model: rows beyond them"),
        "{plan}"
    );
    assert!(plan.contains("config.json of exports gets max_position_embeddings 600, as in Axolotl"), "{plan}");
    let (base, merged) = (model("qwen3").join("config.json"), scratch.join("out/merged/config.json"));
    let mut expected = read_json(&base);
    expected["max_position_embeddings"] = 600.into();
    assert_eq!(read_json(&merged), expected);
}
