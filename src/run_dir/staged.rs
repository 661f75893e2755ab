//! Files and folders that are whole or absent, even after a power cut.
//!
//! Everything is written under a temporary name (`.NAME.partial`), synced to the disk and renamed; the next run removes
//! what a killed run left under such a name.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The end of temporary names, which begin with a dot.
const PARTIAL: &str = ".partial";

/// A file or folder that cannot be written.
#[derive(Debug, Error)]
#[error("{}: {source}", path.display())]
pub struct WriteError {
    /// The file or folder.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

impl WriteError {
    /// The hint: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = "check that the folder can be written and the disk has room; training so far is in the run's checkpoint folders, if there are any";
        Some(hint.into())
    }
}

/// Turns a system error about `path` into ours.
pub(crate) fn failed(path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError { path, source }
}

/// Writes a file that is whole or absent.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let temporary = temporary(path);
    let written = File::create(&temporary).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    let placed = written.and_then(|()| fs::rename(&temporary, path));
    if placed.is_err() {
        // Best effort: the error that led here is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    placed.map_err(failed(path))?;
    sync_parent(path)
}

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
    pub fn begin(place: &Path) -> Result<Self, WriteError> {
        let temporary = temporary(place);
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(failed(&temporary))?;
        }
        fs::create_dir_all(&temporary).map_err(failed(&temporary))?;
        Ok(Self { temporary, place: place.to_owned(), finished: false })
    }

    /// The temporary folder to write into.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Syncs the folder to the disk and moves it to its place, replacing a folder that may be there.
    ///
    /// # Errors
    /// When it cannot be synced or renamed.
    pub fn finish(mut self) -> Result<(), WriteError> {
        sync_tree(&self.temporary)?;
        // The old folder goes only when the new one stands: there is no moment without either under some name.
        let old = self.place.with_file_name(format!(".{}.old{PARTIAL}", name(&self.place)));
        let replaces = self.place.exists();
        if replaces {
            let _ = fs::remove_dir_all(&old);
            fs::rename(&self.place, &old).map_err(failed(&self.place))?;
        }
        if let Err(source) = fs::rename(&self.temporary, &self.place) {
            if replaces {
                let _ = fs::rename(&old, &self.place);
            }
            return Err(failed(&self.place)(source));
        }
        self.finished = true;
        sync_parent(&self.place)?;
        if replaces { fs::remove_dir_all(&old).map_err(failed(&old)) } else { Ok(()) }
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

/// Removes the temporary files and folders that a killed run left in `folder`.
pub(super) fn sweep(folder: &Path) -> Result<(), WriteError> {
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if is_partial(&name(&path)) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed(&path))?;
        }
    }
    Ok(())
}

/// True for the name of a file or folder under construction.
pub(super) fn is_partial(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(PARTIAL)
}

fn temporary(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}{PARTIAL}", name(path)))
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Syncs every file below `folder`, and the folders.
fn sync_tree(folder: &Path) -> Result<(), WriteError> {
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(failed(&path))?;
        }
    }
    sync_folder(folder)
}

fn sync_parent(path: &Path) -> Result<(), WriteError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Makes names in `folder` survive a power cut, which only Unix lets programs ask for.
fn sync_folder(folder: &Path) -> Result<(), WriteError> {
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_and_replaces_the_one_before() {
        let root = std::env::temp_dir().join(format!("tune-staged-{}", std::process::id()));
        let place = root.join("folder");
        for content in ["first", "second"] {
            let staged = Staged::begin(&place).unwrap();
            fs::write(staged.path().join("file"), content).unwrap();
            assert_ne!(fs::read_to_string(place.join("file")).ok().as_deref(), Some(content));
            staged.finish().unwrap();
            assert_eq!(fs::read_to_string(place.join("file")).unwrap(), content);
        }
        drop(Staged::begin(&place).unwrap());
        fs::create_dir(root.join(".killed.partial")).unwrap();
        sweep(&root).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "nothing but the folder is left");
        fs::remove_dir_all(&root).unwrap();
    }
}
