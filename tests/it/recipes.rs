//! Every recipe that ships is honoured, and resolves against the model that it names.
//!
//! The published models are stood in for by their public configurations and by an index of their weights.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tune::model::families::{self, FAMILIES};
use tune::model::names;

use crate::harness::{Scratch, project, read_json};

/// The models that recipes name, and their public configuration in `tests/fixtures/published`.
const PUBLISHED: [(&str, &str); 12] = [
    ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b"),
    ("Qwen/Qwen3-0.6B", "qwen3-0.6b"),
    ("Qwen/Qwen3-30B-A3B", "qwen3-30b-a3b"),
    ("deepseek-ai/DeepSeek-V3", "deepseek-v3"),
    ("google/gemma-3-1b-it", "gemma-3-1b-pt"),
    ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama-4-scout-17b-16e"),
    ("microsoft/Phi-4-mini-instruct", "phi-4-mini-instruct"),
    ("microsoft/phi-4", "phi-4"),
    ("mistralai/Mistral-Nemo-Instruct-2407", "mistral-nemo-base-2407"),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b-v0.1"),
    ("openai/gpt-oss-20b", "gpt-oss-20b"),
];

/// Values that learn, where they are known from elsewhere: at rank 16 on all seven projections.
const TRAINABLE: [(&str, &str); 3] = [
    ("Qwen/Qwen3-0.6B", "10,092,544 parameters"),
    ("meta-llama/Llama-3.1-8B-Instruct", "41,943,040 parameters"),
    ("mistralai/Mistral-Nemo-Instruct-2407", "57,016,320 parameters"),
];

/// Puts a model into the Hugging Face cache of `scratch` as it is before the download of its weights: configuration,
/// tokenizer, and the index of the weights.
fn into_cache(scratch: &Scratch, name: &str, config: &Value) {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let folder = format!("hf/hub/models--{}", name.replace('/', "--"));
    scratch.write(&format!("{folder}/refs/main"), COMMIT);
    let snapshot = format!("{folder}/snapshots/{COMMIT}");
    let path = scratch.write(&format!("{snapshot}/config.json"), config.to_string());
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let text = fs::read(project().join("examples/tiny-base").join(file)).unwrap();
        scratch.write(&format!("{snapshot}/{file}"), text);
    }
    let resolved = families::resolve(config, &path).unwrap();
    let mut map = Map::new();
    let mut bytes = 0;
    for parameter in names::parameters(&resolved.spec) {
        bytes += 2 * parameter.elements();
        map.insert(parameter.name, json!("model-00001-of-00002.safetensors"));
    }
    for part in resolved.ignored {
        map.insert(format!("{}weight", part.prefix), json!("model-00002-of-00002.safetensors"));
    }
    let index = json!({"metadata": {"total_size": bytes}, "weight_map": map});
    scratch.write(&format!("{snapshot}/model.safetensors.index.json"), index.to_string());
}

/// The published model that a recipe names, if it names one.
fn published(recipe: &Path) -> Option<(&'static str, Value)> {
    let text = fs::read_to_string(recipe).unwrap();
    let name = text.lines().find_map(|line| line.strip_prefix("base_model: ")).unwrap();
    if name.starts_with('.') {
        return None;
    }
    let known = PUBLISHED.iter().find(|(known, _)| *known == name);
    let (name, file) = known.unwrap_or_else(|| panic!("{}: `{name}` is not in PUBLISHED", recipe.display()));
    Some((name, read_json(&project().join(format!("tests/fixtures/published/{file}.json")))))
}

fn recipes() -> Vec<PathBuf> {
    let folder = project().join("recipes");
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// The page or file at `path` must be what the program prints.
fn assert_generated(path: &str, arguments: &[&str]) {
    let finished = Scratch::new("schema").tune(arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    if std::env::var_os("TUNE_WRITE_DOCS").is_some() {
        fs::write(project().join(path), &finished.stdout).unwrap();
    }
    let written = fs::read_to_string(project().join(path)).unwrap_or_default();
    let command = format!("cargo run --release -- {} > {path}", arguments.join(" "));
    assert!(
        finished.stdout == written,
        "{path} is not up to date: run `{command}`, or this test with TUNE_WRITE_DOCS=1"
    );
}

#[test]
fn the_reference_of_keys_and_the_json_schema_are_those_of_the_program() {
    assert_generated("docs/recipe.md", &["schema", "--markdown"]);
    assert_generated("docs/recipe.schema.json", &["schema"]);
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
fn recipes_for_published_models_are_planned_before_the_download_and_not_run() {
    let scratch = Scratch::new("recipes-published");
    let mut families_seen = BTreeSet::new();
    for recipe in recipes() {
        let Some((name, config)) = published(&recipe) else { continue };
        into_cache(&scratch, name, &config);
        let command = |command: &str| {
            scratch.tune(&[command.as_ref(), recipe.as_os_str(), "--set".as_ref(), "device=cpu".as_ref()])
        };
        let planned = command("check");
        assert_eq!(planned.code, Some(0), "{name}: {}", planned.stderr);
        assert!(planned.stdout.contains("weights to be downloaded"), "{name}: {}", planned.stdout);
        assert!(planned.stdout.contains("600 rows"), "{}", planned.stdout);
        if let Some((_, trainable)) = TRAINABLE.iter().find(|(known, _)| *known == name) {
            assert!(planned.stdout.contains(trainable), "{name}: {}", planned.stdout);
        }
        if name == "deepseek-ai/DeepSeek-V3" && cfg!(target_os = "linux") {
            assert!(planned.stdout.contains("warning         the run needs about "), "{}", planned.stdout);
        }
        let run = command("run");
        assert_eq!(run.code, Some(2), "{name}: {}", run.stderr);
        let expected = match planned.stdout.contains("warning         the run needs about ") {
            true => "the run needs about ".to_owned(),
            false => format!("the weights of `{name}` are not there ("),
        };
        assert!(run.stderr.contains(&expected), "{}", run.stderr);
        families_seen.insert(config["model_type"].as_str().unwrap().to_owned());
    }
    let missing = FAMILIES.iter().filter(|family| !family.model_types.iter().any(|name| families_seen.contains(*name)));
    let missing: Vec<&str> = missing.map(|family| family.name).collect();
    assert!(missing.is_empty(), "no recipe for {missing:?}");
}

#[test]
fn an_index_that_is_not_of_the_configuration_is_refused() {
    let scratch = Scratch::new("recipes-index");
    let (name, config) = published(&project().join("recipes/qwen3-0.6b-lora.yaml")).unwrap();
    into_cache(&scratch, name, &config);
    let mut deeper = config.clone();
    deeper["num_hidden_layers"] = json!(29);
    let folder = "hf/hub/models--Qwen--Qwen3-0.6B/snapshots/0123456789abcdef0123456789abcdef01234567";
    scratch.write(&format!("{folder}/config.json"), deeper.to_string());
    let recipe = project().join("recipes/qwen3-0.6b-lora.yaml");
    let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("11 tensors are missing from the weights: `model.layers.28."),
        "{}",
        finished.stderr
    );
}

#[test]
fn the_quickstart_resolves_as_it_is() {
    let scratch = Scratch::new("recipes-quickstart");
    let recipe = project().join("recipes/quickstart.yaml");
    let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str(), "--set".as_ref(), "device=cpu".as_ref()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("100 rows held out"), "{}", finished.stdout);
}
