//! Preference: an answer to prefer and one to avoid, or one answer with a label that is true if it is wanted.
//!
//! As in TRL, `chosen` and `rejected` are texts, lists of messages, or single messages after a `prompt`
//! (or Axolotl's `messages`); without one, the prompt is what both have in common. Kahneman-Tversky rows
//! have `prompt`, `completion` and `label`.

use serde_json::Value;

use super::roles::CHAT;
use crate::foundation::SourceSettings;
use crate::reading::{Row, RowProblem, wrong_type};
use crate::rows::sample::Sample;
use crate::text::Conversation;

/// The row as two samples that share their beginning.
pub(super) fn read(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    let (chosen, rejected) = (row.value("chosen", "type")?, row.value("rejected", "type")?);
    let prompt = ["prompt", "messages"].into_iter().find_map(|name| Some((name, row.columns.get(name)?)));
    match (chosen, rejected) {
        (Value::String(chosen), Value::String(rejected)) => {
            let prompt = match prompt {
                None => shared_text(chosen, rejected),
                Some((_, Value::String(prompt))) => prompt,
                Some((name, other)) => return Err(wrong_type(name, other, "a string, as the answers are")),
            };
            let sample = |text: &str| {
                let completion = text.strip_prefix(prompt).unwrap_or(text).to_owned();
                Box::new(Sample::Answer {
                    prompt: prompt.to_owned(),
                    completion,
                    shown: prompt.to_owned(),
                    apart: false,
                })
            };
            Ok(Sample::Preference { chosen: sample(chosen), rejected: sample(rejected) })
        }
        _ => {
            let prompt = match prompt {
                None => Conversation { variables: source.template_variables.clone(), ..Conversation::default() },
                Some((name, value)) => super::messages::messages(value, name, source, &CHAT)?,
            };
            let (chosen, rejected) = (answer("chosen", chosen, source)?, answer("rejected", rejected, source)?);
            let pairs = chosen.messages.iter().zip(&rejected.messages);
            let trained_from = prompt.messages.len() + pairs.take_while(|(one, other)| one == other).count();
            let sample = |answer: Conversation| {
                let mut conversation = prompt.clone();
                conversation.messages.extend(answer.messages);
                let asked = conversation.messages.iter_mut().take(trained_from);
                asked.for_each(|message| message.trained = Some(false));
                conversation.tools = super::messages::tools(row, source)?;
                conversation.unknown_role = conversation.unknown_role.or(answer.unknown_role);
                Ok(Box::new(Sample::Chat(conversation)))
            };
            Ok(Sample::Preference { chosen: sample(chosen)?, rejected: sample(rejected)? })
        }
    }
}

/// The row as a prompt and an answer that is wanted or not.
pub(super) fn read_labelled(row: &Row, source: &SourceSettings) -> Result<Sample, RowProblem> {
    let answer = Box::new(super::prompt_completion::read(row, source)?);
    match row.value("label", "type")? {
        Value::Bool(desirable) => Ok(Sample::Judged { answer, desirable: *desirable }),
        other => Err(wrong_type("label", other, "true or false")),
    }
}

/// The messages of an answer: a list, or one message by itself.
fn answer(column: &str, value: &Value, source: &SourceSettings) -> Result<Conversation, RowProblem> {
    match value {
        Value::Array(_) => super::messages::messages(value, column, source, &CHAT),
        Value::Object(_) => super::messages::messages(&Value::Array(vec![value.clone()]), column, source, &CHAT),
        other => Err(wrong_type(column, other, "a message or a list of messages, as the other answer is")),
    }
}

/// The common beginning of two texts, without a space at its end.
fn shared_text<'a>(one: &'a str, other: &str) -> &'a str {
    let differs = one.char_indices().zip(other.chars()).find(|((_, left), right)| left != right);
    let end = differs.map_or(one.len().min(other.len()), |((index, _), _)| index);
    one[..end].strip_suffix(' ').unwrap_or(&one[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: Value) -> Row {
        Row { columns: value.as_object().unwrap().clone() }
    }

    fn pair(value: Value) -> (Sample, Sample) {
        match read(&row(value), &SourceSettings::default()).unwrap() {
            Sample::Preference { chosen, rejected } => (*chosen, *rejected),
            other => panic!("{other:?}"),
        }
    }

    fn answer_of(prompt: &str, completion: &str) -> Sample {
        let shown = prompt.to_owned();
        Sample::Answer { prompt: prompt.to_owned(), completion: completion.to_owned(), shown, apart: false }
    }

    #[test]
    fn texts_share_their_prompt_whether_it_is_named_or_not() {
        let wanted = (answer_of("1 + 1 =", " 2"), answer_of("1 + 1 =", " 3"));
        assert_eq!(pair(json!({"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"})), wanted);
        assert_eq!(pair(json!({"chosen": "1 + 1 = 2", "rejected": "1 + 1 = 3"})), wanted);
    }

    #[test]
    fn messages_are_trained_on_from_where_they_differ() {
        let (user, good, bad) = (
            json!({"role": "user", "content": "1 + 1?"}),
            json!({"role": "assistant", "content": "2"}),
            json!({"role": "assistant", "content": "3"}),
        );
        for value in [
            json!({"prompt": [user], "chosen": [good], "rejected": [bad]}),
            json!({"messages": [user], "chosen": good, "rejected": bad}),
            json!({"chosen": [user, good], "rejected": [user, bad]}),
        ] {
            let (Sample::Chat(chosen), Sample::Chat(rejected)) = pair(value) else { panic!("conversations") };
            let trained = |conversation: &Conversation| -> Vec<Option<bool>> {
                conversation.messages.iter().map(|message| message.trained).collect()
            };
            assert_eq!((trained(&chosen), trained(&rejected)), (vec![Some(false), None], vec![Some(false), None]));
            assert_eq!((chosen.messages[1].text(), rejected.messages[1].text()), ("2".to_owned(), "3".to_owned()));
        }
    }

    #[test]
    fn labels_say_which_answers_are_wanted() {
        let source = SourceSettings::default();
        let read =
            |label: Value| read_labelled(&row(json!({"prompt": "a", "completion": "b", "label": label})), &source);
        assert_eq!(read(json!(false)), Ok(Sample::Judged { answer: Box::new(answer_of("a", "b")), desirable: false }));
        assert_eq!(
            read(json!("no")).unwrap_err().problem,
            "the field `label` is the string `no`, accepted is true or false"
        );
    }

    #[test]
    fn answers_of_two_kinds_are_refused() {
        let problem = read(&row(json!({"chosen": "a", "rejected": []})), &SourceSettings::default()).unwrap_err();
        assert!(
            problem.problem.starts_with("the field `chosen` is the string `a`, accepted is a message"),
            "{problem:?}"
        );
    }
}
