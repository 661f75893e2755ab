//! One process at a time writes into a run folder.
//!
//! The lock is the system's, on a file that holds the holder's process id: it ends with the process, however that
//! ends, so that what a killed run left is taken over.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The file's name.
pub(super) const LOCK: &str = ".lock";

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// A lock that could not be taken.
#[derive(Debug)]
pub(super) enum LockError {
    /// A running process has it.
    Held {
        /// Its id, if it had written it yet.
        process: String,
    },
    /// The file cannot be opened or written.
    System(io::Error),
}

impl Lock {
    /// Takes the lock of `folder`, which must exist.
    pub(super) fn take(folder: &Path) -> Result<Lock, LockError> {
        let path = folder.join(LOCK);
        loop {
            let opened = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path);
            let mut file = opened.map_err(LockError::System)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Held { process: process_in(&mut file) }),
                // A file system without locks: better a run without one than none.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(LockError::System(error)),
            }
            // The previous holder removes the file when it has finished; then the lock is on a file that no longer exists.
            if is_at(&file, &path) {
                let mut lock = Lock { file, path };
                lock.write_process().map_err(LockError::System)?;
                return Ok(lock);
            }
        }
    }

    /// The id of the running process that has the lock of `folder`, if one has.
    pub(super) fn holder(folder: &Path) -> Option<String> {
        let mut file = File::open(folder.join(LOCK)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(process_in(&mut file)),
            _ => None,
        }
    }

    fn write_process(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A file that stays is taken over by the next run.
        let _ = fs::remove_file(&self.path);
    }
}

fn process_in(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    text.trim().to_owned()
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |one: &fs::Metadata, other: &fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(one), Ok(other)) if same(&one, &other))
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_a_file_that_was_left_is_taken_over() {
        let folder = std::env::temp_dir().join(format!("tune-lock-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(LOCK), "123456\n").unwrap();
        assert!(Lock::holder(&folder).is_none(), "nobody holds what a killed run left");
        let lock = Lock::take(&folder).unwrap();
        let own = std::process::id().to_string();
        assert!(matches!(Lock::take(&folder), Err(LockError::Held { process }) if process == own));
        assert_eq!(Lock::holder(&folder), Some(own));
        drop(lock);
        assert!(!folder.join(LOCK).exists());
        drop(Lock::take(&folder).unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }
}
