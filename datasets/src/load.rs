//! From settings to examples: read, recognise, tokenise, judge, hold out.
//!
//! Problems are gathered per kind: the first is shown with its place, the others are counted.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::conversation::Sample;
use crate::counts::{Counts, SourceCounts};
use crate::error::{Error, and_more};
use crate::example::{Example, Masked, Training, mask};
use crate::judge::{Judge, Place};
use crate::order::held_out_rows;
use crate::question::{Question, question};
use crate::row::RowProblem;
use crate::settings::{DatasetSettings, HeldOut, SourceSettings};
use crate::tokenizer::Tokenizer;
use crate::{files, formats, source};

/// Rows that are tokenised between two reports of progress.
const CHUNK: usize = 512;

/// How far loading is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// A file has been read.
    Read {
        /// The file.
        path: PathBuf,
        /// Its rows.
        rows: usize,
    },
    /// Rows of a source have been tokenised.
    Tokenised {
        /// Rows done.
        done: usize,
        /// Rows of the source.
        total: usize,
    },
}

/// What loading yields.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) train: Vec<Example>,
    pub(crate) held_out: Vec<Example>,
    pub(crate) questions: Vec<Question>,
    pub(crate) counts: Counts,
    pub(crate) files: Vec<PathBuf>,
}

/// A row as a sample, and where it is.
struct Placed {
    place: Place,
    sample: Sample,
}

/// Loads everything that the settings name.
pub(crate) fn load(
    settings: &DatasetSettings,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Loaded, Error> {
    let mut loader = Loader { settings, tokenizer, progress, files: Vec::new(), sources: Vec::new() };
    let mut judge = Judge::new(settings);
    let mut train = Vec::new();
    for source in &settings.sources {
        train.extend(loader.source(source, &mut judge)?);
    }
    let mut test = Vec::new();
    for source in &settings.test_sources {
        test.extend(loader.source(source, &mut judge)?);
    }
    let Loader { files, sources, .. } = loader;
    let mut counts = judge.verdict(&files)?;
    counts.sources = sources;

    let first = settings.sources.first();
    let location = first.map_or("datasets", |source| source.location.as_str());
    if train.is_empty() {
        return Err(no_rows(location, &counts, settings.sequence_len));
    }
    let held_out = held_out_count(settings.held_out, train.len())?;
    let chosen = held_out_rows(train.len(), held_out, settings.seed);
    let mut kept = Vec::with_capacity(train.len() - held_out);
    let mut evaluated = Vec::with_capacity(held_out + test.len());
    for (row, held_out) in train.into_iter().zip(chosen) {
        if held_out { evaluated.push(row) } else { kept.push(row.0) }
    }
    evaluated.extend(test);

    let questions = evaluated
        .par_iter()
        .enumerate()
        .filter_map(|(row, (example, sample))| question(tokenizer, sample, example, row))
        .collect();
    let held_out: Vec<Example> = evaluated.into_iter().map(|(example, _)| example).collect();
    counts.train_rows = kept.len();
    counts.held_out_rows = held_out.len();
    counts.tokens = kept.iter().map(|example| example.tokens.len()).sum();
    counts.trained_tokens = kept.iter().map(Example::trained_tokens).sum();
    counts.longest = kept.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
    Ok(Loaded { train: kept, held_out, questions, counts, files })
}

/// `train.jsonl:310`; the bare line where the file is not known.
pub(crate) fn location(files: &[PathBuf], file: usize, line: usize) -> String {
    match files.get(file) {
        Some(path) => format!("{}:{line}", path.display()),
        None => format!("line {line}"),
    }
}

struct Loader<'a> {
    settings: &'a DatasetSettings,
    tokenizer: &'a Tokenizer,
    progress: &'a mut dyn FnMut(LoadProgress),
    files: Vec<PathBuf>,
    sources: Vec<SourceCounts>,
}

impl Loader<'_> {
    /// The examples of one source with their samples.
    fn source(&mut self, source: &SourceSettings, judge: &mut Judge<'_>) -> Result<Vec<(Example, Sample)>, Error> {
        let samples = self.samples(source)?;
        let training = Training::of(source, self.settings.train_on_inputs);
        let total = samples.len();
        let mut examples = Vec::with_capacity(total);
        let mut problems = Problems::default();
        let mut done = 0;
        let mut samples = samples.into_iter().peekable();
        while samples.peek().is_some() {
            let chunk: Vec<Placed> = samples.by_ref().take(CHUNK).collect();
            let masked: Vec<Result<Masked, RowProblem>> =
                chunk.par_iter().map(|placed| mask(self.tokenizer, &placed.sample, &training)).collect();
            done += chunk.len();
            for (placed, masked) in chunk.into_iter().zip(masked) {
                match masked {
                    Err(problem) => problems.note(placed.place, problem),
                    Ok(masked) => {
                        let whole = matches!(placed.sample, Sample::Text(_));
                        let kept = judge.row(placed.place, masked, whole);
                        examples.extend(kept.into_iter().map(|example| (example, placed.sample.clone())));
                    }
                }
            }
            (self.progress)(LoadProgress::Tokenised { done, total });
        }
        problems.into_error(&self.files)?;
        Ok(examples)
    }

    /// Every row of a source as a sample.
    fn samples(&mut self, source: &SourceSettings) -> Result<Vec<Placed>, Error> {
        let named = formats::named(source)?;
        let mut format = named;
        let mut samples = Vec::new();
        let mut problems = Problems::default();
        let paths = files::resolve(source)?;
        let files = paths.len();
        for path in paths {
            let rows = source::read(&path)?;
            (self.progress)(LoadProgress::Read { path: path.clone(), rows: rows.len() });
            let file = self.files.len();
            let shown = path.display().to_string();
            self.files.push(path);
            for row in rows {
                let reader = match format {
                    Some(format) => format,
                    None => *format.insert(formats::recognise(&row, &shown, source)?),
                };
                let place = Place { file, line: row.line };
                match (reader.read)(&row, source) {
                    Ok(sample) => samples.push(Placed { place, sample }),
                    Err(problem) => problems.note(place, problem),
                }
            }
        }
        problems.into_error(&self.files)?;
        self.sources.push(SourceCounts {
            path: source.path.display().to_string(),
            format: format.map_or("", |format| format.name),
            recognised: named.is_none(),
            rows: samples.len(),
            files,
        });
        Ok(samples)
    }
}

/// The first row problem and how many there are.
#[derive(Default)]
struct Problems {
    first: Option<(Place, RowProblem)>,
    others: usize,
}

impl Problems {
    fn note(&mut self, place: Place, problem: RowProblem) {
        match self.first {
            None => self.first = Some((place, problem)),
            Some(_) => self.others += 1,
        }
    }

    fn into_error(self, files: &[PathBuf]) -> Result<(), Error> {
        let Some((place, problem)) = self.first else {
            return Ok(());
        };
        Err(Error::BadRow {
            path: shown_path(files, place.file),
            line: place.line,
            problem: problem.problem,
            more: and_more(self.others, "bad row"),
            hint: problem.hint,
        })
    }
}

/// A file's path as errors show it.
pub(crate) fn shown_path(files: &[PathBuf], file: usize) -> String {
    files.get(file).map(PathBuf::as_path).unwrap_or(Path::new("data")).display().to_string()
}

/// How many of `rows` are held out; an error where nothing would be left to train on.
fn held_out_count(held_out: HeldOut, rows: usize) -> Result<usize, Error> {
    let (count, shown) = match held_out {
        HeldOut::None => return Ok(0),
        HeldOut::Count(count) => (count, count.to_string()),
        HeldOut::Fraction(share) if share > 0.0 && share < 1.0 => {
            // Rounded up, as scikit-learn and with it `datasets` do.
            ((share * rows as f64).ceil() as usize, share.to_string())
        }
        HeldOut::Fraction(share) => {
            return Err(Error::Setting {
                location: "val_set_size".to_owned(),
                problem: format!("`{share}` is no share, accepted are numbers above 0 and below 1"),
                hint: "give a share such as `0.05`, or a whole number of rows".to_owned(),
            });
        }
    };
    if count < rows {
        return Ok(count);
    }
    Err(Error::Setting {
        location: "val_set_size".to_owned(),
        problem: format!("`{shown}` holds out {count} of {rows} rows and leaves none to train on"),
        hint: "hold out fewer rows, or name rows of their own with `test_datasets`".to_owned(),
    })
}

fn no_rows(location: &str, counts: &Counts, sequence_len: usize) -> Error {
    let (why, hint) = if counts.dropped > 0 {
        (
            format!("{} of {} are longer than `sequence_len` {sequence_len}", counts.dropped, counts.rows),
            "raise `sequence_len`, or set `excess_length_strategy: truncate`",
        )
    } else {
        (format!("{} were read", counts.rows), "name a source in `datasets`")
    };
    Error::NoRows { location: location.to_owned(), why, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests;
