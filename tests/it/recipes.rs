//! Every recipe that ships is honoured, and resolves against the model that it names.
//!
//! The published models are stood in for by their public configurations and by weight files that are all
//! header: sparse files of the right length, which take no room on the disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tune::model::{families, names};

use crate::harness::{Scratch, project};

/// A published model: hub name, recipe, configuration, values that learn at rank 16 on all seven projections.
struct Published {
    name: &'static str,
    recipe: &'static str,
    config: Value,
    trainable: &'static str,
}

fn published() -> [Published; 3] {
    [
        Published {
            name: "Qwen/Qwen3-0.6B",
            recipe: "qwen3-0.6b-lora.yaml",
            config: json!({
                "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024,
                "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
                "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": true,
                "rope_theta": 1_000_000, "rope_scaling": null, "max_position_embeddings": 40_960,
                "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": false, "attention_dropout": 0.0,
                "sliding_window": null, "use_sliding_window": false, "max_window_layers": 28,
                "torch_dtype": "bfloat16", "bos_token_id": 151_643, "eos_token_id": 2,
            }),
            trainable: "10 092 544 values",
        },
        Published {
            name: "meta-llama/Llama-3.1-8B-Instruct",
            recipe: "llama3.1-8b-lora.yaml",
            config: json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
                "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
                "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": false,
                "rope_theta": 500_000.0, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
                "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192, "rope_type": "llama3"},
                "hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "attention_dropout": 0.0,
                "pretraining_tp": 1, "torch_dtype": "bfloat16", "eos_token_id": [2, 1],
            }),
            trainable: "41 943 040 values",
        },
        Published {
            name: "mistralai/Mistral-Nemo-Instruct-2407",
            recipe: "mistral-nemo-lora.yaml",
            config: json!({
                "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 5120,
                "intermediate_size": 14_336, "num_hidden_layers": 40, "num_attention_heads": 32,
                "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131_072, "tie_word_embeddings": false,
                "rope_theta": 1_000_000.0, "max_position_embeddings": 1_024_000, "rms_norm_eps": 1e-5,
                "sliding_window": null, "hidden_act": "silu", "attention_dropout": 0.0,
                "torch_dtype": "bfloat16", "eos_token_id": 2,
            }),
            trainable: "57 016 320 values",
        },
    ]
}

/// Puts a model into the Hugging Face cache of `scratch`: configuration, tokenizer, and weights without content.
fn into_cache(scratch: &Scratch, model: &Published) {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let folder = format!("hf/hub/models--{}", model.name.replace('/', "--"));
    scratch.write(&format!("{folder}/refs/main"), COMMIT);
    let snapshot = format!("{folder}/snapshots/{COMMIT}");
    let config = scratch.write(&format!("{snapshot}/config.json"), model.config.to_string());
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let text = fs::read(project().join("examples/tiny-base").join(file)).unwrap();
        scratch.write(&format!("{snapshot}/{file}"), text);
    }
    write_header_only(&scratch.join(&format!("{snapshot}/model.safetensors")), &model.config, &config);
}

fn write_header_only(path: &Path, config: &Value, config_path: &Path) {
    let spec = families::resolve(config, config_path).unwrap().spec;
    let mut header = Map::new();
    let mut end = 0;
    for parameter in names::parameters(&spec) {
        let begin = end;
        end += 2 * parameter.elements();
        let entry = json!({"dtype": "BF16", "shape": parameter.shape, "data_offsets": [begin, end]});
        header.insert(parameter.name, entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

fn recipes() -> Vec<PathBuf> {
    let folder = project().join("recipes");
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn every_recipe_is_honoured_and_says_in_its_first_line_what_it_shows() {
    let scratch = Scratch::new("recipes-alone");
    assert!(recipes().len() >= 5);
    for recipe in recipes() {
        let text = fs::read_to_string(&recipe).unwrap();
        assert!(text.starts_with("# "), "{}: line 1 is a comment", recipe.display());
        let finished = scratch.tune(&["check".as_ref(), "--recipe-only".as_ref(), recipe.as_os_str()]);
        assert_eq!(finished.code, Some(0), "{}: {}", recipe.display(), finished.stderr);
    }
}

#[test]
fn recipes_for_published_models_resolve_to_their_known_numbers() {
    let scratch = Scratch::new("recipes-published");
    for model in published() {
        into_cache(&scratch, &model);
        let recipe = project().join("recipes").join(model.recipe);
        let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str(), "--set".as_ref(), "device=cpu".as_ref()]);
        assert_eq!(finished.code, Some(0), "{}: {}", model.name, finished.stderr);
        assert!(finished.stdout.contains(model.trainable), "{}: {}", model.name, finished.stdout);
        assert!(finished.stdout.contains("600 rows"), "{}", finished.stdout);
    }
}

#[test]
fn the_quickstart_resolves_as_it_is() {
    let scratch = Scratch::new("recipes-quickstart");
    let recipe = project().join("recipes/quickstart.yaml");
    let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str(), "--set".as_ref(), "device=cpu".as_ref()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("held out 100 rows"), "{}", finished.stdout);
}
