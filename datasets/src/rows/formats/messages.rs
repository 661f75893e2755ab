//! Messages and tool definitions of a row, for every format whose rows hold conversations.
//!
//! Keys can be mapped, roles renamed, and a message may say for itself whether it is trained on. As in Axolotl and
//! transformers, null means that a key is not there.

use serde_json::{Map, Value};

use super::json_text::{calls_of, tools_of, without_nulls};
use super::parts::flag;
use super::roles::{Dialect, Reader, reader};
use crate::foundation::{SourceSettings, quoted_list};
use crate::reading::{Row, RowProblem, wrong_type};
use crate::text::{Conversation, Message, REASONING, TEMPLATE_INPUT, TrainingDetail};

/// Keys under which data sets keep the reasoning of a message.
const REASONING_KEYS: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// Keys of a message that are not its content under another name.
const BESIDE_CONTENT: [&str; 6] = ["name", "id", "tool_call_id", "train", "weight", "training"];

/// The messages of a column, as a conversation without tools.
pub(super) fn messages(
    value: &Value,
    column: &str,
    source: &SourceSettings,
    dialect: &Dialect,
) -> Result<Conversation, RowProblem> {
    // CSV holds lists as text.
    let parsed = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()).filter(Value::is_array);
    let Value::Array(entries) = parsed.as_ref().unwrap_or(value) else {
        return Err(wrong_type(column, value, "a list of messages"));
    };
    let keys = Keys::of(source, dialect);
    let is_content = |entry: &Value| entry.get(&keys.content).is_some();
    let some_have_content = entries.iter().any(is_content);
    let mut conversation = Conversation { variables: source.template_variables.clone(), ..Conversation::default() };
    for (index, entry) in entries.iter().enumerate() {
        let place = format!("{column}[{index}]");
        let Value::Object(entry) = entry else {
            return Err(wrong_type(&place, entry, "an object"));
        };
        let mut extra = Map::new();
        for (key, value) in entry.iter().filter(|(_, value)| !value.is_null()) {
            // What is JSON text in a column was not filled up with nulls by a table.
            let value = if parsed.is_some() { value.clone() } else { without_nulls(value) };
            extra.insert(key.clone(), value);
        }
        let reader = match extra.shift_remove(&keys.role) {
            Some(Value::String(name)) => reader(&name, source, dialect),
            Some(other) => {
                return Err(wrong_type(&format!("{place}.{}", keys.role), &other, "a string"));
            }
            None => return Err(missing_key(&place, &keys.role, "role", entry)),
        };
        let content = extra.shift_remove(&keys.content);
        rename_properties(&mut extra, source);
        let is_call = reader == Reader::Calls;
        let (role, calls) = match reader {
            Reader::Role(role) => (role, calls_of(&mut extra, &place)?),
            Reader::Unknown(name) => {
                conversation.unknown_role.get_or_insert_with(|| name.clone());
                (name, calls_of(&mut extra, &place)?)
            }
            Reader::Calls => {
                let field = format!("{place}.{}", keys.content);
                let value = content.as_ref().unwrap_or(&Value::Null);
                ("assistant".to_owned(), super::json_text::call_list(value, &field)?)
            }
        };
        let calls_tools = !calls.is_empty();
        if calls_tools {
            extra.insert("tool_calls".to_owned(), Value::Array(calls));
        }
        let has_other = calls_tools || REASONING_KEYS.iter().any(|key| extra.contains_key(*key));
        let (content, parts) = match content {
            _ if is_call => (Value::Null, None),
            Some(content) => checked_content(content, &role, &place, &keys.content)?,
            None if has_other || entry.contains_key(&keys.content) => (Value::Null, None),
            // Tables drop the key where the text is null.
            None if some_have_content && !extra.iter().any(|(key, value)| may_be_content(key, value)) => {
                (Value::Null, None)
            }
            None => return Err(missing_key(&place, &keys.content, "content", entry)),
        };
        let mut message = Message { content, extra, content_details: parts, ..Message::new(role, "") };
        let (trained, by_itself) = training_flag(&mut message, &place, source)?;
        message.trained = trained;
        details(&mut message, &place, source)?;
        conversation.flagged |= by_itself;
        conversation.messages.push(message);
    }
    Ok(conversation)
}

/// The tool definitions of a row: a list, or JSON text.
pub(super) fn tools(row: &Row, source: &SourceSettings) -> Result<Option<Value>, RowProblem> {
    let column = source.field_tools.as_deref().unwrap_or("tools");
    row.columns.get(column).map_or(Ok(None), |value| tools_of(value, column))
}

/// Variables of the template in the row itself: TRL's column `chat_template_kwargs`.
pub(super) fn variables(row: &Row) -> Result<Map<String, Value>, RowProblem> {
    const COLUMN: &str = "chat_template_kwargs";
    let accepted = "an object of the template's variables";
    let parsed = match row.columns.get(COLUMN) {
        None | Some(Value::Null) => return Ok(Map::new()),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(Map::new()),
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::String(text.clone())),
        Some(other) => without_nulls(other),
    };
    let Value::Object(variables) = parsed else {
        return Err(wrong_type(COLUMN, &parsed, accepted));
    };
    match variables.keys().find(|name| TEMPLATE_INPUT.contains(&name.as_str())) {
        Some(name) => Err(RowProblem::new(
            format!("the field `{COLUMN}` sets `{name}`, which is not a variable of the template's own"),
            "write it into its own column, or remove it",
        )),
        None => Ok(variables),
    }
}

/// The keys that hold role and content.
struct Keys {
    role: String,
    content: String,
}

impl Keys {
    fn of(source: &SourceSettings, dialect: &Dialect) -> Keys {
        let key = |property: &str| -> String {
            let mapped = source.message_property_mappings.get(property).cloned();
            let usual = dialect.keys.iter().find(|(name, _)| *name == property);
            mapped.unwrap_or_else(|| usual.map_or(property, |(_, key)| key).to_owned())
        };
        Keys { role: key("role"), content: key("content") }
    }
}

fn may_be_content(key: &str, value: &Value) -> bool {
    value.is_string() && !BESIDE_CONTENT.contains(&key)
}

type Content = (Value, Option<Vec<TrainingDetail>>);

/// Content that is there: a text, with the stretches that its parts say are trained on or not, or what a tool returned.
fn checked_content(content: Value, role: &str, place: &str, key: &str) -> Result<Content, RowProblem> {
    let is_result = matches!(role, "tool" | "function" | "ipython");
    match content {
        Value::Array(parts) if is_result && !parts.iter().all(super::parts::is_part) => Ok((Value::Array(parts), None)),
        Value::Array(parts) => {
            let (text, details) = super::parts::joined(&parts, &format!("{place}.{key}"))?;
            Ok((Value::String(text), details))
        }
        content @ Value::String(_) => Ok((content, None)),
        content if is_result => Ok((content, None)),
        other => Err(wrong_type(&format!("{place}.{key}"), &other, "a string or a list of parts")),
    }
}

/// Reads the reasoning's parts, and the stretches of the content that the key of the recipe lists. Parts count more.
fn details(message: &mut Message, place: &str, source: &SourceSettings) -> Result<(), RowProblem> {
    if let Some(key) = &source.message_field_training_detail
        && let Some(listed) = message.extra.shift_remove(key).filter(|listed| !listed.is_null())
    {
        let listed = super::parts::listed(&listed, &format!("{place}.{key}"))?;
        if !message.content.is_string() {
            let accepted = "a text, since parts of it are trained on";
            return Err(wrong_type(&format!("{place}.content"), &message.content, accepted));
        }
        message.content_details.get_or_insert(listed);
    }
    if let Some(Value::Array(parts)) = message.extra.get(REASONING) {
        let (text, details) = super::parts::joined(parts, &format!("{place}.{REASONING}"))?;
        message.extra.insert(REASONING.to_owned(), Value::String(text));
        message.reasoning_details = details;
    }
    Ok(())
}

fn missing_key(place: &str, key: &str, property: &str, entry: &Map<String, Value>) -> RowProblem {
    RowProblem::new(
        format!("the field `{place}.{key}` is missing; the message has {}", quoted_list(entry.keys())),
        format!("name the key that holds it: `message_property_mappings: {{{property}: ...}}`"),
    )
}

/// Gives further mapped properties, and the reasoning, the names under which templates look.
fn rename_properties(extra: &mut Map<String, Value>, source: &SourceSettings) {
    let mapped = source
        .message_property_mappings
        .iter()
        .filter(|(property, _)| !matches!(property.as_str(), "role" | "content"))
        .map(|(property, key)| (property.as_str(), key.as_str()));
    let thinking = source.field_thinking.as_deref().map(|key| ("reasoning_content", key));
    for (property, key) in mapped.chain(thinking) {
        if property != key
            && let Some(value) = extra.shift_remove(key)
        {
            extra.insert(property.to_owned(), value);
        }
    }
}

/// The flag by which a message is, or is not, trained on, and true if it is one that the recipe did not name: the key
/// that the recipe names, else `train`, or OpenAI's `weight`, of which 1 leaves the decision to the role.
fn training_flag(
    message: &mut Message,
    place: &str,
    source: &SourceSettings,
) -> Result<(Option<bool>, bool), RowProblem> {
    let wrong = |key: &str, found: &Value| wrong_type(&format!("{place}.{key}"), found, "true or false, or 1 or 0");
    if let Some(key) = &source.message_field_training {
        return match message.extra.shift_remove(key) {
            None => Ok((None, false)),
            Some(value) => flag(&value).map(|flag| (Some(flag), false)).ok_or_else(|| wrong(key, &value)),
        };
    }
    if let Some(Value::Bool(train)) = message.extra.get("train") {
        return Ok((Some(*train), true));
    }
    match message.extra.get("weight") {
        None => Ok((None, false)),
        Some(weight) => match flag(weight) {
            Some(true) => Ok((None, false)),
            Some(false) => Ok((Some(false), true)),
            None => Err(wrong("weight", weight)),
        },
    }
}
