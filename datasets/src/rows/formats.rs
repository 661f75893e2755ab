//! The formats of data sets: how a row's columns become a sample.
//!
//! A format is a row of `FORMATS` and a file of its own: its name and the names that Axolotl uses,
//! the columns by which it is recognised, and the function that reads a row.

mod alpaca;
mod chat;
mod completion;
mod input_output;
mod messages;
mod preference;
mod pretokenized;
mod prompt_completion;
mod sharegpt;

use super::sample::Sample;
use crate::foundation::{Error, SourceSettings, nearest, quoted_list};
use crate::reading::{Row, RowProblem};

/// One format.
#[derive(Debug)]
pub(crate) struct Format {
    /// The name that people are shown.
    pub(crate) name: &'static str,
    /// The values of `type:` that mean it.
    types: &'static [&'static str],
    /// The columns, all of which must be there for it to be recognised.
    columns: &'static [&'static str],
    /// Whether a row may be a question with an answer.
    pub(crate) asks: bool,
    /// Reads a row.
    pub(crate) read: fn(&Row, &SourceSettings) -> Result<Sample, RowProblem>,
}

/// Every format; the first whose columns are there is recognised.
static FORMATS: [Format; 9] = [
    Format {
        name: "preference",
        types: &["preference"],
        columns: &["chosen", "rejected"],
        asks: false,
        read: preference::read,
    },
    Format {
        name: "preference_label",
        types: &["preference_label"],
        columns: &["prompt", "completion", "label"],
        asks: false,
        read: preference::read_labelled,
    },
    Format {
        name: "chat",
        types: &["chat", "chat_template", "chat_template.default", "messages"],
        columns: &["messages"],
        asks: true,
        read: chat::read,
    },
    Format { name: "sharegpt", types: &["sharegpt"], columns: &["conversations"], asks: true, read: sharegpt::read },
    Format { name: "alpaca", types: &["alpaca"], columns: &["instruction", "output"], asks: true, read: alpaca::read },
    Format {
        name: "prompt_completion",
        types: &["prompt_completion"],
        columns: &["prompt", "completion"],
        asks: true,
        read: prompt_completion::read,
    },
    Format {
        name: "input_output",
        types: &["input_output"],
        columns: &["segments"],
        asks: false,
        read: input_output::read,
    },
    Format {
        name: "pretokenized",
        types: &["pretokenized"],
        columns: &["input_ids"],
        asks: false,
        read: pretokenized::read,
    },
    Format {
        name: "completion",
        types: &["completion", "text"],
        columns: &["text"],
        asks: false,
        read: completion::read,
    },
];

/// The values of `type:` that are accepted.
pub fn format_names() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().flat_map(|format| format.types).copied()
}

/// The format that people are shown as `name`.
pub(crate) fn by_name(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// The format of a source in which no row could be read.
pub(crate) fn any() -> &'static Format {
    &FORMATS[0]
}

/// The format that a source's `type:` names; `None` where it names none.
pub(crate) fn named(source: &SourceSettings) -> Result<Option<&'static Format>, Error> {
    let Some(value) = &source.format else {
        return Ok(None);
    };
    let found = FORMATS.iter().find(|format| format.types.contains(&value.as_str()));
    if found.is_some() {
        return Ok(found);
    }
    let hint = match nearest(value, format_names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "leave `type` out to have the format recognised by the columns".to_owned(),
    };
    Err(Error::UnknownFormat {
        location: source.location.clone(),
        value: value.clone(),
        accepted: quoted_list(format_names()),
        hint,
    })
}

/// The format that fits a row's columns.
pub(crate) fn recognise(row: &Row, place: &str, source: &SourceSettings) -> Result<&'static Format, Error> {
    let fits = |format: &&Format| format.columns.iter().all(|column| row.columns.contains_key(*column));
    FORMATS.iter().find(fits).ok_or_else(|| Error::UnrecognisedColumns {
        place: place.to_owned(),
        columns: quoted_list(row.columns.keys()),
        accepted: quoted_list(FORMATS.iter().map(|format| format.columns.join("` + `"))),
        location: source.location.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: serde_json::Value) -> Row {
        Row { columns: value.as_object().unwrap().clone() }
    }

    #[test]
    fn formats_are_recognised_by_their_columns() {
        let source = SourceSettings::new("a.jsonl", "recipe.yaml:3:5");
        for (columns, name) in [
            (json!({"messages": []}), "chat"),
            (json!({"conversations": []}), "sharegpt"),
            (json!({"instruction": "", "input": "", "output": ""}), "alpaca"),
            (json!({"prompt": "", "completion": ""}), "prompt_completion"),
            (json!({"text": "", "id": 1}), "completion"),
            (json!({"segments": []}), "input_output"),
            (json!({"messages": [], "chosen": {}, "rejected": {}}), "preference"),
            (json!({"prompt": "", "completion": "", "label": true}), "preference_label"),
            (json!({"input_ids": [], "labels": []}), "pretokenized"),
        ] {
            assert_eq!(recognise(&row(columns), "a.jsonl", &source).unwrap().name, name);
        }
        let error = recognise(&row(json!({"question": "", "answer": ""})), "a.jsonl:7", &source);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("a.jsonl:7: no format fits the columns `question` and `answer`"), "{error}");
    }

    #[test]
    fn an_unknown_type_gets_a_suggestion() {
        let mut source = SourceSettings::new("a.jsonl", "recipe.yaml:3:5");
        source.format = Some("alpacca".to_owned());
        let error = named(&source).unwrap_err().to_string();
        assert!(
            error.starts_with("recipe.yaml:3:5: unknown data set type `alpacca`, accepted are `preference`"),
            "{error}"
        );
        assert!(error.ends_with("hint: did you mean `alpaca`?"), "{error}");
        source.format = Some("chat_template.default".to_owned());
        assert_eq!(named(&source).unwrap().unwrap().name, "chat");
    }
}
