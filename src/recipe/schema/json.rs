//! The schema of recipes as JSON Schema, draft 2020-12, from which editors complete and check.
//!
//! It accepts what a recipe may be written like: numbers and booleans in quotes, blank values, `${NAME}`. Keys without
//! effect and keys that are refused with advice are in it too, marked so that editors do not suggest them.

use serde_json::{Map, Value as Json, json};

use super::{DatasetEntry, Key, Keys, NoEffect, OnResume, Recipe, Refused, Row};
use crate::recipe::no_effect::{ATTENTION_NAMES, Accepts, PLUGINS};
use crate::recipe::refused::Off;

/// The JSON Schema of recipes, as text with a line per key.
pub fn json_schema() -> String {
    let mut keywords = vec![
        ("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema")),
        ("title".to_owned(), json!("A recipe of tune")),
    ];
    keywords.extend(mapping(&Recipe::rows(), Recipe::NO_EFFECT, Recipe::REFUSED));
    keywords.push(("$defs".to_owned(), definitions()));
    let keywords: Vec<String> = keywords.iter().map(|(keyword, value)| keyword_text(keyword, value)).collect();
    format!("{{\n{}\n}}\n", keywords.join(",\n"))
}

/// A keyword of the schema, with a line for each entry of a mapping.
fn keyword_text(keyword: &str, value: &Json) -> String {
    let Json::Object(entries) = value else {
        return format!("  {}: {value}", json!(keyword));
    };
    let entries: Vec<String> = entries.iter().map(|(key, value)| format!("    {}: {value}", json!(key))).collect();
    format!("  {}: {{\n{}\n  }}", json!(keyword), entries.join(",\n"))
}

/// The parts that many keys share.
fn definitions() -> Json {
    let on = ["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"];
    let off = ["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"];
    json!({
        "data_set": mapping(&DatasetEntry::rows(), DatasetEntry::NO_EFFECT, DatasetEntry::REFUSED),
        "text": {"type": ["string", "number", "boolean"]},
        "on": {"anyOf": [{"const": true}, {"enum": on}]},
        "off": {"anyOf": [{"const": false}, {"enum": off}]},
        "flag": {"anyOf": [{"type": "boolean"}, {"enum": on}, {"enum": off}]},
        "quoted_number": {
            "description": "A number in quotes, or as older YAML reads it.",
            "type": "string",
            "pattern": "^\\s*[-+]?[0-9_.]+([eE][-+]?[0-9]+)?\\s*$",
        },
        "unset": {
            "description": "Blank, or a variable of the environment.",
            "anyOf": [{"type": "null"}, {"type": "string", "pattern": "^$|\\$\\{"}],
        },
        "nothing": {
            "description": "Blank or empty.",
            "anyOf": [{"type": "null"}, {"const": ""}, {"const": []}, {"const": {}}],
        },
    })
}

/// The keywords of a mapping with these keys.
fn mapping(rows: &[Row], no_effect: &[NoEffect], refused: &[Refused]) -> Map<String, Json> {
    let mut properties = Map::new();
    for row in rows {
        properties.insert(row.key.name.to_owned(), property(row));
    }
    for row in no_effect {
        let description = format!("Accepted without effect: {}.", row.why);
        properties.insert(row.key.to_owned(), unsuggested(&description, accepted(row), "unset"));
    }
    for group in refused {
        let description = format!("Not supported: {}.", group.advice);
        for name in group.keys.split_whitespace() {
            properties.insert(name.to_owned(), unsuggested(&description, off_values(&group.off), "nothing"));
        }
    }
    let required: Vec<&str> = rows.iter().filter(|row| row.key.is_required).map(|row| row.key.name).collect();
    let mut keywords = Map::new();
    keywords.insert("type".to_owned(), json!("object"));
    keywords.insert("properties".to_owned(), Json::Object(properties));
    if !required.is_empty() {
        keywords.insert("required".to_owned(), json!(required));
    }
    keywords.insert("additionalProperties".to_owned(), json!(false));
    keywords
}

fn property(row: &Row) -> Json {
    let accepted = match &row.inner {
        None => row.schema.clone(),
        // The only list of mappings.
        Some(inner) if inner.is_list => json!({"type": "array", "items": {"$ref": "#/$defs/data_set"}}),
        Some(inner) => {
            let keys = Json::Object(mapping(&inner.rows, inner.no_effect, inner.refused));
            if row.schema.is_null() { keys } else { json!({"anyOf": [row.schema, keys]}) }
        }
    };
    let mut property = json!({"description": description(&row.key)});
    if let Some(default) = row.key.default {
        property["default"] = serde_json::from_str(default).unwrap_or_else(|_| json!(default));
    }
    property["anyOf"] = json!([accepted, {"$ref": "#/$defs/unset"}]);
    property
}

fn description(key: &Key) -> String {
    let mut text = key.meaning.trim().to_owned();
    if !key.otherwise.is_empty() {
        text.push_str(&format!(" Default: {}.", key.otherwise));
    }
    if !key.axolotl.is_empty() {
        text.push_str(&format!(" {}", key.axolotl));
    }
    if key.resume == OnResume::Changeable {
        text.push_str(" It may change when a run resumes.");
    }
    text
}

/// A key that is accepted and that editors do not suggest.
fn unsuggested(description: &str, accepted: Option<Json>, blank: &str) -> Json {
    let blank = json!({"$ref": format!("#/$defs/{blank}")});
    let values: Vec<Json> = accepted.into_iter().chain([blank]).collect();
    json!({"description": description, "deprecated": true, "doNotSuggest": true, "anyOf": values})
}

fn accepted(row: &NoEffect) -> Option<Json> {
    let flag = json!({"$ref": "#/$defs/flag"});
    Some(match row.accepts {
        Accepts::Flag => flag,
        Accepts::FlagOrAuto => json!({"anyOf": [flag, {"const": "auto"}]}),
        Accepts::Attention => {
            json!({"anyOf": [{"enum": ATTENTION_NAMES}, {"type": "string", "pattern": "^kernels-community/.*flash-attn"}]})
        }
        Accepts::Plugins => json!({"type": "array", "items": {"enum": PLUGINS}}),
        Accepts::Any => json!({}),
        Accepts::Section(no_effect, refused) => Json::Object(mapping(&[], no_effect, refused)),
    })
}

/// The values at which a refused key asks for nothing.
fn off_values(off: &Off) -> Option<Json> {
    match off {
        Off::Never => None,
        Off::False => Some(json!({"$ref": "#/$defs/off"})),
        Off::FalseOrZero => Some(json!({"anyOf": [{"$ref": "#/$defs/off"}, {"const": 0}]})),
        Off::True => Some(json!({"$ref": "#/$defs/on"})),
        Off::Boolean => Some(json!({"$ref": "#/$defs/flag"})),
        Off::Word(word) => Some(json!({"anyOf": [{"const": word}, {"$ref": "#/$defs/off"}]})),
    }
}
