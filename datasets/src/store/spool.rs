//! Bytes written one after another, then read back from anywhere: in memory, or in a file once they are many.
//!
//! Files are read piece by piece and not mapped, so that the memory of a run does not grow with the pages it touched.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_128;

/// Bytes that are kept in memory before they go to a file.
const MEMORY_BYTES: usize = 64 << 20;

/// Bytes that are gathered for a file before they are written.
const GATHERED_BYTES: usize = 1 << 20;

/// Takes bytes in.
pub(super) struct Spool {
    /// The file for many bytes.
    pub(super) path: PathBuf,
    /// Bytes that are in no file yet.
    memory: Vec<u8>,
    file: Option<File>,
    hasher: XxHash3_128,
}

impl Spool {
    pub(super) fn new(path: PathBuf) -> Spool {
        Spool { path, memory: Vec::new(), file: None, hasher: XxHash3_128::new() }
    }

    /// Writes the bytes in memory to the file, which is created first if need be.
    fn spill(&mut self) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(locked_file(&self.path)?),
        };
        file.write_all(&self.memory)?;
        self.memory.clear();
        self.memory.shrink_to(GATHERED_BYTES);
        Ok(())
    }

    /// The bytes for this run alone; a file that they went to is removed with them.
    pub(super) fn finish(mut self) -> Result<Stored> {
        if self.file.is_none() {
            return Ok(Stored::Memory(std::mem::take(&mut self.memory)));
        }
        self.spill()?;
        let mut stored = Stored::open(&self.path)?;
        if let Stored::File { own, .. } = &mut stored {
            *own = Some(OwnFile(std::mem::take(&mut self.path)));
        }
        self.file = None;
        Ok(stored)
    }

    /// Puts all bytes in a file that is called `place` and then the hash of its bytes and `.arrow`; gives its name.
    ///
    /// The file gets that name when all of it is on the disk.
    pub(super) fn finish_file(mut self, place: &Path, prefix: &str) -> Result<PathBuf> {
        self.spill()?;
        let kept = place.join(format!("{prefix}{:032x}.arrow", self.hasher.finish_128()));
        if let Some(file) = &self.file {
            file.sync_all()?;
        }
        std::fs::rename(&self.path, &kept)?;
        self.file = None;
        Ok(kept)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let most = if self.file.is_some() { GATHERED_BYTES } else { MEMORY_BYTES };
        if self.memory.len() + bytes.len() > most {
            self.spill()?;
        }
        self.hasher.write(bytes);
        self.memory.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        // Bytes in memory are written with those that follow, or when the spool is finished.
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // A spool that was not finished leaves nothing behind.
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A new file that is locked: one that is not locked is the leftover of a killed run, which any other may remove.
fn locked_file(path: &Path) -> Result<File> {
    loop {
        let file = File::create(path)?;
        // On systems without locks, no file is removed either.
        let _ = file.lock();
        // Before it was locked, another run may have removed it as a leftover.
        if path.exists() {
            return Ok(file);
        }
    }
}

/// Bytes that are read from anywhere.
#[derive(Debug)]
pub(super) enum Stored {
    Memory(Vec<u8>),
    File {
        file: File,
        length: u64,
        /// Set if only this run uses the file.
        own: Option<OwnFile>,
    },
}

impl Stored {
    pub(super) fn open(path: &Path) -> Result<Stored> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Stored::File { file, length, own: None })
    }

    /// The number of bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Stored::Memory(bytes) => bytes.len() as u64,
            Stored::File { length, .. } => *length,
        }
    }

    /// Fills `piece` with the bytes from `start` on; an error if there are fewer.
    pub(super) fn read(&self, start: u64, piece: &mut [u8]) -> Result<()> {
        match self {
            Stored::File { file, .. } => read_exact_at(file, start, piece),
            Stored::Memory(bytes) => {
                let from = usize::try_from(start).ok().and_then(|start| bytes.get(start..));
                let found = from.and_then(|bytes| bytes.get(..piece.len()));
                piece.copy_from_slice(found.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?);
                Ok(())
            }
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, start: u64, piece: &mut [u8]) -> Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, piece, start)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut start: u64, mut piece: &mut [u8]) -> Result<()> {
    while !piece.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, piece, start)? {
            0 => return Err(Error::from(ErrorKind::UnexpectedEof)),
            read => {
                piece = &mut piece[read..];
                start += read as u64;
            }
        }
    }
    Ok(())
}

/// A file that is removed when it is dropped.
#[derive(Debug)]
pub(super) struct OwnFile(PathBuf);

impl Drop for OwnFile {
    fn drop(&mut self) {
        // If it cannot be removed, the system cleans temporary files up.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_stay_in_memory_and_many_come_back_from_a_file() {
        let folder = crate::test_tokenizer::Folder::new();
        for (count, filed) in [(1000_u32, false), (20_000_000, true)] {
            let path = folder.path().join(count.to_string());
            let mut spool = Spool::new(path.clone());
            for number in 0..count {
                spool.write_all(&number.to_le_bytes()).unwrap();
            }
            let stored = spool.finish().unwrap();
            assert_eq!((path.exists(), stored.len()), (filed, u64::from(count) * 4));
            for number in [0, 77, count / 2, count - 1] {
                let mut piece = [0; 4];
                stored.read(u64::from(number) * 4, &mut piece).unwrap();
                assert_eq!(u32::from_le_bytes(piece), number);
            }
            assert!(stored.read(u64::from(count) * 4 - 1, &mut [0; 4]).is_err());
            drop(stored);
            assert!(!path.exists());
        }
    }
}
