//! Errors of data, tokenizers and templates, worded for the person who wrote the recipe: the place,
//! the problem with the value in backticks, what is accepted, and a hint.

use std::borrow::Cow;
use std::fmt;

/// A problem of data, tokenizer or template.
///
/// Its text is [`Error::message`]; [`Error::hint`] is apart.
#[derive(Debug)]
pub enum Error {
    /// A path of the recipe does not exist.
    MissingFile {
        /// The place in the recipe that names it.
        location: String,
        /// The path as resolved.
        path: String,
        /// The hint.
        hint: String,
    },
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file of a kind that is not read.
    UnsupportedSuffix {
        /// The place in the recipe that names it.
        location: String,
        /// The file.
        path: String,
        /// Its suffix, empty when it has none.
        suffix: String,
        /// The suffixes that are read.
        accepted: String,
    },
    /// A directory holds no file that can be read.
    NoFiles {
        /// The place in the recipe that names it.
        location: String,
        /// The directory or pattern.
        path: String,
        /// The problem.
        problem: String,
        /// The hint.
        hint: String,
    },
    /// A file without a single row.
    EmptyFile {
        /// The file.
        path: String,
    },
    /// A file that is damaged, or of another kind than its name says.
    BrokenFile {
        /// The file, with the row where that is known.
        place: String,
        /// The problem.
        problem: String,
        /// The hint.
        hint: String,
    },
    /// A row that does not fit its format, or that the template refuses.
    BadRow {
        /// The row: file and number.
        place: String,
        /// The problem.
        problem: String,
        /// ` (and 3 more ...)`, or nothing.
        more: String,
        /// The hint.
        hint: String,
    },
    /// An unknown `type:`.
    UnknownFormat {
        /// The place in the recipe that names the source.
        location: String,
        /// The type as written.
        value: String,
        /// The accepted names.
        accepted: String,
        /// The hint.
        hint: String,
    },
    /// No format fits the columns.
    UnrecognisedColumns {
        /// The row: file and number.
        place: String,
        /// The columns that are there.
        columns: String,
        /// The columns that formats are recognised by.
        accepted: String,
        /// The hint.
        hint: String,
    },
    /// A setting whose value cannot be honoured.
    Setting {
        /// The setting at fault.
        location: Location,
        /// The problem.
        problem: String,
        /// The hint.
        hint: String,
    },
    /// Examples that cannot be written: a disk that is full, a directory without the right to.
    Unwritable {
        /// The setting that names the directory.
        location: Location,
        /// The file or directory.
        path: String,
        /// The system's error, or that of the format.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// The hint.
        hint: &'static str,
    },
    /// The tokenizer's files are missing, broken or contradict each other.
    Tokenizer {
        /// The file.
        path: String,
        /// The problem.
        problem: String,
        /// The hint.
        hint: String,
    },
    /// The chat template cannot be parsed, or raises.
    Template {
        /// The template: its file, its name, or the setting that holds it.
        location: Location,
        /// The problem, with the template's own message.
        problem: String,
        /// The hint.
        hint: String,
    },
    /// A row is too long, which the recipe makes an error.
    TooLong {
        /// The row: file and number.
        place: String,
        /// Its length.
        tokens: usize,
        /// The accepted length.
        limit: usize,
        /// ` (and 3 more ...)`, or nothing.
        more: String,
    },
    /// Most rows share a defect that would spoil the training.
    Rule {
        /// The first such row: file and number.
        place: String,
        /// The defect.
        problem: String,
        /// The number of rows that have it.
        count: usize,
        /// The number of all rows.
        rows: usize,
        /// The hint.
        hint: String,
    },
    /// Nothing is left to train on.
    NoRows {
        /// The place in the recipe that names the first source.
        location: Location,
        /// The reason.
        why: String,
        /// The hint.
        hint: String,
    },
}

/// The place of a setting, or of a template, that is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file or a place in the recipe, as people are shown it.
    Place(String),
    /// A recipe key, dotted for nested ones; [`Error::locate`] puts its place here.
    Key(&'static str),
}

impl Error {
    /// The place and the problem, without the hint.
    pub fn message(&self) -> String {
        match self {
            Error::MissingFile { location, path, .. } => format!("{location}: there is no file or directory `{path}`"),
            Error::Unreadable { path, source } => format!("{path}: cannot be read: {source}"),
            Error::UnsupportedSuffix { location, path, suffix, accepted } => {
                format!("{location}: `{path}` has the suffix `{suffix}`, accepted are {accepted}")
            }
            Error::NoFiles { location, path, problem, .. } => format!("{location}: `{path}` {problem}"),
            Error::EmptyFile { path } => format!("{path}: the file holds no rows"),
            Error::BrokenFile { place, problem, .. } => format!("{place}: {problem}"),
            Error::BadRow { place, problem, more, .. } => format!("{place}: {problem}{more}"),
            Error::UnknownFormat { location, value, accepted, .. } => {
                format!("{location}: unknown data set type `{value}`, accepted are {accepted}")
            }
            Error::UnrecognisedColumns { place, columns, accepted, .. } => {
                format!("{place}: no format fits the columns {columns}, formats are recognised by {accepted}")
            }
            Error::Setting { location, problem, .. } | Error::Template { location, problem, .. } => {
                format!("{location}: {problem}")
            }
            Error::Unwritable { location, path, source, .. } => {
                format!("{location}: prepared examples cannot be written to `{path}`: {source}")
            }
            Error::Tokenizer { path, problem, .. } => format!("{path}: {problem}"),
            Error::TooLong { place, tokens, limit, more } => {
                format!("{place}: the row has {tokens} tokens, `sequence_len` is {limit}{more}")
            }
            Error::Rule { place, problem, count, rows, .. } => {
                format!("{place}: {problem}; the same holds for {count} of {rows} rows")
            }
            Error::NoRows { location, why, .. } => format!("{location}: no rows are left to train on: {why}"),
        }
    }

    /// The hint: what to try.
    pub fn hint(&self) -> Cow<'_, str> {
        match self {
            Error::MissingFile { hint, .. }
            | Error::NoFiles { hint, .. }
            | Error::BrokenFile { hint, .. }
            | Error::BadRow { hint, .. }
            | Error::UnknownFormat { hint, .. }
            | Error::UnrecognisedColumns { hint, .. }
            | Error::Setting { hint, .. }
            | Error::Tokenizer { hint, .. }
            | Error::Template { hint, .. }
            | Error::Rule { hint, .. }
            | Error::NoRows { hint, .. } => hint.into(),
            Error::Unreadable { .. } => "check the file's permissions".into(),
            Error::Unwritable { hint, .. } => (*hint).into(),
            Error::UnsupportedSuffix { .. } => {
                "name the file type with `ds_type`, or convert it to one JSON object per line".into()
            }
            Error::EmptyFile { .. } => "a `.jsonl` file holds one JSON object per line, a `.json` file an array of \
                                        objects, a `.csv` file records below its header"
                .into(),
            Error::TooLong { .. } => "raise `sequence_len`, or set `excess_length_strategy: drop` or `truncate`".into(),
        }
    }

    /// The same error with the place of a recipe key in place of the key, if it is about one; `place` knows it.
    #[must_use]
    pub fn locate(mut self, place: impl FnOnce(&'static str) -> String) -> Error {
        if let Error::Setting { location, .. }
        | Error::Template { location, .. }
        | Error::NoRows { location, .. }
        | Error::Unwritable { location, .. } = &mut self
            && let Location::Key(key) = *location
        {
            *location = Location::Place(place(key));
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Unreadable { source, .. } => Some(source),
            Error::Unwritable { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Location::Place(place) => place,
            Location::Key(key) => key,
        })
    }
}

impl From<&str> for Location {
    /// A place.
    fn from(place: &str) -> Location {
        Location::Place(place.to_owned())
    }
}

/// ` (and 3 more rows)` for the rows beyond the first that share its problem.
pub(crate) fn and_more(others: usize, noun: &str) -> String {
    match others {
        0 => String::new(),
        1 => format!(" (and 1 more {noun})"),
        _ => format!(" (and {others} more {noun}s)"),
    }
}

/// `a`, `b` and `c`, each in backticks.
pub(crate) fn quoted_list<I: IntoIterator<Item = S>, S: AsRef<str>>(names: I) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// The candidate that `name` is most likely a misspelling of. One letter in three may be wrong, four at most: left out,
/// added, replaced, or swapped with its neighbour (optimal string alignment). Upper and lower case are alike.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    let name: String = name.chars().take(LONGEST).collect::<String>().to_lowercase();
    let length = name.chars().count();
    let allowed = (length / 3).min(4);
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|candidate| (strsim::osa_distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Error {
        /// Message and hint as they are shown.
        pub(crate) fn shown(&self) -> String {
            format!("{}\nhint: {}", self.message(), self.hint())
        }
    }

    fn setting(location: Location) -> Error {
        Error::Setting { location, problem: "`2` is wrong".to_owned(), hint: "try `1`".to_owned() }
    }

    #[test]
    fn a_key_gets_its_place_and_a_place_stays() {
        let error = setting(Location::Key("val_set_size"));
        assert_eq!((error.to_string().as_str(), &*error.hint()), ("val_set_size: `2` is wrong", "try `1`"));
        let place = |key: &str| format!("recipe.yaml:3:5 ({key})");
        assert_eq!(error.locate(place).message(), "recipe.yaml:3:5 (val_set_size): `2` is wrong");
        assert_eq!(setting("a.json".into()).locate(place).message(), "a.json: `2` is wrong");
    }
}
