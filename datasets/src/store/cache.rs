//! Prepared examples on disk, found by the bytes of everything that shapes their tokens.
//!
//! A file is named `KEY-HASH.arrow`: the key is a hash of all input, the second a hash of the file's bytes,
//! so that damage shows. Files get this name when they are complete; concurrent runs write the same file
//! under different names, and the last one stays.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use twox_hash::XxHash3_128;

use super::segment::Segment;
use super::writer::StoreWriter;
use crate::foundation::{Error, Location, unique_suffix};

/// Changes whenever the same rows would give other tokens, or files of another layout.
const VERSION: u32 = 2;

/// The suffix of files that are being written.
const PART: &str = ".part";

/// The key of a prepared file.
pub(crate) struct Key(XxHash3_128);

impl Key {
    pub(crate) fn new() -> Key {
        let mut key = Key(XxHash3_128::new());
        key.add(&VERSION.to_le_bytes());
        key
    }

    /// Adds something that shapes tokens; its length counts too, so that neighbours cannot be confused.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.write(&(bytes.len() as u64).to_le_bytes());
        self.0.write(bytes);
    }

    /// Adds the bytes of a file.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let hash = hash_of(path).map_err(|source| Error::Unreadable { path: path.display().to_string(), source })?;
        self.add(&hash.to_le_bytes());
        Ok(())
    }

    pub(crate) fn finish(self) -> u128 {
        self.0.finish_128()
    }
}

/// The hash of a file's bytes, read in pieces.
fn hash_of(path: &Path) -> std::io::Result<u128> {
    let mut file = File::open(path)?;
    let mut hasher = XxHash3_128::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish_128()),
            read => hasher.write(&piece[..read]),
        }
    }
}

/// The prepared examples of a key; a file that is damaged is removed and not found.
pub(crate) fn find(folder: &Path, key: u128) -> Option<Segment> {
    let prefix = format!("{key:032x}-");
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(hash) = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".arrow")) else {
            continue;
        };
        let path = entry.path();
        let whole = u128::from_str_radix(hash, 16).is_ok_and(|hash| hash_of(&path).is_ok_and(|found| found == hash));
        if whole && let Ok(segment) = Segment::open(&path) {
            return Some(segment);
        }
        // If it cannot be removed, the new file lies beside it.
        let _ = std::fs::remove_file(&path);
    }
    None
}

/// A writer for the examples of a key, in the folder of prepared files; leftovers of killed runs are removed.
pub(crate) fn writer(folder: &Path, key: u128) -> Result<StoreWriter, Error> {
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, error))?;
    sweep(folder);
    StoreWriter::new(folder.join(format!("{key:032x}.{}{PART}", unique_suffix())))
}

/// Gives a finished file its name and opens it.
pub(crate) fn keep(writer: StoreWriter, meta: String, folder: &Path, key: u128) -> Result<Segment, Error> {
    Segment::open(&writer.finish_file(meta, folder, &format!("{key:032x}-"))?)
}

/// Removes files of runs that were killed while they wrote them: those that are not locked.
fn sweep(folder: &Path) {
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let is_part = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(PART));
        if is_part && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            // One that cannot be removed does no harm.
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::Unwritable {
        location: Location::Key("dataset_prepared_path"),
        path: path.display().to_string(),
        source: error.into(),
        hint: "name a directory that may be written to",
    }
}
