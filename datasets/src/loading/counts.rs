//! Counts of rows and tokens, and of what became of them, for the plan, the preview and the report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::foundation::Defect;
use crate::rows::Findings;
use crate::store::Examples;

/// Numbers of rows and tokens; rows are those of all sources unless stated otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows read, of `datasets` and `test_datasets`.
    pub rows: usize,
    /// Of these, rows with turns.
    pub conversations: usize,
    /// Examples to train on.
    pub train_rows: usize,
    /// Examples held out.
    pub held_out_rows: usize,
    /// Tokens of the examples to train on.
    pub tokens: usize,
    /// Predictions that count among them.
    pub trained_tokens: usize,
    /// Tokens of the longest example to train on.
    pub longest: usize,
    /// Rows of documents to train on; `train_rows` without packing.
    pub packed_rows: usize,
    /// Positions of these rows, if each has the length of a sequence.
    pub packed_positions: usize,
    /// Examples to train on that equal an earlier one.
    pub duplicates: usize,
    /// Held-out examples that equal one to train on.
    pub held_out_duplicates: usize,
    /// Rows longer than `sequence_len`, whatever became of them.
    pub over_length: usize,
    /// The tokens by which these rows are longer, together.
    pub over_length_tokens: usize,
    /// Rows cut at `sequence_len`.
    pub truncated: usize,
    /// Of these, rows that lost trained tokens.
    pub truncated_answers: usize,
    /// Rows left out because they are longer than `sequence_len`.
    pub dropped: usize,
    /// Rows left out because nothing of them would be trained on.
    pub no_trained_tokens: usize,
    /// Rows with a trained turn that no end-of-turn token closes.
    pub without_end_of_turn: usize,
    /// Rows that begin with two BOS tokens.
    pub doubled_bos: usize,
    /// Rows with an empty turn that is trained on.
    pub empty_answers: usize,
    /// Rows with an unknown role.
    pub unknown_roles: usize,
    /// The first unknown role.
    pub unknown_role: Option<String>,
    /// Rows with tools that the template does not show.
    pub hidden_tools: usize,
    /// Rows with tool calls that the template does not show.
    pub hidden_calls: usize,
    /// Rows with reasoning, none of which the template shows.
    pub hidden_reasoning: usize,
    /// Rows with messages that say by `train` or `weight` if they are trained on.
    pub flagged: usize,
    /// From a column with a known meaning that is not read to the rows that have it.
    pub unread: BTreeMap<String, usize>,
    /// Rows whose trained turns the template shortened or changed (reasoning of earlier turns ...).
    pub altered: usize,
    /// Plain texts longer than `sequence_len` that became several examples.
    pub split_texts: usize,
    /// From a length in tokens to the rows of that length, before anything is cut or left out.
    pub lengths: BTreeMap<usize, usize>,
    /// The first row with each defect that was found, e.g. `train.jsonl:310`.
    pub first: BTreeMap<Defect, String>,
    /// What people should know of the way the files were read, e.g. fields that are left out.
    pub notes: Vec<String>,
    /// One entry per source, `datasets` before `test_datasets`.
    pub sources: Vec<SourceCounts>,
}

/// Counts of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceCounts {
    /// The source's path, or another name that people know it by.
    pub path: String,
    /// The format of its rows.
    pub format: &'static str,
    /// True if the format was recognised by the columns and not named by the recipe.
    pub recognised: bool,
    /// Keys of the recipe that name columns which the format does not read.
    pub unread_fields: Vec<&'static str>,
    /// Rows read.
    pub rows: usize,
    /// Files read.
    pub files: usize,
    /// True if its examples were prepared by an earlier run.
    pub cached: bool,
}

impl Counts {
    /// The counts of findings in rows.
    pub(crate) fn of(findings: &Findings) -> Counts {
        Counts {
            rows: findings.rows,
            conversations: findings.conversations,
            over_length: findings.over_length,
            over_length_tokens: findings.over_length_tokens,
            truncated: findings.truncated,
            truncated_answers: findings.truncated_answers,
            dropped: findings.dropped,
            no_trained_tokens: findings.count(Defect::NoTrainedTokens),
            without_end_of_turn: findings.count(Defect::WithoutEndOfTurn),
            doubled_bos: findings.count(Defect::DoubledBos),
            empty_answers: findings.count(Defect::EmptyAnswers),
            unknown_roles: findings.count(Defect::UnknownRoles),
            unknown_role: findings.unknown_role.clone(),
            hidden_tools: findings.count(Defect::HiddenTools),
            hidden_calls: findings.count(Defect::HiddenCalls),
            hidden_reasoning: findings.count(Defect::HiddenReasoning),
            flagged: findings.flagged,
            unread: findings.unread.clone(),
            altered: findings.altered,
            split_texts: findings.split_texts,
            lengths: findings.lengths.clone(),
            notes: findings.notes.clone(),
            ..Counts::default()
        }
    }

    /// Adds the counts of examples and their tokens.
    pub(crate) fn count(&mut self, train: &Examples, held_out: &Examples) {
        self.train_rows = train.len();
        self.held_out_rows = held_out.len();
        let both = |(sum, longest): (usize, usize), length| (sum + length, longest.max(length));
        (self.tokens, self.longest) = train.lengths().fold((0, 0), both);
        self.trained_tokens = train.trained_tokens().sum();
        let mut seen: Vec<u64> = train.hashes().collect();
        seen.sort_unstable();
        seen.dedup();
        self.duplicates = train.len() - seen.len();
        self.held_out_duplicates = held_out.hashes().filter(|hash| seen.binary_search(hash).is_ok()).count();
    }

    /// The share of positions that hold a token, if every row has the length of a sequence.
    pub fn packing_efficiency(&self) -> f64 {
        self.tokens as f64 / self.packed_positions.max(1) as f64
    }

    /// The lengths of rows as lines of text: from, to, rows, and a bar; at most `bars` lines.
    ///
    /// Each line covers the same number of lengths, rounded up to 1, 2 or 5 times a power of ten.
    pub fn length_histogram(&self, bars: usize) -> String {
        let longest = self.lengths.keys().next_back().copied().unwrap_or(0);
        let step = round_step((longest + 1).div_ceil(bars.max(1)));
        let mut rows = vec![0; longest / step + 1];
        for (length, count) in &self.lengths {
            rows[length / step] += count;
        }
        let most = rows.iter().max().copied().unwrap_or(0).max(1);
        let first = rows.iter().position(|count| *count > 0).unwrap_or(rows.len());
        let (digits, wide) = (longest.to_string().len().max(step.to_string().len()), most.to_string().len());
        let mut text = String::new();
        for (index, count) in rows.iter().enumerate().skip(first) {
            let (from, to) = (index * step, (index + 1) * step - 1);
            let bar = "#".repeat((count * BAR).div_ceil(most));
            let line = format!("{from:>digits$} to {to:>digits$}  {count:>wide$}  {bar}");
            writeln!(text, "{}", line.trim_end()).expect("writing to a string cannot fail");
        }
        text
    }
}

/// Letters of the longest bar of a histogram.
const BAR: usize = 40;

/// The least of 1, 2 and 5 times a power of ten that is not below `least`.
fn round_step(least: usize) -> usize {
    let mut power: usize = 1;
    loop {
        for factor in [1, 2, 5] {
            if power.saturating_mul(factor) >= least {
                return power.saturating_mul(factor);
            }
        }
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_histogram_has_round_borders_and_every_row() {
        let lengths = [(12, 3), (19, 5), (20, 1), (55, 2)].into_iter().collect();
        let counts = Counts { lengths, ..Counts::default() };
        let bar = |letters: usize| "#".repeat(letters);
        assert_eq!(
            counts.length_histogram(6),
            format!(
                "10 to 19  8  {}\n20 to 29  1  {}\n30 to 39  0\n40 to 49  0\n50 to 59  2  {}\n",
                bar(40),
                bar(5),
                bar(10)
            )
        );
        assert_eq!(Counts::default().length_histogram(10), "");
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([1, 2, 3, 6, 11, 21, 51, 101].map(round_step), [1, 2, 5, 10, 20, 50, 100, 200]);
    }
}
