//! Checkpoints: the model in the form in which it will be exported, and everything that a run needs to resume as if it
//! had never stopped.
//!
//! Training waits for a copy of the trainable parameters; the files are written on a thread of their own. A folder is a
//! checkpoint once it has its name, which it gets when every file is on the disk, the manifest last.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use super::same_run::{Identity, PendingIdentity};
use crate::device::FloatDType;
use crate::export::{self, Companions, ExportSettings, Job};
use crate::hub::BaseModel;
use crate::plan::Plan;
use crate::report::{Positions, Report, plan_for_others};
use crate::run_dir::{RunDir, Staged, failed, whole};
use crate::train::{Position, SavedState, Trainer, TrainerState};

/// The file with all of a checkpoint that is not a tensor.
const STATE: &str = "training_state.json";

/// The content of [`STATE`].
#[derive(Debug, Serialize, Deserialize)]
struct State {
    position: Position,
    /// The seed of every order and every random sequence, which are functions of it and the position.
    seed: u64,
    progress: Progress,
    /// The positions of the run's sinks, each under its own key beside the others here.
    #[serde(flatten)]
    sinks: Positions,
    #[serde(rename = "origin")]
    identity: Identity,
}

/// A checkpoint that was read.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) state: SavedState,
    pub(super) progress: Progress,
    pub(super) sinks: Positions,
    pub(super) identity: Identity,
}

impl Checkpoint {
    /// Reads the checkpoint in `folder` after comparing every byte with its manifest.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        whole::verify(folder)?;
        let text = std::fs::read(folder.join(STATE)).context(STATE)?;
        let State { position, progress, sinks, identity, .. } = serde_json::from_slice(&text).context(STATE)?;
        Ok(Self { state: SavedState::open(folder, position)?, progress, sinks, identity })
    }
}

/// The parts that all checkpoints of a run share.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) plan: Arc<Plan>,
    pub(super) base: Arc<BaseModel>,
    pub(super) companions: Arc<Companions>,
    /// The plan as printed.
    pub(super) plan_text: String,
    pub(super) identity: PendingIdentity,
}

/// The checkpoints of a run.
#[derive(Debug)]
pub(super) struct Checkpoints {
    contents: Arc<Contents>,
    run_dir: RunDir,
    /// The number of checkpoints that are kept.
    limit: usize,
    pending: Option<JoinHandle<Result<()>>>,
    /// The step of the last one, which may still be being written.
    last: Option<usize>,
}

impl Checkpoints {
    /// The checkpoints in `run_dir`, of which that of step `last` is known to be whole.
    pub(super) fn new(contents: Contents, run_dir: &RunDir, limit: usize, last: Option<usize>) -> Self {
        Self { contents: Arc::new(contents), run_dir: run_dir.clone(), limit, pending: None, last }
    }

    /// Removes the checkpoints that a run which was killed right after its last one had no time to remove.
    ///
    /// # Errors
    /// When a checkpoint cannot be removed.
    pub(super) fn prune(&self, progress: &Progress) -> Result<()> {
        match self.last {
            Some(step) => Ok(self.run_dir.prune(self.limit, step, progress.best_saved)?),
            None => Ok(()),
        }
    }

    /// True if the state after `step` steps is saved, or will be once [`Checkpoints::finish`] returns.
    pub(super) fn has(&self, step: usize) -> bool {
        self.last == Some(step)
    }

    /// The identity of the run.
    ///
    /// # Errors
    /// When the base model's files could not be read.
    pub(super) fn identity(&self) -> Result<Identity> {
        self.contents.identity.wait()
    }

    /// Begins to save the trainer's state, once the checkpoint before is written.
    ///
    /// # Errors
    /// When the checkpoint before could not be written.
    pub(super) fn save(&mut self, trainer: &Trainer, progress: &mut Progress, report: &mut Report) -> Result<()> {
        self.finish()?;
        let step = trainer.position();
        progress.trained = report.trained();
        progress.note_saved(step);
        let sinks = report.sink_state()?;
        let (contents, run_dir, limit) = (Arc::clone(&self.contents), self.run_dir.clone(), self.limit);
        let (state, progress) = (trainer.state(), progress.clone());
        let write = move || -> Result<()> {
            // What the checkpoint counts on must outlast a power cut too.
            sinks.sync().context("the files of the run's sinks cannot be written")?;
            let folder = run_dir.checkpoint(step);
            let best = progress.best_saved;
            let written = contents.write(&folder, state, progress, sinks.positions);
            written.with_context(|| format!("{} cannot be saved", folder.display()))?;
            Ok(run_dir.prune(limit, step, best)?)
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned());
        self.pending = Some(thread.spawn(write).context("no thread can be started")?);
        self.last = Some(step);
        Ok(())
    }

    /// Reports a checkpoint that could not be written, without waiting for one.
    ///
    /// # Errors
    /// When a checkpoint could not be written.
    pub(super) fn check(&mut self) -> Result<()> {
        if self.pending.as_ref().is_some_and(JoinHandle::is_finished) { self.finish() } else { Ok(()) }
    }

    /// Waits until the last checkpoint is written.
    ///
    /// # Errors
    /// When it could not be written.
    pub(super) fn finish(&mut self) -> Result<()> {
        let written = match self.pending.take() {
            Some(thread) => thread.join().unwrap_or_else(|_| Err(anyhow!("the checkpoint cannot be written"))),
            None => Ok(()),
        };
        if written.is_err() {
            self.last = None;
        }
        written
    }
}

impl Drop for Checkpoints {
    /// Finishes the last checkpoint, whatever else went wrong.
    fn drop(&mut self) {
        // The error that led here is the one to report.
        let _ = self.finish();
    }
}

impl Contents {
    fn write(&self, folder: &Path, state: TrainerState, progress: Progress, sinks: Positions) -> Result<()> {
        let staged = Staged::begin(folder)?;
        let (into, step) = (staged.path(), state.position.step);
        state.write(into)?;
        let position = state.position;
        let mut decoder = state.decoder;
        let card = format!("Checkpoint after {step} steps.\n\n```text\n{}```\n", plan_for_others(&self.plan_text));
        let adapter = self.plan.adaptation.adapter();
        // An adapter is saved in full precision, since training resumes from it.
        let dtype = if adapter.is_some() { Some(FloatDType::F32) } else { self.plan.export.dtype };
        let job = Job {
            settings: &ExportSettings { dtype, ..ExportSettings::default() },
            base: &self.base,
            adapter,
            companions: &self.companions,
            card: &|_| card.clone(),
        };
        (export::native(adapter.is_some()).write_files)(into, &mut decoder, &job)?;
        let identity = self.identity.wait()?;
        let state = State { position, seed: self.plan.seed, progress, sinks, identity };
        let text = serde_json::to_string_pretty(&state).context("the state is plain JSON")?;
        let path = into.join(STATE);
        std::fs::write(&path, text + "\n").map_err(failed(&path))?;
        whole::write(into)?;
        Ok(staged.finish()?)
    }
}
