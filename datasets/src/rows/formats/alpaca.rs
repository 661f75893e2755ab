//! Alpaca: `instruction`, an optional `input`, `output`; no chat template.
//!
//! The two prompts are those of Stanford's alpaca, which Axolotl uses too.

use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem};
use crate::rows::sample::Sample;

/// The row as a prompt and its answer.
pub(super) fn read(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    let instruction = row.text(source.field_instruction.as_deref().unwrap_or("instruction"), "field_instruction")?;
    let input = row.optional_text(source.field_input.as_deref().unwrap_or("input"))?;
    let output = row.text(source.field_output.as_deref().unwrap_or("output"), "field_output")?;
    let (prompt, shown) = if input.is_empty() {
        let prompt = format!(
            "Below is an instruction that describes a task. Write a response that appropriately \
             completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
        );
        (prompt, instruction.to_owned())
    } else {
        let prompt = format!(
            "Below is an instruction that describes a task, paired with an input that provides \
             further context. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
        );
        (prompt, format!("{instruction}\n{input}"))
    };
    Ok(Sample::Answer { prompt, completion: output.to_owned(), shown, apart: false })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_row(value: serde_json::Value) -> Result<Sample, RowProblem> {
        read(&Row { columns: value.as_object().unwrap().clone() }, &SourceSettings::default())
    }

    #[test]
    fn the_prompt_depends_on_the_input() {
        for (row, wanted) in [
            (json!({"instruction": "Do", "output": "Ok"}), "task. Write"),
            (json!({"instruction": "Do", "input": null, "output": "Ok"}), "### Instruction:\nDo\n\n### Response:\n"),
            (json!({"instruction": "Do", "input": "it", "output": "Ok"}), "### Input:\nit\n\n### Response:\n"),
        ] {
            let Sample::Answer { prompt, completion, .. } = read_row(row).unwrap() else { panic!("an answer") };
            assert!(prompt.contains(wanted) && completion == "Ok", "{prompt}");
        }
    }

    #[test]
    fn a_missing_or_wrong_field_is_named_with_the_columns() {
        let problem = read_row(json!({"instruction": "Do", "outputs": "Ok"})).unwrap_err();
        assert_eq!(problem.problem, "the field `output` is missing; the row has `instruction` and `outputs`");
        assert_eq!(problem.hint, "did you mean `outputs`? Then set `field_output: outputs`");
        let problem = read_row(json!({"instruction": 3, "output": "Ok"})).unwrap_err();
        assert_eq!(problem.problem, "the field `instruction` is `3`, accepted is a string");
    }
}
