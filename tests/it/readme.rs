//! The README's table of families says what the tests cover: it is made here, from the fixtures.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use tune::model::families::FAMILIES;

use crate::harness::{project, read_json};

/// The `model_type` of a fixture.
fn model_type(name: &str) -> String {
    let config = read_json(&project().join(format!("tests/fixtures/models/{name}/config.json")));
    config["model_type"].as_str().unwrap().to_owned()
}

/// The names in a folder of fixtures.
fn folders(kind: &str) -> Vec<String> {
    let entries = fs::read_dir(project().join("tests/fixtures").join(kind)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The table, one row per family.
fn table() -> String {
    let types = |names: Vec<String>| -> BTreeSet<String> { names.iter().map(|name| model_type(name)).collect() };
    let forward = types(folders("forward"));
    let exports = types(folders("models"));
    let traced = folders("lora").into_iter().map(|variant| {
        let summary: Value = read_json(&project().join(format!("tests/fixtures/lora/{variant}/trace.json")));
        summary["spec"]["base"].as_str().unwrap().to_owned()
    });
    let traced = types(traced.collect());
    let mut rows = vec![
        "| family | for example | logits, gradients | LoRA | merged export | GPU |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for family in FAMILIES {
        let any = |covered: &BTreeSet<String>| family.model_types.iter().any(|name| covered.contains(*name));
        let equal = if any(&forward) { "equal" } else { "not compared" };
        let lora = match (any(&traced), any(&exports)) {
            (true, _) => "every step equal, PEFT loads it",
            (false, true) => "PEFT loads it",
            (false, false) => "not compared",
        };
        let merged = if any(&exports) { "transformers loads it" } else { "not compared" };
        // `.ci/run` puts the same cases through wgpu.
        let gpu = if any(&forward) { "software Vulkan" } else { "not run" };
        rows.push(format!("| {} | {} | {equal} | {lora} | {merged} | {gpu} |", family.name, family.example));
    }
    rows.join("\n")
}

#[test]
fn the_table_of_families_says_what_the_tests_cover() {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let table = table();
    assert!(readme.contains(&table), "the README should have this table:\n{table}");
}
