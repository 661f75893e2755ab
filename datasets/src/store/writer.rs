//! Examples in: gathered to Arrow batches, which are written as an IPC file to memory or to disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, ListArray, RecordBatch, UInt32Array, UInt64Array};
use arrow_buffer::OffsetBuffer;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use twox_hash::XxHash3_64;

use super::segment::{META, Segment};
use super::spool::Spool;
use crate::foundation::{Error, Location};
use crate::rows::Example;

/// Tokens that are gathered before a batch is written.
const BATCH_TOKENS: usize = 1 << 18;

/// Takes examples in, batch by batch.
pub(crate) struct StoreWriter {
    schema: Arc<Schema>,
    gathered: Gathered,
    /// The file for a large set.
    path: PathBuf,
    output: FileWriter<Spool>,
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
    pub(crate) fn new(path: PathBuf) -> Result<StoreWriter, Error> {
        let list = |item| DataType::List(Arc::new(Field::new("item", item, false)));
        let schema = Arc::new(Schema::new(vec![
            Field::new("tokens", list(DataType::UInt32), false),
            Field::new("trained", list(DataType::Boolean), false),
            Field::new("file", DataType::UInt32, false),
            Field::new("line", DataType::UInt64, false),
            Field::new("row", DataType::UInt64, false),
            Field::new("trained_tokens", DataType::UInt32, false),
            Field::new("hash", DataType::UInt64, false),
        ]));
        let output = FileWriter::try_new(Spool::new(path.clone()), &schema);
        let output = output.map_err(|error| unwritable(&path, error))?;
        Ok(StoreWriter { schema, gathered: Gathered::default(), path, output })
    }

    /// Adds an example; `row` is the number of rows before its own in its file.
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
        if gathered.tokens.len() >= BATCH_TOKENS { self.write_gathered() } else { Ok(()) }
    }

    fn write_gathered(&mut self) -> Result<(), Error> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.lengths.is_empty() {
            return Ok(());
        }
        let written = gathered.into_batch(&self.schema).and_then(|batch| self.output.write(&batch));
        written.map_err(|error| unwritable(&self.path, error))
    }

    /// The examples for this run alone; a file that they went to is removed with them.
    pub(crate) fn finish(self, meta: String) -> Result<Segment, Error> {
        let path = self.path.clone();
        let stored = self.close(meta)?.finish().map_err(|error| unwritable(&path, error))?;
        Segment::of(stored, &path)
    }

    /// Writes all examples to a file in `folder` that is called `prefix` and then the hash of its bytes; gives its path.
    pub(crate) fn finish_file(self, meta: String, folder: &Path, prefix: &str) -> Result<PathBuf, Error> {
        let path = self.path.clone();
        self.close(meta)?.finish_file(folder, prefix).map_err(|error| unwritable(&path, error))
    }

    fn close(mut self, meta: String) -> Result<Spool, Error> {
        self.write_gathered()?;
        self.output.write_metadata(META, meta);
        self.output.into_inner().map_err(|error| unwritable(&self.path, error))
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

/// A hash of an example's tokens and mask.
fn hash(example: &Example) -> u64 {
    let mut bytes = Vec::with_capacity(example.tokens.len() * 5);
    for (id, trained) in example.tokens.iter().zip(&example.trained) {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.push(u8::from(*trained));
    }
    XxHash3_64::oneshot(&bytes)
}

fn unwritable(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unwritable {
        location: Location::Key("dataset_prepared_path"),
        path: path.display().to_string(),
        source: source.into(),
        hint: "name a directory with room to write, or make room in it",
    }
}
