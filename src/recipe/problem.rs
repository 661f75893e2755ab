//! Problems of a recipe: place, message and hint.
//!
//! A [`Position`] can be sorted; a [`Source`] names it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::hint::with_hint;

/// The most problems that one report shows.
const MAX_SHOWN: usize = 100;

/// One thing that is wrong with a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `recipe.yaml:9:3`, `--set key=value`, or the file name alone.
    pub at: String,
    /// The problem, with keys and values in backticks.
    pub message: String,
    /// Advice.
    pub hint: String,
}

/// Every problem of a recipe, sorted by position; never empty where it is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&with_hint(&format!("{}: {}", self.at, self.message), &self.hint))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write!(out, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A position in the recipe; the order is that of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Position {
    /// In the file, both counted from 1.
    Text { line: usize, column: usize },
    /// In the override of this index.
    Override(usize),
    /// The file as a whole, for what is missing.
    #[default]
    Whole,
}

/// The file and its overrides, by which positions are named.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) overrides: Vec<String>,
}

impl Source {
    pub(super) fn new(path: &Path, overrides: &[String]) -> Source {
        Source { path: path.to_path_buf(), overrides: overrides.to_vec() }
    }

    /// The name of a position.
    pub(super) fn name(&self, position: Position) -> String {
        let path = self.path.display();
        match position {
            Position::Text { line, column } => format!("{path}:{line}:{column}"),
            Position::Override(index) => {
                let text = self.overrides.get(index).map_or("", String::as_str);
                format!("--set {}", shortened(text, 120))
            }
            Position::Whole => path.to_string(),
        }
    }
}

/// Problems in the order in which they are found, before they are sorted.
#[derive(Debug, Default)]
pub(super) struct ProblemLog(Vec<(Position, String, String)>);

impl ProblemLog {
    pub(super) fn add(&mut self, place: Position, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push((place, message.into(), hint.into()));
    }

    /// Takes over what another reading found.
    pub(super) fn append(&mut self, mut other: ProblemLog) {
        self.0.append(&mut other.0);
    }

    /// True if the report is so long already that advice on one more problem is wasted.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX_SHOWN
    }

    /// The report, or nothing when all is well.
    pub(super) fn into_result(mut self, source: &Source) -> Result<(), Problems> {
        if self.0.is_empty() {
            return Ok(());
        }
        // Stable, so that problems of one place stay in the order they were found.
        self.0.sort_by_key(|(place, _, _)| *place);
        let hidden = self.0.len().saturating_sub(MAX_SHOWN);
        let shown = self.0.into_iter().take(MAX_SHOWN);
        let mut problems: Vec<Problem> =
            shown.map(|(place, message, hint)| Problem { at: source.name(place), message, hint }).collect();
        if hidden > 0 {
            problems.push(Problem {
                at: source.name(Position::Whole),
                message: format!("{hidden} more problems are not shown"),
                hint: "repair the ones above first".to_owned(),
            });
        }
        Err(Problems(problems))
    }
}

/// A text on one line and of at most `limit` characters, for quoting in a message.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    let mut short = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            short.push('…');
            break;
        }
        short.push(if character.is_control() { ' ' } else { character });
    }
    short
}
