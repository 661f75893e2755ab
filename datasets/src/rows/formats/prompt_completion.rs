//! Prompt and completion: `prompt` and `completion`, both strings or both lists of messages.
//!
//! As in TRL, only the completion is trained on; of messages, the assistant's in the completion.

use serde_json::Value;

use super::roles::CHAT;
use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem, wrong_type};
use crate::rows::sample::Sample;

/// The row as a prompt and its answer, or as a conversation.
pub(super) fn read(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    let prompt_column = source.field_instruction.as_deref().unwrap_or("prompt");
    let completion_column = source.field_output.as_deref().unwrap_or("completion");
    let prompt = row.value(prompt_column, "field_instruction")?;
    let completion = row.value(completion_column, "field_output")?;
    match (prompt, completion) {
        (Value::String(prompt), Value::String(completion)) => Ok(Sample::Answer {
            prompt: prompt.clone(),
            completion: completion.clone(),
            shown: prompt.clone(),
            apart: false,
        }),
        (Value::Array(_), Value::Array(_)) => {
            let mut conversation = super::messages::messages(prompt, prompt_column, source, &CHAT)?;
            conversation.prompt_messages = conversation.messages.len();
            let answers = super::messages::messages(completion, completion_column, source, &CHAT)?;
            conversation.flagged |= answers.flagged;
            conversation.unknown_role = conversation.unknown_role.or(answers.unknown_role);
            conversation.messages.extend(answers.messages);
            conversation.tools = super::messages::tools(row, source)?;
            conversation.variables.extend(super::messages::variables(row)?);
            Ok(Sample::Chat(conversation))
        }
        (Value::String(_) | Value::Array(_), other) => {
            let accepted =
                if prompt.is_string() { "a string, as the prompt is" } else { "a list of messages, as the prompt is" };
            Err(wrong_type(completion_column, other, accepted))
        }
        (other, _) => Err(wrong_type(prompt_column, other, "a string or a list of messages")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_row(value: serde_json::Value) -> Result<Sample, RowProblem> {
        read(&Row { columns: value.as_object().unwrap().clone() }, &SourceSettings::default())
    }

    #[test]
    fn strings_and_messages_are_read() {
        let sample = read_row(json!({"prompt": "1+1=", "completion": "2"})).unwrap();
        assert!(matches!(sample, Sample::Answer { completion, .. } if completion == "2"));
        let sample = read_row(json!({
            "prompt": [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "1+1?"}],
            "completion": [{"role": "assistant", "content": "2"}],
        }));
        let Sample::Chat(conversation) = sample.unwrap() else { panic!("a conversation") };
        assert_eq!((conversation.messages.len(), conversation.prompt_messages), (3, 2));
    }

    #[test]
    fn the_two_must_be_of_one_kind() {
        let problem = read_row(json!({"prompt": "1+1=", "completion": []})).unwrap_err();
        assert_eq!(problem.problem, "the field `completion` is a list, accepted is a string, as the prompt is");
        let problem = read_row(json!({"prompt": 1, "completion": "2"})).unwrap_err();
        assert_eq!(problem.problem, "the field `prompt` is `1`, accepted is a string or a list of messages");
    }
}
