//! Recipes, weights, configurations and adapters against damaged input: an error in words, or what they say, but no
//! panic and no hang.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../datasets/tests/fuzz/damage.rs"]
mod damage;

use std::path::{Path, PathBuf};

use adapters::peft::SavedAdapter;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tune::hub::{BaseModel, HubCache};
use tune::model::families::resolve;
use tune::model::inspect::{layer_table, parameter_counts};
use tune::model::names;
use tune::recipe::Recipe;

use damage::{Folder, damage, damaged_json, for_a_while};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folders(below: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(project().join(below)).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[test]
fn damaged_recipes_are_read_or_refused() {
    let mut sound: Vec<String> = folders("recipes").iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    sound.push(
        "a: &a [1, 2]\nb: *a\n<<: {c: 1}\nexport: {formats: [adapter], dtype: bf16}\npreflight: {max_memory: 1GiB}\n"
            .to_owned(),
    );
    let lines: Vec<String> = sound.iter().flat_map(|text| text.split_inclusive('\n').map(str::to_owned)).collect();
    for_a_while("recipe", |random| {
        let mut text = sound[random.random_range(0..sound.len())].clone();
        for _ in 0..random.random_range(0..4) {
            text.push_str(&lines[random.random_range(0..lines.len())]);
        }
        let mut bytes = text.into_bytes();
        damage(&mut bytes, random);
        let text = String::from_utf8_lossy(&bytes);
        let setting = lines[random.random_range(0..lines.len())].trim_end().replacen(": ", "=", 1);
        let overrides = if random.random() { vec![setting] } else { Vec::new() };
        match Recipe::from_text(Path::new("r.yaml"), &text, &overrides, &|name| Some(format!("{name}: [1"))) {
            Ok(recipe) => {
                assert!(recipe.datasets[0].path.place().to_string().starts_with("r.yaml") || !overrides.is_empty())
            }
            Err(problems) => {
                assert!(!problems.0.is_empty());
                assert!(problems.0.iter().all(|problem| !problem.message.is_empty() && !problem.at.is_empty()));
            }
        }
    });
}

/// A safetensors file with this header and so many bytes after it.
fn file(header: &[u8], data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + data, 0x3c);
    bytes
}

/// A header with tensors of many types, those of 4 and 8 bits with what belongs to them.
fn header() -> (Value, usize) {
    let tensors: [(&str, &str, &[usize], usize); 11] = [
        ("a", "F32", &[3, 2], 24),
        ("b", "BF16", &[4], 8),
        ("c", "F16", &[2, 1], 4),
        ("d.weight", "F8_E4M3", &[2, 4], 8),
        ("d.weight_scale_inv", "F32", &[1, 1], 4),
        ("e_blocks", "U8", &[1, 2, 1, 16], 32),
        ("e_scales", "U8", &[1, 2, 1], 2),
        ("f.weight", "U8", &[32, 1], 32),
        ("f.weight.absmax", "F32", &[1], 4),
        ("f.weight.quant_map", "F32", &[16], 64),
        ("f.weight.quant_state.bitsandbytes__nf4", "U8", &[40], 40),
    ];
    let mut header = json!({"__metadata__": {"format": "pt"}});
    let mut end = 0;
    for (name, dtype, shape, bytes) in tensors {
        header[name] = json!({"dtype": dtype, "shape": shape, "data_offsets": [end, end + bytes]});
        end += bytes;
    }
    (header, end)
}

#[test]
fn damaged_weights_are_opened_or_refused() {
    let folder = Folder::new("weights");
    let (single, data) = header();
    let shard = json!({"g": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}});
    let index = json!({"metadata": {"total_size": 8}, "weight_map": {"g": "one.safetensors", "h": "two.safetensors"}});
    std::fs::write(folder.0.join("config.json"), "{}").unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.0.join(name), bytes).unwrap();
    for_a_while("weights and index", |random| {
        for name in ["model.safetensors", "model.safetensors.index.json", "one.safetensors", "two.safetensors"] {
            let _ = std::fs::remove_file(folder.0.join(name));
        }
        if random.random() {
            let mut bytes = file(&damaged_json(&single, random), data);
            if random.random_range(0..3) == 0 {
                damage(&mut bytes, random);
            }
            write("model.safetensors", &bytes);
        } else {
            write("model.safetensors.index.json", &damaged_json(&index, random));
            write("one.safetensors", &file(shard.to_string().as_bytes(), 8));
            let other = shard.to_string().replace('g', "h");
            let damaged = if random.random() { damaged_json(&shard, random) } else { other.into_bytes() };
            write("two.safetensors", &file(&damaged, 8));
        }
        match BaseModel::open_with(&folder.0.display().to_string(), &[], None, &HubCache::at(&folder.0)) {
            Err(error) => assert!(error.hint().is_some(), "{error}"),
            Ok(base) => {
                for weights in base.weights.iter() {
                    for (name, info) in weights.tensors() {
                        assert!(weights.bytes(name).is_ok());
                        assert!(info.len_bytes() < 1 << 20);
                        let _ = (weights.to_f32(name), weights.nf4(name), weights.finite_half(name));
                        weights.release(name);
                    }
                    weights.unchanged().unwrap();
                }
            }
        }
    });
}

#[test]
fn damaged_configurations_are_resolved_or_refused() {
    let configs = folders("tests/fixtures/models").into_iter().chain(folders("tests/fixtures/published"));
    let of = |path: PathBuf| read_json(&path.join("config.json")).or_else(|| read_json(&path));
    let sound: Vec<Value> = configs.filter_map(of).filter(|config| config["model_type"].is_string()).collect();
    assert!(sound.len() > 10);
    for_a_while("config.json", |random| {
        let bytes = damaged_json(&sound[random.random_range(0..sound.len())], random);
        let Ok(config) = serde_json::from_slice::<Value>(&bytes) else { return };
        match resolve(&config, Path::new("config.json")) {
            Err(error) => assert!(error.hint().is_some(), "{error}"),
            Ok(family) => {
                let counts = parameter_counts(&family.spec);
                assert!(counts.active <= counts.total);
                let _ = (layer_table(&family.spec), names::shapes(&family.spec), names::projections(&family.spec));
            }
        }
    });
}

#[test]
fn damaged_adapters_are_read_or_refused() {
    let config = read_json(&project().join("tests/fixtures/models/qwen3/config.json")).unwrap();
    let spec = resolve(&config, Path::new("config.json")).unwrap().spec;
    let (shapes, paths) = (names::shapes(&spec), names::module_paths(&spec));
    let read = |folder: &PathBuf| -> Option<(Value, Vec<u8>)> {
        let folder = folder.join("final");
        SavedAdapter::read(&folder, &shapes, paths).ok()?;
        let weights = std::fs::read(folder.join("adapter_model.safetensors")).ok()?;
        Some((read_json(&folder.join("adapter_config.json"))?, weights))
    };
    let sound: Vec<(Value, Vec<u8>)> = folders("tests/fixtures/lora").iter().filter_map(read).collect();
    assert!(!sound.is_empty());
    let folder = Folder::new("adapter");
    for_a_while("adapter", |random| {
        let (config, weights) = &sound[random.random_range(0..sound.len())];
        let damages_config = random.random();
        let config = if damages_config { damaged_json(config, random) } else { config.to_string().into_bytes() };
        std::fs::write(folder.0.join("adapter_config.json"), config).unwrap();
        std::fs::write(folder.0.join("adapter_model.safetensors"), damaged_file(weights, damages_config, random))
            .unwrap();
        match SavedAdapter::read(&folder.0, &shapes, paths) {
            Err(error) => assert!(error.hint().is_some(), "{error}"),
            Ok(saved) => assert!(!saved.targets().is_empty()),
        }
    });
}

/// A safetensors file as it is, or with its header or any of its bytes damaged.
fn damaged_file(sound: &[u8], spare: bool, random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    let length = u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
    match random.random_range(0..3) {
        _ if spare => {}
        0 => damage(&mut bytes, random),
        _ => {
            let header = damaged_json(&serde_json::from_slice(&sound[8..8 + length]).unwrap(), random);
            bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header);
            bytes.extend(&sound[8 + length..]);
        }
    }
    bytes
}
