//! Stamps of files, by which a file that was replaced or changed since it was opened is recognised.

use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Most bytes of a configuration or an index: those of the largest models have a tenth of it.
const MOST_BYTES: u64 = 100_000_000;

/// A file's identity, length and time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    len_bytes: u64,
    identity: [u64; 2],
    modified: (i64, i64),
}

impl Stamp {
    /// That of an open file.
    pub(super) fn of(file: &File) -> Result<Stamp> {
        Ok(Stamp::from(&file.metadata()?))
    }

    /// True if the file at `path` is still this one.
    pub(super) fn holds_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| Stamp::from(&metadata) == *self)
    }

    /// The file's length.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    #[cfg(unix)]
    fn from(metadata: &Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        Stamp {
            len_bytes: metadata.len(),
            identity: [metadata.dev(), metadata.ino()],
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    #[cfg(windows)]
    fn from(metadata: &Metadata) -> Stamp {
        use std::os::windows::fs::MetadataExt;
        let modified = (metadata.last_write_time().cast_signed(), 0);
        Stamp { len_bytes: metadata.len(), identity: [0; 2], modified }
    }
}

/// Opens a file that must be one: what waits for a writer, or has no end, is an error.
pub(super) fn open(path: &Path) -> Result<File> {
    if std::fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"))
}

/// The bytes of a small file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} MB", MOST_BYTES / 1_000_000)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::Scratch;
    use super::*;

    #[test]
    fn a_file_that_grew_was_rewritten_or_replaced_is_another_one() {
        let folder = Scratch::new("stamp");
        let path = folder.path().join("file");
        for change in ["nothing", "grown", "rewritten", "replaced", "gone"] {
            folder.write("file", "12345678");
            let file = open(&path).expect("a file");
            file.set_modified(std::time::UNIX_EPOCH).expect("own file");
            let stamp = Stamp::of(&file).expect("a stamp");
            match change {
                "grown" => drop(folder.write("file", "123456789")),
                "rewritten" => drop(folder.write("file", "87654321")),
                "replaced" => {
                    folder.write("other", "12345678");
                    let other = File::options().append(true).open(folder.path().join("other")).expect("a file");
                    other.set_modified(std::time::UNIX_EPOCH).expect("own file");
                    std::fs::rename(folder.path().join("other"), &path).expect("own folder");
                }
                "gone" => std::fs::remove_file(&path).expect("own file"),
                _ => {}
            }
            assert_eq!(stamp.holds_at(&path), change == "nothing", "{change}");
        }
    }

    #[test]
    fn what_is_no_file_or_has_no_end_is_not_read() {
        let folder = Scratch::new("stamp-kinds");
        assert!(open(folder.path()).is_err());
        #[cfg(unix)]
        assert!(read(Path::new("/dev/zero")).is_err());
        let large = File::create(folder.path().join("large")).expect("own folder");
        large.set_len(MOST_BYTES + 1).expect("a file with a hole");
        assert!(read(&folder.path().join("large")).is_err_and(|error| error.to_string().contains("100 MB")));
    }
}
