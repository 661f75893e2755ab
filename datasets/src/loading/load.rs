//! From settings to examples: every source is prepared, all are checked together, and some rows are held out.
//!
//! Held-out rows are read a second time for their questions, since texts are not kept.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::counts::{Counts, SourceCounts};
use super::prepare::{Prepared, prepare};
use super::progress::LoadProgress;
use crate::foundation::{DatasetSettings, Error, HeldOut, Location, SourceSettings, held_out_rows};
use crate::reading::{Unit, container, files};
use crate::rows::formats::unread_fields;
use crate::rows::{Findings, Question, prompt_form, question};
use crate::store::Examples;
use crate::text::{PromptForm, Tokenizer};

/// The result of loading.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) train: Examples,
    pub(crate) held_out: Examples,
    pub(crate) questions: Vec<Question>,
    pub(crate) prompt_form: PromptForm,
    pub(crate) counts: Counts,
    pub(crate) files: Vec<(PathBuf, Unit)>,
}

/// Loads everything that the settings name.
pub(crate) fn load(
    settings: &DatasetSettings,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Loaded, Error> {
    let mut sources = Vec::new();
    for source in settings.sources.iter().chain(&settings.test_sources) {
        let prepared = prepare(source, settings, tokenizer, progress)?;
        sources.push((source.clone(), prepared));
    }
    let mut findings = Findings::default();
    let mut files = Vec::new();
    let mut parts = Vec::new();
    for (_, prepared) in &sources {
        findings.add(prepared.findings.clone().with_files_from(files.len()));
        parts.push((prepared.segment.clone(), files.len()));
        files.extend(prepared.files.iter().map(|(file, unit)| (file.path.clone(), *unit)));
    }
    findings.verdict(settings, |place| location(&files, place.file, place.line))?;

    let mut counts = Counts::of(&findings);
    let firsts = findings.defects.iter().filter_map(|(defect, found)| Some((*defect, found.first?)));
    counts.first = firsts.map(|(defect, place)| (defect, location(&files, place.file, place.line))).collect();
    counts.sources = sources.iter().map(|(source, prepared)| source_counts(source, prepared)).collect();
    counts.notes.extend(sources.iter().filter_map(|(source, prepared)| overlooked(source, prepared, settings)));
    counts.notes.extend(unread_variables(settings, tokenizer));
    let tested = parts.split_off(settings.sources.len());
    let all = Examples::of([parts.as_slice(), tested.as_slice()].concat());
    let rows: usize = parts.iter().map(|(segment, _)| segment.len()).sum();
    if rows == 0 {
        let first = settings.sources.first();
        let location = first.map_or(Location::Key("datasets"), |source| source.location.as_str().into());
        return Err(no_rows(location, &counts, settings.sequence_len));
    }
    let held_out = held_out_count(settings.held_out, rows)?;
    let chosen = held_out_rows(rows, held_out, settings.shuffle, settings.seed);
    let train = all.choose(|row| chosen.get(row) == Some(&false));
    let held_out = all.choose(|row| chosen.get(row) != Some(&false));
    counts.count(&train, &held_out);
    let questions = questions(&sources, &held_out, tokenizer)?;
    let prompt_form = form_of(&sources[..settings.sources.len()]);
    Ok(Loaded { train, held_out, questions, prompt_form, counts, files })
}

/// The form of the prompts of sources to train on: that of the chat template if any row is a conversation, else that of
/// the first source.
fn form_of(sources: &[(SourceSettings, Prepared)]) -> PromptForm {
    match sources.first() {
        Some((source, first)) if sources.iter().all(|(_, prepared)| prepared.findings.conversations == 0) => {
            prompt_form(first.format, source)
        }
        _ => PromptForm::Chat,
    }
}

/// A note on data files in the folder of a source that are not read; prepared examples are none.
fn overlooked(source: &SourceSettings, prepared: &Prepared, settings: &DatasetSettings) -> Option<String> {
    let read: Vec<&Path> = prepared.files.iter().map(|(file, _)| file.path.as_path()).collect();
    files::overlooked(source, &read, settings.prepared_path.as_deref())
}

/// A note for each variable that the recipe gives a chat template which does not read it.
fn unread_variables(settings: &DatasetSettings, tokenizer: &Tokenizer) -> Vec<String> {
    let sources = settings.sources.iter().chain(&settings.test_sources);
    let given: BTreeSet<&String> = sources.flat_map(|source| source.template_variables.keys()).collect();
    let unread = given.into_iter().filter(|name| !tokenizer.template_mentions(name));
    unread.map(|name| format!("the chat template does not read `{name}` of chat_template_kwargs")).collect()
}

fn source_counts(source: &SourceSettings, prepared: &Prepared) -> SourceCounts {
    SourceCounts {
        path: source.known_as.clone().unwrap_or_else(|| source.path.display().to_string()),
        format: prepared.format.name,
        recognised: prepared.recognised,
        unread_fields: unread_fields(prepared.format, source),
        rows: prepared.findings.rows,
        files: prepared.files.len(),
        cached: prepared.cached,
    }
}

/// A place such as `train.jsonl:310`; the bare line if the file is unknown.
pub(crate) fn location(files: &[(PathBuf, Unit)], file: usize, line: usize) -> String {
    match files.get(file) {
        Some((path, unit)) => unit.place(&path.display().to_string(), line),
        None => format!("line {line}"),
    }
}

/// The questions of the held-out rows, in their order; files are read again up to the last of them.
fn questions(
    sources: &[(SourceSettings, Prepared)],
    held_out: &Examples,
    tokenizer: &Tokenizer,
) -> Result<Vec<Question>, Error> {
    let mut wanted: Vec<HashMap<usize, usize>> = Vec::new();
    for (index, (file, row)) in held_out.origins().enumerate() {
        if wanted.len() <= file {
            wanted.resize_with(file + 1, HashMap::new);
        }
        // Of a text that became several examples, the first stands for all: it asks nothing.
        wanted[file].entry(row).or_insert(index);
    }
    let mut wanted = wanted.into_iter();
    let mut questions = Vec::new();
    for (source, prepared) in sources {
        for ((file, _), rows) in prepared.files.iter().zip(wanted.by_ref()) {
            let Some(last) = rows.keys().max().copied().filter(|_| prepared.format.asks) else {
                continue;
            };
            let mut found = Vec::new();
            for (number, row) in container::open(&file.path, file.kind)?.rows.take(last + 1).enumerate() {
                let row = row?;
                if let Some(index) = rows.get(&number) {
                    found.push((*index, row));
                }
            }
            questions.par_extend(found.into_par_iter().filter_map(|(index, row)| {
                let sample = (prepared.format.read)(&row.parse().ok()?, source).ok()?;
                question(tokenizer, &sample, &held_out.get(index)?, index)
            }));
        }
        prepared.stamps.check()?;
    }
    questions.sort_by_key(|question| question.row);
    Ok(questions)
}

/// The number of `rows` to hold out; an error if nothing would be left to train on.
fn held_out_count(held_out: Option<HeldOut>, rows: usize) -> Result<usize, Error> {
    let (count, shown) = match held_out {
        None => return Ok(0),
        Some(HeldOut::Count(count)) => (count, count.to_string()),
        Some(HeldOut::Fraction(share)) if share > 0.0 && share < 1.0 => {
            // Rounded up, as scikit-learn and with it `datasets` do.
            ((share * rows as f64).ceil() as usize, share.to_string())
        }
        Some(HeldOut::Fraction(share)) => {
            return Err(Error::Setting {
                location: Location::Key("val_set_size"),
                problem: format!("`{share}` is not a share, accepted are numbers above 0 and below 1"),
                hint: "give a share such as `0.05`, or a whole number of rows".to_owned(),
            });
        }
    };
    if count < rows {
        return Ok(count);
    }
    Err(Error::Setting {
        location: Location::Key("val_set_size"),
        problem: format!("`{shown}` holds out {count} of {rows} rows and leaves none to train on"),
        hint: "hold out fewer rows, or name separate rows with `test_datasets`".to_owned(),
    })
}

fn no_rows(location: Location, counts: &Counts, sequence_len: usize) -> Error {
    let (why, hint) = if counts.dropped > 0 {
        (
            format!("{} of {} are longer than `sequence_len` {sequence_len}", counts.dropped, counts.rows),
            "raise `sequence_len`, or set `excess_length_strategy: truncate`",
        )
    } else if counts.empty_answers > 0 {
        (
            format!("{} of {} have an empty answer", counts.empty_answers, counts.rows),
            "fill the answers in, or check the names of the fields that hold them",
        )
    } else {
        (format!("{} were read", counts.rows), "name a source in `datasets`")
    };
    Error::NoRows { location, why, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests;
