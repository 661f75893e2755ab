//! Every way in which data, a tokenizer or a template can be wrong, worded for the person who
//! wrote the recipe: where, what was found, what is accepted, and a hint on a line of its own.

use thiserror::Error as ThisError;

/// What is wrong with data, tokenizer or template.
///
/// The text of each variant is complete: place, value in backticks, and a `hint:` line.
#[derive(Debug, ThisError)]
pub enum Error {
    /// A path of the recipe does not exist.
    #[error("{location}: there is no file or folder `{path}`\nhint: {hint}")]
    MissingFile {
        /// Where the recipe names it.
        location: String,
        /// The path as resolved.
        path: String,
        /// What to try.
        hint: String,
    },
    /// A file cannot be read.
    #[error("{path}: cannot be read: {source}\nhint: check the file's permissions")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of a kind that is not read.
    #[error(
        "{location}: `{path}` has the suffix `{suffix}`, accepted are {accepted}\nhint: say what is in it with `ds_type`, or convert it to one JSON object per line"
    )]
    UnsupportedSuffix {
        /// Where the recipe names it.
        location: String,
        /// The file.
        path: String,
        /// Its suffix, empty when it has none.
        suffix: String,
        /// What is read.
        accepted: String,
    },
    /// A folder holds no file that can be read.
    #[error("{location}: `{path}` {problem}\nhint: {hint}")]
    NoFiles {
        /// Where the recipe names it.
        location: String,
        /// The folder.
        path: String,
        /// What is missing.
        problem: String,
        /// What to try.
        hint: String,
    },
    /// A file without a single row.
    #[error(
        "{path}: the file holds no rows\nhint: a `.jsonl` file holds one JSON object per line, a `.json` file an array of objects, a `.csv` file records below its header"
    )]
    EmptyFile {
        /// The file.
        path: String,
    },
    /// A file that is damaged, or not what it is said to be.
    #[error("{place}: {problem}\nhint: {hint}")]
    BrokenFile {
        /// The file, with the row where that is known.
        place: String,
        /// What is wrong with it.
        problem: String,
        /// What to try.
        hint: String,
    },
    /// A row that does not fit its format, or that the template refuses.
    #[error("{place}: {problem}{more}\nhint: {hint}")]
    BadRow {
        /// The row: file and number.
        place: String,
        /// What is wrong with it.
        problem: String,
        /// ` (and 3 more ...)`, or nothing.
        more: String,
        /// What to try.
        hint: String,
    },
    /// A `type:` that is not known.
    #[error("{location}: unknown data set type `{value}`, accepted are {accepted}\nhint: {hint}")]
    UnknownFormat {
        /// Where the recipe names the source.
        location: String,
        /// The type as written.
        value: String,
        /// The accepted names.
        accepted: String,
        /// What to try.
        hint: String,
    },
    /// No format fits the columns.
    #[error(
        "{place}: no format fits the columns {columns}, formats are recognised by {accepted}\nhint: name the format with `type:` and the columns with `field_...` at {location}"
    )]
    UnrecognisedColumns {
        /// The row: file and number.
        place: String,
        /// The columns that are there.
        columns: String,
        /// The columns that formats are recognised by.
        accepted: String,
        /// Where the recipe names the source.
        location: String,
    },
    /// A setting whose value cannot be honoured.
    #[error("{location}: {problem}\nhint: {hint}")]
    Setting {
        /// Where the recipe says it, or the key.
        location: String,
        /// What is wrong.
        problem: String,
        /// What to try.
        hint: String,
    },
    /// The tokenizer's files are missing, broken or contradict the recipe.
    #[error("{path}: {problem}\nhint: {hint}")]
    Tokenizer {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
        /// What to try.
        hint: String,
    },
    /// The chat template cannot be parsed, or raises.
    #[error("{origin}: {problem}\nhint: {hint}")]
    Template {
        /// Which template.
        origin: String,
        /// What is wrong, with the template's own message.
        problem: String,
        /// What to try.
        hint: String,
    },
    /// A row is too long and the recipe says to fail then.
    #[error(
        "{place}: the row has {tokens} tokens, `sequence_len` is {limit}{more}\nhint: raise `sequence_len`, or set `excess_length_strategy: drop` or `truncate`"
    )]
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
    #[error("{place}: {problem}; so do {count} of {rows} rows\nhint: {hint}")]
    Rule {
        /// The first such row: file and number.
        place: String,
        /// The defect.
        problem: String,
        /// How many rows have it.
        count: usize,
        /// How many rows there are.
        rows: usize,
        /// What to try.
        hint: String,
    },
    /// Nothing is left to train on.
    #[error("{location}: no rows are left to train on: {why}\nhint: {hint}")]
    NoRows {
        /// Where the recipe names the first source.
        location: String,
        /// Where they went.
        why: String,
        /// What to try.
        hint: String,
    },
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

/// The candidate nearest to a misspelt name, if any is near.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}
