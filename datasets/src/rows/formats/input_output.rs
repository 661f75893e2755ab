//! Input and output: `segments`, pieces of text each with a label that is true if it is trained on.
//!
//! Axolotl's template-free format: nothing is added, so the rows hold their special tokens themselves
//! (`<s>`, `</s>` ...).

use serde_json::Value;

use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem, wrong_type};
use crate::rows::sample::{Sample, Segment};

/// The row as labelled segments.
pub(super) fn read(row: &Row, _: &SourceSettings) -> Result<Sample, RowProblem> {
    let value = row.value("segments", "type")?;
    let Value::Array(entries) = value else {
        return Err(wrong_type("segments", value, "a list of segments"));
    };
    let segment = |(index, entry): (usize, &Value)| {
        let field = |name: &str| format!("segments[{index}].{name}");
        match (entry.get("text"), entry.get("label")) {
            (Some(Value::String(text)), Some(Value::Bool(label))) => {
                Ok(Segment { text: text.clone(), trained: *label })
            }
            (Some(Value::String(_)), label) => {
                Err(wrong_type(&field("label"), label.unwrap_or(&Value::Null), "true or false"))
            }
            (text, _) => Err(wrong_type(&field("text"), text.unwrap_or(&Value::Null), "a string")),
        }
    };
    let segments = entries.iter().enumerate().map(segment).collect::<Result<_, _>>()?;
    Ok(Sample::Segments(segments))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_row(value: Value) -> Result<Sample, RowProblem> {
        read(&Row { columns: value.as_object().unwrap().clone() }, &SourceSettings::default())
    }

    #[test]
    fn segments_keep_their_labels() {
        let row = json!({"segments": [{"label": false, "text": "<s>Hi"}, {"label": true, "text": " Yo</s>"}]});
        let segment = |text: &str, trained| Segment { text: text.to_owned(), trained };
        assert_eq!(read_row(row), Ok(Sample::Segments(vec![segment("<s>Hi", false), segment(" Yo</s>", true)])));
        let problem = read_row(json!({"segments": [{"text": "a", "label": 1}]})).unwrap_err().problem;
        assert_eq!(problem, "the field `segments[0].label` is `1`, accepted is true or false");
        let problem = read_row(json!({"segments": [3]})).unwrap_err().problem;
        assert_eq!(problem, "the field `segments[0].text` is null, accepted is a string");
        assert!(read_row(json!({"segments": "a"})).unwrap_err().problem.contains("accepted is a list of segments"));
    }
}
