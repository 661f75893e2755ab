//! A check that files are still those that were opened: rows are read more than once, and the cache is keyed by bytes.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use crate::foundation::Error;

/// Files with their lengths and the times of their last changes.
#[derive(Debug)]
pub(crate) struct Stamps(Vec<(PathBuf, Stamp)>);

/// A file's identity, length and time of its last change.
type Stamp = [i128; 5];

impl Stamps {
    /// The stamps of files that are about to be read.
    pub(crate) fn of<'p>(paths: impl Iterator<Item = &'p Path>) -> Result<Stamps, Error> {
        let stamped = |path: &Path| {
            let unreadable = |source| Error::Unreadable { path: path.display().to_string(), source };
            Ok((path.to_owned(), stamp(&std::fs::metadata(path).map_err(unreadable)?)))
        };
        Ok(Stamps(paths.map(stamped).collect::<Result<_, Error>>()?))
    }

    /// Fails if a file is no longer the same, naming the first.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let same = |(path, before): &&(PathBuf, Stamp)| {
            std::fs::metadata(path).is_ok_and(|metadata| stamp(&metadata) == *before)
        };
        match self.0.iter().find(|file| !same(file)) {
            None => Ok(()),
            Some((path, _)) => Err(Error::BrokenFile {
                place: path.display().to_string(),
                problem: "the file changed while it was being read".to_owned(),
                hint: "leave the data of a run alone while it is read, or name a copy, and start again".to_owned(),
            }),
        }
    }
}

#[cfg(unix)]
fn stamp(metadata: &Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let (device, inode, length) = (metadata.dev().into(), metadata.ino().into(), metadata.len().into());
    [device, inode, length, metadata.mtime().into(), metadata.mtime_nsec().into()]
}

#[cfg(windows)]
fn stamp(metadata: &Metadata) -> Stamp {
    use std::os::windows::fs::MetadataExt;
    [0, 0, metadata.len().into(), metadata.last_write_time().into(), 0]
}
