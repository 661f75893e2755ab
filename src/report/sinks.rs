//! Sinks: the destinations of a run's figures, each told of every step, evaluation and event.
//!
//! A new sink is a file in `sinks/` with a type that implements [`Sink`], and a row of [`SINKS`]. A checkpoint keeps the
//! position of every sink under the key in its row; a run that resumes opens each sink at that position.

mod append;
mod metrics;
mod terminal;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

pub(super) use terminal::Terminal;

use super::{ReportSettings, Trained};
use crate::run_dir::RunDir;
use crate::train::{Evaluation, StepReport};

/// Every sink but the terminal, which is there before a run is.
pub(super) const SINKS: &[SinkKind] = &[metrics::METRICS_JSONL];

/// A row of [`SINKS`].
#[derive(Debug)]
pub(super) struct SinkKind {
    /// The key of its position in a checkpoint's state.
    pub(super) key: &'static str,
    /// The file or folder that it writes into the run's folder, if it does.
    pub(super) file: Option<&'static str>,
    /// True if the run is to have it.
    pub(super) wanted: fn(&ReportSettings) -> bool,
    /// Opens it for a run, at its start or at the position in a checkpoint.
    pub(super) open: fn(&Opening) -> Result<Box<dyn Sink>>,
}

/// A destination of a run's figures.
pub(super) trait Sink: Debug {
    /// Takes the figures of a step.
    fn step(&mut self, record: &StepRecord) -> Result<()>;

    /// Takes an evaluation of the held-out rows after `step` steps.
    fn evaluation(&mut self, step: usize, evaluation: &Evaluation) -> Result<()>;

    /// Takes what a model was measured to be before or after training.
    fn measured(&mut self, measurement: &Measurement) -> Result<()>;

    /// Takes something else that happened after `step` steps, in words.
    fn event(&mut self, step: usize, text: &str) -> Result<()>;

    /// Returns the position to which a run that resumes from a checkpoint made now goes back; `None` for a sink that
    /// cannot go back.
    fn position(&mut self) -> Result<Option<SinkPosition>>;
}

/// The figures of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepRecord<'a> {
    /// The trainer's report.
    pub(super) step: &'a StepReport,
    /// Tokens per second, padding aside.
    pub(super) tokens_per_second: f64,
    /// Memory taken, as [`super::memory_bytes`] returns it.
    pub(super) memory_bytes: Option<u64>,
    /// Sums over the run, this step included.
    pub(super) trained: &'a Trained,
}

/// The figures of the model before or after training.
#[derive(Debug, Clone, Copy)]
pub struct Measurement<'a> {
    /// `before` or `after`.
    pub moment: &'static str,
    /// The steps that the model was trained for.
    pub step: usize,
    /// The loss on the held-out rows, if there are any.
    pub evaluation: Option<&'a Evaluation>,
    /// The share of held-out prompts that were answered as expected, and their number.
    pub exact_match: Option<(f64, usize)>,
}

/// A position in a sink.
#[derive(Debug)]
pub(super) struct SinkPosition {
    /// The position in the sink's own terms: a file's length, or an identifier of a run on a server with a step.
    pub(super) value: Value,
    /// A file whose contents the position counts on: it must be on the disk before the checkpoint is.
    pub(super) file: Option<File>,
}

/// The positions of a run's sinks by the keys in their rows.
pub type Positions = BTreeMap<String, Value>;

/// The positions of a run's sinks, and the files that they count on.
#[derive(Debug, Default)]
pub struct SinkState {
    /// The positions, for a checkpoint to keep.
    pub positions: Positions,
    files: Vec<File>,
}

impl SinkState {
    pub(super) fn add(&mut self, key: &str, position: SinkPosition) {
        self.positions.insert(key.to_owned(), position.value);
        self.files.extend(position.file);
    }

    /// Waits until everything before the positions is on the disk.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn sync(&self) -> std::io::Result<()> {
        self.files.iter().try_for_each(File::sync_data)
    }
}

/// A checkpoint from which a run resumes, as its sinks need to know it.
#[derive(Debug, Clone)]
pub struct ResumePoint {
    /// The checkpoint's folder, which lies in that of the run that made it.
    pub checkpoint: PathBuf,
    /// The positions that it keeps.
    pub positions: Positions,
}

/// The circumstances in which a sink is opened.
pub(super) struct Opening<'a> {
    /// The run's folder.
    pub(super) run_dir: &'a RunDir,
    /// The checkpoint's folder and the sink's position in it, if the run resumes.
    pub(super) resumed: Option<(&'a Path, Option<&'a Value>)>,
    /// Tells the user of something that is not as it was.
    pub(super) warn: &'a dyn Fn(&str),
}

/// The files and folders that sinks of any kind write into a run's folder.
pub fn sink_files() -> impl Iterator<Item = &'static str> {
    SINKS.iter().filter_map(|kind| kind.file)
}

/// The files and folders that a run's sinks write into its folder.
pub fn wanted_files(settings: &ReportSettings) -> impl Iterator<Item = &'static str> {
    SINKS.iter().filter(|kind| (kind.wanted)(settings)).filter_map(|kind| kind.file)
}
