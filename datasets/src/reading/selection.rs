//! The selected rows of a source, chunk by chunk, read on a separate thread.
//!
//! Slices and shards refer to all rows of a split, which are therefore counted first; counting reads
//! rows and parses none.

use std::ops::Range;
use std::path::PathBuf;

use super::container;
use super::container::{RawRow, Unit};
use super::files::{DataFile, PartFiles};
use crate::foundation::{Error, Purpose, SourceSettings, shuffled};

/// Most rows of a chunk.
const CHUNK_ROWS: usize = 256;

/// Bytes of rows after which a chunk is full.
const CHUNK_BYTES: usize = 1 << 20;

/// A message of the reading thread.
pub(crate) enum ReaderMessage {
    /// Rows of one file.
    Chunk {
        /// Index of the file among those of the source.
        file: usize,
        /// The unit of its numbers.
        unit: Unit,
        /// The rows, each with how many came before it in the file.
        rows: Vec<(usize, RawRow)>,
    },
    /// A file is done.
    File {
        /// The file.
        path: PathBuf,
        /// Its selected rows.
        rows: usize,
        /// What people should know of the way it was read.
        notes: Vec<String>,
    },
}

/// The selected rows of a source.
pub(crate) struct Selection {
    /// For each part the rows of its slice.
    ranges: Vec<Option<Range<usize>>>,
    /// A flag for each row of all slices: true if it is in the shard.
    shard: Option<Vec<bool>>,
}

impl Selection {
    /// Resolves slices and shards, counting rows where one needs it.
    pub(crate) fn of(parts: &[PartFiles], source: &SourceSettings, seed: u64) -> Result<Selection, Error> {
        if source.shards == Some(0) || source.shards.is_some_and(|shards| source.shard >= shards) {
            return Err(Error::Setting {
                location: source.location.as_str().into(),
                problem: format!(
                    "shard `{}` of `{}` does not exist; shards are counted from 0",
                    source.shard,
                    source.shards.unwrap_or(0)
                ),
                hint: "`shards: 4` with `shards_idx: 0` takes a quarter of the rows".to_owned(),
            });
        }
        let mut ranges = Vec::with_capacity(parts.len());
        let mut total = 0;
        for part in parts {
            let is_counted = part.slice.is_some() || source.shards.is_some();
            let rows = if is_counted { count(&part.files)? } else { 0 };
            let range = part.slice.map(|slice| slice.range(rows));
            total += range.as_ref().map_or(rows, Range::len);
            ranges.push(range);
        }
        let shard = source.shards.map(|shards| {
            let mut chosen = vec![false; total];
            let (from, to) = (source.shard * total / shards, (source.shard + 1) * total / shards);
            for row in &shuffled(total, seed, Purpose::Shard)[from..to] {
                chosen[*row as usize] = true;
            }
            chosen
        });
        Ok(Selection { ranges, shard })
    }
}

fn count(files: &[DataFile]) -> Result<usize, Error> {
    let mut rows = 0;
    for file in files {
        for row in container::open(&file.path, file.kind)?.rows {
            row?;
            rows += 1;
        }
    }
    Ok(rows)
}

/// Reads the selected rows; `hand_over` returns false to stop.
pub(crate) fn read(
    parts: &[PartFiles],
    selection: &Selection,
    hand_over: &mut dyn FnMut(ReaderMessage) -> bool,
) -> Result<(), Error> {
    let mut index = 0;
    let mut sliced = 0;
    for (part, range) in parts.iter().zip(&selection.ranges) {
        let mut number = 0;
        for file in &part.files {
            let opened = container::open(&file.path, file.kind)?;
            let before = number;
            let mut chunk = Vec::new();
            let (mut weight, mut selected) = (0, 0);
            for row in opened.rows {
                let row = row?;
                number += 1;
                if range.as_ref().is_some_and(|range| number > range.end) {
                    break;
                }
                if range.as_ref().is_some_and(|range| number <= range.start) {
                    continue;
                }
                sliced += 1;
                if selection.shard.as_ref().is_some_and(|shard| shard.get(sliced - 1) != Some(&true)) {
                    continue;
                }
                selected += 1;
                weight += row.weight();
                chunk.push((number - before - 1, row));
                if chunk.len() == CHUNK_ROWS || weight >= CHUNK_BYTES {
                    weight = 0;
                    let rows = std::mem::take(&mut chunk);
                    if !hand_over(ReaderMessage::Chunk { file: index, unit: opened.unit, rows }) {
                        return Ok(());
                    }
                }
            }
            if number == before {
                return Err(Error::EmptyFile { path: file.path.display().to_string() });
            }
            let full = hand_over(ReaderMessage::Chunk { file: index, unit: opened.unit, rows: chunk })
                && hand_over(ReaderMessage::File { path: file.path.clone(), rows: selected, notes: opened.notes });
            if !full {
                return Ok(());
            }
            index += 1;
        }
    }
    Ok(())
}
