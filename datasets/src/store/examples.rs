//! The examples of a data set: a choice of examples from the segments that hold them.
//!
//! An example is read from its store when it is asked for; nothing but its number is in memory.

use std::sync::Arc;

use super::segment::{Column, Segment, as_number};
use super::writer::StoreWriter;
use crate::foundation::{Error, temporary_file};
use crate::rows::Example;

/// Examples in a fixed order, read one by one.
#[derive(Clone, Debug, Default)]
pub struct Examples {
    segments: Vec<Arc<Segment>>,
    /// The first number of each segment's examples, and the number of all.
    starts: Vec<usize>,
    /// The number that is added to the file indices of each segment.
    files: Vec<usize>,
    /// The numbers that are chosen; `None` for all.
    chosen: Option<Vec<u32>>,
}

impl Examples {
    /// Stores given examples.
    pub(crate) fn from_memory(examples: &[Example]) -> Result<Examples, Error> {
        let mut writer = StoreWriter::new(temporary_file())?;
        for (row, example) in examples.iter().enumerate() {
            writer.push(example, row)?;
        }
        Ok(Examples::of(vec![(Arc::new(writer.finish(String::new())?), 0)]))
    }

    /// All examples of segments, each with the number that is added to its file indices.
    pub(crate) fn of(parts: Vec<(Arc<Segment>, usize)>) -> Examples {
        let mut starts = vec![0];
        let mut total = 0;
        for (segment, _) in &parts {
            total += segment.len();
            starts.push(total);
        }
        let (segments, files) = parts.into_iter().unzip();
        Examples { segments, starts, files, chosen: None }
    }

    /// Those for which `is_chosen` holds, by their number.
    pub(crate) fn choose(&self, is_chosen: impl Fn(usize) -> bool) -> Examples {
        let chosen = (0..self.len()).filter(|index| is_chosen(*index));
        let chosen = chosen.map(|index| self.number(index)).filter_map(|number| u32::try_from(number).ok());
        let mut chosen: Vec<u32> = chosen.collect();
        if chosen.len() == self.len() {
            return self.clone();
        }
        chosen.shrink_to_fit();
        Examples { chosen: Some(chosen), ..self.clone() }
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        match &self.chosen {
            Some(chosen) => chosen.len(),
            None => self.starts.last().copied().unwrap_or(0),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The example `index`; `None` from [`Examples::len`] on.
    pub fn get(&self, index: usize) -> Option<Example> {
        (index < self.len()).then(|| {
            let (part, row) = self.at(index);
            let mut example = self.segments[part].example(row);
            example.file += self.files[part];
            example
        })
    }

    /// The first example.
    pub fn first(&self) -> Option<Example> {
        self.get(0)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Example> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The tokens of each, in order.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.values(Column::Length).map(as_number)
    }

    /// The line or row that each came from, in order.
    pub(crate) fn lines(&self) -> impl Iterator<Item = usize> + '_ {
        self.values(Column::Line).map(as_number)
    }

    /// The file of each, and the number of rows before its own there, in order.
    pub(crate) fn origins(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let files =
            self.values(Column::File).zip(0..).map(|(file, index)| as_number(file) + self.files[self.at(index).0]);
        files.zip(self.values(Column::Row).map(as_number))
    }

    /// The predictions of each that count, in order.
    pub(crate) fn trained_tokens(&self) -> impl Iterator<Item = usize> + '_ {
        self.values(Column::TrainedTokens).map(as_number)
    }

    /// A hash of the tokens and the mask of each, in order.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        self.values(Column::Hash)
    }

    /// One value of each, in order.
    fn values(&self, column: Column) -> impl Iterator<Item = u64> + '_ {
        let mut readers: Vec<_> = self.segments.iter().map(|segment| segment.values(column)).collect();
        (0..self.len()).map(move |index| {
            let (part, row) = self.at(index);
            readers[part].at(row)
        })
    }

    fn number(&self, index: usize) -> usize {
        self.chosen.as_ref().map_or(index, |chosen| chosen[index] as usize)
    }

    fn at(&self, index: usize) -> (usize, usize) {
        let number = self.number(index);
        let part = self.starts.partition_point(|start| *start <= number) - 1;
        (part, number - self.starts[part])
    }
}

impl PartialEq for Examples {
    fn eq(&self, other: &Examples) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}
