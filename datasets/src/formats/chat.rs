//! Chat: `messages`, a list of objects with `role` and `content`, for the model's chat template.
//!
//! Axolotl's `chat_template`: keys can be mapped, roles renamed, a leading system message left out,
//! and a message may say for itself whether it is trained on.

use serde_json::{Map, Value};

use crate::conversation::{Conversation, Message, Sample};
use crate::error::quoted_list;
use crate::row::{Row, RowProblem, described, wrong_type};
use crate::settings::SourceSettings;

/// Names in data sets, and the roles that they mean.
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

/// The row as a conversation.
pub(super) fn read(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    // Axolotl's name for preference pairs, which some recipes give plain conversations too.
    let compares = ["chosen", "rejected"].iter().all(|column| row.columns.contains_key(*column));
    if compares && source.format.as_deref() == Some("chat_template.default") {
        return super::preference::read(row, source);
    }
    read_conversation(row, source, "messages", &[])
}

/// The row as a conversation whose messages are in `column`, with `keys` for properties that the
/// format calls by other names.
pub(super) fn read_conversation(
    row: &Row,
    source: &SourceSettings,
    column: &str,
    keys: &[(&str, &str)],
) -> Result<Sample, RowProblem> {
    let column = source.field_messages.as_deref().unwrap_or(column);
    let value = row.value(column, "field_messages")?;
    // CSV holds lists as text.
    let parsed = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()).filter(Value::is_array);
    let (mut messages, unknown_role) = messages(parsed.as_ref().unwrap_or(value), column, source, keys)?;
    if source.drop_system_message && messages.first().is_some_and(|first| first.role == "system") {
        messages.remove(0);
    }
    if messages.is_empty() {
        return Err(RowProblem::new(
            format!("the field `{column}` holds no messages"),
            "a conversation is at least one message of the user and one of the assistant",
        ));
    }
    Ok(Sample::Chat(Conversation {
        messages,
        tools: tools(row, source)?,
        variables: source.template_variables.clone(),
        unknown_role,
    }))
}

/// The messages of a column, and whether a role among them was kept that nobody knows.
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
        let content = content(extra.shift_remove(&content_key), &place, &content_key, entry)?;
        let mut message = Message { role, content, extra, trained: None };
        rename_properties(&mut message, source);
        message.trained = training_flag(&mut message, &place, source)?;
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

fn content(value: Option<Value>, place: &str, key: &str, entry: &Map<String, Value>) -> Result<Value, RowProblem> {
    let calls_tools = entry.get("tool_calls").is_some_and(Value::is_array);
    match value {
        Some(Value::Array(parts)) => {
            for (index, part) in parts.iter().enumerate() {
                let is_text = part.get("text").is_some_and(Value::is_string);
                if !is_text {
                    let field = format!("{place}.{key}[{index}]");
                    let found = part.get("type").and_then(Value::as_str).map(|kind| format!("a part of type `{kind}`"));
                    return Err(RowProblem::new(
                        format!("the field `{field}` is {}, accepted is a text part", found.unwrap_or(described(part))),
                        "only text is learnt: write `{\"type\": \"text\", \"text\": ...}`, and leave rows with pictures or sound out",
                    ));
                }
            }
            Ok(Value::Array(parts))
        }
        Some(content @ Value::String(_)) => Ok(content),
        Some(Value::Null) | None if calls_tools => Ok(Value::Null),
        Some(other) => Err(wrong_type(&format!("{place}.{key}"), &other, "a string or a list of parts")),
        None => Err(missing_key(place, key, "content", entry)),
    }
}

fn missing_key(place: &str, key: &str, property: &str, entry: &Map<String, Value>) -> RowProblem {
    RowProblem::new(
        format!("the field `{place}.{key}` is missing; the message has {}", quoted_list(entry.keys())),
        format!("name the key that holds it: `message_property_mappings: {{{property}: ...}}`"),
    )
}

/// The role that a name means: by the recipe's `roles`, else by its usual meaning.
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
    RowProblem::new(
        format!("the role `{name}` of {place} is unknown, accepted are {known}"),
        format!("say what it means: `roles: {{user: [{name}]}}`"),
    )
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

/// Whether the message says that it is, or is not, learnt: by the key that the recipe names, else by
/// `train`, or by OpenAI's `weight`, of which 1 leaves the decision to the role.
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

fn flag(value: &Value) -> Option<bool> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conversation(row: Value, source: &SourceSettings) -> Result<Conversation, RowProblem> {
        let row = Row { columns: row.as_object().unwrap().clone() };
        match read(&row, source)? {
            Sample::Chat(conversation) => Ok(conversation),
            _ => panic!("a conversation"),
        }
    }

    #[test]
    fn messages_keep_what_templates_may_read() {
        let source = SourceSettings::default();
        let rows = [
            json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}),
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Bo"}]}),
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"name": "f"}]}], "tools": "[{}]"}),
        ];
        let read: Vec<Conversation> = rows.into_iter().map(|row| conversation(row, &source).unwrap()).collect();
        assert_eq!(read[0].messages[1], Message::new("assistant", "Yo"));
        assert_eq!((read[1].messages[0].text(), &read[1].messages[0].extra["name"]), ("Hi".to_owned(), &json!("Bo")));
        assert!(read[2].messages[0].calls_tools());
        assert_eq!(read[2].tools, Some(json!([{}])));
    }

    #[test]
    fn the_recipe_renames_keys_and_roles() {
        let source = SourceSettings {
            field_messages: Some("turns".to_owned()),
            message_property_mappings: [
                ("role".to_owned(), "who".to_owned()),
                ("content".to_owned(), "text".to_owned()),
            ]
            .into(),
            roles: [("assistant".to_owned(), vec!["bot".to_owned()])].into(),
            message_field_training: Some("learn".to_owned()),
            field_thinking: Some("thoughts".to_owned()),
            drop_system_message: true,
            ..SourceSettings::default()
        };
        let row = json!({"turns": [
            {"who": "system", "text": "s"},
            {"who": "human", "text": "a"},
            {"who": "bot", "text": "b", "learn": false, "thoughts": "hm"},
        ]});
        let messages = conversation(row, &source).unwrap().messages;
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].role.as_str(), messages[1].role.as_str()), ("user", "assistant"));
        assert_eq!(messages[1].trained, Some(false));
        assert_eq!(messages[1].extra.get("reasoning_content"), Some(&json!("hm")));
        assert_eq!(messages[1].extra.len(), 1);
    }

    #[test]
    fn a_message_says_for_itself_whether_it_is_learnt() {
        let source = SourceSettings::default();
        let flags = |row: Value, source: &SourceSettings| {
            let messages = conversation(json!({"messages": row}), source).map(|conversation| conversation.messages);
            messages.map(|messages| messages.iter().map(|message| message.trained).collect::<Vec<_>>())
        };
        let row = json!([
            {"role": "user", "content": "a", "train": true},
            {"role": "assistant", "content": "b", "weight": 0},
            {"role": "assistant", "content": "c", "weight": 1},
            {"role": "assistant", "content": "d", "train": false, "weight": 1},
        ]);
        assert_eq!(flags(row.clone(), &source).unwrap(), [Some(true), Some(false), None, Some(false)]);
        let named = SourceSettings { message_field_training: Some("weight".to_owned()), ..SourceSettings::default() };
        assert_eq!(flags(row, &named).unwrap(), [None, Some(false), Some(true), Some(true)]);
        let problem = flags(json!([{"role": "user", "content": "a", "weight": 0.5}]), &source).unwrap_err().problem;
        assert_eq!(problem, "the field `messages[0].weight` is `0.5`, accepted is true or false, or 1 or 0");
    }

    #[test]
    fn unknown_roles_are_kept_where_the_recipe_allows_them() {
        let source = SourceSettings { keep_unknown_roles: true, ..SourceSettings::default() };
        let read = conversation(json!({"messages": [{"role": "narrator", "content": "Once"}]}), &source).unwrap();
        assert_eq!((read.messages[0].role.as_str(), read.unknown_role), ("narrator", true));
    }

    #[test]
    fn lists_may_be_written_as_text_and_parts_must_be_text() {
        let source = SourceSettings::default();
        let row = json!({"messages": r#"[{"role": "user", "content": "Hi"}]"#});
        assert_eq!(conversation(row, &source).unwrap().messages[0].text(), "Hi");
        let row = json!({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]});
        assert_eq!(
            conversation(row, &source).unwrap_err().problem,
            "the field `messages[0].content[0]` is a part of type `image`, accepted is a text part"
        );
    }

    #[test]
    fn what_is_wrong_with_a_message_is_named() {
        let source = SourceSettings::default();
        let problem = |row| conversation(row, &source).unwrap_err().problem;
        assert_eq!(
            problem(json!({"messages": "Hi"})),
            "the field `messages` is the string `Hi`, accepted is a list of messages"
        );
        assert_eq!(
            problem(json!({"messages": ["Hi"]})),
            "the field `messages[0]` is the string `Hi`, accepted is an object"
        );
        assert_eq!(
            problem(json!({"messages": [{"from": "user", "value": "Hi"}]})),
            "the field `messages[0].role` is missing; the message has `from` and `value`"
        );
        assert_eq!(
            problem(json!({"messages": [{"role": "user"}]})),
            "the field `messages[0].content` is missing; the message has `role`"
        );
        assert!(
            problem(json!({"messages": [{"role": "narrator", "content": ""}]}))
                .starts_with("the role `narrator` of messages[0] is unknown")
        );
        assert_eq!(problem(json!({"messages": []})), "the field `messages` holds no messages");
        assert_eq!(
            problem(json!({"messages": [{"role": "user", "content": 3}]})),
            "the field `messages[0].content` is `3`, accepted is a string or a list of parts"
        );
    }
}
