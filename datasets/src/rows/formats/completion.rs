//! Completion: plain `text`, all of it trained on.

use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem};
use crate::rows::sample::Sample;

/// The row as text.
pub(super) fn read(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    let text = row.text(source.field.as_deref().unwrap_or("text"), "field")?;
    Ok(Sample::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_column_can_be_named() {
        let source = SourceSettings { field: Some("body".to_owned()), ..SourceSettings::default() };
        for text in ["one", "", "drei\n"] {
            let columns = json!({"body": text, "text": "no"}).as_object().unwrap().clone();
            let sample = read(&Row { columns }, &source);
            assert_eq!(sample, Ok(Sample::Text(text.to_owned())));
        }
    }
}
