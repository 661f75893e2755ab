//! Messages and tool definitions of a row, for every format whose rows hold conversations.
//!
//! Keys can be mapped, roles renamed, and a message may say for itself whether it is trained on.

use serde_json::{Map, Value};

use crate::foundation::{SourceSettings, nearest, quoted_list};
use crate::reading::{Row, RowProblem, wrong_type};
use crate::text::{Message, REASONING, TrainingDetail};

/// Names in data sets, and the roles that they stand for.
const ROLES: [(&str, &str); 14] = [
    ("system", "system"),
    ("user", "user"),
    ("human", "user"),
    ("prompter", "user"),
    ("assistant", "assistant"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("bot", "assistant"),
    ("model", "assistant"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("developer", "developer"),
    ("ipython", "ipython"),
    ("function", "function"),
];

/// The messages of a column, and true if an unknown role among them was kept.
pub(super) fn messages(
    value: &Value,
    column: &str,
    source: &SourceSettings,
    keys: &[(&str, &str)],
) -> Result<(Vec<Message>, bool), RowProblem> {
    let Value::Array(entries) = value else {
        return Err(wrong_type(column, value, "a list of messages"));
    };
    let key = |property: &str| -> String {
        let mapped = source.message_property_mappings.get(property).cloned();
        let usual = || keys.iter().find(|(name, _)| *name == property).map(|(_, key)| (*key).to_owned());
        mapped.or_else(usual).unwrap_or_else(|| property.to_owned())
    };
    let (role_key, content_key) = (key("role"), key("content"));
    let mut messages = Vec::with_capacity(entries.len());
    let mut unknown_role = false;
    for (index, entry) in entries.iter().enumerate() {
        let place = format!("{column}[{index}]");
        let Value::Object(entry) = entry else {
            return Err(wrong_type(&place, entry, "an object"));
        };
        let mut extra = entry.clone();
        let role = match extra.shift_remove(&role_key) {
            Some(Value::String(name)) => match known_role(&name, source) {
                Some(role) => role,
                None if source.keep_unknown_roles => {
                    unknown_role = true;
                    name
                }
                None => return Err(unknown(&name, &place)),
            },
            Some(other) => {
                return Err(wrong_type(&format!("{place}.{role_key}"), &other, "a string"));
            }
            None => return Err(missing_key(&place, &role_key, "role", entry)),
        };
        let (content, parts) = content(extra.shift_remove(&content_key), &place, &content_key, entry)?;
        let mut message = Message { content, extra, content_details: parts, ..Message::new(role, "") };
        rename_properties(&mut message, source);
        message.trained = training_flag(&mut message, &place, source)?;
        details(&mut message, &place, source)?;
        messages.push(message);
    }
    Ok((messages, unknown_role))
}

/// The tool definitions of a row: a list, or a list written as a string.
pub(super) fn tools(row: &Row, source: &SourceSettings) -> Result<Option<Value>, RowProblem> {
    let column = source.field_tools.as_deref().unwrap_or("tools");
    let accepted = "a list of tool definitions";
    match row.columns.get(column) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::Array(tools)) if tools.is_empty() => Ok(None),
        Some(tools @ Value::Array(_)) => Ok(Some(tools.clone())),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(tools @ Value::Array(_)) => Ok(Some(tools)),
            _ => Err(wrong_type(column, &Value::String(text.clone()), accepted)),
        },
        Some(other) => Err(wrong_type(column, other, accepted)),
    }
}

type Content = (Value, Option<Vec<TrainingDetail>>);

/// The content as a text, with the stretches that its parts say are trained on, or not.
fn content(value: Option<Value>, place: &str, key: &str, entry: &Map<String, Value>) -> Result<Content, RowProblem> {
    let calls_tools = entry.get("tool_calls").is_some_and(Value::is_array);
    match value {
        Some(Value::Array(parts)) => {
            let (text, details) = super::parts::joined(&parts, &format!("{place}.{key}"))?;
            Ok((Value::String(text), details))
        }
        Some(content @ Value::String(_)) => Ok((content, None)),
        Some(Value::Null) | None if calls_tools => Ok((Value::Null, None)),
        Some(other) => Err(wrong_type(&format!("{place}.{key}"), &other, "a string or a list of parts")),
        None => Err(missing_key(place, key, "content", entry)),
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

/// The role that a name stands for: by the recipe's `roles`, else by `ROLES`.
fn known_role(name: &str, source: &SourceSettings) -> Option<String> {
    let mapped = source
        .roles
        .iter()
        .find(|(role, names)| *role == name || names.iter().any(|other| other == name))
        .map(|(role, _)| role.clone());
    let usual = || ROLES.iter().find(|(usual, _)| *usual == name).map(|(_, role)| (*role).to_owned());
    mapped.or_else(usual)
}

fn unknown(name: &str, place: &str) -> RowProblem {
    let known = quoted_list(ROLES.iter().map(|(name, _)| *name));
    let hint = match nearest(name, ROLES.iter().map(|(name, _)| *name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("map it to a known role: `roles: {{user: [{name}]}}`"),
    };
    RowProblem::new(format!("the role `{name}` of {place} is unknown, accepted are {known}"), hint)
}

/// Gives further mapped properties, and the reasoning, the names under which templates look.
fn rename_properties(message: &mut Message, source: &SourceSettings) {
    let mapped = source
        .message_property_mappings
        .iter()
        .filter(|(property, _)| !matches!(property.as_str(), "role" | "content"))
        .map(|(property, key)| (property.as_str(), key.as_str()));
    let thinking = source.field_thinking.as_deref().map(|key| ("reasoning_content", key));
    for (property, key) in mapped.chain(thinking) {
        if property != key
            && let Some(value) = message.extra.shift_remove(key)
        {
            message.extra.insert(property.to_owned(), value);
        }
    }
}

/// The flag by which a message is, or is not, trained on: the key that the recipe names, else `train`,
/// or OpenAI's `weight`, of which 1 leaves the decision to the role.
fn training_flag(message: &mut Message, place: &str, source: &SourceSettings) -> Result<Option<bool>, RowProblem> {
    let wrong = |key: &str, found: &Value| wrong_type(&format!("{place}.{key}"), found, "true or false, or 1 or 0");
    if let Some(key) = &source.message_field_training {
        return match message.extra.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => flag(&value).map(Some).ok_or_else(|| wrong(key, &value)),
        };
    }
    if let Some(Value::Bool(train)) = message.extra.get("train") {
        return Ok(Some(*train));
    }
    match message.extra.get("weight") {
        None | Some(Value::Null) => Ok(None),
        Some(weight) => match flag(weight) {
            Some(true) => Ok(None),
            Some(false) => Ok(Some(false)),
            None => Err(wrong("weight", weight)),
        },
    }
}

/// True or false, or 1 or 0.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        _ => None,
    }
}
