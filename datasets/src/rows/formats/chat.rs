//! Chat: `messages`, a list of objects with `role` and `content`, for the model's chat template.
//!
//! Axolotl's `chat_template`: keys can be mapped, roles renamed, a leading system message left out,
//! and a message may say for itself whether it is trained on. A question and its answer may also be columns of their
//! own, which become a turn of the user and one of the assistant.

use serde_json::Value;

use super::messages::{messages, tools, variables};
use super::roles::{CHAT, Dialect};
use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem, wrong_type};
use crate::rows::sample::Sample;
use crate::text::{Conversation, Message};

/// The row as a conversation.
pub(super) fn read(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    // Axolotl's name for preference pairs, which some recipes give plain conversations too.
    let compares = ["chosen", "rejected"].iter().all(|column| row.columns.contains_key(*column));
    if compares && source.format.as_ref().is_some_and(|format| format.is("chat_template.default")) {
        return super::preference::read(row, source);
    }
    read_conversation(row, source, "messages", &CHAT)
}

/// The row as a conversation whose messages are in `column`, in the words of `dialect`.
pub(super) fn read_conversation(
    row: &Row,
    source: &SourceSettings,
    column: &str,
    dialect: &Dialect,
) -> Result<Sample, RowProblem> {
    let mut conversation = if source.field_instruction.is_some() || source.field_output.is_some() {
        question_and_answer(row, source)?
    } else {
        turns(row, source, column, dialect)?
    };
    if source.drop_system_message && conversation.messages.first().is_some_and(|first| first.role == "system") {
        conversation.messages.remove(0);
    }
    if conversation.messages.is_empty() {
        return Err(RowProblem::new(
            format!("the field `{}` holds no messages", source.field_messages.as_deref().unwrap_or(column)),
            "a conversation is at least one message of the user and one of the assistant",
        ));
    }
    conversation.tools = tools(row, source)?;
    conversation.variables.extend(variables(row)?);
    Ok(Sample::Chat(conversation))
}

/// The messages of a column, behind the system text of another column where they begin with none.
fn turns(row: &Row, source: &SourceSettings, column: &str, dialect: &Dialect) -> Result<Conversation, RowProblem> {
    let column = source.field_messages.as_deref().unwrap_or(column);
    let value = row.value(column, "field_messages").map_err(|problem| match question_columns(row) {
        _ if source.field_messages.is_none() && row.columns.contains_key("conversations") => RowProblem {
            hint: "`type: sharegpt` reads `conversations`, turns of `from` and `value`; else set `field_messages`"
                .to_owned(),
            ..problem
        },
        Some((question, answer)) if source.field_messages.is_none() => RowProblem {
            hint: format!(
                "for a question and its answer set `field_instruction: {question}` and `field_output: {answer}`"
            ),
            ..problem
        },
        _ => problem,
    })?;
    let mut conversation = messages(value, column, source, dialect)?;
    let begins = conversation.messages.first().is_none_or(|first| first.role != "system");
    let name = source.field_system.as_deref().unwrap_or("system");
    match row.columns.get(name) {
        // Where messages are text, the file is a table, whose empty cells hold nothing.
        Some(Value::String(text)) if text.is_empty() && value.is_string() => {}
        Some(Value::String(text)) if begins => conversation.messages.insert(0, Message::new("system", text.as_str())),
        Some(other) if begins && !other.is_null() => return Err(wrong_type(name, other, "a string")),
        None if source.field_system.is_some() => _ = row.value(name, "field_system")?,
        _ => {}
    }
    Ok(conversation)
}

/// A question, with a text that it is about below it, and its answer, each in a column.
fn question_and_answer(row: &Row, source: &SourceSettings) -> Result<Conversation, RowProblem> {
    let question = row.text(source.field_instruction.as_deref().unwrap_or("instruction"), "field_instruction")?;
    let input = named_text(row, source.field_input.as_deref(), "input", "field_input")?;
    let answer = row.text(source.field_output.as_deref().unwrap_or("output"), "field_output")?;
    let system = named_text(row, source.field_system.as_deref(), "system", "field_system")?;
    let asked = if input.is_empty() { question.to_owned() } else { format!("{question}\n{input}") };
    let mut messages = vec![Message::new("user", asked), Message::new("assistant", answer)];
    if !system.is_empty() {
        messages.insert(0, Message::new("system", system));
    }
    Ok(Conversation { messages, variables: source.template_variables.clone(), ..Conversation::default() })
}

/// The text of a column that may be missing or null, unless the recipe names it.
fn named_text<'r>(row: &'r Row, named: Option<&str>, usual: &str, setting: &str) -> Result<&'r str, RowProblem> {
    if let Some(column) = named {
        row.value(column, setting)?;
    }
    row.optional_text(named.unwrap_or(usual))
}

/// The columns of a row that look like a question and its answer.
pub(super) fn question_columns(row: &Row) -> Option<(&str, &str)> {
    const QUESTIONS: [&str; 8] = ["instruction", "question", "prompt", "query", "problem", "input", "user", "human"];
    const ANSWERS: [&str; 8] =
        ["output", "answer", "response", "completion", "solution", "reply", "assistant", "target"];
    let named = |names: &[&str]| {
        let column = |name: &&str| row.columns.keys().find(|column| column.eq_ignore_ascii_case(name));
        names.iter().find_map(column).map(String::as_str)
    };
    Some((named(&QUESTIONS)?, named(&ANSWERS)?))
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
            {"who": "user", "text": "a"},
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
    fn unknown_roles_reach_the_template_and_are_noted() {
        let row = json!({"messages": [{"role": "narrator", "content": "Once"}, {"role": "b", "content": ""}]});
        let read = conversation(row, &SourceSettings::default()).unwrap();
        assert_eq!((read.messages[0].role.as_str(), read.unknown_role.as_deref()), ("narrator", Some("narrator")));
    }

    #[test]
    fn null_means_that_a_key_is_not_there() {
        let source = SourceSettings::default();
        let row = json!({"messages": [
            {"role": "user", "content": "a", "name": null, "tool_calls": null},
            {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "id": null,
                "function": {"name": "f", "arguments": {"x": 1, "y": null, "z": [{"w": null}]}}}]},
            {"role": "assistant", "content": null},
            {"role": "assistant", "content": null, "reasoning_content": "why"},
        ], "tools": [{"name": "f", "strict": null}]});
        let read = conversation(row, &source).unwrap();
        assert_eq!(read.messages[0], Message::new("user", "a"));
        let call = json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1, "z": [{}]}}}]);
        assert_eq!(read.messages[1].extra["tool_calls"], call);
        assert!(read.messages[1..].iter().all(|message| message.content.is_null()));
        assert_eq!(read.tools, Some(json!([{"name": "f"}])));
        // In text, null is what somebody wrote.
        let messages = json!([{"role": "assistant", "content": null, "name": null, "tool_calls": [
            {"name": "f", "arguments": {"x": null}}]}]);
        let read = conversation(json!({"messages": messages.to_string()}), &source).unwrap();
        assert_eq!(
            read.messages[0].extra,
            *json!({"tool_calls": [{"name": "f", "arguments": {"x": null}}]}).as_object().unwrap()
        );
    }

    #[test]
    fn a_system_column_comes_first_unless_the_messages_have_one() {
        let source = SourceSettings::default();
        let texts = |row: Value| -> Vec<String> {
            conversation(row, &source)
                .unwrap()
                .messages
                .iter()
                .map(|message| format!("{}: {}", message.role, message.text()))
                .collect()
        };
        let user = json!([{"role": "user", "content": "a"}]);
        assert_eq!(texts(json!({"system": "s", "messages": user})), ["system: s", "user: a"]);
        assert_eq!(texts(json!({"system": "", "messages": user})), ["system: ", "user: a"]);
        assert_eq!(texts(json!({"system": null, "messages": user})), ["user: a"]);
        assert_eq!(texts(json!({"system": "", "messages": user.to_string()})), ["user: a"]);
        let both = json!([{"role": "system", "content": "own"}, {"role": "user", "content": "a"}]);
        assert_eq!(texts(json!({"system": "s", "messages": both})), ["system: own", "user: a"]);
        let problem = conversation(json!({"system": ["s"], "messages": user}), &source).unwrap_err().problem;
        assert_eq!(problem, "the field `system` is a list, accepted is a string");
    }

    #[test]
    fn columns_become_turns() {
        let source = SourceSettings {
            field_instruction: Some("question".to_owned()),
            field_output: Some("answer".to_owned()),
            ..SourceSettings::default()
        };
        let read = |row: Value| conversation(row, &source).unwrap().messages;
        let turns = vec![Message::new("user", "q"), Message::new("assistant", "a")];
        assert_eq!(read(json!({"question": "q", "answer": "a", "system": ""})), turns);
        let turns = vec![Message::new("system", "s"), Message::new("user", "q\nc"), Message::new("assistant", "a")];
        assert_eq!(read(json!({"question": "q", "input": "c", "answer": "a", "system": "s"})), turns);
        let problem = conversation(json!({"question": "q", "reply": "a"}), &source).unwrap_err();
        assert_eq!(problem.problem, "the field `answer` is missing; the row has `question` and `reply`");
        let problem = conversation(json!({"question": "q", "reply": "a"}), &SourceSettings::default()).unwrap_err();
        let turns = conversation(json!({"conversations": []}), &SourceSettings::default()).unwrap_err();
        assert!(turns.hint.starts_with("`type: sharegpt` reads `conversations`"), "{}", turns.hint);
        let hint = "for a question and its answer set `field_instruction: question` and `field_output: reply`";
        assert_eq!((problem.problem.contains("`messages` is missing"), problem.hint.as_str()), (true, hint));
    }

    #[test]
    fn a_row_may_set_variables_of_the_template() {
        let mut source = SourceSettings::default();
        source.template_variables.insert("enable_thinking".to_owned(), json!(true));
        let row = |value: Value| json!({"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": value});
        let read = |value: Value| conversation(row(value), &source).map(|read| Value::Object(read.variables));
        assert_eq!(read(json!({"enable_thinking": false})).unwrap(), json!({"enable_thinking": false}));
        assert_eq!(read(json!("{\"x\": 1}")).unwrap(), json!({"enable_thinking": true, "x": 1}));
        assert_eq!(read(json!({"enable_thinking": null})).unwrap(), json!({"enable_thinking": true}));
        assert!(read(json!({"messages": []})).unwrap_err().problem.contains("sets `messages`"));
        assert!(read(json!("yes")).unwrap_err().problem.contains("accepted is an object"));
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
        assert_eq!(problem(json!({"messages": []})), "the field `messages` holds no messages");
        assert_eq!(
            problem(json!({"messages": [{"role": "user", "content": 3}]})),
            "the field `messages[0].content` is `3`, accepted is a string or a list of parts"
        );
    }
}
