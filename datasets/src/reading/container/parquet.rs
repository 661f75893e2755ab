//! Parquet: row groups are decoded a few rows at a time.

use std::fs::File;

use arrow_schema::SchemaRef;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::arrow::records;
use super::{BATCH_ROWS, FileRows, broken};
use crate::foundation::{Error, guarded};

const HINT: &str = "create or download the file again; a Parquet file begins and ends with `PAR1`";

pub(super) fn open(shown: String, file: File) -> Result<FileRows, Error> {
    let opened = guarded(|| -> Result<(SchemaRef, ParquetRecordBatchReader), String> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
        let schema = builder.schema().clone();
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| error.to_string())?;
        Ok((schema, reader))
    });
    match opened.and_then(|reader| reader) {
        Ok((schema, reader)) => {
            Ok(records(shown, &schema, reader.map(|batch| batch.map_err(|error| error.to_string())), HINT))
        }
        Err(message) => {
            Err(broken(&shown, &format!("this is not a Parquet file, or it is damaged: {}", plain(&message)), HINT))
        }
    }
}

/// A library's message without the name of its error type.
fn plain(message: &str) -> &str {
    message.split_once(": ").map_or(message, |(_, rest)| rest)
}
