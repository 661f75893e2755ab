//! ShareGPT: `conversations`, a list of turns with `from` and `value`.
//!
//! A chat in other words; everything but the words is that of `chat`.

use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem};
use crate::rows::sample::Sample;

/// The row as a conversation.
pub(super) fn read(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    super::chat::read_conversation(row, source, "conversations", &[("role", "from"), ("content", "value")])
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
}
