//! Custom: a prompt that the recipe writes itself, around columns of its choice; no chat template.
//!
//! Axolotl's custom prompt formats: the prompt is filled in as Python's `str.format` does, and prompt and output are
//! tokenised apart, as a server will tokenise the prompt.

use crate::foundation::{PromptFormat, RowFormat, SourceSettings, fill_in};
use crate::reading::{Row, RowProblem};
use crate::rows::sample::Sample;

/// The row as a prompt and its answer.
pub(super) fn read(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    let Some(RowFormat::Custom(custom)) = &source.format else {
        return Err(RowProblem::new("the recipe writes no prompt", "write `format` below `type`"));
    };
    let instruction = row.text(&custom.field_instruction, "type.field_instruction")?;
    let input = row.optional_text(&custom.field_input)?;
    row.value(&custom.field_output, "type.field_output")?;
    let output = row.optional_text(&custom.field_output)?;
    let prompt = prompt(custom, system_text(custom, row)?, instruction, input);
    let shown = if input.is_empty() { instruction.to_owned() } else { format!("{instruction}\n{input}") };
    Ok(Sample::Answer { prompt, completion: output.to_owned(), shown, apart: true })
}

/// The column's system text, also where it is empty, or the recipe's for a row without the column.
fn system_text<'t>(custom: &'t PromptFormat, row: &'t Row) -> Result<&'t str, RowProblem> {
    match row.columns.contains_key(&custom.field_system) {
        true => row.optional_text(&custom.field_system),
        false => Ok(&custom.system_prompt),
    }
}

fn prompt(custom: &PromptFormat, system: &str, instruction: &str, input: &str) -> String {
    let mut text = String::new();
    if !system.is_empty() {
        text.push_str(&fill_in(&custom.system_format, &[("system", system)]));
    }
    let values = [("instruction", instruction), ("input", input)];
    let format = if input.is_empty() { &custom.no_input_format } else { &custom.format };
    text.push_str(&fill_in(format, &values));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read_row(custom: PromptFormat, row: Value) -> Result<(String, String), RowProblem> {
        let source = SourceSettings { format: Some(RowFormat::Custom(custom)), ..SourceSettings::default() };
        match read(&Row { columns: row.as_object().unwrap().clone() }, &source)? {
            Sample::Answer { prompt, completion, apart: true, .. } => Ok((prompt, completion)),
            _ => panic!("an answer apart from its prompt"),
        }
    }

    /// The values are those of Axolotl's prompter for the same settings.
    #[test]
    fn the_prompt_is_filled_in_as_python_does() {
        let custom = PromptFormat {
            system_prompt: "Be kind.".to_owned(),
            system_format: "<<{system}>>".to_owned(),
            field_instruction: "q".to_owned(),
            field_output: "a".to_owned(),
            format: "[INST] {input}: {instruction} {{}} [/INST]".to_owned(),
            no_input_format: "[INST] {instruction} [/INST]".to_owned(),
            ..PromptFormat::default()
        };
        for (row, prompt) in [
            (json!({"q": "Why {x}?", "a": "So"}), "<<Be kind.>>[INST] Why {x}? [/INST]"),
            (json!({"q": "Why?", "input": "sky", "a": "So"}), "<<Be kind.>>[INST] sky: Why? {} [/INST]"),
            (json!({"q": "Why?", "system": "Short.", "a": "So"}), "<<Short.>>[INST] Why? [/INST]"),
            (json!({"q": "Why?", "system": "", "a": "So"}), "[INST] Why? [/INST]"),
            (json!({"q": "Why?", "system": null, "a": "So"}), "[INST] Why? [/INST]"),
        ] {
            assert_eq!(read_row(custom.clone(), row).unwrap(), (prompt.to_owned(), "So".to_owned()));
        }
        let problem = read_row(custom.clone(), json!({"q": "Why?", "answer": "So"})).unwrap_err();
        assert_eq!(problem.problem, "the field `a` is missing; the row has `q` and `answer`");
    }

    #[test]
    fn the_usual_columns_and_formats_are_axolotls() {
        let row = json!({"instruction": "i", "input": "n", "output": "o", "system": "s"});
        assert_eq!(read_row(PromptFormat::default(), row).unwrap().0, "si n ");
        let row = json!({"instruction": "i", "output": "o"});
        assert_eq!(read_row(PromptFormat::default(), row).unwrap().0, "i ");
    }
}
