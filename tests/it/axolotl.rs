//! Ids and masks of rows as Axolotl 0.19 makes them: `axolotl/cases.json`, which `scripts/compare_axolotl.py --store` writes.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Scratch, model, project};

/// The defects of rows: what Axolotl makes of such rows is compared too.
const DEFECTS: &[&str] = &[
    "doubled_bos",
    "empty_answers",
    "hidden_calls",
    "hidden_reasoning",
    "hidden_tools",
    "no_trained_tokens",
    "unknown_roles",
    "without_end_of_turn",
];

#[test]
fn rows_become_the_ids_and_labels_of_axolotl() {
    let text = fs::read_to_string(project().join("tests/it/axolotl/cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for group in cases["groups"].as_array().unwrap() {
        let name = format!("{} {}", group["template"].as_str().unwrap(), group["option"].as_str().unwrap());
        let template = &cases["templates"][group["template"].as_str().unwrap()];
        for (index, problem) in differences(group, template) {
            wrong.push(format!("{name}, row {index}: {problem}\n  {}", group["rows"][index]["row"]));
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// The rows of a group whose ids or labels are not the kept ones, and what they are.
fn differences(group: &Value, template: &Value) -> Vec<(usize, String)> {
    let scratch = Scratch::new("axolotl");
    let rows = group["rows"].as_array().unwrap();
    scratch.write("rows.jsonl", rows.iter().map(|row| format!("{}\n", row["row"])).collect::<String>());
    let mut recipe = json!({
        "base_model": model(template["model"].as_str().unwrap()),
        "adapter": "lora",
        "lora_target_modules": "all-linear",
        "chat_template": "jinja",
        "chat_template_jinja": template["template"],
        "sequence_len": 512,
        "learning_rate": 1e-3,
        "device": "cpu",
        "output_dir": "out",
        "preflight": {"allow": DEFECTS},
    });
    let mut source = group["source"].clone();
    source["path"] = json!("rows.jsonl");
    if source["chat_template"] == "jinja" {
        source["chat_template_jinja"] = recipe["chat_template_jinja"].take();
        recipe.as_object_mut().unwrap().remove("chat_template_jinja");
        recipe["chat_template"] = json!("chatml");
    }
    recipe["datasets"] = json!([source]);
    for (key, value) in group["top"].as_object().unwrap() {
        recipe[key] = value.clone();
    }
    let recipe = scratch.write("recipe.yaml", recipe.to_string());
    let finished = scratch.tune(&["preview", recipe.to_str().unwrap(), "--json", "--rows", "1000"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let shown: Value = serde_json::from_str(&finished.stdout).unwrap();
    let examples = shown["examples"].as_array().unwrap();
    let found = |index: usize| {
        let place = format!(":{}", index + 1);
        examples.iter().find(|example| example["location"].as_str().unwrap().ends_with(&place))
    };
    let compared = rows.iter().enumerate().filter_map(|(index, row)| {
        let Some(example) = found(index) else { return Some((index, "it is left out".to_owned())) };
        let labels = labels(&row["ids"], &row["trained"]);
        let is_same = example["input_ids"] == row["ids"] && json!(labels) == labels_from_second(&example["labels"]);
        (!is_same).then(|| (index, example["pieces"].to_string()))
    });
    compared.collect()
}

/// The labels of ids of which these ranges are trained on. The first is never predicted and counts as untrained.
fn labels(ids: &Value, trained: &Value) -> Vec<i64> {
    let ranges: Vec<(usize, usize)> = serde_json::from_value(trained.clone()).unwrap();
    let is_trained = |index: usize| index > 0 && ranges.iter().any(|(start, end)| (*start..*end).contains(&index));
    let ids: Vec<i64> = serde_json::from_value(ids.clone()).unwrap();
    ids.into_iter().enumerate().map(|(index, id)| if is_trained(index) { id } else { -100 }).collect()
}

/// Labels with the first untrained.
fn labels_from_second(labels: &Value) -> Value {
    let mut labels = labels.clone();
    labels[0] = json!(-100);
    labels
}
