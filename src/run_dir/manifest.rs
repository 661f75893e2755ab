//! `manifest.json`: the size and SHA-256 of every file of a folder, written last, so that a whole folder is recognised.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::staged::{WriteError, failed};

/// The file's name.
pub const MANIFEST: &str = "manifest.json";

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Entry {
    bytes: u64,
    sha256: String,
}

/// A difference between a folder and its manifest.
#[derive(Debug, Error)]
pub enum Damage {
    /// A file is missing or cannot be read.
    #[error("{file} cannot be read: {source}")]
    Unreadable {
        /// The file's name.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// The manifest cannot be used.
    #[error("{MANIFEST} is not a manifest: {reason}")]
    NoManifest {
        /// The reason.
        reason: String,
    },
    /// A file has another length.
    #[error("{file} has {found} bytes where {expected} were written")]
    Length {
        /// The file's name.
        file: String,
        /// Its length.
        found: u64,
        /// The length in the manifest.
        expected: u64,
    },
    /// A file has other bytes.
    #[error("{file} is not what was written: its SHA-256 differs")]
    Bytes {
        /// The file's name.
        file: String,
    },
}

/// Writes the manifest of the files that are in `folder`.
///
/// # Errors
/// When a file cannot be read, or the manifest cannot be written.
pub fn write(folder: &Path) -> Result<(), WriteError> {
    let mut files = BTreeMap::new();
    collect(folder, "", &mut files)?;
    let path = folder.join(MANIFEST);
    let text = serde_json::to_string_pretty(&Manifest { files }).map_err(|error| failed(&path)(error.into()))?;
    fs::write(&path, text + "\n").map_err(failed(&path))
}

/// Adds the files in `folder` and below it, whose names begin with `prefix`.
fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Entry>) -> Result<(), WriteError> {
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files)?;
        } else {
            files.insert(format!("{prefix}{name}"), entry_of(&path).map_err(failed(&path))?);
        }
    }
    Ok(())
}

/// Compares `folder` with its manifest; files that it does not name are ignored.
///
/// # Errors
/// At the first file that is not as it was written.
pub fn verify(folder: &Path) -> Result<(), Damage> {
    let unreadable = |file: &str| {
        let file = file.to_owned();
        move |source| Damage::Unreadable { file, source }
    };
    let text = fs::read(folder.join(MANIFEST)).map_err(unreadable(MANIFEST))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| Damage::NoManifest { reason: error.to_string() })?;
    if manifest.files.is_empty() {
        return Err(Damage::NoManifest { reason: "it does not name any file".to_owned() });
    }
    for (file, expected) in manifest.files {
        // Names are of files in the folder and below it: a manifest cannot point elsewhere.
        let is_inside = Path::new(&file).components().all(|part| matches!(part, Component::Normal(_)));
        if file.is_empty() || file.contains('\\') || !is_inside {
            return Err(Damage::NoManifest { reason: format!("`{file}` is not the name of a file") });
        }
        let path = folder.join(&file);
        let found = fs::metadata(&path).map_err(unreadable(&file))?.len();
        if found != expected.bytes {
            return Err(Damage::Length { file, found, expected: expected.bytes });
        }
        if entry_of(&path).map_err(unreadable(&file))? != expected {
            return Err(Damage::Bytes { file });
        }
    }
    Ok(())
}

fn entry_of(path: &Path) -> io::Result<Entry> {
    let mut hasher = Sha256::new();
    let bytes = hash_file(path, &mut hasher)?;
    Ok(Entry { bytes, sha256: hex(hasher) })
}

/// Adds a file's bytes to `hasher` piece by piece and returns their number.
pub(crate) fn hash_file(path: &Path, hasher: &mut Sha256) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(bytes),
            read => {
                hasher.update(&piece[..read]);
                bytes += read as u64;
            }
        }
    }
}

/// The hash in lower-case hexadecimal digits.
pub(crate) fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_a_length_and_a_missing_file_are_distinguished() {
        let folder = std::env::temp_dir().join(format!("tune-manifest-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let written = || {
            for name in ["a", "b"] {
                fs::write(folder.join(name), [7; 100]).unwrap();
            }
            let _ = fs::remove_file(folder.join(MANIFEST));
            write(&folder).unwrap();
        };
        fs::create_dir_all(folder.join("below")).unwrap();
        fs::write(folder.join("below/c"), "named").unwrap();
        written();
        assert!(verify(&folder).is_ok());
        fs::write(folder.join("below/c"), "other").unwrap();
        assert!(matches!(verify(&folder), Err(Damage::Bytes { file }) if file == "below/c"));
        fs::remove_dir_all(folder.join("below")).unwrap();
        written();
        fs::write(folder.join("beside"), "not named").unwrap();
        assert!(verify(&folder).is_ok());
        fs::remove_file(folder.join("beside")).unwrap();
        let mut bytes = [7; 100];
        bytes[42] ^= 1;
        fs::write(folder.join("b"), bytes).unwrap();
        assert!(matches!(verify(&folder), Err(Damage::Bytes { file }) if file == "b"));
        written();
        fs::write(folder.join("a"), [7; 99]).unwrap();
        assert!(matches!(verify(&folder), Err(Damage::Length { found: 99, expected: 100, .. })));
        written();
        fs::remove_file(folder.join("a")).unwrap();
        assert!(matches!(verify(&folder), Err(Damage::Unreadable { file, .. }) if file == "a"));
        for wrong in [
            "",
            "{}",
            "{\"files\": {\"/etc/hostname\": {\"bytes\": 1, \"sha256\": \"\"}}}",
            "{\"files\": {}}",
            "{\"files\": {\"../a\": {\"bytes\": 1, \"sha256\": \"\"}}}",
        ] {
            fs::write(folder.join(MANIFEST), wrong).unwrap();
            assert!(matches!(verify(&folder), Err(Damage::NoManifest { .. })), "{wrong}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
