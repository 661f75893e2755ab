//! A sample becomes token ids and a mask of those that are trained on.
//!
//! Masks come from the bytes that tokens cover in the one rendered text. Oddities of a row (no
//! end-of-turn token, two BOS tokens ...) are noted here and assessed when all rows are known.

use std::ops::Range;

use super::formats::trained_role;
use super::hidden::{Hidden, hidden};
use super::sample::{Sample, Segment};
use crate::foundation::{Error, SourceSettings, TrainOnEnd};
use crate::reading::{RowProblem, described};
use crate::text::{
    Conversation, DetailedText, Encoded, LocatedTurn, Message, NO_TEMPLATE, REASONING, Tokenizer, TurnEnd, located_text,
};

/// The number of tokens among which an end-of-turn token is looked for after a turn, as in Axolotl.
const END_WITHIN: usize = 4;

/// The oddities of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oddities {
    /// A trained turn is not closed by an end-of-turn token.
    pub(crate) without_end_of_turn: bool,
    /// It begins with two BOS tokens.
    pub(crate) doubled_bos: bool,
    /// The template left out or changed a part of a trained turn.
    pub(crate) altered: bool,
    /// A turn that is trained on is empty.
    pub(crate) empty_answer: bool,
    /// The first unknown role.
    pub(crate) unknown_role: Option<String>,
    /// Messages say by themselves if they are trained on.
    pub(crate) flagged: bool,
    /// What the template does not show.
    pub(crate) hidden: Hidden,
    /// Columns with a known meaning that are not read.
    pub(crate) unread: Vec<String>,
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
        let roles = roles.iter().map(|role| trained_role(role, source));
        let on_eos = source.train_on_eos.unwrap_or(TrainOnEnd::Turn);
        Training {
            roles: roles.collect(),
            on_eos,
            on_eot: source.train_on_eot.unwrap_or(on_eos),
            on_inputs: train_on_inputs,
        }
    }

    /// True if a message is trained on: by its own choice, else by its role unless it is part of a prompt.
    fn chooses(&self, message: &Message, is_prompt: bool) -> bool {
        let by_role = || !is_prompt && self.roles.contains(&message.role);
        message.own_choice().unwrap_or_else(|| self.on_inputs || by_role())
    }

    /// The ids that end a turn and whether they are trained on: end-of-turn and end-of-sequence tokens.
    fn ends(&self, tokenizer: &Tokenizer) -> [(Vec<u32>, TrainOnEnd); 2] {
        [(tokenizer.eot_ids().to_vec(), self.on_eot), (tokenizer.eos_id().into_iter().collect(), self.on_eos)]
    }

    fn only_assistants(&self) -> bool {
        self.roles.len() == 1 && self.roles[0] == "assistant" && !self.on_inputs
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
        Sample::Answer { prompt, completion, apart: true, .. } => mask_apart(tokenizer, prompt, completion, training)?,
        Sample::Answer { prompt, completion, .. } => {
            let text = format!("{prompt}{completion}");
            let mut masked = mask_text(tokenizer, &text, prompt.len(), !completion.is_empty(), training)?;
            masked.oddities.empty_answer = completion.trim().is_empty();
            masked
        }
        Sample::Text(text) => {
            let mut masked = mask_text(tokenizer, text, 0, !text.is_empty(), training)?;
            masked.oddities.empty_answer = text.trim().is_empty();
            masked
        }
        Sample::Segments(segments) => mask_segments(tokenizer, segments)?,
        Sample::Tokens { tokens, trained } => mask_tokens(tokenizer, tokens, trained)?,
        Sample::Preference { .. } | Sample::Judged { .. } => {
            return Err(RowProblem::new(
                "the row compares answers, which no objective trains on yet",
                "train on one answer: `type: prompt_completion`, for pairs with `field_output: chosen`",
            ));
        }
    };
    if training.on_inputs && !matches!(sample, Sample::Tokens { .. } | Sample::Chat(_)) {
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

/// Plain text: trained from byte `start` on, and closed by the end-of-sequence token if `closed` is set.
fn mask_text(
    tokenizer: &Tokenizer,
    text: &str,
    start: usize,
    closed: bool,
    training: &Training,
) -> Result<Masked, RowProblem> {
    let Encoded { mut ids, offsets } = tokenizer.encode_with_offsets(text, true).map_err(encoding_failed)?;
    let mut trained: Vec<bool> = offsets.iter().map(|(_, end)| *end > start).collect();
    let Some(eos) = tokenizer.eos_id() else {
        let oddities = Oddities { without_end_of_turn: true, ..Oddities::default() };
        return Ok(Masked { tokens: ids, trained, oddities });
    };
    // The row may end in the end-of-sequence token, and some tokenizers add it by themselves, without bytes.
    let ends_in_eos = ids.last() == Some(&eos);
    if !closed {
        let added = ends_in_eos && offsets.last().is_some_and(|(start, end)| start == end);
        ids.truncate(ids.len() - usize::from(added));
        trained.truncate(ids.len());
        return Ok(Masked { tokens: ids, trained, oddities: Oddities::default() });
    }
    if ends_in_eos {
        trained.pop();
    } else {
        ids.push(eos);
    }
    trained.push(training.on_eos != TrainOnEnd::None);
    Ok(Masked { tokens: ids, trained, oddities: Oddities::default() })
}

/// A prompt and the text that follows it, each tokenised by itself as Axolotl does, the second without BOS.
///
/// Nothing closes an empty text.
fn mask_apart(
    tokenizer: &Tokenizer,
    prompt: &str,
    completion: &str,
    training: &Training,
) -> Result<Masked, RowProblem> {
    let encode = |text: &str| match text {
        "" => Ok(Vec::new()),
        text => tokenizer.encode(text, true).map_err(encoding_failed),
    };
    let mut tokens = encode(prompt)?;
    let asked = tokens.len();
    let mut answer = encode(completion)?;
    if answer.first().is_some_and(|first| tokenizer.bos_id() == Some(*first)) {
        answer.remove(0);
    }
    tokens.extend(&answer);
    let mut trained: Vec<bool> = (0..tokens.len()).map(|token| token >= asked).collect();
    let mut oddities = Oddities { empty_answer: completion.trim().is_empty(), ..Oddities::default() };
    match tokenizer.eos_id() {
        None => oddities.without_end_of_turn = true,
        Some(_) if completion.is_empty() => {}
        Some(eos) => {
            if answer.last() == Some(&eos) {
                trained.pop();
            } else {
                tokens.push(eos);
            }
            trained.push(training.on_eos != TrainOnEnd::None);
        }
    }
    Ok(Masked { tokens, trained, oddities })
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

/// The conversation without marks in reasoning that the template never reads: they say nothing of the turn that it writes.
fn without_unread_details(tokenizer: &Tokenizer, conversation: &Conversation) -> Option<Conversation> {
    let is_marked = conversation.messages.iter().any(|message| message.reasoning_details.is_some());
    if !is_marked || tokenizer.template_reads(REASONING, conversation.tools.as_ref()) {
        return None;
    }
    let mut seen = conversation.clone();
    seen.messages.iter_mut().for_each(|message| message.reasoning_details = None);
    Some(seen)
}

fn mask_chat(tokenizer: &Tokenizer, conversation: &Conversation, training: &Training) -> Result<Masked, RowProblem> {
    let tools = conversation.tools.as_ref();
    if !tokenizer.has_template_for(tools) {
        return Err(RowProblem::new(NO_TEMPLATE.0, NO_TEMPLATE.1));
    }
    let seen = without_unread_details(tokenizer, conversation);
    let conversation = seen.as_ref().unwrap_or(conversation);
    let tools = conversation.tools.as_ref();
    let messages = &conversation.messages;
    let forms = &tokenizer.turns(tools).forms;
    let unreadable = |(index, message)| Some((index, forms.unreadable_arguments(message)?));
    if let Some((index, (call, text))) = messages.iter().enumerate().find_map(unreadable) {
        return Err(RowProblem::new(
            format!(
                "the arguments of `messages[{index}].tool_calls[{call}]` are {}, which is not JSON, and the chat template \
                 reads them as an object",
                described(&text.into())
            ),
            "write them as JSON: `{\"city\": \"Rome\"}`",
        ));
    }
    let chosen: Vec<bool> = messages
        .iter()
        .enumerate()
        .map(|(index, message)| training.chooses(message, index < conversation.prompt_messages))
        .collect();
    let all_ends = [training.on_eos, training.on_eot].contains(&TrainOnEnd::All);
    let wanted: Vec<bool> = chosen.iter().map(|chosen| *chosen || all_ends).collect();
    let use_tags = tokenizer.template_marks_generation(tools)
        && training.only_assistants()
        && !all_ends
        && conversation.prompt_messages == 0
        && messages.iter().all(|message| message.own_choice().is_none());
    let located = located_text(tokenizer, conversation, &wanted, use_tags).map_err(|problem| {
        let (problem, hint) = problem.described();
        RowProblem::new(problem, hint)
    })?;
    let encoded = tokenizer.encode_with_offsets(&located.text, false).map_err(encoding_failed)?;

    let mut oddities = Oddities {
        unknown_role: conversation.unknown_role.clone(),
        flagged: conversation.flagged,
        hidden: hidden(tokenizer, conversation, &located.text),
        ..Oddities::default()
    };
    let mut trained = vec![false; encoded.ids.len()];
    let ends = training.ends(tokenizer);
    let mut last_ends = [None; 2];
    for turn in &located.turns {
        let message = turn.message.and_then(|index| messages.get(index));
        let is_trained = turn.message.is_none_or(|index| chosen[index]);
        let said = &located.text[turn.said.clone()];
        // Inputs may be empty.
        let answers =
            message.is_none_or(|message| message.own_choice() == Some(true) || training.roles.contains(&message.role));
        oddities.empty_answer |= is_trained && answers && says_nothing(tokenizer, said);
        if turn.said.is_empty() {
            continue;
        }
        let (content, places) = turn_tokens(&encoded, turn, &ends);
        match &turn.detailed {
            _ if !is_trained => {}
            None => trained[content].fill(true),
            Some(texts) => {
                texts.iter().for_each(|detailed| mask_details(&located.text, &encoded, detailed, &mut trained))
            }
        }
        for (index, (place, (_, rule))) in places.into_iter().zip(&ends).enumerate() {
            let Some(place) = place else { continue };
            last_ends[index] = Some(place);
            trained[place] |= *rule == TrainOnEnd::All || *rule == TrainOnEnd::Turn && is_trained;
        }
        let expects_end = ends.iter().any(|(_, rule)| *rule != TrainOnEnd::None);
        oddities.without_end_of_turn |= is_trained && expects_end && places == [None; 2];
        if let Some(message) = message.filter(|_| is_trained) {
            oddities.altered |= !located.text.contains(message.text().trim());
        }
    }
    for (place, (_, rule)) in last_ends.into_iter().zip(&ends) {
        if let Some(place) = place.filter(|_| *rule == TrainOnEnd::Last) {
            trained[place] = true;
        }
    }
    Ok(Masked { tokens: encoded.ids, trained, oddities })
}

/// True if a turn is nothing but whitespace and its end.
fn says_nothing(tokenizer: &Tokenizer, said: &str) -> bool {
    let said = said.trim();
    let is_end = |id: &u32| tokenizer.token_text(*id).is_some_and(|token| said == token);
    said.is_empty() || tokenizer.end_of_turn_ids().iter().any(is_end)
}

/// The tokens that a turn says, and those that end it: one for each entry of `ends`.
fn turn_tokens(
    encoded: &Encoded,
    turn: &LocatedTurn,
    ends: &[(Vec<u32>, TrainOnEnd); 2],
) -> (Range<usize>, [Option<usize>; 2]) {
    let first = encoded.offsets.partition_point(|(_, end)| *end <= turn.said.start);
    let past = encoded.offsets.partition_point(|(start, _)| *start < turn.said.end).max(first);
    let tokens = encoded.ids.len();
    let is_end = |token: &usize| ends.iter().any(|(ids, _)| ids.contains(&encoded.ids[*token]));
    let (past, within) = match turn.end {
        TurnEnd::After => (past, past + END_WITHIN),
        TurnEnd::Later => {
            let end = (first..tokens).find(is_end).unwrap_or(past);
            (end, end + END_WITHIN)
        }
        TurnEnd::Inside => ((first..past).next_back().filter(is_end).unwrap_or(past), past),
    };
    let place =
        |(ids, _): &(Vec<u32>, TrainOnEnd)| (past..within.min(tokens)).find(|token| ids.contains(&encoded.ids[*token]));
    (first..past, ends.each_ref().map(place))
}

/// Marks the tokens of a text's stretches that are trained on.
fn mask_details(text: &str, encoded: &Encoded, detailed: &DetailedText, trained: &mut [bool]) {
    let DetailedText { shown, skipped, details } = detailed;
    let first = encoded.offsets.partition_point(|(_, end)| *end <= shown.start);
    let past = encoded.offsets.partition_point(|(start, _)| *start < shown.end).max(first);
    let starts: Vec<usize> = text[shown.clone()].char_indices().map(|(start, _)| shown.start + start).collect();
    // The character that a byte belongs to.
    let character = |byte: usize| (skipped + starts.partition_point(|start| *start <= byte)).saturating_sub(1);
    for (token, trained) in trained.iter_mut().enumerate().take(past).skip(first) {
        // A token ends where the next begins: several may share a character.
        let begins = character(encoded.offsets[token].0.max(shown.start)) as isize;
        let next = if token + 1 == past { skipped + starts.len() } else { character(encoded.offsets[token + 1].0) };
        let ends = next as isize - 1;
        *trained |= details.iter().any(|detail| detail.trained && detail.covers(begins, ends));
    }
}

fn encoding_failed(error: Error) -> RowProblem {
    RowProblem::new(
        format!("the text cannot be tokenised: {error}"),
        "check that the tokenizer belongs to the base model",
    )
}

#[cfg(test)]
mod tests;
