//! The fate of each row once it is tokens: it is kept, cut, left out, or a reason not to start.
//!
//! A defect of a few rows is counted. A defect of most rows ends the loading, unless the recipe allows
//! it by name: training on such rows would look healthy and teach nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::example::Example;
use super::mask::Masked;
use super::sample::Sample;
use crate::foundation::{DatasetSettings, Defect, Error, Excess, and_more};

/// The place of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Index of its file.
    pub(crate) file: usize,
    /// Its line or row, from 1.
    pub(crate) line: usize,
    /// The number of rows before it in the file: a line may hold several.
    pub(crate) row: usize,
}

/// The number of rows with a defect, and the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Occurrences {
    pub(crate) count: usize,
    pub(crate) first: Option<Place>,
}

impl Occurrences {
    fn note(&mut self, place: Place) {
        self.count += 1;
        self.first.get_or_insert(place);
    }
}

/// The content of a row, as far as checks need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Turns.
    Conversation,
    /// One text, which may become several examples.
    Text,
    /// Anything else.
    Other,
}

impl Content {
    pub(crate) fn of(sample: &Sample) -> Content {
        match sample {
            Sample::Chat(_) => Content::Conversation,
            Sample::Text(_) => Content::Text,
            _ => Content::Other,
        }
    }
}

/// The findings in the rows of a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) rows: usize,
    pub(crate) conversations: usize,
    pub(crate) truncated: usize,
    pub(crate) truncated_answers: usize,
    pub(crate) dropped: usize,
    pub(crate) split_texts: usize,
    pub(crate) altered: usize,
    /// Rows longer than a sequence, kept or not.
    pub(crate) over_length: usize,
    /// The tokens by which they are longer, together.
    pub(crate) over_length_tokens: usize,
    /// The first row that is too long, if that is an error, with its tokens.
    pub(crate) too_long: Option<(Place, usize)>,
    /// From a length in tokens to the rows of that length, before anything is cut.
    pub(crate) lengths: BTreeMap<usize, usize>,
    pub(crate) defects: BTreeMap<Defect, Occurrences>,
    /// The first unknown role.
    pub(crate) unknown_role: Option<String>,
    /// Rows with messages that say by themselves if they are trained on.
    pub(crate) flagged: usize,
    /// From a column with a known meaning that is not read to the rows that have it.
    pub(crate) unread: BTreeMap<String, usize>,
    /// What people should know of the way the files were read.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

impl Findings {
    /// The number of rows that have a defect.
    pub(crate) fn count(&self, defect: Defect) -> usize {
        self.defects.get(&defect).map_or(0, |found| found.count)
    }

    /// The same findings with `files` added to the indices of files.
    pub(crate) fn with_files_from(mut self, files: usize) -> Findings {
        let place = |place: &mut Place| place.file += files;
        self.defects.values_mut().filter_map(|found| found.first.as_mut()).for_each(place);
        if let Some((place, _)) = &mut self.too_long {
            place.file += files;
        }
        self
    }

    /// Adds the findings of a later source.
    pub(crate) fn add(&mut self, other: Findings) {
        self.rows += other.rows;
        self.conversations += other.conversations;
        self.truncated += other.truncated;
        self.truncated_answers += other.truncated_answers;
        self.dropped += other.dropped;
        self.split_texts += other.split_texts;
        self.altered += other.altered;
        self.over_length += other.over_length;
        self.over_length_tokens += other.over_length_tokens;
        self.too_long = self.too_long.or(other.too_long);
        self.notes.extend(other.notes);
        for (length, rows) in other.lengths {
            *self.lengths.entry(length).or_default() += rows;
        }
        self.unknown_role = self.unknown_role.take().or(other.unknown_role);
        self.flagged += other.flagged;
        for (column, rows) in other.unread {
            *self.unread.entry(column).or_default() += rows;
        }
        for (defect, found) in other.defects {
            let own = self.defects.entry(defect).or_default();
            own.count += found.count;
            own.first = own.first.or(found.first);
        }
    }

    /// Fails if a row is too long, or if most rows share a defect; `place` gives a place as text.
    pub(crate) fn verdict(&self, settings: &DatasetSettings, place: impl Fn(Place) -> String) -> Result<(), Error> {
        if let Some((first, tokens)) = self.too_long {
            return Err(Error::TooLong {
                place: place(first),
                tokens,
                limit: settings.sequence_len,
                more: and_more(self.over_length - 1, "longer row"),
            });
        }
        // Roles that are unknown are the reason for turns that are not trained.
        let by_cause = |(defect, _): &(&Defect, &Occurrences)| **defect != Defect::UnknownRoles;
        let (others, roles): (Vec<_>, Vec<_>) = self.defects.iter().partition(by_cause);
        for (defect, found) in roles.into_iter().chain(others) {
            let is_rule = found.count * 2 > self.rows && !settings.allowed.contains(defect);
            if let Some(first) = found.first.filter(|_| is_rule) {
                let (problem, hint) = defect.described();
                let problem = match &self.unknown_role {
                    Some(role) if *defect == Defect::UnknownRoles => {
                        problem.replace("an unknown role", &format!("the unknown role `{role}`"))
                    }
                    _ => problem.to_owned(),
                };
                return Err(Error::Rule {
                    place: place(first),
                    problem,
                    count: found.count,
                    rows: self.rows,
                    hint: hint.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Checks the rows of a source one by one.
#[derive(Debug)]
pub(crate) struct RowChecks {
    limit: usize,
    excess: Excess,
    pub(crate) findings: Findings,
}

impl RowChecks {
    pub(crate) fn new(settings: &DatasetSettings) -> Self {
        RowChecks { limit: settings.sequence_len.max(1), excess: settings.excess, findings: Findings::default() }
    }

    /// The examples of a row: one, none, or several where a plain text is longer than a sequence.
    pub(crate) fn row(&mut self, place: Place, masked: Masked, content: Content) -> Vec<Example> {
        let Masked { tokens, trained, oddities } = masked;
        let length = tokens.len();
        self.findings.rows += 1;
        self.findings.conversations += usize::from(content == Content::Conversation);
        *self.findings.lengths.entry(length).or_default() += 1;
        for (defect, found) in [
            (Defect::DoubledBos, oddities.doubled_bos),
            (Defect::WithoutEndOfTurn, oddities.without_end_of_turn),
            (Defect::EmptyAnswers, oddities.empty_answer),
            (Defect::UnknownRoles, oddities.unknown_role.is_some()),
            (Defect::HiddenTools, oddities.hidden.tools),
            (Defect::HiddenCalls, oddities.hidden.calls),
            (Defect::HiddenReasoning, oddities.hidden.reasoning),
        ] {
            if found {
                self.note(defect, place);
            }
        }
        self.findings.altered += usize::from(oddities.altered);
        self.findings.flagged += usize::from(oddities.flagged);
        self.findings.unknown_role = self.findings.unknown_role.take().or(oddities.unknown_role);
        for column in oddities.unread {
            *self.findings.unread.entry(column).or_default() += 1;
        }
        if length > self.limit {
            self.findings.over_length += 1;
            self.findings.over_length_tokens += length - self.limit;
        }
        let mut example = Example { tokens, trained, file: place.file, line: place.line };
        if example.trained_tokens() == 0 {
            // An empty answer is the reason, and is noted.
            return if oddities.empty_answer { Vec::new() } else { self.nothing_trained(place) };
        }
        if length <= self.limit {
            return vec![example];
        }
        if content == Content::Text && self.excess != Excess::Raise {
            self.findings.split_texts += 1;
            return split(&example, self.limit);
        }
        match self.excess {
            Excess::Drop => {
                self.findings.dropped += 1;
                Vec::new()
            }
            Excess::Raise => {
                self.findings.too_long.get_or_insert((place, length));
                Vec::new()
            }
            Excess::Truncate => {
                self.findings.truncated += 1;
                self.findings.truncated_answers += usize::from(example.trained[self.limit..].contains(&true));
                example.tokens.truncate(self.limit);
                example.trained.truncate(self.limit);
                match example.trained_tokens() {
                    0 => self.nothing_trained(place),
                    _ => vec![example],
                }
            }
        }
    }

    fn nothing_trained(&mut self, place: Place) -> Vec<Example> {
        self.note(Defect::NoTrainedTokens, place);
        Vec::new()
    }

    fn note(&mut self, defect: Defect, place: Place) {
        self.findings.defects.entry(defect).or_default().note(place);
    }
}

/// A long text as examples of at most `limit` tokens; a rest of one token teaches nothing.
fn split(example: &Example, limit: usize) -> Vec<Example> {
    example
        .tokens
        .chunks(limit)
        .zip(example.trained.chunks(limit))
        .map(|(tokens, trained)| Example {
            tokens: tokens.to_vec(),
            trained: trained.to_vec(),
            file: example.file,
            line: example.line,
        })
        .filter(|part| part.trained_tokens() > 0)
        .collect()
}
