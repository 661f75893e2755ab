//! The folder of a run: the names of its files, its checkpoints, and the lock that one process at a time holds.

mod lock;
mod manifest;
mod staged;

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use lock::{LOCK, Lock, LockError};
pub use manifest::{Damage, MANIFEST};
pub(crate) use manifest::{hash_file, hex};
pub(crate) use staged::failed;
pub use staged::{Staged, WriteError};

/// The recipe as it was written, in every run folder.
pub const RECIPE: &str = "recipe.yaml";
/// The command line's part of the recipe: what `tune resume` needs beside it.
pub const CALL: &str = "run.json";
/// One JSON object per line: steps and evaluations.
pub const METRICS: &str = "metrics.jsonl";
/// The figures of a finished run.
pub const SUMMARY: &str = "summary.json";
/// The prefix of checkpoint folders, before the number of steps.
const CHECKPOINT: &str = "checkpoint-";

/// Writes the manifest of a folder and compares a folder with it.
pub mod whole {
    pub use super::manifest::{verify, write};
}

/// A folder that cannot take a run.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// It cannot be created or written.
    #[error("output_dir `{}` cannot be written: {source}", path.display())]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It holds something else.
    #[error("output_dir `{}` is not empty and does not hold a run", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// Another process writes there.
    #[error("output_dir `{}` is in use by process {process}", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process's id.
        process: String,
    },
    /// Something in it cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl RunDirError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            RunDirError::NotWritable { .. } => "name a folder that you may write to",
            RunDirError::Occupied { .. } => "name a new folder, so that none of your files is overwritten",
            RunDirError::Locked { .. } => "wait until that run has finished, or name another folder",
            RunDirError::Write(error) => return error.hint(),
        };
        Some(hint.into())
    }
}

/// A run's folder; no other process writes there while it is open.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    _lock: Arc<Lock>,
}

impl RunDir {
    /// Checks that a run may be written to `path`, leaving nothing behind.
    ///
    /// # Errors
    /// When it cannot be written, or holds files that are not a run's.
    pub fn check(path: &Path) -> Result<(), RunDirError> {
        let failed = |source| RunDirError::NotWritable { path: path.to_owned(), source };
        if path.is_dir() {
            let mut occupied = false;
            for entry in fs::read_dir(path).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                // A run that was killed before it wrote its recipe leaves no more than these.
                occupied |= name != LOCK && !staged::is_partial(&name);
            }
            if occupied && !path.join(RECIPE).is_file() {
                return Err(RunDirError::Occupied { path: path.to_owned() });
            }
            return probe(path).map_err(failed);
        }
        let missing: Vec<&Path> =
            path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
        let written = fs::create_dir_all(path).and_then(|()| probe(path));
        for folder in missing {
            // Only what was created here and is empty again can be removed.
            let _ = fs::remove_dir(folder);
        }
        written.map_err(failed)
    }

    /// Checks that no running process has the folder `path` open.
    ///
    /// # Errors
    /// When one has.
    pub fn check_free(path: &Path) -> Result<(), RunDirError> {
        match Lock::holder(path) {
            Some(process) => Err(RunDirError::Locked { path: path.to_owned(), process }),
            None => Ok(()),
        }
    }

    /// Opens the folder, which is created if it is missing, and removes what a killed run left under construction.
    ///
    /// # Errors
    /// When it cannot be written, or another process has it open.
    pub fn open(path: &Path) -> Result<Self, RunDirError> {
        let failed = |source| RunDirError::NotWritable { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = Lock::take(path).map_err(|error| match error {
            LockError::Held { process } => RunDirError::Locked { path: path.to_owned(), process },
            LockError::System(source) => failed(source),
        })?;
        staged::sweep(path)?;
        Ok(Self { path: path.to_owned(), _lock: Arc::new(lock) })
    }

    /// Removes the checkpoints of an earlier run in the folder, the files and folders `records` with the figures of its
    /// steps, and its summary.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn start_over<'a>(&self, records: impl Iterator<Item = &'a str>) -> Result<(), RunDirError> {
        // The summary goes last: killed in between, the folder still holds a finished run, which starts over or resumes
        // with whole metrics.
        for step in self.checkpoints()? {
            self.remove_checkpoint(step)?;
        }
        for stale in records.chain([SUMMARY]).map(|name| self.join(name)) {
            // A missing file is as good as a removed one.
            let _ = if stale.is_dir() { fs::remove_dir_all(&stale) } else { fs::remove_file(&stale) };
        }
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that is whole or absent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        staged::write(&self.join(name), bytes)
    }

    /// The folder of the checkpoint after `step` steps.
    pub fn checkpoint(&self, step: usize) -> PathBuf {
        self.join(&format!("{CHECKPOINT}{step}"))
    }

    /// The checkpoint of the most steps, if there is one.
    pub fn newest_checkpoint(&self) -> Option<PathBuf> {
        self.checkpoints().ok()?.last().map(|step| self.checkpoint(*step))
    }

    /// The steps of the checkpoints that are there, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<usize>, WriteError> {
        checkpoints(&self.path)
    }

    /// Renames a damaged checkpoint, so that it no longer counts as one.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn set_aside(&self, step: usize) -> Result<PathBuf, WriteError> {
        let (from, to) = (self.checkpoint(step), self.join(&format!("{CHECKPOINT}{step}.damaged")));
        if to.exists() {
            fs::remove_dir_all(&to).map_err(failed(&to))?;
        }
        fs::rename(&from, &to).map_err(failed(&from))?;
        Ok(to)
    }

    /// Removes the oldest of the checkpoints up to that of step `newest` until `kept` are left. The newest stays, and
    /// so does the `best`, even if both are more than `kept`.
    ///
    /// # Errors
    /// When the folder cannot be read or a checkpoint cannot be removed.
    pub fn prune(&self, kept: usize, newest: usize, best: Option<usize>) -> Result<(), WriteError> {
        let mut steps = self.checkpoints()?;
        steps.retain(|step| *step <= newest);
        let excess = steps.len().saturating_sub(kept);
        let removable = steps.into_iter().filter(|step| *step != newest && Some(*step) != best);
        removable.take(excess).try_for_each(|step| self.remove_checkpoint(step))
    }

    /// Removes a checkpoint, which is renamed first so that half of one never counts as one.
    fn remove_checkpoint(&self, step: usize) -> Result<(), WriteError> {
        let (path, removed) = (self.checkpoint(step), self.join(&format!(".{CHECKPOINT}{step}.old.partial")));
        if removed.exists() {
            fs::remove_dir_all(&removed).map_err(failed(&removed))?;
        }
        fs::rename(&path, &removed).map_err(failed(&path))?;
        fs::remove_dir_all(&removed).map_err(failed(&removed))
    }
}

/// The steps of the checkpoints in a run's folder, in order.
///
/// # Errors
/// When the folder cannot be read.
pub fn checkpoints(folder: &Path) -> Result<Vec<usize>, WriteError> {
    let mut steps = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let name = entry.map_err(failed(folder))?.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix(CHECKPOINT));
        steps.extend(step.and_then(|step| step.parse::<usize>().ok()));
    }
    steps.sort_unstable();
    Ok(steps)
}

fn probe(folder: &Path) -> io::Result<()> {
    let file = folder.join(".probe.partial");
    fs::write(&file, b"")?;
    fs::remove_file(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checking_a_folder_leaves_nothing_behind() {
        let root = std::env::temp_dir().join(format!("tune-run-dir-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        RunDir::check(&root.join("a/b")).unwrap();
        assert!(!root.join("a").exists());
        fs::write(root.join(".run.json.partial"), "").unwrap();
        fs::write(root.join(LOCK), "1\n").unwrap();
        RunDir::check(&root).expect("a run that was killed before it began is not in the way");
        fs::write(root.join("mine.txt"), "mine").unwrap();
        assert!(matches!(RunDir::check(&root), Err(RunDirError::Occupied { .. })));
        assert!(RunDir::check(&root.join("mine.txt/inside")).is_err());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn pruning_keeps_the_newest_and_the_best() {
        let root = std::env::temp_dir().join(format!("tune-prune-{}", std::process::id()));
        let run_dir = RunDir::open(&root).unwrap();
        let all = [2, 4, 6, 8, 10, 40];
        for (kept, best, left) in [
            (2, None, vec![8, 10, 40]),
            (2, Some(4), vec![4, 10, 40]),
            (1, Some(4), vec![4, 10, 40]),
            (1, Some(10), vec![10, 40]),
            (9, Some(2), all.to_vec()),
        ] {
            for step in all {
                fs::create_dir_all(run_dir.checkpoint(step)).unwrap();
            }
            run_dir.prune(kept, 10, best).unwrap();
            assert_eq!(run_dir.checkpoints().unwrap(), left, "{kept} kept, {best:?} is the best");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
