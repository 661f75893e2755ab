//! A folder that appears whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use super::ExportError;

/// A folder under construction beside its final place; dropped unfinished, it is removed.
#[derive(Debug)]
pub struct Staged {
    temporary: PathBuf,
    place: PathBuf,
    finished: bool,
}

impl Staged {
    /// Begins the folder that will be `place`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn begin(place: &Path) -> Result<Self, ExportError> {
        let name = place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = place.with_file_name(format!(".{name}.partial"));
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(failed(&temporary))?;
        }
        fs::create_dir_all(&temporary).map_err(failed(&temporary))?;
        Ok(Self { temporary, place: place.to_owned(), finished: false })
    }

    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Puts the folder in its place, instead of one that may be there.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn finish(mut self) -> Result<(), ExportError> {
        if self.place.exists() {
            fs::remove_dir_all(&self.place).map_err(failed(&self.place))?;
        }
        fs::rename(&self.temporary, &self.place).map_err(failed(&self.place))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: the error that led here is the one to report.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Writes a file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    fs::write(path, bytes).map_err(failed(path))
}

/// Turns a system error about `path` into ours.
pub(super) fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Write { path, source }
}
