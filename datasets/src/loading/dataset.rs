//! The loaded data set, and the batches that it hands out by step number.
//!
//! A batch is a pure function of the seed and the step, so resuming needs nothing but the step.

use std::path::PathBuf;

use twox_hash::XxHash3_128;

use super::counts::Counts;
use super::load;
use super::progress::LoadProgress;
use crate::batches::{Batch, MicroBatch, StepRows, longest_first, micro_batches, rows_of};
use crate::foundation::{BatchSettings, DatasetSettings, Error, Purpose, in_turn, shuffled};
use crate::reading::Unit;
use crate::rows::{Example, Question};
use crate::store::Examples;
use crate::text::{PromptForm, Tokenizer};

/// Examples to train on and examples held out, and their batches.
#[derive(Debug)]
pub struct Dataset {
    /// Examples to train on, in the order of the files; at least one.
    pub train: Examples,
    /// Examples that are only evaluated.
    pub held_out: Examples,
    /// The questions among the held-out rows, in order.
    pub questions: Vec<Question>,
    /// The form in which the rows to train on give the model their prompts.
    pub prompt_form: PromptForm,
    /// Counts of rows and tokens.
    pub counts: Counts,
    /// The files, by [`Example::file`], with the units of their numbers.
    files: Vec<(PathBuf, Unit)>,
    /// The rows of every step, their documents by their index in `train`.
    step_rows: StepRows,
    seed: u64,
    sequence_len: usize,
    batching: BatchSettings,
}

impl Dataset {
    /// Reads, formats, tokenises and masks every row that the settings name.
    ///
    /// # Errors
    /// If a setting, a file or a row is not as it must be: the first problem, with file and line.
    pub fn load(
        settings: &DatasetSettings,
        tokenizer: &Tokenizer,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Dataset, Error> {
        let loaded = load::load(settings, tokenizer, progress)?;
        let mut dataset = Dataset::of(loaded.train, loaded.held_out, loaded.counts, settings);
        dataset.questions = loaded.questions;
        dataset.prompt_form = loaded.prompt_form;
        dataset.files = loaded.files;
        Ok(dataset)
    }

    /// A data set of given examples; the sources of the settings are not read.
    ///
    /// # Panics
    /// If the system's directory for temporary files cannot be written to, which takes at least 16 million
    /// tokens.
    pub fn from_examples(train: Vec<Example>, held_out: Vec<Example>, settings: &DatasetSettings) -> Dataset {
        let stored = |examples: &[Example]| Examples::from_memory(examples).expect("there is room for temporary files");
        let (train, held_out) = (stored(&train), stored(&held_out));
        let mut counts = Counts::default();
        counts.count(&train, &held_out);
        Dataset::of(train, held_out, counts, settings)
    }

    fn of(train: Examples, held_out: Examples, counts: Counts, settings: &DatasetSettings) -> Dataset {
        let step_rows = StepRows::new(&lengths(&train), settings);
        let (packed_rows, packed_positions) = (step_rows.rows(), step_rows.rows() * settings.sequence_len);
        Dataset {
            counts: Counts { packed_rows, packed_positions, ..counts },
            train,
            held_out,
            questions: Vec::new(),
            prompt_form: PromptForm::default(),
            files: Vec::new(),
            step_rows,
            seed: settings.seed,
            sequence_len: settings.sequence_len,
            batching: settings.batching.clone(),
        }
    }

    /// Steps that go once through the rows; a last, partial window is a step too. At least 1.
    pub fn steps_per_epoch(&self) -> usize {
        self.step_rows.steps_per_epoch(self.batching.rows_per_step())
    }

    /// The batch of a step, counted from 0 over all epochs.
    pub fn batch_at(&self, step: usize) -> Batch {
        let steps = self.steps_per_epoch();
        let micro_batches = self.micro_batches(&self.rows_at(step), self.batching.micro_batch_size);
        Batch {
            trained_tokens: micro_batches.iter().map(MicroBatch::trained_tokens).sum(),
            tokens: micro_batches.iter().map(|batch| batch.real_tokens).sum(),
            epoch: (step + 1) as f64 / steps as f64,
            micro_batches,
        }
    }

    /// The places of the examples of each micro-batch of a step, in the order of [`Dataset::batch_at`].
    pub fn locations_at(&self, step: usize) -> Vec<Vec<String>> {
        let located = |rows: &[Vec<&Example>]| rows.iter().flatten().map(|example| self.location(example)).collect();
        longest_first(&self.rows_at(step)).chunks(self.batching.micro_batch_size.max(1)).map(located).collect()
    }

    /// Changes the rows of a micro-batch and the micro-batches of a step, from now on; if the batches of held-out rows
    /// had the same number of rows, they follow.
    pub fn batch_as(&mut self, micro_batch_size: usize, accumulation: usize) {
        let batching = &mut self.batching;
        if batching.eval_batch_size == batching.micro_batch_size {
            batching.eval_batch_size = micro_batch_size;
        }
        (batching.micro_batch_size, batching.accumulation) = (micro_batch_size, accumulation);
    }

    /// The shape of batches.
    pub fn batching(&self) -> &BatchSettings {
        &self.batching
    }

    /// The tokens of each row of each micro-batch of a step, in the order of [`Dataset::batch_at`], without reading them.
    pub fn row_lengths_at(&self, step: usize) -> Vec<Vec<usize>> {
        let mut lengths: Vec<usize> = self.window(step).into_iter().map(|row| self.step_rows.tokens(row)).collect();
        lengths.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
        lengths.chunks(self.batching.micro_batch_size.max(1)).map(<[usize]>::to_vec).collect()
    }

    /// The held-out rows, longest first.
    pub fn held_out_batches(&self) -> Vec<MicroBatch> {
        let order = in_turn(self.held_out.len());
        let rows = rows_of(&lengths(&self.held_out), order, self.batching.eval_packing, self.sequence_len);
        let rows: Vec<Vec<Example>> = rows.iter().map(|row| documents(&self.held_out, row)).collect();
        self.micro_batches(&rows, self.batching.eval_batch_size)
    }

    /// A hash of every example's tokens and mask, in order: all that a run is trained on.
    pub fn fingerprint(&self) -> String {
        let mut hasher = XxHash3_128::new();
        for examples in [&self.train, &self.held_out] {
            hasher.write(&(examples.len() as u64).to_le_bytes());
            examples.hashes().for_each(|hash| hasher.write(&hash.to_le_bytes()));
        }
        format!("xxh3:{:032x}", hasher.finish_128())
    }

    /// The place of an example, e.g. `train.jsonl:310`.
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

    /// The lines (or rows) nearest to one from which no example to train on came, before and after it.
    pub fn lines_around(&self, line: usize) -> (Option<usize>, Option<usize>) {
        let before = self.train.lines().filter(|found| *found < line).max();
        (before, self.train.lines().filter(|found| *found > line).min())
    }

    /// The indices of the rows of a step, in the epoch's order.
    fn window(&self, step: usize) -> Vec<u32> {
        self.step_rows.window(step, self.batching.rows_per_step())
    }

    /// The rows of a step, in the epoch's order, each as its documents.
    fn rows_at(&self, step: usize) -> Vec<Vec<Example>> {
        let rows = self.window(step).into_iter();
        rows.map(|row| documents(&self.train, self.step_rows.documents(row))).collect()
    }

    fn micro_batches(&self, rows: &[Vec<Example>], size: usize) -> Vec<MicroBatch> {
        micro_batches(rows, size, |longest| self.batching.width(longest, self.sequence_len))
    }
}

/// The tokens of each example.
fn lengths(examples: &Examples) -> Vec<u32> {
    examples.lengths().map(|length| u32::try_from(length).unwrap_or(u32::MAX)).collect()
}

/// The examples of a row.
fn documents(examples: &Examples, row: &[u32]) -> Vec<Example> {
    row.iter().filter_map(|document| examples.get(*document as usize)).collect()
}

#[cfg(test)]
mod tests;
