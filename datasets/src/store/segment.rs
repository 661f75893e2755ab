//! Examples as Arrow batches, in memory or in a file: a data set larger than memory stays on disk.
//!
//! A [`Segment`] knows where the columns of each batch lie and reads what is asked for: an example,
//! or one value of all examples, a batch at a time.

use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_schema::ArrowError;

use super::spool::Stored;
use crate::foundation::Error;
use crate::rows::Example;

/// The key of the metadata in a file's footer.
pub(super) const META: &str = "tune";

/// Bytes after the footer: its length, and the mark of an Arrow file.
const TRAILER_BYTES: usize = 10;

/// Examples of one source that can be read in any order.
#[derive(Debug)]
pub(crate) struct Segment {
    stored: Stored,
    batches: Vec<Columns>,
    /// The first example of each batch, and the number of all.
    starts: Vec<usize>,
    /// The metadata that the writer put beside the examples.
    pub(crate) meta: String,
}

/// The byte at which each column of a batch begins.
#[derive(Debug)]
struct Columns {
    /// The index of each example's first token in the batch, and the number of tokens: `i32`.
    offsets: u64,
    tokens: u64,
    /// One bit for each token.
    trained: u64,
    file: u64,
    line: u64,
    row: u64,
    trained_tokens: u64,
    hash: u64,
}

/// A value that each example has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Its tokens.
    Length,
    /// The index of the file that it came from.
    File,
    /// Its line or row there.
    Line,
    /// The rows that came before it there.
    Row,
    /// The predictions that count.
    TrainedTokens,
    /// A number that equal examples share.
    Hash,
}

impl Segment {
    /// The number of examples.
    pub(crate) fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The example `index`, which must be below `len`.
    ///
    /// # Panics
    /// Here and in [`Values::at`], if a file that was written cannot be read back.
    pub(crate) fn example(&self, index: usize) -> Example {
        let (batch, row) = self.at(index);
        let columns = &self.batches[batch];
        let ends = self.read::<4>(columns.offsets + 4 * row as u64, 2).map(u32::from_le_bytes).collect::<Vec<_>>();
        let (start, end) = (ends[0] as usize, ends[1] as usize);
        let tokens = self.read::<4>(columns.tokens + 4 * start as u64, end - start).map(u32::from_le_bytes).collect();
        let (first, last) = (start / 8, end.div_ceil(8));
        let bits: Vec<[u8; 1]> = self.read::<1>(columns.trained + first as u64, last - first).collect();
        let trained = (start..end).map(|token| bits[token / 8 - first][0] >> (token % 8) & 1 == 1).collect();
        let file = self.read(columns.file + 4 * row as u64, 1).map(u32::from_le_bytes).sum::<u32>() as usize;
        let line = as_number(self.read(columns.line + 8 * row as u64, 1).map(u64::from_le_bytes).sum());
        Example { tokens, trained, file, line }
    }

    /// A reader of one value of each example; quick where they are asked for in turn.
    pub(crate) fn values(&self, column: Column) -> Values<'_> {
        Values { segment: self, column, batch: None, values: Vec::new() }
    }

    /// One value of each example of a batch.
    fn column(&self, batch: usize, column: Column) -> Vec<u64> {
        let columns = &self.batches[batch];
        let rows = self.starts[batch + 1] - self.starts[batch];
        let small = |start| self.read(start, rows).map(|bytes| u64::from(u32::from_le_bytes(bytes))).collect();
        let large = |start| self.read(start, rows).map(u64::from_le_bytes).collect();
        match column {
            Column::Length => {
                let offsets: Vec<u32> = self.read(columns.offsets, rows + 1).map(u32::from_le_bytes).collect();
                offsets.windows(2).map(|ends| u64::from(ends[1] - ends[0])).collect()
            }
            Column::File => small(columns.file),
            Column::Line => large(columns.line),
            Column::Row => large(columns.row),
            Column::TrainedTokens => small(columns.trained_tokens),
            Column::Hash => large(columns.hash),
        }
    }

    /// `count` values of `BYTES` bytes.
    fn read<const BYTES: usize>(&self, start: u64, count: usize) -> impl Iterator<Item = [u8; BYTES]> + use<BYTES> {
        let mut bytes = vec![[0; BYTES]; count];
        self.stored.read(start, bytes.as_flattened_mut()).expect("bytes that were written can be read");
        bytes.into_iter()
    }

    /// The batch of an example, and its row there.
    fn at(&self, index: usize) -> (usize, usize) {
        let batch = self.starts.partition_point(|start| *start <= index) - 1;
        (batch, index - self.starts[batch])
    }

    /// Opens a file that [`StoreWriter`](super::StoreWriter) wrote.
    pub(crate) fn open(path: &Path) -> Result<Segment, Error> {
        let unreadable = |source| Error::Unreadable { path: path.display().to_string(), source };
        Segment::of(Stored::open(path).map_err(unreadable)?, path)
    }

    /// Finds the columns of every batch, each of which is decoded once to see that it is whole.
    pub(super) fn of(stored: Stored, path: &Path) -> Result<Segment, Error> {
        let mut segment = Segment { stored, batches: Vec::new(), starts: vec![0], meta: String::new() };
        segment.find_columns().map_err(|problem| Error::BrokenFile {
            place: path.display().to_string(),
            problem: format!("the prepared examples are damaged: {problem}"),
            hint: "delete the file; it will be rebuilt".to_owned(),
        })?;
        Ok(segment)
    }

    fn find_columns(&mut self) -> Result<(), String> {
        let text = |error: ArrowError| error.to_string();
        let too_short = || "it is too short".to_owned();
        let footer_end = self.stored.len().checked_sub(TRAILER_BYTES as u64).ok_or_else(too_short)?;
        let trailer = self.piece(footer_end, TRAILER_BYTES)?;
        let footer_bytes = read_footer_length(trailer[..].try_into().map_err(|_| too_short())?).map_err(text)?;
        let footer_start = footer_end.checked_sub(footer_bytes as u64).ok_or("its footer is longer than the file")?;
        let footer = self.piece(footer_start, footer_bytes)?;
        let footer = arrow_ipc::root_as_footer(&footer).map_err(|error| error.to_string())?;
        let schema = arrow_ipc::convert::try_fb_to_schema(footer.schema().ok_or("it has no schema")?).map_err(text)?;
        let decoder = FileDecoder::new(Arc::new(schema), footer.version());
        for block in footer.recordBatches().iter().flatten() {
            let length = i64::from(block.metaDataLength()).saturating_add(block.bodyLength());
            let (start, length) = (u64::try_from(block.offset()), u64::try_from(length));
            let (Ok(start), Ok(length)) = (start, length) else {
                return Err("a batch lies outside of the file".to_owned());
            };
            if start.checked_add(length).is_none_or(|end| end > footer_start) {
                return Err("a batch lies outside of the file".to_owned());
            }
            let bytes = self.piece(start, usize::try_from(length).map_err(|error| error.to_string())?)?;
            let Some(batch) = decoder.read_record_batch(block, &bytes).map_err(text)? else {
                continue;
            };
            let columns = Columns::of(&batch, &bytes, start);
            self.batches.push(columns.ok_or("its columns are not those of prepared examples")?);
            self.starts.push(self.len() + batch.num_rows());
        }
        let mut metadata = footer.custom_metadata().into_iter().flatten();
        let meta = metadata.find(|pair| pair.key() == Some(META)).and_then(|pair| pair.value()).unwrap_or_default();
        meta.clone_into(&mut self.meta);
        Ok(())
    }

    fn piece(&self, start: u64, length: usize) -> Result<Buffer, String> {
        let mut bytes = MutableBuffer::from_len_zeroed(length);
        self.stored.read(start, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes.into())
    }
}

impl Columns {
    /// The places of the columns of a batch that was decoded from `bytes`, which begin at `start`.
    fn of(batch: &RecordBatch, bytes: &Buffer, start: u64) -> Option<Columns> {
        // Arrow decodes without copying: its arrays are parts of the bytes.
        let place = |buffer: &Buffer, length: usize| {
            let from = buffer.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
            let inside = length <= buffer.len() && from.checked_add(length)? <= bytes.len();
            (inside || length == 0).then_some(start + from as u64)
        };
        let rows = batch.num_rows();
        let list = |name: &str| batch.column_by_name(name)?.as_list_opt::<i32>();
        let small = |name: &str| {
            let column = batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>()?;
            place(column.values().inner(), 4 * rows)
        };
        let large = |name: &str| {
            let column = batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>()?;
            place(column.values().inner(), 8 * rows)
        };
        let (tokens, trained) = (list("tokens")?, list("trained")?);
        let ids = tokens.values().as_primitive_opt::<UInt32Type>()?;
        let bits = trained.values().as_boolean_opt()?.values();
        if tokens.offsets() != trained.offsets() || bits.offset() != 0 {
            return None;
        }
        Some(Columns {
            offsets: place(tokens.offsets().inner().inner(), 4 * (rows + 1))?,
            tokens: place(ids.values().inner(), 4 * ids.len())?,
            trained: place(bits.inner(), bits.len().div_ceil(8))?,
            file: small("file")?,
            line: large("line")?,
            row: large("row")?,
            trained_tokens: small("trained_tokens")?,
            hash: large("hash")?,
        })
    }
}

/// Reads one value of examples, and keeps those of the batch that was asked for last.
pub(crate) struct Values<'a> {
    segment: &'a Segment,
    column: Column,
    batch: Option<usize>,
    values: Vec<u64>,
}

impl Values<'_> {
    /// The value of the example `index`, which must be below the segment's `len`.
    pub(crate) fn at(&mut self, index: usize) -> u64 {
        let (batch, row) = self.segment.at(index);
        if self.batch != Some(batch) {
            self.values = self.segment.column(batch, self.column);
            self.batch = Some(batch);
        }
        self.values[row]
    }
}

/// A number that was one when it was stored.
pub(crate) fn as_number(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
