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

/// Keys of messages by which other programs mark what is trained on, each with its name for people.
const MARKS: [(&str, &str); 6] = [
    ("training_detail", "messages[].training_detail"),
    ("train_detail", "messages[].train_detail"),
    ("training", "messages[].training"),
    ("loss", "messages[].loss"),
    ("loss_weight", "messages[].loss_weight"),
    ("mask", "messages[].mask"),
];

/// The marks in the messages of a row that the recipe does not name.
fn unread_marks(row: &Row, format: &Format, source: &SourceSettings) -> Vec<&'static str> {
    let usual = if format.columns.contains(&"conversations") { "conversations" } else { "messages" };
    let column = source.field_messages.as_deref().unwrap_or(usual);
    let messages = row.columns.get(column).filter(|_| format.fields.contains(&"field_messages"));
    let messages = messages.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let named = [&source.message_field_training, &source.message_field_training_detail];
    let is_unread = |(key, _): &&(&str, &str)| {
        named.iter().all(|named| named.as_deref() != Some(*key))
            && messages.iter().any(|message| message.get(key).is_some_and(|value| !value.is_null()))
    };
    MARKS.iter().filter(is_unread).map(|(_, shown)| *shown).collect()
}

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
    let columns = row.columns.iter().filter(is_unread).map(|(column, _)| column.as_str());
    columns.chain(unread_marks(row, format, source)).collect()
}

/// The columns that the recipe names.
fn named_columns(source: &SourceSettings) -> Vec<&str> {
    let custom = match &source.format {
        Some(RowFormat::Custom(custom)) => {
            vec![&custom.field_system, &custom.field_instruction, &custom.field_input, &custom.field_output]
        }
        _ => Vec::new(),
    };
    let fields = fields(source).into_iter().filter_map(|(_, column)| column);
    fields.chain(custom.into_iter().map(String::as_str)).collect()
}

/// The keys of a recipe that name columns, with what they name.
fn fields(source: &SourceSettings) -> [(&'static str, Option<&str>); 8] {
    [
        ("field_instruction", source.field_instruction.as_deref()),
        ("field_input", source.field_input.as_deref()),
        ("field_output", source.field_output.as_deref()),
        ("field_system", source.field_system.as_deref()),
        ("field_messages", source.field_messages.as_deref()),
        ("field_tools", source.field_tools.as_deref()),
        ("field_thinking", source.field_thinking.as_deref()),
        ("field", source.field.as_deref()),
    ]
}

/// The keys of a source that name columns which its format does not read.
pub(crate) fn unread_fields(format: &Format, source: &SourceSettings) -> Vec<&'static str> {
    let has_turns = format.fields.contains(&"field_messages");
    let asks = source.field_instruction.is_some() || source.field_output.is_some();
    // A question in a column is read in place of messages.
    let stands_back: &[&str] = match (has_turns, asks) {
        (true, true) => &["field_messages", "field_thinking"],
        (true, false) => &["field_input"],
        _ => &[],
    };
    let is_unread = |key: &&str| !format.fields.contains(key) || stands_back.contains(key);
    fields(source).into_iter().filter_map(|(key, column)| column.map(|_| key)).filter(is_unread).collect()
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

    #[test]
    fn marks_of_messages_that_the_recipe_does_not_name_are_named() {
        let row = json!({"messages": [{"role": "user", "content": "a", "loss": null, "mask": false},
            {"role": "assistant", "content": "b", "training_detail": [], "train": true}]});
        let row = Row { columns: row.as_object().unwrap().clone() };
        let named = |detail: Option<&str>| {
            let message_field_training_detail = detail.map(str::to_owned);
            let source = SourceSettings { message_field_training_detail, ..SourceSettings::default() };
            unread(&row, by_name("chat").unwrap(), &source).join(" ")
        };
        assert_eq!(named(None), "messages[].training_detail messages[].mask");
        assert_eq!(named(Some("training_detail")), "messages[].mask");
    }

    #[test]
    fn keys_of_a_recipe_that_a_format_does_not_read_are_named() {
        let named = |keys: &[&str], format: &str| {
            let field = |key: &str| keys.contains(&key).then(|| "x".to_owned());
            let source = SourceSettings {
                field_system: field("field_system"),
                field_messages: field("field_messages"),
                field_output: field("field_output"),
                field_input: field("field_input"),
                ..SourceSettings::default()
            };
            unread_fields(by_name(format).unwrap(), &source).join(" ")
        };
        assert_eq!(named(&["field_system", "field_messages"], "chat"), "");
        assert_eq!(named(&["field_output", "field_messages"], "chat"), "field_messages");
        assert_eq!(named(&["field_input", "field_messages"], "sharegpt"), "field_input");
        assert_eq!(named(&["field_system", "field_output"], "alpaca"), "field_system");
        assert_eq!(named(&["field_output"], "custom"), "field_output");
    }
}
