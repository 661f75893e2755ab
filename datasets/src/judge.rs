//! What becomes of each row once it is tokens: kept, cut, left out, or the reason not to start.
//!
//! A defect of a few rows is counted; a defect of most rows is the rule and ends the loading,
//! since training on them would look healthy and teach nothing.

use std::path::PathBuf;

use crate::counts::Counts;
use crate::error::{Error, and_more};
use crate::example::{Example, Masked};
use crate::load::shown_path;
use crate::settings::{DatasetSettings, Excess};

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of its file.
    pub(crate) file: usize,
    /// Its line, from 1.
    pub(crate) line: usize,
}

/// Judges rows one by one and all together.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    settings: &'a DatasetSettings,
    counts: Counts,
    /// The first row that is too long, with its tokens.
    too_long: Option<(Place, usize)>,
    nothing_trained: Option<Place>,
    without_end: Option<Place>,
    doubled_bos: Option<Place>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(settings: &'a DatasetSettings) -> Self {
        Judge {
            settings,
            counts: Counts::default(),
            too_long: None,
            nothing_trained: None,
            without_end: None,
            doubled_bos: None,
        }
    }

    /// The examples of a row: one, none, or several where a plain text is longer than a sequence.
    pub(crate) fn row(&mut self, place: Place, masked: Masked, plain_text: bool) -> Vec<Example> {
        let Masked { tokens, trained, oddities } = masked;
        self.counts.rows += 1;
        if oddities.doubled_bos {
            self.counts.doubled_bos += 1;
            self.doubled_bos.get_or_insert(place);
        }
        if oddities.without_end_of_turn {
            self.counts.without_end_of_turn += 1;
            self.without_end.get_or_insert(place);
        }
        self.counts.altered += usize::from(oddities.altered);
        let mut example = Example { tokens, trained, file: place.file, line: place.line };
        if example.trained_tokens() == 0 {
            return self.nothing_to_learn(place);
        }
        let limit = self.settings.sequence_len.max(1);
        let length = example.tokens.len();
        if length <= limit {
            return vec![example];
        }
        if plain_text && self.settings.excess != Excess::Raise {
            self.counts.split_texts += 1;
            return split(&example, limit);
        }
        match self.settings.excess {
            Excess::Drop => {
                self.counts.dropped += 1;
                Vec::new()
            }
            Excess::Raise => {
                self.counts.dropped += 1;
                self.too_long.get_or_insert((place, length));
                Vec::new()
            }
            Excess::Truncate => {
                self.counts.truncated += 1;
                self.counts.truncated_answers += usize::from(example.trained[limit..].contains(&true));
                example.tokens.truncate(limit);
                example.trained.truncate(limit);
                match example.trained_tokens() {
                    0 => self.nothing_to_learn(place),
                    _ => vec![example],
                }
            }
        }
    }

    /// The counts, unless a defect is the rule.
    pub(crate) fn verdict(self, files: &[PathBuf]) -> Result<Counts, Error> {
        if let Some((place, tokens)) = self.too_long {
            return Err(Error::TooLong {
                path: shown_path(files, place.file),
                line: place.line,
                tokens,
                limit: self.settings.sequence_len,
                more: and_more(self.counts.dropped - 1, "longer row"),
            });
        }
        let rules = [
            (
                self.nothing_trained,
                self.counts.no_trained_tokens,
                "nothing of this row would be trained on",
                "check `roles_to_train`, `message_field_training` and `sequence_len`: there must be assistant turns within reach",
            ),
            (
                self.without_end,
                self.counts.without_end_of_turn,
                "a trained turn of this row is not closed by an end-of-turn token, so the model would never learn to stop",
                "name the token that closes a turn in `eot_tokens`, or choose the `chat_template` that fits the tokenizer",
            ),
            (
                self.doubled_bos,
                self.counts.doubled_bos,
                "this row begins with two BOS tokens",
                "leave the BOS token out of the rows, or out of the template",
            ),
        ];
        for (first, count, problem, hint) in rules {
            if let Some(place) = first.filter(|_| count * 2 > self.counts.rows) {
                return Err(Error::Rule {
                    path: shown_path(files, place.file),
                    line: place.line,
                    problem: problem.to_owned(),
                    count,
                    rows: self.counts.rows,
                    hint: hint.to_owned(),
                });
            }
        }
        Ok(self.counts)
    }

    fn nothing_to_learn(&mut self, place: Place) -> Vec<Example> {
        self.counts.no_trained_tokens += 1;
        self.nothing_trained.get_or_insert(place);
        Vec::new()
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
