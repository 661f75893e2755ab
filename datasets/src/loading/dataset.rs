//! The loaded data set, and the batches that it hands out by step number.
//!
//! A batch is a pure function of the seed and the step, so resuming needs nothing but the step.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use twox_hash::XxHash3_128;

use super::counts::Counts;
use super::load;
use super::progress::LoadProgress;
use crate::batches::{Batch, MicroBatch, Rows, pack, row_length};
use crate::foundation::{BatchSettings, DatasetSettings, Error, Purpose, in_turn, shuffled};
use crate::reading::Unit;
use crate::rows::{Example, Question};
use crate::store::Examples;
use crate::text::Tokenizer;

/// Examples to train on and held out, and how they are batched.
#[derive(Debug)]
pub struct Dataset {
    /// Examples to train on, in the order of the files; at least one.
    pub train: Examples,
    /// Examples that are only evaluated.
    pub held_out: Examples,
    /// The held-out rows that ask something, in order.
    pub questions: Vec<Question>,
    /// What was read and what became of it.
    pub counts: Counts,
    /// The files, which [`Example::file`] is an index into, and what their rows are counted by.
    files: Vec<(PathBuf, Unit)>,
    /// Rows to train on, each the indices of its documents in `train`.
    rows: Rows,
    /// The tokens of each row.
    row_tokens: Vec<u32>,
    /// The order of rows of the epoch that was asked for last.
    order: Mutex<Option<(usize, Arc<[u32]>)>>,
    shuffle: bool,
    seed: u64,
    sequence_len: usize,
    batching: BatchSettings,
}

impl Dataset {
    /// Reads, formats, tokenises and masks every row that the settings name.
    ///
    /// Fails on the first kind of problem met, naming file and line; see [`Error`].
    pub fn load(
        settings: &DatasetSettings,
        tokenizer: &Tokenizer,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Dataset, Error> {
        let loaded = load::load(settings, tokenizer, progress)?;
        let mut dataset = Dataset::of(loaded.train, loaded.held_out, loaded.counts, settings);
        dataset.questions = loaded.questions;
        dataset.files = loaded.files;
        Ok(dataset)
    }

    /// A data set of examples that are there already; sources of the settings are not read.
    ///
    /// # Panics
    /// Never with fewer than 16 million tokens; beyond that, when the system's folder for temporary
    /// files cannot be written to.
    pub fn from_examples(train: Vec<Example>, held_out: Vec<Example>, settings: &DatasetSettings) -> Dataset {
        let stored = |examples: &[Example]| Examples::from_memory(examples).expect("there is room for temporary files");
        let (train, held_out) = (stored(&train), stored(&held_out));
        let mut counts = Counts::default();
        counts.count(&train, &held_out);
        Dataset::of(train, held_out, counts, settings)
    }

    fn of(train: Examples, held_out: Examples, counts: Counts, settings: &DatasetSettings) -> Dataset {
        let order = match settings.shuffle && settings.batching.packing {
            true => shuffled(train.len(), settings.seed, Purpose::Packing),
            false => in_turn(train.len()),
        };
        let rows = rows_of(&train, order, settings.batching.packing, settings.sequence_len);
        let lengths: Vec<u32> = train.lengths().map(|length| u32::try_from(length).unwrap_or(u32::MAX)).collect();
        let row_tokens = rows.iter().map(|row| row.iter().map(|document| lengths[*document as usize]).sum()).collect();
        Dataset {
            counts: Counts { packed_rows: rows.len(), packed_positions: rows.len() * settings.sequence_len, ..counts },
            train,
            held_out,
            questions: Vec::new(),
            files: Vec::new(),
            rows,
            row_tokens,
            order: Mutex::new(None),
            shuffle: settings.shuffle,
            seed: settings.seed,
            sequence_len: settings.sequence_len,
            batching: settings.batching.clone(),
        }
    }

    /// Steps that go once through the rows; a last, partial window is a step too. At least 1.
    pub fn steps_per_epoch(&self) -> usize {
        self.rows.len().div_ceil(self.rows_per_step()).max(1)
    }

    /// The batch of a step, counted from 0 over all epochs.
    pub fn batch_at(&self, step: usize) -> Batch {
        let steps = self.steps_per_epoch();
        let documents = |row: u32| self.documents(&self.train, self.rows.row(row as usize));
        let window: Vec<Vec<Example>> = self.window(step).into_iter().map(documents).collect();
        let micro_batches = self.micro_batches(window, self.batching.micro_batch_size);
        Batch {
            trained_tokens: micro_batches.iter().map(MicroBatch::trained_tokens).sum(),
            tokens: micro_batches.iter().map(|batch| batch.real_tokens).sum(),
            epoch: (step + 1) as f64 / steps as f64,
            micro_batches,
        }
    }

    /// Where the examples of each micro-batch of a step came from, as [`Dataset::batch_at`] gives them.
    pub fn locations_at(&self, step: usize) -> Vec<Vec<String>> {
        let documents = |row: u32| self.documents(&self.train, self.rows.row(row as usize));
        let window: Vec<Vec<Example>> = self.window(step).into_iter().map(documents).collect();
        let located = |rows: &[Vec<&Example>]| rows.iter().flatten().map(|example| self.location(example)).collect();
        longest_first(&window).chunks(self.batching.micro_batch_size.max(1)).map(located).collect()
    }

    /// Rows of a micro-batch from now on, and micro-batches of a step; held-out rows follow where they were as many.
    pub fn batch_as(&mut self, micro_batch_size: usize, accumulation: usize) {
        let batching = &mut self.batching;
        if batching.eval_batch_size == batching.micro_batch_size {
            batching.eval_batch_size = micro_batch_size;
        }
        (batching.micro_batch_size, batching.accumulation) = (micro_batch_size, accumulation);
    }

    /// How rows are batched.
    pub fn batching(&self) -> &BatchSettings {
        &self.batching
    }

    /// The tokens of each row of each micro-batch of a step, as [`Dataset::batch_at`] gives them, without reading them.
    pub fn row_lengths_at(&self, step: usize) -> Vec<Vec<usize>> {
        let tokens = |row: u32| self.row_tokens[row as usize] as usize;
        let mut lengths: Vec<usize> = self.window(step).into_iter().map(tokens).collect();
        lengths.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
        lengths.chunks(self.batching.micro_batch_size.max(1)).map(<[usize]>::to_vec).collect()
    }

    /// The numbers of the rows of a step, in the epoch's order.
    fn window(&self, step: usize) -> Vec<u32> {
        let (epoch, within) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let order = self.order(epoch);
        order.iter().skip(within * self.rows_per_step()).take(self.rows_per_step()).copied().collect()
    }

    /// The held-out rows, longest first.
    pub fn held_out_batches(&self) -> Vec<MicroBatch> {
        let order = in_turn(self.held_out.len());
        let rows = rows_of(&self.held_out, order, self.batching.eval_packing, self.sequence_len);
        let rows = rows.iter().map(|row| self.documents(&self.held_out, row)).collect();
        self.micro_batches(rows, self.batching.eval_batch_size)
    }

    /// A hash of every example's tokens and of which of them are trained, in order: what a run learns from.
    pub fn fingerprint(&self) -> String {
        let mut hasher = XxHash3_128::new();
        for examples in [&self.train, &self.held_out] {
            hasher.write(&(examples.len() as u64).to_le_bytes());
            examples.hashes().for_each(|hash| hasher.write(&hash.to_le_bytes()));
        }
        format!("xxh3:{:032x}", hasher.finish_128())
    }

    /// Where an example came from, e.g. `train.jsonl:310`.
    pub fn location(&self, example: &Example) -> String {
        load::location(&self.files, example.file, example.line)
    }

    /// The indices of `count` examples to train on, drawn by the seed, in the order of the files.
    pub fn drawn(&self, count: usize) -> Vec<usize> {
        let order = shuffled(self.train.len(), self.seed, Purpose::Preview);
        let mut drawn: Vec<usize> = order.into_iter().take(count).map(|index| index as usize).collect();
        drawn.sort_unstable();
        drawn
    }

    /// The indices of the examples to train on that came from a line (or row) of their files.
    pub fn on_line(&self, line: usize) -> Vec<usize> {
        self.train.lines().enumerate().filter(|(_, found)| *found == line).map(|(index, _)| index).collect()
    }

    /// The order of rows in an epoch; drawn once for the steps that follow each other in it.
    fn order(&self, epoch: usize) -> Arc<[u32]> {
        let mut last = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = last.as_ref().filter(|(of, _)| *of == epoch || !self.shuffle) {
            return Arc::clone(order);
        }
        let order: Arc<[u32]> = match self.shuffle {
            true => shuffled(self.rows.len(), self.seed, Purpose::Epoch(epoch as u64)).into(),
            false => in_turn(self.rows.len()).into(),
        };
        *last = Some((epoch, Arc::clone(&order)));
        order
    }

    fn documents(&self, examples: &Examples, row: &[u32]) -> Vec<Example> {
        row.iter().filter_map(|document| examples.get(*document as usize)).collect()
    }

    /// Rows sorted by length, so that those side by side need little padding, and cut into batches.
    fn micro_batches(&self, rows: Vec<Vec<Example>>, size: usize) -> Vec<MicroBatch> {
        longest_first(&rows)
            .chunks(size.max(1))
            .map(|rows| {
                let longest = rows.iter().map(|row| row_length(row)).max().unwrap_or(0);
                MicroBatch::from_examples(rows, self.width(longest))
            })
            .collect()
    }

    /// The width of rows of which the longest has `longest` tokens.
    fn width(&self, longest: usize) -> usize {
        match self.batching.pad_to_sequence_len {
            true => self.sequence_len,
            false => {
                let bucket = longest.next_multiple_of(self.batching.width_multiple.max(1));
                bucket.min(self.sequence_len.max(longest))
            }
        }
    }

    fn rows_per_step(&self) -> usize {
        (self.batching.micro_batch_size * self.batching.accumulation).max(1)
    }
}

/// Rows by their length, those of the same length in their order.
fn longest_first(rows: &[Vec<Example>]) -> Vec<Vec<&Example>> {
    let mut rows: Vec<Vec<&Example>> = rows.iter().map(|row| row.iter().collect()).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row_length(row)));
    rows
}

/// Rows of documents: packed, or one each.
fn rows_of(examples: &Examples, order: Vec<u32>, packing: bool, sequence_len: usize) -> Rows {
    if !packing {
        return Rows::single(order);
    }
    let lengths: Vec<u32> = examples.lengths().map(|length| u32::try_from(length).unwrap_or(u32::MAX)).collect();
    pack(&lengths, &order, sequence_len)
}

#[cfg(test)]
mod tests;
