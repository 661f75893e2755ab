//! One source: read on one thread, parsed, rendered and tokenised on all, checked in the rows' order.
//!
//! Examples and findings do not depend on the number of threads or their timing. Examples that were
//! prepared before from the same bytes are taken from the cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::ThreadPool;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::progress::LoadProgress;
use crate::foundation::{DatasetSettings, Error, SourceSettings, and_more, temporary_file};
use crate::reading::{
    DataFile, PartFiles, RawRow, ReaderMessage, RowProblem, Selection, Stamps, Unit, files, selection,
};
use crate::rows::{Content, Findings, Format, Masked, Place, RowChecks, Training, formats, mask};
use crate::store::{Key, Segment, StoreWriter, cache};
use crate::text::{MORE_THREADS, Tokenizer, deep_pool};

/// A source whose rows have become examples.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) segment: Arc<Segment>,
    pub(crate) findings: Findings,
    pub(crate) format: &'static Format,
    /// True if the format was recognised by the columns.
    pub(crate) recognised: bool,
    /// Its files, with the units of their numbers.
    pub(crate) files: Vec<(DataFile, Unit)>,
    /// Stamps of these files from before they were read.
    pub(crate) stamps: Stamps,
    /// True if the examples came from the cache.
    pub(crate) cached: bool,
}

/// The metadata in a file of prepared examples.
#[derive(Serialize, Deserialize)]
struct Meta {
    findings: Findings,
    format: String,
    units: Vec<Unit>,
}

/// The tokens of a row, or its problem.
type MaskedRow = Result<(Masked, Content), RowProblem>;

/// Prepares a source, or takes it from the cache.
pub(crate) fn prepare(
    source: &SourceSettings,
    settings: &DatasetSettings,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Prepared, Error> {
    let named = formats::named(source)?;
    let parts = files::resolve(source)?;
    let stamps = Stamps::of(parts.iter().flat_map(|part| &part.files).map(|file| file.path.as_path()))?;
    let Some(folder) = &settings.prepared_path else {
        let writer = StoreWriter::new(temporary_file())?;
        let pipeline = Pipeline::new(source, settings, tokenizer, named)?;
        let done = pipeline.run(&parts, writer, progress)?;
        let meta = String::new();
        return done.into_prepared(&parts, stamps, named.is_none(), |writer| writer.finish(meta));
    };
    let key = key(source, settings, tokenizer, &parts)?;
    if let Some(found) = cache::find(folder, key)
        && let Some(meta) = read_meta(&found)
    {
        stamps.check()?;
        let prepared = from_cache(found, meta, &parts, stamps, named.is_none());
        let rows = prepared.findings.rows;
        progress(LoadProgress::Tokenised { done: rows, total: rows });
        return Ok(prepared);
    }
    let writer = cache::writer(folder, key)?;
    let done = Pipeline::new(source, settings, tokenizer, named)?.run(&parts, writer, progress)?;
    let meta = done.meta();
    done.into_prepared(&parts, stamps, named.is_none(), |writer| cache::keep(writer, meta, folder, key))
}

/// The cache key of a source: a hash of everything that shapes its examples.
fn key(
    source: &SourceSettings,
    settings: &DatasetSettings,
    tokenizer: &Tokenizer,
    parts: &[PartFiles],
) -> Result<u128, Error> {
    let mut key = Key::new();
    key.add(&tokenizer.fingerprint().to_le_bytes());
    let seed = source.shards.map(|_| settings.seed);
    let shaping = serde_json::json!([source, settings.sequence_len, settings.excess, settings.train_on_inputs, seed]);
    key.add(shaping.to_string().as_bytes());
    if let Some(rows) = settings.embedding_rows.filter(|rows| *rows < tokenizer.vocab_size()) {
        key.add(&rows.to_le_bytes());
    }
    for part in parts {
        key.add(format!("{:?}", part.slice).as_bytes());
        for file in &part.files {
            key.add(format!("{:?}", file.kind).as_bytes());
            key.add_file(&file.path)?;
        }
    }
    Ok(key.finish())
}

/// The metadata of prepared examples, and their format.
fn read_meta(segment: &Segment) -> Option<(Meta, &'static Format)> {
    let meta: Meta = serde_json::from_str(&segment.meta).ok()?;
    let format = formats::by_name(&meta.format)?;
    Some((meta, format))
}

fn from_cache(
    segment: Segment,
    (meta, format): (Meta, &'static Format),
    parts: &[PartFiles],
    stamps: Stamps,
    recognised: bool,
) -> Prepared {
    let files = with_units(parts, &meta.units);
    let (segment, findings) = (Arc::new(segment), meta.findings);
    Prepared { segment, findings, format, recognised, files, stamps, cached: true }
}

/// The files of all parts with their units; lines for files that a slice did not reach.
fn with_units(parts: &[PartFiles], units: &[Unit]) -> Vec<(DataFile, Unit)> {
    let units = units.iter().copied().chain(std::iter::repeat(Unit::Lines));
    parts.iter().flat_map(|part| part.files.iter().cloned()).zip(units).collect()
}

/// The work on a source's rows, from raw rows to stored examples.
struct Pipeline<'a> {
    source: SourceSettings,
    settings: &'a DatasetSettings,
    tokenizer: &'a Tokenizer,
    format: Option<&'static Format>,
    training: Training,
    checks: RowChecks,
    problems: Problems,
    units: Vec<Unit>,
    /// The threads that render and tokenise.
    pool: ThreadPool,
    /// Rows done, bytes done (roughly), and the bytes of all files.
    done: (usize, usize, usize),
}

/// The result of a pipeline.
struct Finished {
    writer: StoreWriter,
    findings: Findings,
    format: &'static Format,
    units: Vec<Unit>,
}

impl<'a> Pipeline<'a> {
    fn new(
        source: &SourceSettings,
        settings: &'a DatasetSettings,
        tokenizer: &'a Tokenizer,
        format: Option<&'static Format>,
    ) -> Result<Pipeline<'a>, Error> {
        let no_threads = |error: std::io::Error| Error::Setting {
            location: source.location.as_str().into(),
            problem: format!("the system refuses threads for tokenising: {error}"),
            hint: MORE_THREADS.to_owned(),
        };
        Ok(Pipeline {
            source: source.clone(),
            settings,
            tokenizer,
            format,
            training: Training::of(source, settings.train_on_inputs),
            checks: RowChecks::new(settings),
            problems: Problems::default(),
            units: Vec::new(),
            pool: deep_pool().map_err(no_threads)?,
            done: (0, 0, 0),
        })
    }

    fn run(
        mut self,
        parts: &[PartFiles],
        mut writer: StoreWriter,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Finished, Error> {
        let selection = Selection::of(parts, &self.source, self.settings.seed)?;
        let paths: Vec<&Path> = parts.iter().flat_map(|part| &part.files).map(|file| file.path.as_path()).collect();
        let size = |path: &&Path| std::fs::metadata(path).map_or(0, |data| data.len());
        self.done.2 = usize::try_from(paths.iter().map(size).sum::<u64>()).unwrap_or(usize::MAX);
        let ahead = 2 * rayon::current_num_threads();
        let (sender, receiver) = sync_channel(ahead);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut hand_over = |read| sender.send(Ok(read)).is_ok();
                if let Err(error) = selection::read(parts, &selection, &mut hand_over) {
                    // It has no receiver only if another error came first.
                    let _ = sender.send(Err(error));
                }
            });
            self.consume(receiver, ahead, &paths, &mut writer, progress)
        })?;
        self.problems.into_error(&paths, &self.units)?;
        let rows = self.checks.findings.rows;
        progress(LoadProgress::Tokenised { done: rows, total: rows });
        let format = self.format.unwrap_or_else(formats::any);
        Ok(Finished { writer, findings: self.checks.findings, format, units: self.units })
    }

    /// Processes chunks in waves until the reader is done.
    ///
    /// The receiver is dropped when this function returns, so that the reader never waits for it.
    fn consume(
        &mut self,
        receiver: Receiver<Result<ReaderMessage, Error>>,
        ahead: usize,
        paths: &[&Path],
        writer: &mut StoreWriter,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<(), Error> {
        while let Ok(first) = receiver.recv() {
            let mut rows = Vec::new();
            let more = std::iter::from_fn(|| receiver.try_recv().ok());
            for read in std::iter::once(first).chain(more).take(ahead) {
                match read? {
                    ReaderMessage::File { path, rows, notes } => {
                        let noted = |note| format!("{}: {note}", path.display());
                        self.checks.findings.notes.extend(notes.into_iter().map(noted));
                        progress(LoadProgress::Read { path, rows });
                    }
                    ReaderMessage::Chunk { file, unit, rows: chunk } => {
                        self.units.resize(file + 1, unit);
                        rows.extend(
                            chunk.into_iter().map(|(number, row)| (Place { file, line: row.number, row: number }, row)),
                        );
                    }
                }
            }
            self.recognise(&rows, paths)?;
            self.wave(rows, writer)?;
            let (rows, bytes, all) = self.done;
            let estimate = rows as f64 * (all as f64 / bytes.max(1) as f64);
            progress(LoadProgress::Tokenised { done: rows, total: (estimate as usize).max(rows + 1) });
        }
        Ok(())
    }

    /// Recognises the format by the first row that can be read, unless the recipe names it.
    fn recognise(&mut self, rows: &[(Place, RawRow)], paths: &[&Path]) -> Result<(), Error> {
        if self.format.is_none()
            && let Some((first, row)) = rows.iter().find_map(|(place, row)| Some((*place, row.clone().parse().ok()?)))
        {
            let place = place(paths, &self.units, first);
            self.format = Some(formats::recognise(&row, &place, &self.source)?);
        }
        Ok(())
    }

    fn wave(&mut self, rows: Vec<(Place, RawRow)>, writer: &mut StoreWriter) -> Result<(), Error> {
        self.done.0 += rows.len();
        self.done.1 += rows.iter().map(|(_, row)| row.weight()).sum::<usize>();
        let places: Vec<Place> = rows.iter().map(|(place, _)| *place).collect();
        let masked = || rows.into_par_iter().map(|(_, row)| self.masked(row)).collect();
        let masked: Vec<MaskedRow> = self.pool.install(masked);
        for (place, masked) in places.into_iter().zip(masked) {
            match masked {
                Err(problem) => self.problems.note(place, problem),
                Ok((masked, content)) => {
                    for example in self.checks.row(place, masked, content) {
                        writer.push(&example, place.row)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn masked(&self, row: RawRow) -> MaskedRow {
        let unread = row.unread_fields();
        let row = row.parse()?;
        // Without a format no row could be parsed, and this one is parsed.
        let format = self.format.unwrap_or_else(formats::any);
        let sample = (format.read)(&row, &self.source).map_err(|problem| {
            let problem = problem.advised(formats::advice(&row, format));
            match unread().as_slice() {
                [] => problem,
                unread => problem.and(&format!("fields of other types were left out: {}", unread.join(", "))),
            }
        })?;
        let sample = sample.without_missing_numbers()?;
        let mut masked = mask(self.tokenizer, &sample, &self.training)?;
        self.in_embedding(&masked.tokens)?;
        masked.oddities.unread = formats::unread(&row, format, &self.source).into_iter().map(str::to_owned).collect();
        Ok((masked, Content::of(&sample)))
    }

    /// Refuses ids for which the model has no embedding.
    fn in_embedding(&self, tokens: &[u32]) -> Result<(), RowProblem> {
        let rows = self.settings.embedding_rows;
        let beyond = tokens.iter().find(|token| rows.is_some_and(|rows| **token as usize >= rows));
        let (Some(id), Some(rows)) = (beyond, rows) else { return Ok(()) };
        let text = self.tokenizer.token_text(*id).unwrap_or_default();
        Err(RowProblem::new(
            format!("the row has the token `{text}` with the id {id}, but the model's embedding has only {rows} rows"),
            "leave that text out of the row or the template; if all rows have such tokens, the tokenizer is that of another model",
        ))
    }
}

impl Finished {
    fn meta(&self) -> String {
        let meta =
            Meta { findings: self.findings.clone(), format: self.format.name.to_owned(), units: self.units.clone() };
        serde_json::to_string(&meta).unwrap_or_default()
    }

    /// Keeps the examples, unless a file changed since it was opened.
    fn into_prepared(
        self,
        parts: &[PartFiles],
        stamps: Stamps,
        recognised: bool,
        finish: impl FnOnce(StoreWriter) -> Result<Segment, Error>,
    ) -> Result<Prepared, Error> {
        stamps.check()?;
        Ok(Prepared {
            files: with_units(parts, &self.units),
            stamps,
            segment: Arc::new(finish(self.writer)?),
            findings: self.findings,
            format: self.format,
            recognised,
            cached: false,
        })
    }
}

fn place(paths: &[&Path], units: &[Unit], place: Place) -> String {
    let path = paths.get(place.file).map_or_else(PathBuf::new, |path| path.to_path_buf());
    let unit = units.get(place.file).copied().unwrap_or(Unit::Lines);
    unit.place(&path.display().to_string(), place.line)
}

/// The first problem of a row, and the number of others.
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

    fn into_error(self, paths: &[&Path], units: &[Unit]) -> Result<(), Error> {
        let Some((first, problem)) = self.first else {
            return Ok(());
        };
        Err(Error::BadRow {
            place: place(paths, units, first),
            problem: problem.problem,
            more: and_more(self.others, "bad row"),
            hint: problem.hint,
        })
    }
}

#[cfg(test)]
mod tests;
