//! Texts in parts, and the stretches of a text that a row wants trained, or not.
//!
//! As in Axolotl, parts are joined to one text, a part may say for itself whether it is trained on (`train`, or
//! `weight`, of which 0 means no), and a message may list stretches of its text in the key that
//! `message_field_training_detail` names.

use serde_json::Value;

use crate::reading::{RowProblem, described, wrong_type};
use crate::text::TrainingDetail;

/// The keys of a part that may hold its text, the first of which counts.
const TEXT_KEYS: [&str; 3] = ["text", "content", "value"];

/// The text of a list of parts, and its stretches if a part says whether it is trained on.
pub(super) fn joined(parts: &[Value], field: &str) -> Result<(String, Option<Vec<TrainingDetail>>), RowProblem> {
    let mut text = String::new();
    let mut details = Vec::new();
    let mut is_marked = false;
    let mut first = 0;
    for (index, part) in parts.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let own = part_text(part, &field)?;
        let choice = part_choice(part, &field)?;
        is_marked |= choice.is_some();
        let characters = own.chars().count();
        if characters > 0 {
            details.push(TrainingDetail { first, last: first + characters - 1, trained: choice.unwrap_or(true) });
        }
        first += characters;
        text.push_str(own);
    }
    Ok((text, is_marked.then_some(details)))
}

/// True if an item of a list is a part: an object with a type, or with a text.
pub(super) fn is_part(item: &Value) -> bool {
    let has_text = || TEXT_KEYS.iter().any(|key| item.get(key).is_some_and(Value::is_string));
    item.get("type").is_some() || has_text()
}

fn part_text<'a>(part: &'a Value, field: &str) -> Result<&'a str, RowProblem> {
    if let Value::String(text) = part {
        return Ok(text);
    }
    let texts: Vec<&Value> = TEXT_KEYS.iter().filter_map(|key| part.get(key)).collect();
    let text = texts.iter().find_map(|text| text.as_str().filter(|text| !text.is_empty()));
    match text {
        Some(text) => Ok(text),
        None if texts.iter().any(|text| text.is_string() || text.is_null()) => Ok(""),
        None => {
            let found = part.get("type").and_then(Value::as_str).map(|kind| format!("a part of type `{kind}`"));
            Err(RowProblem::new(
                format!("the field `{field}` is {}, accepted is a text part", found.unwrap_or(described(part))),
                "only text is trained on: write `{\"type\": \"text\", \"text\": ...}`, and leave rows with pictures or sound out",
            ))
        }
    }
}

fn part_choice(part: &Value, field: &str) -> Result<Option<bool>, RowProblem> {
    let given = |key: &str| part.get(key).filter(|value| !value.is_null());
    if let Some(train) = given("train") {
        let wrong = || wrong_type(&format!("{field}.train"), train, "true or false, or 1 or 0");
        return flag(train).map(Some).ok_or_else(wrong);
    }
    match given("weight") {
        None => Ok(None),
        Some(Value::Bool(trained)) => Ok(Some(*trained)),
        Some(Value::Number(weight)) => Ok(Some(weight.as_f64() != Some(0.0))),
        Some(other) => Err(wrong_type(&format!("{field}.weight"), other, "a number")),
    }
}

/// True or false, or 1 or 0.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        _ => None,
    }
}

/// The stretches that a message lists: objects with `begin_offset`, `end_offset` (the last character) and `train`.
pub(super) fn listed(value: &Value, field: &str) -> Result<Vec<TrainingDetail>, RowProblem> {
    let Value::Array(entries) = value else {
        return Err(wrong_type(field, value, "a list of objects with `begin_offset`, `end_offset` and `train`"));
    };
    let detail = |(index, entry): (usize, &Value)| {
        let part = |key: &str| (format!("{field}[{index}].{key}"), entry.get(key).unwrap_or(&Value::Null));
        let offset = |key: &str| {
            let (field, value) = part(key);
            let offset = value.as_u64().and_then(|offset| usize::try_from(offset).ok());
            offset.ok_or_else(|| wrong_type(&field, value, "a whole number from 0"))
        };
        let (field, train) = part("train");
        let trained = flag(train);
        let trained = trained.ok_or_else(|| wrong_type(&field, train, "true or false, or 1 or 0"))?;
        Ok(TrainingDetail { first: offset("begin_offset")?, last: offset("end_offset")?, trained })
    };
    entries.iter().enumerate().map(detail).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn details(text: &[(usize, usize, bool)]) -> Vec<TrainingDetail> {
        text.iter()
            .map(|(first, last, trained)| TrainingDetail { first: *first, last: *last, trained: *trained })
            .collect()
    }

    #[test]
    fn parts_are_joined_and_say_whether_they_are_trained_on() {
        let parts = |value: Value| joined(value.as_array().unwrap(), "content").unwrap();
        assert_eq!(parts(json!([{"type": "text", "text": "a"}, {"text": "b"}])), ("ab".to_owned(), None));
        assert_eq!(
            parts(json!([{"content": "a"}, {"value": "b"}, {"text": "", "value": "c"}, {"text": null}])).0,
            "abc"
        );
        // Axolotl's `training_detail` of the same parts.
        let (text, marked) = parts(json!([
            {"type": "text", "text": "Two and two", "train": false},
            {"type": "text", "text": " é four."},
            {"type": "text", "text": "", "weight": 0},
            {"type": "text", "text": "!", "weight": 0, "train": null},
            {"type": "text", "text": "?", "weight": 0.5},
        ]));
        assert_eq!(text, "Two and two é four.!?");
        assert_eq!(marked, Some(details(&[(0, 10, false), (11, 18, true), (19, 19, false), (20, 20, true)])));
    }

    #[test]
    fn what_is_wrong_with_a_part_is_named() {
        let problem = |value: Value| joined(value.as_array().unwrap(), "content").unwrap_err().problem;
        assert_eq!(
            problem(json!(["a", {"type": "image", "url": "x"}])),
            "the field `content[1]` is a part of type `image`, accepted is a text part"
        );
        assert_eq!(
            problem(json!([{"text": "a", "train": "no"}])),
            "the field `content[0].train` is the string `no`, accepted is true or false, or 1 or 0"
        );
        assert_eq!(
            problem(json!([{"text": "a", "weight": "0"}])),
            "the field `content[0].weight` is the string `0`, accepted is a number"
        );
    }

    #[test]
    fn listed_stretches_are_checked() {
        let list = json!([{"begin_offset": 0, "end_offset": 4, "train": true}]);
        assert_eq!(listed(&list, "d"), Ok(details(&[(0, 4, true)])));
        let problem = |value: Value| listed(&value, "d").unwrap_err().problem;
        assert!(problem(json!("x")).starts_with("the field `d` is the string `x`, accepted is a list of objects"));
        assert_eq!(
            problem(json!([{"begin_offset": -1, "end_offset": 4, "train": true}])),
            "the field `d[0].begin_offset` is `-1`, accepted is a whole number from 0"
        );
        assert_eq!(
            problem(json!([{"begin_offset": 0, "end_offset": 4}])),
            "the field `d[0].train` is null, accepted is true or false, or 1 or 0"
        );
    }
}
