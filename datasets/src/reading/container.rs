//! Files to rows, lazily: containers, compression, and a check of a file's first bytes.
//!
//! A reader holds a few rows at a time, however large the file. Rows come out raw, with their number;
//! turning one into columns ([`RawRow::parse`]) is left to the threads that tokenise.

mod arrow;
mod columns;
mod csv;
mod json;
mod lines;
mod parquet;
mod python;
mod text;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

use arrow_array::RecordBatch;
use serde_json::{Map, Value};

use super::row::{Row, RowProblem};
use crate::foundation::{Choice, Error, quoted_list, temporary_file};

/// Most bytes that one row of a text file may take.
pub(crate) const MAX_ROW_BYTES: usize = 64 << 20;

/// Rows of a columnar file that are decoded at a time.
const BATCH_ROWS: usize = 256;

/// The values of `ds_type`, their containers and descriptions.
const DS_TYPES: &[(&str, Container, &str)] = &[
    ("json", Container::Json, "one JSON object per line, or an array of objects"),
    ("jsonl", Container::Json, "the same as `json`"),
    ("csv", Container::Separated { separator: b',' }, "records separated by commas, below a header"),
    ("tsv", Container::Separated { separator: b'\t' }, "records separated by tabs, below a header"),
    ("text", Container::Text, "one row per line, in the column `text`"),
    ("txt", Container::Text, "the same as `text`"),
    ("parquet", Container::Parquet, "Apache Parquet"),
    ("arrow", Container::Arrow, "Arrow IPC, file or stream"),
];

/// The values of `ds_type` that are accepted.
pub fn file_types() -> impl Iterator<Item = Choice> {
    DS_TYPES.iter().map(|&(name, _, description)| Choice { name, description })
}

/// The layout of rows in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    /// Objects by line, an array of objects, or an object of arrays.
    Json,
    /// Records under a header.
    Separated {
        /// The byte between two fields.
        separator: u8,
    },
    /// A text by line.
    Text,
    /// Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
}

/// The compression of a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) container: Container,
    pub(crate) compression: Compression,
}

/// The unit in which a file's rows are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Unit {
    /// Lines: `train.jsonl:310`.
    Lines,
    /// Rows: `train.parquet: row 310`.
    Rows,
}

impl Unit {
    /// A place in a file, for people.
    pub(crate) fn place(self, path: &str, number: usize) -> String {
        match self {
            Unit::Lines => format!("{path}:{number}"),
            Unit::Rows => format!("{path}: row {number}"),
        }
    }
}

/// The rows of a file, in order.
pub(crate) struct FileRows {
    pub(crate) unit: Unit,
    /// What people should know of the way the file is read, each a statement about it.
    pub(crate) notes: Vec<String>,
    pub(crate) rows: Box<dyn Iterator<Item = Result<RawRow, Error>> + Send>,
}

/// A row that is not parsed yet.
#[derive(Clone, Debug)]
pub(crate) struct RawRow {
    /// Line or row, from 1.
    pub(crate) number: usize,
    pub(crate) content: RawContent,
}

/// The content of a row before it is columns.
#[derive(Clone, Debug)]
pub(crate) enum RawContent {
    /// JSON text.
    Json(Vec<u8>),
    /// Columns already.
    Columns(Map<String, Value>),
    /// This row of a batch.
    Record(RecordBatch, usize),
    /// A row that could not be read, with the reason.
    Broken(RowProblem),
}

impl RawRow {
    /// The fields of the row's file that are left out, because values of their types are not read.
    pub(crate) fn unread_fields(&self) -> impl FnOnce() -> Vec<String> + use<> {
        let schema = match &self.content {
            RawContent::Record(batch, _) => Some(batch.schema()),
            _ => None,
        };
        move || schema.map_or(Vec::new(), |schema| columns::unread(schema.fields()))
    }

    /// Bytes that the row holds in memory, roughly.
    pub(crate) fn weight(&self) -> usize {
        match &self.content {
            RawContent::Json(text) => text.len(),
            RawContent::Columns(columns) => {
                columns.values().map(|value| value.as_str().map_or(64, |text| text.len() + 64)).sum()
            }
            RawContent::Record(batch, _) => batch.get_array_memory_size() / batch.num_rows().max(1),
            RawContent::Broken(_) => 64,
        }
    }

    /// The row as columns.
    pub(crate) fn parse(self) -> Result<Row, RowProblem> {
        let columns = match self.content {
            RawContent::Json(text) => json::object(&text)?,
            RawContent::Columns(columns) => columns,
            RawContent::Record(batch, index) => columns::row(&batch, index)?,
            RawContent::Broken(problem) => return Err(problem),
        };
        Ok(Row { columns })
    }
}

impl Kind {
    /// The type of a file by its name; `None` for an unknown suffix.
    pub(crate) fn of_name(path: &Path) -> Option<Kind> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (stem, compression) = match name.rsplit_once('.') {
            Some((stem, "gz")) => (stem, Compression::Gzip),
            Some((stem, "zst")) => (stem, Compression::Zstd),
            _ => (name.as_str(), Compression::None),
        };
        let (_, suffix) = stem.rsplit_once('.')?;
        let container = match suffix {
            "jsonl" | "json" | "ndjson" => Container::Json,
            "csv" => Container::Separated { separator: b',' },
            "tsv" => Container::Separated { separator: b'\t' },
            "txt" => Container::Text,
            "parquet" => Container::Parquet,
            "arrow" => Container::Arrow,
            _ => return None,
        };
        Some(Kind { container, compression })
    }

    /// The container that a `ds_type` names, with the compression of the file's suffix.
    pub(crate) fn of_type(path: &Path, ds_type: &str, location: &str) -> Result<Kind, Error> {
        let found = DS_TYPES.iter().find(|(name, ..)| *name == ds_type);
        let Some((_, container, _)) = found else {
            return Err(Error::Setting {
                location: location.into(),
                problem: format!(
                    "unknown `ds_type: {ds_type}`, accepted are {}",
                    quoted_list(file_types().map(|file_type| file_type.name))
                ),
                hint: "leave `ds_type` out to go by the file's suffix".to_owned(),
            });
        };
        let compression = match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        };
        Ok(Kind { container: *container, compression })
    }
}

/// Opens a file; rows are read as they are asked for.
pub(crate) fn open(path: &Path, kind: Kind) -> Result<FileRows, Error> {
    let shown = path.display().to_string();
    let file = File::open(path).map_err(|source| Error::Unreadable { path: shown.clone(), source })?;
    let is_columnar = matches!(kind.container, Container::Parquet | Container::Arrow);
    if is_columnar && kind.compression == Compression::None {
        return columnar(shown, file, kind.container);
    }
    let plain: Box<dyn Read + Send> = match kind.compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        Compression::Zstd => Box::new(
            zstd::stream::read::Decoder::new(file).map_err(|error| broken_compression(&shown, &error.to_string()))?,
        ),
    };
    if is_columnar {
        let file = unpacked(&shown, plain)?;
        return columnar(shown, file, kind.container);
    }
    let mut input = BufReader::with_capacity(256 << 10, plain);
    let start = input.fill_buf().map_err(|error| unreadable_text(&shown, error))?;
    check_start(&shown, start, kind)?;
    if start.starts_with(b"\xEF\xBB\xBF") {
        input.consume(3);
    }
    match kind.container {
        Container::Json => json::open(shown, input),
        Container::Separated { separator } => csv::open(shown, input, separator),
        _ => Ok(text::open(shown, input)),
    }
}

fn columnar(shown: String, file: File, container: Container) -> Result<FileRows, Error> {
    match container {
        Container::Parquet => parquet::open(shown, file),
        _ => arrow::open(shown, file),
    }
}

/// Unpacks a compressed file that has to be read from its end into a file without a name.
fn unpacked(shown: &str, mut content: impl Read) -> Result<File, Error> {
    let path = temporary_file();
    let failed = |source| Error::Unreadable { path: path.display().to_string(), source };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.read(true).write(true).create_new(true).open(&path).map_err(failed)?;
    // Where an open file cannot be removed it stays among the temporary files.
    let _ = std::fs::remove_file(&path);
    std::io::copy(&mut content, &mut file).map_err(|error| unreadable_text(shown, error))?;
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// Refuses a file whose first bytes are those of another kind.
fn check_start(path: &str, start: &[u8], kind: Kind) -> Result<(), Error> {
    let others: [(&[u8], &str, &str); 6] = [
        (b"PAR1", "parquet", "name it `.parquet`, or set `ds_type: parquet`"),
        (b"ARROW1", "arrow", "name it `.arrow`, or set `ds_type: arrow`"),
        (b"\x1f\x8b", "gzip", "give the name the suffix `.gz`"),
        (b"\x28\xb5\x2f\xfd", "zstd", "give the name the suffix `.zst`"),
        (b"\xFF\xFE", "UTF-16 text", "save the file as UTF-8"),
        (b"\xFE\xFF", "UTF-16 text", "save the file as UTF-8"),
    ];
    for (magic, what, hint) in others {
        if start.starts_with(magic) {
            let read = match (kind.compression, kind.container) {
                (_, Container::Json) => "JSON",
                (_, Container::Separated { .. }) => "CSV",
                _ => "text",
            };
            return Err(broken(path, &format!("the file begins like {what}, but is read as {read}"), hint));
        }
    }
    Ok(())
}

/// The error of a file that is damaged, or of another type.
fn broken(path: &str, problem: &str, hint: &str) -> Error {
    Error::BrokenFile { place: path.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() }
}

fn broken_compression(path: &str, message: &str) -> Error {
    broken(path, &format!("the compressed data is damaged: {message}"), "create or download the file again")
}

/// The error of reading text, for which the disk or the compression is to blame.
fn unreadable_text(path: &str, error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::Other => {
            broken_compression(path, &error.to_string())
        }
        _ => Error::Unreadable { path: path.to_owned(), source: error },
    }
}

fn too_long(place: String) -> Error {
    Error::BrokenFile {
        place,
        problem: format!("the row is longer than the {} MiB that are accepted", MAX_ROW_BYTES >> 20),
        hint: "is this one row? Rows of a `.jsonl` end with a line break; split longer texts".to_owned(),
    }
}

#[cfg(test)]
mod tests;
