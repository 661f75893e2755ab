//! Examples as Arrow batches, in memory or in a file: a data set larger than memory stays on disk.
//!
//! A [`StoreWriter`] takes examples one by one and keeps small sets in memory; larger ones, and those
//! that are to be cached, go to a file. A [`Segment`] reads either; files are mapped, not loaded.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, RecordBatch, UInt32Array, UInt64Array};
use arrow_buffer::{Buffer, OffsetBuffer};
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::error::Error;
use crate::example::Example;

/// Tokens that are gathered before a batch is written.
const BATCH_TOKENS: usize = 1 << 18;

/// Tokens that are kept in memory before a store goes to a file: 64 MiB of ids.
const MEMORY_TOKENS: usize = 16 << 20;

/// The name under which a file's own words are kept in its footer.
const META: &str = "tune";

/// Examples of one source that can be read in any order.
#[derive(Debug)]
pub(crate) struct Segment {
    batches: Vec<Columns>,
    /// The first example of each batch, and the number of all.
    starts: Vec<usize>,
    /// What the writer said beside the examples.
    pub(crate) meta: String,
    /// A file that nobody but this segment uses, removed with it.
    _own: Option<OwnFile>,
}

#[derive(Debug)]
struct Columns {
    tokens: ListArray,
    trained: ListArray,
    file: UInt32Array,
    line: UInt64Array,
    row: UInt64Array,
    trained_tokens: UInt32Array,
    hash: UInt64Array,
}

impl Segment {
    /// How many examples there are.
    pub(crate) fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The example `index`, which must be below `len`.
    pub(crate) fn example(&self, index: usize) -> Example {
        let (columns, row) = self.at(index);
        let tokens = columns.tokens.value(row);
        let trained = columns.trained.value(row);
        Example {
            tokens: tokens.as_primitive::<UInt32Type>().values().to_vec(),
            trained: trained.as_boolean().values().iter().collect(),
            file: self.origin(index).0,
            line: self.line(index),
        }
    }

    /// The file that an example came from, and how many rows came before it there.
    pub(crate) fn origin(&self, index: usize) -> (usize, usize) {
        let (columns, row) = self.at(index);
        (columns.file.value(row) as usize, usize::try_from(columns.row.value(row)).unwrap_or(usize::MAX))
    }

    /// The line or row that an example came from.
    pub(crate) fn line(&self, index: usize) -> usize {
        let (columns, row) = self.at(index);
        usize::try_from(columns.line.value(row)).unwrap_or(usize::MAX)
    }

    /// The tokens of an example.
    pub(crate) fn length(&self, index: usize) -> usize {
        let (columns, row) = self.at(index);
        usize::try_from(columns.tokens.value_length(row)).unwrap_or(0)
    }

    /// The predictions of an example that count.
    pub(crate) fn trained_tokens(&self, index: usize) -> usize {
        let (columns, row) = self.at(index);
        columns.trained_tokens.value(row) as usize
    }

    /// A number that equal examples share.
    pub(crate) fn hash(&self, index: usize) -> u64 {
        let (columns, row) = self.at(index);
        columns.hash.value(row)
    }

    fn at(&self, index: usize) -> (&Columns, usize) {
        let batch = self.starts.partition_point(|start| *start <= index) - 1;
        (&self.batches[batch], index - self.starts[batch])
    }

    fn new(batches: Vec<Columns>, meta: String, own: Option<OwnFile>) -> Segment {
        let mut starts = vec![0];
        let mut total = 0;
        for batch in &batches {
            total += batch.line.len();
            starts.push(total);
        }
        Segment { batches, starts, meta, _own: own }
    }

    /// Maps a file that [`StoreWriter`] wrote.
    pub(crate) fn open(path: &Path) -> Result<Segment, Error> {
        Segment::map(path, None)
    }

    fn map(path: &Path, own: Option<OwnFile>) -> Result<Segment, Error> {
        let unreadable = |source| Error::Unreadable { path: path.display().to_string(), source };
        let file = File::open(path).map_err(unreadable)?;
        #[expect(unsafe_code, reason = "mapping a file is what keeps it out of memory")]
        // SAFETY: the file was written whole before it got its name, and nobody writes to it afterwards.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable)?;
        let buffer = Buffer::from(bytes::Bytes::from_owner(map));
        let (batches, meta) = decode(&buffer).map_err(|error| damaged(path, &error))?;
        let columns = batches.into_iter().map(|batch| Columns::of(&batch)).collect::<Option<Vec<_>>>();
        let columns = columns.ok_or_else(|| damaged(path, "its columns are not those of prepared examples"))?;
        Ok(Segment::new(columns, meta, own))
    }
}

impl Columns {
    fn of(batch: &RecordBatch) -> Option<Columns> {
        let list = |name: &str| batch.column_by_name(name)?.as_list_opt::<i32>().cloned();
        let small = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>().cloned();
        let large = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>().cloned();
        let (tokens, trained) = (list("tokens")?, list("trained")?);
        let typed = *tokens.values().data_type() == DataType::UInt32
            && *trained.values().data_type() == DataType::Boolean
            && tokens.offsets() == trained.offsets();
        typed.then_some(Columns {
            tokens,
            trained,
            file: small("file")?,
            line: large("line")?,
            row: large("row")?,
            trained_tokens: small("trained_tokens")?,
            hash: large("hash")?,
        })
    }
}

/// The batches of an Arrow IPC file without copying, and what its footer says.
fn decode(buffer: &Buffer) -> Result<(Vec<RecordBatch>, String), String> {
    let text = |error: ArrowError| error.to_string();
    let trailer = buffer.len().checked_sub(10).ok_or("it is too short")?;
    let last: [u8; 10] = buffer[trailer..].try_into().map_err(|_| "it is too short")?;
    let footer_start = read_footer_length(last).map_err(text)?;
    let footer_start = trailer.checked_sub(footer_start).ok_or("its footer is longer than the file")?;
    let footer = arrow_ipc::root_as_footer(&buffer[footer_start..trailer]).map_err(|error| error.to_string())?;
    let schema = arrow_ipc::convert::try_fb_to_schema(footer.schema().ok_or("it has no schema")?).map_err(text)?;
    let decoder = FileDecoder::new(Arc::new(schema), footer.version());
    let mut batches = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let start = usize::try_from(block.offset()).map_err(|error| error.to_string())?;
        let length = i64::from(block.metaDataLength()).saturating_add(block.bodyLength());
        let length = usize::try_from(length).map_err(|error| error.to_string())?;
        let inside = start.checked_add(length).is_some_and(|end| end <= footer_start);
        if !inside {
            return Err("a batch lies outside of the file".to_owned());
        }
        let batch = decoder.read_record_batch(block, &buffer.slice_with_length(start, length)).map_err(text)?;
        batches.extend(batch);
    }
    let mut words = footer.custom_metadata().into_iter().flatten();
    let meta = words.find(|pair| pair.key() == Some(META)).and_then(|pair| pair.value()).unwrap_or_default();
    Ok((batches, meta.to_owned()))
}

fn damaged(path: &Path, problem: &str) -> Error {
    Error::BrokenFile {
        place: path.display().to_string(),
        problem: format!("the prepared examples are damaged: {problem}"),
        hint: "delete the file, it is made again".to_owned(),
    }
}

fn unwritable(path: &Path, problem: &str) -> Error {
    Error::Setting {
        location: "dataset_prepared_path".to_owned(),
        problem: format!("prepared examples cannot be written to `{}`: {problem}", path.display()),
        hint: "name a folder with room to write, or make room in it".to_owned(),
    }
}

/// Takes examples in, batch by batch.
pub(crate) struct StoreWriter {
    schema: Arc<Schema>,
    gathered: Gathered,
    batches: Vec<RecordBatch>,
    tokens: usize,
    /// Where larger sets go.
    path: PathBuf,
    file: Option<FileWriter<BufWriter<HashedFile>>>,
}

#[derive(Default)]
struct Gathered {
    tokens: Vec<u32>,
    trained: Vec<bool>,
    lengths: Vec<usize>,
    file: Vec<u32>,
    line: Vec<u64>,
    row: Vec<u64>,
    trained_tokens: Vec<u32>,
    hash: Vec<u64>,
}

impl StoreWriter {
    /// A writer that goes to the file `path` when there is more than fits in memory.
    pub(crate) fn new(path: PathBuf) -> StoreWriter {
        let list = |item| DataType::List(Arc::new(Field::new("item", item, false)));
        let schema = Schema::new(vec![
            Field::new("tokens", list(DataType::UInt32), false),
            Field::new("trained", list(DataType::Boolean), false),
            Field::new("file", DataType::UInt32, false),
            Field::new("line", DataType::UInt64, false),
            Field::new("row", DataType::UInt64, false),
            Field::new("trained_tokens", DataType::UInt32, false),
            Field::new("hash", DataType::UInt64, false),
        ]);
        let gathered = Gathered::default();
        StoreWriter { schema: Arc::new(schema), gathered, batches: Vec::new(), tokens: 0, path, file: None }
    }

    /// Adds an example, before whose row so many came in its file.
    pub(crate) fn push(&mut self, example: &Example, row: usize) -> Result<(), Error> {
        let gathered = &mut self.gathered;
        gathered.tokens.extend_from_slice(&example.tokens);
        gathered.trained.extend_from_slice(&example.trained);
        gathered.lengths.push(example.tokens.len());
        gathered.file.push(u32::try_from(example.file).unwrap_or(u32::MAX));
        gathered.line.push(example.line as u64);
        gathered.row.push(row as u64);
        gathered.trained_tokens.push(u32::try_from(example.trained_tokens()).unwrap_or(u32::MAX));
        gathered.hash.push(hash(example));
        if gathered.tokens.len() >= BATCH_TOKENS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.lengths.is_empty() {
            return Ok(());
        }
        self.tokens += gathered.tokens.len();
        let batch = gathered.into_batch(&self.schema).map_err(|error| unwritable(&self.path, &error.to_string()))?;
        self.batches.push(batch);
        if self.file.is_some() || self.tokens > MEMORY_TOKENS { self.spill() } else { Ok(()) }
    }

    /// Writes what is in memory to the file.
    fn spill(&mut self) -> Result<(), Error> {
        let failed = |error: &dyn std::fmt::Display| unwritable(&self.path, &error.to_string());
        if self.file.is_none() {
            let file = File::create(&self.path).map_err(|error| failed(&error))?;
            let output = BufWriter::with_capacity(1 << 20, HashedFile { file, hasher: XxHash3_128::new() });
            self.file = Some(FileWriter::try_new(output, &self.schema).map_err(|error| failed(&error))?);
        }
        for batch in std::mem::take(&mut self.batches) {
            if let Some(file) = &mut self.file {
                file.write(&batch).map_err(|error| unwritable(&self.path, &error.to_string()))?;
            }
        }
        Ok(())
    }

    /// The examples for this run alone; a file that they went to is removed with them.
    pub(crate) fn finish(mut self, meta: String) -> Result<Segment, Error> {
        self.flush()?;
        if self.file.is_none() {
            let columns = self.batches.iter().filter_map(Columns::of).collect();
            return Ok(Segment::new(columns, meta, None));
        }
        self.close(meta)?;
        let own = OwnFile(std::mem::take(&mut self.path));
        Segment::map(&own.0.clone(), Some(own))
    }

    /// Writes all examples to the file; gives its name and the hash of its bytes.
    pub(crate) fn finish_file(mut self, meta: String) -> Result<(PathBuf, u128), Error> {
        self.flush()?;
        self.spill()?;
        let hash = self.close(meta)?;
        Ok((std::mem::take(&mut self.path), hash))
    }

    fn close(&mut self, meta: String) -> Result<u128, Error> {
        let failed = |error: &dyn std::fmt::Display| unwritable(&self.path, &error.to_string());
        let Some(mut writer) = self.file.take() else {
            return Ok(0);
        };
        writer.write_metadata(META, meta);
        writer.finish().map_err(|error| failed(&error))?;
        let output = writer.into_inner().map_err(|error| failed(&error))?;
        let mut hashed = output.into_inner().map_err(|error| failed(&error))?;
        hashed.flush().map_err(|error| failed(&error))?;
        Ok(hashed.hasher.finish_128())
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        // A writer that did not finish leaves nothing behind.
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Gathered {
    fn into_batch(self, schema: &Arc<Schema>) -> Result<RecordBatch, ArrowError> {
        let offsets = OffsetBuffer::<i32>::from_lengths(self.lengths.iter().copied());
        let list = |item: DataType, values: ArrayRef| {
            ListArray::try_new(Arc::new(Field::new("item", item, false)), offsets.clone(), values, None)
        };
        let tokens = list(DataType::UInt32, Arc::new(UInt32Array::from(self.tokens)))?;
        let trained = list(DataType::Boolean, Arc::new(BooleanArray::from(self.trained)))?;
        RecordBatch::try_new(
            Arc::clone(schema),
            vec![
                Arc::new(tokens),
                Arc::new(trained),
                Arc::new(UInt32Array::from(self.file)),
                Arc::new(UInt64Array::from(self.line)),
                Arc::new(UInt64Array::from(self.row)),
                Arc::new(UInt32Array::from(self.trained_tokens)),
                Arc::new(UInt64Array::from(self.hash)),
            ],
        )
    }
}

/// A number that equal examples share.
fn hash(example: &Example) -> u64 {
    let mut bytes = Vec::with_capacity(example.tokens.len() * 5);
    for (id, trained) in example.tokens.iter().zip(&example.trained) {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.push(u8::from(*trained));
    }
    XxHash3_64::oneshot(&bytes)
}

/// A file that hashes what is written to it.
struct HashedFile {
    file: File,
    hasher: XxHash3_128,
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.write(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A file that is removed when it is dropped.
#[derive(Debug)]
struct OwnFile(PathBuf);

impl Drop for OwnFile {
    fn drop(&mut self) {
        // The file holds nothing that anyone else needs; the system's cleaning finds it otherwise.
        let _ = std::fs::remove_file(&self.0);
    }
}
