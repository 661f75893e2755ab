//! Arrow IPC: the file format, and the stream format in which Hugging Face caches data sets.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader, read_footer_length};
use arrow_ipc::root_as_footer;
use arrow_schema::{Schema, SchemaRef};

use super::columns;
use super::lines::until_error;
use super::{FileRows, RawContent, RawRow, Unit, broken};
use crate::foundation::{Error, guarded};

const HINT: &str = "create or download the file again; Arrow IPC files and streams are accepted";

pub(super) fn open(shown: String, file: File) -> Result<FileRows, Error> {
    let unreadable = |source| Error::Unreadable { path: shown.clone(), source };
    let mut file = BufReader::with_capacity(256 << 10, file);
    let mut magic = Vec::new();
    (&mut file).take(6).read_to_end(&mut magic).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>> + Send>;
    let opened = guarded(|| -> Result<(SchemaRef, Batches), String> {
        if magic == b"ARROW1" {
            check_blocks(&mut file)?;
            let reader = FileReader::try_new(file, None).map_err(|error| error.to_string())?;
            let schema = reader.schema();
            let batches = Box::new(reader.map(|batch| batch.map_err(|error| error.to_string())));
            return Ok((schema, batches));
        }
        if !magic.starts_with(&[0xFF; 4]) {
            return Err("it begins neither as a file nor as a stream".to_owned());
        }
        let reader = StreamReader::try_new(file, None).map_err(|error| error.to_string())?;
        let schema = reader.schema();
        Ok((schema, Box::new(reader.map(|batch| batch.map_err(|error| error.to_string())))))
    });
    match opened.and_then(|batches| batches) {
        Ok((schema, batches)) => Ok(records(shown, &schema, batches, HINT)),
        Err(message) => Err(broken(&shown, &format!("this is not an Arrow file, or it is damaged: {message}"), HINT)),
    }
}

/// Refuses a file whose footer has a block longer than the file, since memory for it would be allocated first.
fn check_blocks(file: &mut (impl Read + Seek)) -> Result<(), String> {
    /// Bytes of the footer's length and of the word after it.
    const TRAILER: u64 = 10;
    let text = |error: std::io::Error| error.to_string();
    let length = file.seek(SeekFrom::End(0)).map_err(text)?;
    file.seek(SeekFrom::Start(length.saturating_sub(TRAILER))).map_err(text)?;
    let mut trailer = [0; TRAILER as usize];
    file.read_exact(&mut trailer).map_err(text)?;
    let footer_length = read_footer_length(trailer).map_err(|error| error.to_string())? as u64;
    let begin = length.checked_sub(TRAILER + footer_length).ok_or("its footer is longer than it is")?;
    file.seek(SeekFrom::Start(begin)).map_err(text)?;
    let mut footer = vec![0; footer_length as usize];
    file.read_exact(&mut footer).map_err(text)?;
    let footer = root_as_footer(&footer).map_err(|error| error.to_string())?;
    for block in footer.dictionaries().into_iter().flatten().chain(footer.recordBatches().into_iter().flatten()) {
        let sizes = [block.offset(), block.metaDataLength().into(), block.bodyLength()];
        let end = sizes.into_iter().try_fold(0_u64, |sum, size| sum.checked_add(u64::try_from(size).ok()?));
        if end.is_none_or(|end| end > length) {
            return Err("a block is longer than the file".to_owned());
        }
    }
    file.rewind().map_err(text)
}

/// The rows of batches with the columns of `schema`, numbered from 1.
pub(super) fn records(
    path: String,
    schema: &Schema,
    mut batches: impl Iterator<Item = Result<RecordBatch, String>> + Send + 'static,
    hint: &'static str,
) -> FileRows {
    let mut batch: Option<RecordBatch> = None;
    let (mut index, mut number) = (0, 0);
    let rows = until_error(move || {
        loop {
            if let Some(batch) = batch.as_ref().filter(|batch| index < batch.num_rows()) {
                index += 1;
                number += 1;
                return Ok(Some(RawRow { number, content: RawContent::Record(batch.clone(), index - 1) }));
            }
            index = 0;
            batch = match guarded(|| batches.next()) {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(next))) => Some(next),
                Ok(Some(Err(message))) | Err(message) => {
                    let place = Unit::Rows.place(&path, number + 1);
                    return Err(broken(&place, &format!("the data is damaged from here on: {message}"), hint));
                }
            };
        }
    });
    let unread = columns::unread(schema.fields());
    let note = format!("left out {}, of types that are not read", listed(&unread));
    let notes = if unread.is_empty() { Vec::new() } else { vec![note] };
    FileRows { unit: Unit::Rows, notes, rows: Box::new(rows) }
}

/// The first few of `names`, and the number of others.
fn listed(names: &[String]) -> String {
    /// Names that are shown.
    const SHOWN: usize = 6;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
