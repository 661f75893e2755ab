//! ShareGPT: `conversations`, a list of turns with `from` and `value`.
//!
//! A chat in other words; everything but the words is that of `chat`. As in LLaMA-Factory, a turn of `function_call` is
//! a tool call of the assistant, written as JSON.

use super::roles::SHAREGPT;
use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem};
use crate::rows::sample::Sample;

/// The row as a conversation.
pub(super) fn read(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    super::chat::read_conversation(row, source, "conversations", &SHAREGPT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_usual_names_of_roles_are_known() {
        let turns = json!({"conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello", "weight": 1},
            {"from": "tool", "value": "3"},
        ]});
        let row = Row { columns: turns.as_object().unwrap().clone() };
        let Ok(Sample::Chat(conversation)) = read(&row, &SourceSettings::default()) else { panic!("a conversation") };
        let roles: Vec<&str> = conversation.messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool"]);
        assert_eq!(conversation.messages[2].text(), "Hello");
        assert_eq!(conversation.messages[2].extra["weight"], 1);
    }

    #[test]
    fn calls_and_results_are_turns_of_their_own() {
        let turns = json!({"conversations": [
            {"from": "human", "value": "5 by 3?"},
            {"from": "function_call", "value": "{\"name\": \"area\", \"arguments\": {\"sides\": [5, 3]}}"},
            {"from": "observation", "value": "15"},
            {"from": "function_call", "value": "[{\"name\": \"a\"}, {\"name\": \"b\"}]"},
        ]});
        let row = Row { columns: turns.as_object().unwrap().clone() };
        let Ok(Sample::Chat(conversation)) = read(&row, &SourceSettings::default()) else { panic!("a conversation") };
        let roles: Vec<&str> = conversation.messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
        let call = &conversation.messages[1];
        assert!(call.content.is_null());
        assert_eq!(call.extra["tool_calls"], json!([{"name": "area", "arguments": {"sides": [5, 3]}}]));
        assert_eq!(conversation.messages[3].extra["tool_calls"].as_array().unwrap().len(), 2);
        let turns = json!({"conversations": [{"from": "function_call", "value": "area(5, 3)"}]});
        let problem = read(&Row { columns: turns.as_object().unwrap().clone() }, &SourceSettings::default());
        let problem = problem.unwrap_err().problem;
        assert!(
            problem.starts_with("the field `conversations[0].value` is the string `area(5, 3)`, which is not JSON"),
            "{problem}"
        );
    }
}
