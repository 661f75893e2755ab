//! The schema is whole, and accepts as JSON Schema what the reader accepts.

use std::path::Path;

use fancy_regex::Regex;
use serde_json::{Map, Value as Json, json};

use super::{Inner, Keys, NoEffect, Recipe, Refused, Row, json_schema};
use crate::recipe::problem::ProblemLog;
use crate::recipe::yaml::{Node, Value};
use crate::recipe::{refused, tree};

/// The rows of every mapping, with what it accepts without effect and what it refuses.
fn mappings() -> Vec<(Vec<Row>, &'static [NoEffect], &'static [Refused])> {
    let mut mappings = Vec::new();
    let mut top = Recipe::rows();
    for row in &mut top {
        if let Some(Inner { rows, no_effect, refused, .. }) = row.inner.take() {
            mappings.push((rows, no_effect, refused));
        }
    }
    mappings.push((top, Recipe::NO_EFFECT, Recipe::REFUSED));
    mappings
}

#[test]
fn every_key_has_one_row_with_a_meaning_and_a_default() {
    for (rows, no_effect, refused) in mappings() {
        let mut names: Vec<&str> = rows.iter().map(|row| row.key.name).collect();
        names.extend(no_effect.iter().map(|row| row.key));
        names.extend(refused::names(refused));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a key is written twice");
        for key in rows.iter().map(|row| row.key) {
            assert!(key.meaning.ends_with('.'), "{}", key.name);
            let says = key.is_required || key.default.is_some() == key.otherwise.is_empty();
            let is_section = ["bnb_config_kwargs", "export", "preflight"].contains(&key.name);
            assert!(says || is_section, "{} has one default", key.name);
        }
    }
}

#[test]
fn every_default_is_a_value_that_the_key_accepts() {
    let mut text = "base_model: m\nlearning_rate: 1e-4\ndatasets: [{path: a.jsonl, type: alpaca}]\n\
                    adapter: lora\nlora_target_modules: all-linear\n"
        .to_owned();
    for key in Recipe::rows().into_iter().map(|row| row.key) {
        if let Some(default) = key.default {
            text.push_str(&format!("{}: {default}\n", key.name));
        }
    }
    let recipe = Recipe::from_text(Path::new("r.yaml"), &text, &[], &|_| None);
    let recipe = recipe.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(recipe.hints, []);
    assert!(recipe.lora_r.is_set());
}

/// The value of a tree as an editor reads it, by the rules of YAML 1.2.
fn as_json(node: &Node) -> Json {
    match &node.value {
        Value::List(items) => items.iter().map(as_json).collect(),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), as_json(&entry.node))).collect::<Map<_, _>>())
        }
        Value::Scalar { .. } if node.is_unset() => Json::Null,
        Value::Scalar { text, plain: true } if text == "true" || text == "false" => json!(text == "true"),
        Value::Scalar { text, plain: true } => text.parse::<f64>().map_or(json!(text), |number| json!(number)),
        Value::Scalar { text, .. } => json!(text),
    }
}

/// True if `value` fits `schema`, as far as the keywords go that the schema of recipes has.
fn fits(schema: &Json, value: &Json, definitions: &Json) -> bool {
    let Json::Object(keywords) = schema else { return true };
    let number = value.as_f64();
    keywords.iter().all(|(keyword, expected)| match keyword.as_str() {
        "$ref" => {
            let name = expected.as_str().unwrap().trim_start_matches("#/$defs/");
            fits(&definitions[name], value, definitions)
        }
        "anyOf" => expected.as_array().unwrap().iter().any(|schema| fits(schema, value, definitions)),
        "not" => !fits(expected, value, definitions),
        "const" => same(expected, value),
        "enum" => expected.as_array().unwrap().iter().any(|expected| same(expected, value)),
        "type" if expected.is_array() => {
            expected.as_array().unwrap().iter().any(|expected| is_a(value, expected.as_str().unwrap()))
        }
        "type" => is_a(value, expected.as_str().unwrap()),
        "minimum" => number.is_none_or(|number| number >= expected.as_f64().unwrap()),
        "maximum" => number.is_none_or(|number| number <= expected.as_f64().unwrap()),
        "exclusiveMinimum" => number.is_none_or(|number| number > expected.as_f64().unwrap()),
        "exclusiveMaximum" => number.is_none_or(|number| number < expected.as_f64().unwrap()),
        "pattern" => {
            value.as_str().is_none_or(|text| Regex::new(expected.as_str().unwrap()).unwrap().is_match(text).unwrap())
        }
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(expected, item, definitions))),
        "properties" | "additionalProperties" => value.as_object().is_none_or(|entries| {
            let known = &schema["properties"];
            entries.iter().all(|(key, value)| match (known.get(key), keyword.as_str()) {
                (Some(known), "properties") => fits(known, value, definitions),
                (None, "additionalProperties") => *expected != json!(false) && fits(expected, value, definitions),
                _ => true,
            })
        }),
        "required" => value.as_object().is_none_or(|entries| {
            expected.as_array().unwrap().iter().all(|key| entries.contains_key(key.as_str().unwrap()))
        }),
        "$schema" | "$defs" | "title" | "description" | "default" | "deprecated" | "doNotSuggest" => true,
        other => panic!("unknown keyword {other}"),
    })
}

fn same(expected: &Json, value: &Json) -> bool {
    expected == value || (expected.is_number() && expected.as_f64() == value.as_f64())
}

fn is_a(value: &Json, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    }
}

/// True if an editor would accept `text`.
fn accepts(text: &str) -> bool {
    let mut problems = ProblemLog::default();
    let tree = tree::parse(text, None, &mut problems).expect("the text is YAML");
    let schema: Json = serde_json::from_str(&json_schema()).unwrap();
    fits(&schema, &as_json(&tree), &schema["$defs"])
}

#[test]
fn the_json_schema_accepts_every_recipe_that_ships() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        assert!(accepts(&std::fs::read_to_string(&path).unwrap()), "{}", path.display());
    }
}

#[test]
fn the_json_schema_accepts_and_refuses_what_the_reader_does() {
    const BASE: &str = "base_model: m\nlearning_rate: 1e-4\ndatasets: [{path: a.jsonl, type: alpaca}]\n";
    let accepted = [
        "lora_r: '16'\nadapter: lora\nlora_target_linear: yes\n",
        "save_strategy: no\neval_steps: 0.25\nval_set_size: 100\n",
        "micro_batch_size: auto\nbatch_size: 8\ngradient_checkpointing: offload\n",
        "max_steps: ${STEPS}\noutput_dir: ${HOME}/out\nbf16: auto\nfp16:\n",
        "wandb_project:\nsave_safetensors: true\nstrict: false\nfsdp: []\nflash_attention: true\n",
        "special_tokens: {pad_token: <pad>}\nbnb_config_kwargs: {bnb_4bit_quant_type: nf4, llm_int8_threshold: 6.0}\n",
        "export: {formats: [adapter, merged], dtype: float16}\npreflight: {max_memory: 22GiB, allow: [empty_answers]}\n",
        "device: cuda:1\nchat_template: tokenizer_default_fallback_chatml\nseed: 7\n",
        "plugins: [axolotl.integrations.liger.LigerPlugin]\ngradient_checkpointing_kwargs: {use_reentrant: false}\n",
        "test_datasets: [{path: b, data_files: x.csv, roles: {user: [human]}, train_on_eos: turn, shards: 2}]\n",
    ];
    for text in accepted {
        assert!(accepts(&format!("{BASE}{text}")), "{text}");
    }
    let refused = [
        "lora_rr: 8\n",
        "lora_r: 0\n",
        "lora_r: many\n",
        "lora_dropout: 1.0\n",
        "rl: dpo\n",
        "load_in_8bit: true\n",
        "save_strategy: best\n",
        "export: {formats: [gguf-nothing]}\n",
        "export: {fromats: [adapter]}\n",
        "test_datasets: [{type: alpaca}]\n",
        "test_datasets: [{path: a, type: alpacca}]\n",
        "device: toaster\n",
        "plugins: [my.Plugin]\n",
        "preflight: {max_memory: 24}\n",
    ];
    for text in refused {
        assert!(!accepts(&format!("{BASE}{text}")), "{text}");
    }
    assert!(!accepts("base_model: m\n"));
}
