//! Columns with a known meaning that a format does not read, so that nobody believes they were.

use serde_json::Value;

use super::Format;
use crate::foundation::{RowFormat, SourceSettings};
use crate::reading::Row;

/// The columns: texts, turns and tools that other programs or formats would put into the prompt.
const KNOWN: [&str; 15] = [
    "system",
    "system_prompt",
    "history",
    "tools",
    "functions",
    "images",
    "image",
    "videos",
    "audios",
    "documents",
    "reasoning_content",
    "reasoning",
    "thinking",
    "chat_template_kwargs",
    "input",
];

/// The columns of a row that have a known meaning, hold something, and are not read.
pub(crate) fn unread<'r>(row: &'r Row, format: &Format, source: &SourceSettings) -> Vec<&'r str> {
    let named = named_columns(source);
    let is_unread = |(column, value): &(&String, &Value)| {
        let column = column.as_str();
        KNOWN.contains(&column)
            && !format.beside.contains(&column)
            && !format.columns.contains(&column)
            && !named.contains(&column)
            && !is_empty(value)
            && (column != "input" || format.name == "prompt_completion")
    };
    row.columns.iter().filter(is_unread).map(|(column, _)| column.as_str()).collect()
}

/// The columns that the recipe names.
fn named_columns(source: &SourceSettings) -> Vec<&str> {
    let custom = match &source.format {
        Some(RowFormat::Custom(custom)) => {
            vec![&custom.field_system, &custom.field_instruction, &custom.field_input, &custom.field_output]
        }
        _ => Vec::new(),
    };
    let fields = [
        &source.field_instruction,
        &source.field_input,
        &source.field_output,
        &source.field_system,
        &source.field_messages,
        &source.field_tools,
        &source.field,
    ];
    let fields = fields.into_iter().filter_map(|field| field.as_deref());
    fields.chain(custom.into_iter().map(String::as_str)).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty() || text == "[]",
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::by_name;
    use super::*;

    #[test]
    fn columns_that_are_not_read_are_named() {
        let row = json!({"system": "s", "system_prompt": "p", "history": [], "tools": "[]", "images": ["x"], "input": "i",
            "id": 3, "functions": null, "chat_template_kwargs": {"a": 1}});
        let row = Row { columns: row.as_object().unwrap().clone() };
        let mut source = SourceSettings::default();
        let found = |name: &str, source: &SourceSettings| unread(&row, by_name(name).unwrap(), source).join(" ");
        assert_eq!(found("chat", &source), "system_prompt images");
        assert_eq!(found("alpaca", &source), "system system_prompt images chat_template_kwargs");
        assert_eq!(found("prompt_completion", &source), "system system_prompt images input");
        source.field_system = Some("system_prompt".to_owned());
        assert_eq!(found("chat", &source), "images");
    }
}
