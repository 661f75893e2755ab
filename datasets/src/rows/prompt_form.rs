//! The form in which rows give the model their prompts, found by reading a row that is made up.

use serde_json::{Map, Value};

use super::formats::Format;
use super::sample::Sample;
use crate::foundation::{RowFormat, SourceSettings};
use crate::reading::Row;
use crate::text::{PromptForm, TextForm};

/// A question that stands in no prompt by itself.
const QUESTION: &str = "\u{1}question\u{1}";

/// The form of the prompts of a source whose rows are no conversations.
pub(crate) fn prompt_form(format: &Format, source: &SourceSettings) -> PromptForm {
    let (before, after) = around_question(format, source).unwrap_or_default();
    match format.special_tokens {
        Some(special_tokens) => PromptForm::Text(TextForm { before, after, special_tokens }),
        None => PromptForm::Chat,
    }
}

/// The text before and after the question in a prompt.
fn around_question(format: &Format, source: &SourceSettings) -> Option<(String, String)> {
    let (question, answer) = match &source.format {
        Some(RowFormat::Custom(custom)) => (custom.field_instruction.clone(), custom.field_output.clone()),
        _ => {
            let column = |named: &Option<String>, usual: &str| named.as_deref().unwrap_or(usual).to_owned();
            let (question, answer) = (format.columns.first()?, format.columns.last()?);
            (column(&source.field_instruction, question), column(&source.field_output, answer))
        }
    };
    let columns: Map<String, Value> =
        [(answer, Value::from("answer")), (question, Value::from(QUESTION))].into_iter().collect();
    match (format.read)(&Row { columns }, source) {
        Ok(Sample::Answer { prompt, .. }) => {
            let (before, after) = prompt.split_once(QUESTION)?;
            Some((before.to_owned(), after.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::PromptFormat;
    use crate::rows::formats;

    #[test]
    fn each_format_has_the_form_of_its_rows() {
        let form = |name: &str, source: &SourceSettings| prompt_form(formats::by_name(name).unwrap(), source);
        let text = |before: &str, after: &str, special_tokens| {
            PromptForm::Text(TextForm { before: before.to_owned(), after: after.to_owned(), special_tokens })
        };
        let plain = SourceSettings::default();
        let alpaca = "Below is an instruction that describes a task. Write a response that appropriately completes the \
                      request.\n\n### Instruction:\n";
        assert_eq!(form("alpaca", &plain), text(alpaca, "\n\n### Response:\n", true));
        let named = SourceSettings {
            field_instruction: Some("q".to_owned()),
            field_output: Some("a".to_owned()),
            ..SourceSettings::default()
        };
        assert_eq!(form("alpaca", &named), text(alpaca, "\n\n### Response:\n", true));
        assert_eq!(form("prompt_completion", &named), text("", "", true));
        assert_eq!(form("completion", &plain), text("", "", true));
        assert_eq!(form("input_output", &plain), text("", "", false));
        assert_eq!(form("pretokenized", &plain), PromptForm::Chat);
        assert_eq!(form("chat", &plain), PromptForm::Chat);
        let custom = PromptFormat {
            system_prompt: "Be brief. ".to_owned(),
            field_instruction: "q".to_owned(),
            field_output: "a".to_owned(),
            no_input_format: "[INST] {instruction} [/INST]".to_owned(),
            ..PromptFormat::default()
        };
        let custom = SourceSettings { format: Some(RowFormat::Custom(custom)), ..SourceSettings::default() };
        assert_eq!(form("custom", &custom), text("Be brief. [INST] ", " [/INST]", true));
    }
}
