//! Defects of rows that spoil the training where most rows have them, by the names with which a recipe allows them.

use serde::{Deserialize, Serialize};

use super::choice::Choice;

/// Something that is wrong with a row and may be wrong with all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Defect {
    /// A turn that is trained on is empty. Comes first, since such a row often has nothing to train on.
    EmptyAnswers,
    /// Nothing of the row would be trained on.
    NoTrainedTokens,
    /// A trained turn is not closed by an end-of-turn token.
    WithoutEndOfTurn,
    /// It begins with two BOS tokens.
    DoubledBos,
    /// It has an unknown role.
    UnknownRoles,
    /// It defines tools that the template does not show.
    HiddenTools,
    /// It calls tools in a way that the template does not show.
    HiddenCalls,
    /// It has reasoning, none of which the template shows.
    HiddenReasoning,
}

impl Defect {
    /// Every defect, in the order in which they are reported.
    pub const ALL: [Defect; 8] = [
        Defect::NoTrainedTokens,
        Defect::WithoutEndOfTurn,
        Defect::DoubledBos,
        Defect::EmptyAnswers,
        Defect::UnknownRoles,
        Defect::HiddenTools,
        Defect::HiddenCalls,
        Defect::HiddenReasoning,
    ];

    /// The name by which a recipe allows it.
    pub fn name(self) -> &'static str {
        self.choice().name
    }

    /// The name by which a recipe allows it, with its meaning.
    pub fn choice(self) -> Choice {
        let (name, description) = match self {
            Defect::NoTrainedTokens => ("no_trained_tokens", "rows without a token to train on"),
            Defect::WithoutEndOfTurn => {
                ("without_end_of_turn", "rows with a trained turn that no end-of-turn token closes")
            }
            Defect::DoubledBos => ("doubled_bos", "rows that begin with two BOS tokens"),
            Defect::EmptyAnswers => ("empty_answers", "rows with an empty turn that is trained on"),
            Defect::UnknownRoles => ("unknown_roles", "rows with an unknown role"),
            Defect::HiddenTools => ("hidden_tools", "rows with tools that the chat template does not show"),
            Defect::HiddenCalls => ("hidden_calls", "rows with tool calls that the chat template does not show"),
            Defect::HiddenReasoning => {
                ("hidden_reasoning", "rows with reasoning, none of which the chat template shows")
            }
        };
        Choice { name, description }
    }

    /// The problem of one such row, and what to try.
    pub(crate) fn described(self) -> (&'static str, &'static str) {
        match self {
            Defect::NoTrainedTokens => (
                "this row has no token to train on",
                "check `roles_to_train`, `message_field_training` and `sequence_len`: the row needs an assistant turn that is trained and not cut off",
            ),
            Defect::WithoutEndOfTurn => (
                "a trained turn of this row is not closed by an end-of-turn token, so the model would never learn to stop",
                "name the token that closes a turn in `eot_tokens`, or choose the `chat_template` that fits the tokenizer",
            ),
            Defect::DoubledBos => {
                ("this row begins with two BOS tokens", "leave the BOS token out of the rows, or out of the template")
            }
            Defect::EmptyAnswers => (
                "a turn of this row that is trained on is empty, so that there is nothing to learn from it",
                "fill the answers in, or check the names of the fields that hold them",
            ),
            Defect::UnknownRoles => (
                "this row has an unknown role, which is not trained",
                "map it to a known one: `roles: {user: [...], assistant: [...]}`; `type: sharegpt` reads `function_call` and `observation`",
            ),
            Defect::HiddenTools => (
                "the chat template does not show the tools of this row, so the model would learn to call what it never read of",
                "choose a `chat_template` with tools, such as the tokenizer's own, or write the tools into a system message",
            ),
            Defect::HiddenCalls => (
                "the chat template does not show the tool calls of this row, so they would not be trained",
                "choose a `chat_template` with tool calls, such as the tokenizer's own, or write the calls into the content",
            ),
            Defect::HiddenReasoning => (
                "the chat template does not show the reasoning of this row, so it would not be trained",
                "choose a `chat_template` with reasoning, name the key that holds it in `field_thinking`, or write it into the content",
            ),
        }
    }
}
