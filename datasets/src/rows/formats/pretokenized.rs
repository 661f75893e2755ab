//! Rows that are tokens already: `input_ids`, and `labels` and `attention_mask` where they are there.
//!
//! A label is the id itself, or -100 for a token that is not trained on; without labels all tokens are.
//! Positions whose attention is 0 are padding and left out.

use serde_json::Value;

use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem, wrong_type};
use crate::rows::sample::Sample;

/// The label of a token that is not trained on.
const NOT_TRAINED: i64 = -100;

/// The row as ids and a mask.
pub(super) fn read(row: &Row, _: &SourceSettings) -> Result<Sample, RowProblem> {
    let ids = numbers(row, "input_ids")?.ok_or_else(|| missing(row))?;
    let labels = numbers(row, "labels")?;
    let attention = numbers(row, "attention_mask")?;
    for (name, list) in [("labels", &labels), ("attention_mask", &attention)] {
        if let Some(list) = list.as_ref().filter(|list| list.len() != ids.len()) {
            return Err(RowProblem::new(
                format!("the field `{name}` has {} entries, `input_ids` has {}", list.len(), ids.len()),
                "each token has one label and one entry in the attention mask",
            ));
        }
    }
    let mut tokens = Vec::with_capacity(ids.len());
    let mut trained = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let seen = attention.as_ref().is_none_or(|attention| attention[index] != 0);
        let label = labels.as_ref().map_or(*id, |labels| labels[index]);
        if label != NOT_TRAINED && (label != *id || !seen) {
            return Err(RowProblem::new(
                format!(
                    "`labels[{index}]` is `{label}` where `input_ids[{index}]` is `{id}`, accepted are the same id and `-100`"
                ),
                "labels are not shifted: a token's label is the token itself, and padding is not trained on",
            ));
        }
        if !seen {
            continue;
        }
        let id = u32::try_from(*id).map_err(|_| {
            RowProblem::new(format!("`input_ids[{index}]` is `{id}`, which is not a token id"), "ids count from 0")
        })?;
        tokens.push(id);
        trained.push(label != NOT_TRAINED);
    }
    Ok(Sample::Tokens { tokens, trained })
}

fn missing(row: &Row) -> RowProblem {
    match row.value("input_ids", "type") {
        Err(problem) => problem,
        Ok(found) => wrong_type("input_ids", found, "a list of ids"),
    }
}

/// A column of whole numbers; `None` where it is missing or null.
fn numbers(row: &Row, column: &str) -> Result<Option<Vec<i64>>, RowProblem> {
    let entries = match row.columns.get(column) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(entries)) => entries,
        Some(other) => return Err(wrong_type(column, other, "a list of whole numbers")),
    };
    let number = |(index, entry): (usize, &Value)| {
        let flag = entry.as_bool().map(i64::from);
        flag.or(entry.as_i64()).ok_or_else(|| wrong_type(&format!("{column}[{index}]"), entry, "a whole number"))
    };
    entries.iter().enumerate().map(number).collect::<Result<Vec<_>, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_row(value: Value) -> Result<Sample, String> {
        read(&Row { columns: value.as_object().unwrap().clone() }, &SourceSettings::default())
            .map_err(|problem| problem.problem)
    }

    #[test]
    fn labels_and_attention_tell_trained_tokens_and_padding() {
        let row = json!({"input_ids": [5, 6, 7, 0], "labels": [-100, 6, 7, -100], "attention_mask": [1, 1, 1, 0]});
        assert_eq!(read_row(row), Ok(Sample::Tokens { tokens: vec![5, 6, 7], trained: vec![false, true, true] }));
        let all = Sample::Tokens { tokens: vec![5, 6], trained: vec![true, true] };
        assert_eq!(read_row(json!({"input_ids": [5, 6], "labels": null})), Ok(all));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let problem = |row| read_row(row).unwrap_err();
        assert!(problem(json!({"input_ids": [5, 6], "labels": [6, -100]})).starts_with("`labels[0]` is `6` where"));
        assert!(problem(json!({"input_ids": [5, 6], "labels": [5]})).contains("has 1 entries, `input_ids` has 2"));
        assert!(problem(json!({"input_ids": [5, -1]})).contains("`input_ids[1]` is `-1`, which is not a token id"));
        assert!(problem(json!({"input_ids": [5.5]})).contains("`input_ids[0]` is `5.5`, accepted is a whole number"));
        assert!(problem(json!({"ids": [5]})).contains("the field `input_ids` is missing"));
        assert!(problem(json!({"input_ids": null})).contains("`input_ids` is null"));
    }
}
