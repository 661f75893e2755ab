//! A sample becomes token ids and a mask of those that are trained on.
//!
//! Masks come from the bytes that tokens cover in the one rendered text. Oddities of a row (no
//! end-of-turn token, two BOS tokens ...) are noted here and assessed when all rows are known.

use std::ops::Range;

use super::sample::{Sample, Segment};
use crate::foundation::{Error, SourceSettings, TrainOnEnd};
use crate::reading::RowProblem;
use crate::text::{Conversation, Encoded, Message, NO_TEMPLATE, Tokenizer, TrainedTurn, TurnEnd, trained_text};

/// The oddities of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oddities {
    /// A trained turn is not closed by an end-of-turn token.
    pub(crate) without_end_of_turn: bool,
    /// It begins with two BOS tokens.
    pub(crate) doubled_bos: bool,
    /// The template left out or changed a part of a trained turn.
    pub(crate) altered: bool,
    /// A turn that is trained on is empty.
    pub(crate) empty_answer: bool,
    /// It has an unknown role.
    pub(crate) unknown_role: bool,
}

/// The rules by which turns of a source are trained on.
#[derive(Clone, Debug)]
pub(crate) struct Training {
    roles: Vec<String>,
    on_eos: TrainOnEnd,
    on_eot: TrainOnEnd,
    on_inputs: bool,
}

impl Training {
    /// The rules of a source, with their defaults.
    pub(crate) fn of(source: &SourceSettings, train_on_inputs: bool) -> Training {
        let roles = source.roles_to_train.clone().unwrap_or_else(|| vec!["assistant".to_owned()]);
        let roles = roles.into_iter().map(|role| if role == "gpt" { "assistant".to_owned() } else { role });
        let on_eos = source.train_on_eos.unwrap_or(TrainOnEnd::Turn);
        Training {
            roles: roles.collect(),
            on_eos,
            on_eot: source.train_on_eot.unwrap_or(on_eos),
            on_inputs: train_on_inputs,
        }
    }

    fn end_rule(&self, tokenizer: &Tokenizer, id: u32) -> TrainOnEnd {
        if tokenizer.eos_id() == Some(id) { self.on_eos } else { self.on_eot }
    }

    fn only_assistants(&self) -> bool {
        self.roles.len() == 1 && self.roles[0] == "assistant"
    }
}

/// Tokens with their mask, before the row's place is known.
#[derive(Debug)]
pub(crate) struct Masked {
    pub(crate) tokens: Vec<u32>,
    pub(crate) trained: Vec<bool>,
    pub(crate) oddities: Oddities,
}

/// Turns a sample into tokens and their mask.
pub(crate) fn mask(tokenizer: &Tokenizer, sample: &Sample, training: &Training) -> Result<Masked, RowProblem> {
    let mut masked = match sample {
        Sample::Chat(conversation) => mask_chat(tokenizer, conversation, training)?,
        Sample::Answer { prompt, completion, .. } => {
            let text = format!("{prompt}{completion}");
            let mut masked = mask_text(tokenizer, &text, prompt.len(), training)?;
            masked.oddities.empty_answer = completion.trim().is_empty();
            masked
        }
        Sample::Text(text) => mask_text(tokenizer, text, 0, training)?,
        Sample::Segments(segments) => mask_segments(tokenizer, segments)?,
        Sample::Tokens { tokens, trained } => mask_tokens(tokenizer, tokens, trained)?,
        Sample::Preference { .. } | Sample::Judged { .. } => {
            return Err(RowProblem::new(
                "the row compares answers, which no objective trains on yet",
                "train on one answer: `type: prompt_completion`, for pairs with `field_output: chosen`",
            ));
        }
    };
    if training.on_inputs && !matches!(sample, Sample::Tokens { .. }) {
        masked.trained.fill(true);
    }
    if let (Some(bos), [first, rest @ ..]) = (tokenizer.bos_id(), masked.tokens.as_slice())
        && *first == bos
    {
        masked.trained[0] = false;
        masked.oddities.doubled_bos = rest.first() == Some(&bos);
    }
    Ok(masked)
}

/// Plain text: trained from byte `start` on, and closed by the end-of-sequence token.
fn mask_text(tokenizer: &Tokenizer, text: &str, start: usize, training: &Training) -> Result<Masked, RowProblem> {
    let Encoded { mut ids, offsets } = tokenizer.encode_with_offsets(text, true).map_err(encoding_failed)?;
    let mut trained: Vec<bool> = offsets.iter().map(|(_, end)| *end > start).collect();
    let Some(eos) = tokenizer.eos_id() else {
        let oddities = Oddities { without_end_of_turn: true, ..Oddities::default() };
        return Ok(Masked { tokens: ids, trained, oddities });
    };
    let train_end = training.on_eos != TrainOnEnd::None;
    // Tokenizers that add the end-of-sequence token by themselves give it no bytes.
    let closed = ids.last() == Some(&eos) && offsets.last().is_some_and(|(start, end)| start == end);
    if closed {
        trained.pop();
    } else {
        ids.push(eos);
    }
    trained.push(train_end);
    Ok(Masked { tokens: ids, trained, oddities: Oddities::default() })
}

/// Pieces of one text: a token is trained on if its last byte belongs to a piece that is.
fn mask_segments(tokenizer: &Tokenizer, segments: &[Segment]) -> Result<Masked, RowProblem> {
    let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
    let ends: Vec<usize> = segments
        .iter()
        .scan(0, |end, segment| {
            *end += segment.text.len();
            Some(*end)
        })
        .collect();
    let Encoded { ids, offsets } = tokenizer.encode_with_offsets(&text, false).map_err(encoding_failed)?;
    let is_trained = |(_, end): &(usize, usize)| {
        let segment = ends.partition_point(|segment_end| segment_end < end);
        *end > 0 && segments.get(segment).is_some_and(|segment| segment.trained)
    };
    let trained: Vec<bool> = offsets.iter().map(is_trained).collect();
    Ok(Masked { oddities: oddities_of(tokenizer, &ids, &trained), tokens: ids, trained })
}

fn mask_tokens(tokenizer: &Tokenizer, tokens: &[u32], trained: &[bool]) -> Result<Masked, RowProblem> {
    let known = tokenizer.vocab_size();
    if let Some(id) = tokens.iter().find(|id| **id as usize >= known) {
        return Err(RowProblem::new(
            format!("the id `{id}` is not in the vocabulary, which ends at `{}`", known.saturating_sub(1)),
            "were these rows tokenised for another base model?",
        ));
    }
    let oddities = oddities_of(tokenizer, tokens, trained);
    Ok(Masked { tokens: tokens.to_vec(), trained: trained.to_vec(), oddities })
}

/// The oddities of a row without turns, whose last trained token must end a turn.
fn oddities_of(tokenizer: &Tokenizer, tokens: &[u32], trained: &[bool]) -> Oddities {
    let last = trained.iter().rposition(|trained| *trained);
    let open = last.is_some_and(|last| !tokenizer.end_of_turn_ids().contains(&tokens[last]));
    Oddities { without_end_of_turn: open, ..Oddities::default() }
}

fn mask_chat(tokenizer: &Tokenizer, conversation: &Conversation, training: &Training) -> Result<Masked, RowProblem> {
    if !tokenizer.has_template() {
        return Err(RowProblem::new(NO_TEMPLATE.0, NO_TEMPLATE.1));
    }
    let messages = &conversation.messages;
    let wanted: Vec<bool> = messages
        .iter()
        .map(|message| message.trained.unwrap_or_else(|| training.roles.contains(&message.role)))
        .collect();
    let use_tags = tokenizer.template_marks_generation()
        && training.only_assistants()
        && messages.iter().all(|message| message.trained.is_none());
    let rendered = trained_text(tokenizer, conversation, &wanted, use_tags).map_err(|problem| {
        let (problem, hint) = problem.described();
        RowProblem::new(problem, hint)
    })?;
    let encoded = tokenizer.encode_with_offsets(&rendered.text, false).map_err(encoding_failed)?;

    let mut trained = vec![false; encoded.ids.len()];
    let empty =
        |(message, wanted): (&Message, &bool)| *wanted && !message.calls_tools() && message.text().trim().is_empty();
    let mut oddities = Oddities {
        unknown_role: conversation.unknown_role,
        empty_answer: messages.iter().zip(&wanted).any(empty),
        ..Oddities::default()
    };
    let last = rendered.turns.len().saturating_sub(1);
    for (index, turn) in rendered.turns.iter().enumerate() {
        let (content, end) = turn_tokens(tokenizer, &rendered.text, &encoded, turn);
        trained[content].fill(true);
        match end {
            Some(end) => {
                trained[end] = match training.end_rule(tokenizer, encoded.ids[end]) {
                    TrainOnEnd::Turn | TrainOnEnd::All => true,
                    TrainOnEnd::Last => index == last,
                    TrainOnEnd::None => false,
                };
            }
            None if training.on_eot == TrainOnEnd::None && training.on_eos == TrainOnEnd::None => {}
            None => oddities.without_end_of_turn = true,
        }
        if let Some(message) = turn.message.and_then(|index| messages.get(index)) {
            let (shown, written) = (rendered.text[turn.content.clone()].trim(), message.text());
            oddities.altered |= turn.end == TurnEnd::After && !shown.contains(written.trim());
        }
    }
    for (id, trained) in encoded.ids.iter().zip(&mut trained) {
        let closes = tokenizer.end_of_turn_ids().contains(id);
        *trained |= closes && training.end_rule(tokenizer, *id) == TrainOnEnd::All;
    }
    Ok(Masked { tokens: encoded.ids, trained, oddities })
}

/// The tokens of a turn up to its end-of-turn token, and that token.
fn turn_tokens(
    tokenizer: &Tokenizer,
    text: &str,
    encoded: &Encoded,
    turn: &TrainedTurn,
) -> (Range<usize>, Option<usize>) {
    let first = encoded.offsets.partition_point(|(_, end)| *end <= turn.content.start);
    let past = encoded.offsets.partition_point(|(start, _)| *start < turn.content.end).max(first);
    let ends_turn = |token: usize| tokenizer.end_of_turn_ids().contains(&encoded.ids[token]);
    let end = match turn.end {
        TurnEnd::Inside => (first..past).next_back().filter(|token| ends_turn(*token)),
        TurnEnd::Later => (first..encoded.ids.len()).find(|token| ends_turn(*token)),
        TurnEnd::After => (past..encoded.ids.len())
            .find(|token| {
                let (start, end) = encoded.offsets[*token];
                ends_turn(*token) || !text[start..end].trim().is_empty()
            })
            .filter(|token| ends_turn(*token)),
    };
    (first..end.unwrap_or(past), end)
}

fn encoding_failed(error: Error) -> RowProblem {
    RowProblem::new(
        format!("the text cannot be tokenised: {error}"),
        "check that the tokenizer belongs to the base model",
    )
}

#[cfg(test)]
mod tests;
