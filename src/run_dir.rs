//! The folder of a run: what is in it, and who may write there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The recipe as it was written, in every run folder.
pub const RECIPE: &str = "recipe.yaml";
/// One JSON object per line: steps and evaluations.
pub const METRICS: &str = "metrics.jsonl";
/// The adapter, as PEFT loads it.
pub const ADAPTER: &str = "adapter";
/// The merged checkpoint.
pub const MERGED: &str = "merged";
/// The merged checkpoint with its linear maps in 4 bits.
pub const BNB_4BIT: &str = "bnb-4bit";

/// Why a folder cannot take a run.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// It cannot be created or written.
    #[error("output_dir `{}` cannot be written: {source}\nhint: name a folder that you may write to", path.display())]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds something else.
    #[error("output_dir `{}` is not empty and holds no run\nhint: name a new folder, so that nothing of yours is overwritten", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
}

/// A run's folder.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Checks that a run may be written to `path`, leaving nothing behind.
    ///
    /// # Errors
    /// When it cannot be written, or holds files that are no run's.
    pub fn check(path: &Path) -> Result<(), RunDirError> {
        let failed = |source| RunDirError::NotWritable { path: path.to_owned(), source };
        if path.is_dir() {
            let occupied = fs::read_dir(path).map_err(failed)?.next().is_some();
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

    /// Creates the folder, or takes over one that holds an earlier run, and puts the recipe and the plan into it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, recipe: &str, plan: &str) -> Result<Self, RunDirError> {
        let run_dir = Self { path: path.to_owned() };
        fs::create_dir_all(path).map_err(|source| run_dir.failed(source))?;
        for stale in [METRICS, "summary.json"] {
            // A missing file is as good as a removed one.
            let _ = fs::remove_file(path.join(stale));
        }
        run_dir.write(RECIPE, recipe.as_bytes())?;
        run_dir.write("plan.txt", plan.as_bytes())?;
        Ok(run_dir)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file under a temporary name and renames it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunDirError> {
        let temporary = self.join(&format!(".{name}.partial"));
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, self.join(name)))
            .map_err(|source| self.failed(source))
    }

    /// The folder of the checkpoint after `step` steps.
    pub fn checkpoint(&self, step: usize) -> PathBuf {
        self.join(&format!("checkpoint-{step}"))
    }

    /// The checkpoint of the most steps, if there is one.
    pub fn newest_checkpoint(&self) -> Option<PathBuf> {
        let names = fs::read_dir(&self.path).ok()?.flatten().map(|entry| entry.file_name());
        let step = |name: std::ffi::OsString| name.to_str()?.strip_prefix("checkpoint-")?.parse::<usize>().ok();
        names.filter_map(step).max().map(|step| self.checkpoint(step))
    }

    /// Removes all but the last `kept` checkpoints up to that of step `newest`; later ones are an earlier run's.
    ///
    /// # Errors
    /// When the folder cannot be read or a checkpoint not be removed.
    pub fn prune(&self, kept: usize, newest: usize) -> Result<(), RunDirError> {
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|source| self.failed(source))? {
            let name = entry.map_err(|source| self.failed(source))?.file_name();
            if let Some(step) =
                name.to_string_lossy().strip_prefix("checkpoint-").and_then(|step| step.parse::<usize>().ok())
            {
                steps.push(step);
            }
        }
        steps.retain(|step| *step <= newest);
        steps.sort_unstable();
        let excess = steps.len().saturating_sub(kept);
        for &step in &steps[..excess] {
            fs::remove_dir_all(self.checkpoint(step)).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> RunDirError {
        RunDirError::NotWritable { path: self.path.clone(), source }
    }
}

fn probe(folder: &Path) -> io::Result<()> {
    let file = folder.join(".tune-probe");
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
        fs::write(root.join("mine.txt"), "mine").unwrap();
        assert!(matches!(RunDir::check(&root), Err(RunDirError::Occupied { .. })));
        assert!(RunDir::check(&root.join("mine.txt/inside")).is_err());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn pruning_keeps_the_newest_checkpoints_of_this_run() {
        let root = std::env::temp_dir().join(format!("tune-prune-{}", std::process::id()));
        let run_dir = RunDir::create(&root, "a: 1\n", "plan").unwrap();
        for step in [2, 10, 9, 40] {
            fs::create_dir(run_dir.checkpoint(step)).unwrap();
        }
        run_dir.prune(2, 10).unwrap();
        assert!(run_dir.checkpoint(40).exists(), "it does not count, so that checkpoint-10 is not taken for old");
        assert!(!run_dir.checkpoint(2).exists() && run_dir.checkpoint(9).exists() && run_dir.checkpoint(10).exists());
        fs::remove_dir_all(&root).unwrap();
    }
}
