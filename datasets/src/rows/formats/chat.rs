//! Chat: `messages`, a list of objects with `role` and `content`, for the model's chat template.
//!
//! Axolotl's `chat_template`: keys can be mapped, roles renamed, a leading system message left out,
//! and a message may say for itself whether it is trained on.

use serde_json::Value;

use super::messages::{messages, tools};
use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem};
use crate::rows::sample::Sample;
use crate::text::Conversation;

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
        prompt_messages: 0,
        tools: tools(row, source)?,
        variables: source.template_variables.clone(),
        unknown_role,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::Message;

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
    fn a_message_decides_for_itself_if_it_is_trained_on() {
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

    #[test]
    fn a_misspelt_role_is_suggested_and_another_is_to_be_mapped() {
        let hint = |role: &str| {
            let row = json!({"messages": [{"role": role, "content": "Hi"}]});
            conversation(row, &SourceSettings::default()).unwrap_err().hint
        };
        assert_eq!(hint("asistant"), "did you mean `assistant`?");
        assert_eq!(hint("narrator"), "map it to a known role: `roles: {user: [narrator]}`");
    }
}
