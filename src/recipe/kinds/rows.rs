//! The kinds of keys that say how rows are read: formats, prompts, variables of the chat template.

use datasets::{PromptFormat, RowFormat, TEMPLATE_INPUT, check_format, dataset_types};
use serde_json::{Map, Value as Json, json};

use super::{Kind, Reading, section, text};
use crate::recipe::scalars::{boolean, number, scalar};
use crate::recipe::yaml::{Node, Value};

/// Types of Axolotl's that are real and not read, so that they are not taken for typos.
const OTHER_TYPES: &[(&str, &str)] = &[
    ("alpaca:", "; another prompt is a mapping below `type`, with `format` and `no_input_format`"),
    ("alpaca_", "; another prompt is a mapping below `type`, with `format` and `no_input_format`"),
    ("sharegpt", "; use `sharegpt`, or `chat_template` with `field_messages: conversations`"),
    ("pretrain", "; use `completion`"),
];

/// The format of rows: one that can be trained on, by its name, or the keys of a prompt.
pub(in crate::recipe) fn row_format() -> Kind<RowFormat> {
    let (trainable, others): (Vec<_>, Vec<_>) = dataset_types().partition(|known| known.trainable);
    let names: Vec<&str> = trainable.iter().map(|known| known.name).collect();
    let shown = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let schema = json!({"enum": names});
    let custom = section::<PromptFormat>();
    let read_custom = custom.read;
    let read = move |reading: &Reading<'_>, node: &Node| {
        let given = scalar(node).map(str::trim);
        if let Some(name) = given.filter(|name| names.contains(name)) {
            return Some(RowFormat::from(name));
        }
        let advice = match &node.value {
            Value::Map(_) => return read_custom(reading, node).map(RowFormat::Custom),
            _ if node.is_unset() => return None,
            Value::Scalar { text, .. } if others.iter().any(|known| known.name == text) => {
                "; rows of this type are read, but no objective trains on them"
            }
            Value::Scalar { text, .. } => {
                OTHER_TYPES.iter().find(|(start, _)| text.starts_with(start)).map_or("", |(_, advice)| advice)
            }
            Value::List(_) => "; a prompt of its own is a mapping with `format` and `field_instruction`",
        };
        reading.unsupported(node, &names, advice);
        None
    };
    Kind { inner: custom.inner, ..Kind::new(format!("{shown}, or a mapping of the keys below"), schema, read) }
}

/// A text with names in braces, as Python's `str.format` reads it.
pub(in crate::recipe) fn prompt_format(names: &'static [&'static str]) -> Kind<String> {
    let shown = names.iter().map(|name| format!("`{{{name}}}`")).collect::<Vec<_>>().join(" and ");
    let accepts = format!("a text with {shown}");
    let text = text();
    Kind::new(accepts, text.schema.clone(), move |reading, node| {
        let format = text.read(reading, node)?;
        if let Err(found) = check_format(&format, names) {
            let message = format!("`{}` has {found}, accepted is {shown}", reading.name);
            reading.findings.problem(node.at, message, "write braces that mean themselves twice: `{{` and `}}`");
        }
        Some(format)
    })
}

/// Variables of the chat template: a mapping of free names to values.
pub(in crate::recipe) fn template_variables() -> Kind<Map<String, Json>> {
    Kind::new("a mapping of variables to values", json!({"type": "object"}), |reading, node| {
        let Value::Map(entries) = &node.value else {
            reading.refuse(node, "a mapping of the template's variables, such as `{enable_thinking: false}`");
            return None;
        };
        for entry in entries.iter().filter(|entry| TEMPLATE_INPUT.contains(&entry.key.as_str())) {
            let message = format!("`{}` cannot set `{}`", reading.name, entry.key);
            reading.findings.problem(entry.at, message, "remove it; it is the input of every template, not a variable");
        }
        Some(entries.iter().map(|entry| (entry.key.clone(), as_json(&entry.node))).collect())
    })
}

/// A value as JSON: booleans and numbers where they stand without quotes.
fn as_json(node: &Node) -> Json {
    match &node.value {
        Value::List(items) => items.iter().map(as_json).collect(),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), as_json(&entry.node))).collect())
        }
        Value::Scalar { plain: true, .. } if node.is_unset() => Json::Null,
        Value::Scalar { text, plain: true } => match (boolean(text), text.parse::<i64>(), number(text)) {
            (Some(flag), ..) => json!(flag),
            (_, Ok(whole), _) => json!(whole),
            (_, _, Some(number)) => json!(number),
            _ => json!(text),
        },
        Value::Scalar { text, .. } => json!(text),
    }
}
