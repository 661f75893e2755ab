//! The formats of data sets, which turn the columns of a row into a sample.
//!
//! A format is a row of `FORMATS` and a file: its name and the names that Axolotl uses, the columns by
//! which it is recognised, and the function that reads a row.

mod alpaca;
mod chat;
mod completion;
mod custom;
mod input_output;
mod json_text;
mod messages;
mod parts;
mod preference;
mod pretokenized;
mod prompt_completion;
mod roles;
mod sharegpt;
mod unread;

use serde_json::{Map, Value};

use super::sample::Sample;
use crate::foundation::{Error, RowFormat, SourceSettings, nearest, quoted_list};
use crate::reading::{Row, RowProblem};

pub(crate) use roles::trained_role;
pub(crate) use unread::{unread, unread_fields};

/// One format.
#[derive(Debug)]
pub(crate) struct Format {
    /// The name that people are shown.
    pub(crate) name: &'static str,
    /// The values of `type:` that mean it.
    types: &'static [&'static str],
    /// The columns by which it is recognised, all of which must be there; none for one that a recipe must ask for.
    pub(crate) columns: &'static [&'static str],
    /// Further columns of a known meaning that it reads.
    beside: &'static [&'static str],
    /// The keys of a recipe by which its columns are named.
    fields: &'static [&'static str],
    /// Its rows in a phrase.
    description: &'static str,
    /// If false, its rows are read and then refused: no objective trains on them.
    trainable: bool,
    /// If set, a row may be a question with an answer.
    pub(crate) asks: bool,
    /// Of rows that are plain text: true if the tokenizer adds its special tokens to them. `None` for conversations, and
    /// for rows whose text is unknown.
    pub(crate) special_tokens: Option<bool>,
    /// Reads a row.
    pub(crate) read: fn(&Row, &SourceSettings) -> Result<Sample, RowProblem>,
}

/// The keys that name the columns of turns.
const TURNS: &[&str] = &[
    "field_messages",
    "field_tools",
    "field_thinking",
    "field_system",
    "field_instruction",
    "field_input",
    "field_output",
];

/// Every format; the first whose columns are there is recognised.
static FORMATS: &[Format] = &[
    Format {
        name: "preference",
        types: &["preference"],
        columns: &["chosen", "rejected"],
        beside: &["tools"],
        fields: &["field_tools", "field_thinking"],
        description: "pairs of answers to one prompt, `chosen` and `rejected`",
        trainable: false,
        asks: false,
        special_tokens: None,
        read: preference::read,
    },
    Format {
        name: "preference_label",
        types: &["preference_label"],
        columns: &["prompt", "completion", "label"],
        beside: &["tools", "chat_template_kwargs"],
        fields: &["field_instruction", "field_output", "field_tools", "field_thinking"],
        description: "`prompt` and `completion` with a `label` that is true for a wanted answer",
        trainable: false,
        asks: false,
        special_tokens: None,
        read: preference::read_labelled,
    },
    Format {
        name: "chat",
        types: &["chat", "chat_template", "chat_template.default", "messages"],
        columns: &["messages"],
        beside: &["system", "tools", "chat_template_kwargs"],
        fields: TURNS,
        description: "conversations in `messages`, with `role` and `content`, rendered by the chat template",
        trainable: true,
        asks: true,
        special_tokens: None,
        read: chat::read,
    },
    Format {
        name: "sharegpt",
        types: &["sharegpt"],
        columns: &["conversations"],
        beside: &["system", "tools", "chat_template_kwargs"],
        fields: TURNS,
        description: "conversations in `conversations`, with `from` and `value`, rendered by the chat template",
        trainable: true,
        asks: true,
        special_tokens: None,
        read: sharegpt::read,
    },
    Format {
        name: "alpaca",
        types: &["alpaca"],
        columns: &["instruction", "output"],
        beside: &[],
        fields: &["field_instruction", "field_input", "field_output"],
        description: "`instruction`, an optional `input`, and `output`, in Stanford Alpaca's prompt",
        trainable: true,
        asks: true,
        special_tokens: Some(true),
        read: alpaca::read,
    },
    Format {
        name: "prompt_completion",
        types: &["prompt_completion"],
        columns: &["prompt", "completion"],
        beside: &["tools", "chat_template_kwargs"],
        fields: &["field_instruction", "field_output", "field_tools", "field_thinking"],
        description: "`prompt` and `completion`, both texts or both lists of messages; the completion is trained on",
        trainable: true,
        asks: true,
        special_tokens: Some(true),
        read: prompt_completion::read,
    },
    Format {
        name: "custom",
        types: &[],
        columns: &[],
        beside: &[],
        fields: &[],
        description: "columns in a prompt that the recipe writes itself",
        trainable: true,
        asks: true,
        special_tokens: Some(true),
        read: custom::read,
    },
    Format {
        name: "input_output",
        types: &["input_output"],
        columns: &["segments"],
        beside: &[],
        fields: &[],
        description: "`segments` of text, each with a `label` that is true where it is trained on",
        trainable: true,
        asks: false,
        special_tokens: Some(false),
        read: input_output::read,
    },
    Format {
        name: "pretokenized",
        types: &["pretokenized"],
        columns: &["input_ids"],
        beside: &[],
        fields: &[],
        description: "token ids in `input_ids`, with optional `labels` and `attention_mask`",
        trainable: true,
        asks: false,
        special_tokens: None,
        read: pretokenized::read,
    },
    Format {
        name: "completion",
        types: &["completion", "text"],
        columns: &["text"],
        beside: &[],
        fields: &["field"],
        description: "plain text in `text`, all of it trained on",
        trainable: true,
        asks: false,
        special_tokens: Some(true),
        read: completion::read,
    },
];

/// A value of `type:` that a recipe may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetType {
    /// The name as a recipe writes it.
    pub name: &'static str,
    /// The format's own name, which all names of a format share.
    pub format: &'static str,
    /// The format's rows in a phrase.
    pub description: &'static str,
    /// If false, rows of this type are read and then refused: no objective trains on them.
    pub trainable: bool,
}

/// The values of `type:` that are accepted, those of a format one after another.
pub fn dataset_types() -> impl Iterator<Item = DatasetType> {
    FORMATS.iter().flat_map(|&Format { name: format, types, description, trainable, .. }| {
        types.iter().map(move |&name| DatasetType { name, format, description, trainable })
    })
}

fn type_names() -> impl Iterator<Item = &'static str> {
    dataset_types().map(|known| known.name)
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
    let value = match &source.format {
        None => return Ok(None),
        Some(RowFormat::Custom(_)) => return Ok(by_name("custom")),
        Some(RowFormat::Named(name)) => name,
    };
    let found = FORMATS.iter().find(|format| format.types.contains(&value.as_str()));
    if found.is_some() {
        return Ok(found);
    }
    let hint = match nearest(value, type_names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "leave `type` out to have the format recognised by the columns".to_owned(),
    };
    Err(Error::UnknownFormat {
        location: source.location.clone(),
        value: value.clone(),
        accepted: quoted_list(type_names()),
        hint,
    })
}

/// The formats that are recognised by their columns.
fn by_columns() -> impl Iterator<Item = &'static Format> {
    FORMATS.iter().filter(|format| !format.columns.is_empty())
}

/// The first format whose columns are among `columns`.
fn fitting(columns: &Map<String, Value>) -> Option<&'static Format> {
    by_columns().find(|format| format.columns.iter().all(|column| columns.contains_key(*column)))
}

/// Advice on a row that lacks a column which `format` reads: another type, or where the rows seem to be.
pub(crate) fn advice(row: &Row, format: &Format) -> Option<String> {
    const CHATS: [&str; 2] = ["chat", "sharegpt"];
    // Columns of a question and its answer can become turns; the format itself gives advice on that.
    let suits = |fitting: &&Format| !CHATS.contains(&format.name) || CHATS.contains(&fitting.name);
    let fitting = fitting(&row.columns).filter(|fitting| fitting.trainable && fitting.name != format.name);
    if let Some(fitting) = fitting.filter(suits) {
        let columns = quoted_list(fitting.columns);
        // Of the names of conversations, that of Axolotl's recipes.
        let name = fitting.types.iter().find(|name| **name == "chat_template").unwrap_or(&fitting.types[0]);
        return Some(format!("the row has {columns}: set `type: {name}`, or leave `type` out"));
    }
    rows_within(&row.columns)
}

/// Advice on an object that is no row but holds the rows in one of its columns, as `{"data": [...]}`.
fn rows_within(columns: &Map<String, Value>) -> Option<String> {
    let holds_rows = |value: &Value| value.get(0).and_then(Value::as_object).is_some_and(|row| fitting(row).is_some());
    let (name, _) = columns.iter().find(|(_, value)| holds_rows(value))?;
    Some(format!("the rows are in `{name}`: write that list alone into the file, or one object per line"))
}

/// The format that fits a row's columns.
pub(crate) fn recognise(row: &Row, place: &str, source: &SourceSettings) -> Result<&'static Format, Error> {
    fitting(&row.columns).ok_or_else(|| Error::UnrecognisedColumns {
        place: place.to_owned(),
        columns: quoted_list(row.columns.keys()),
        accepted: quoted_list(by_columns().map(|format| format.columns.join("` + `"))),
        hint: match (rows_within(&row.columns), chat::question_columns(row)) {
            (Some(hint), _) => hint,
            (None, Some((question, answer))) => format!(
                "for a question and its answer set `type: chat_template`, `field_instruction: {question}` and \
                 `field_output: {answer}` at {}",
                source.location
            ),
            (None, None) => {
                format!("name the format with `type:` and the columns with `field_...` at {}", source.location)
            }
        },
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
        let error = error.unwrap_err().shown();
        assert!(error.starts_with("a.jsonl:7: no format fits the columns `question` and `answer`"), "{error}");
        let hint =
            "set `type: chat_template`, `field_instruction: question` and `field_output: answer` at recipe.yaml:3:5";
        assert!(error.contains(hint), "{error}");
    }

    #[test]
    fn an_unknown_type_gets_a_suggestion() {
        let mut source = SourceSettings::new("a.jsonl", "recipe.yaml:3:5");
        source.format = Some("alpacca".into());
        let error = named(&source).unwrap_err().shown();
        assert!(
            error.starts_with("recipe.yaml:3:5: unknown data set type `alpacca`, accepted are `preference`"),
            "{error}"
        );
        assert!(error.ends_with("hint: did you mean `alpaca`?"), "{error}");
        source.format = Some("chat_template.default".into());
        assert_eq!(named(&source).unwrap().unwrap().name, "chat");
    }
}
