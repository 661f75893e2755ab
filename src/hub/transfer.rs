//! One file of the hub into the cache: resumed where an earlier attempt ended, checked, and named when whole.
//!
//! Bytes go to `HASH.incomplete`, as huggingface_hub does it, under a lock that it honours too; only a file whose
//! length and hash are those that the hub announced is renamed to `HASH`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use sha2::Sha256;
use ureq::http::Response;

use super::access_error::AccessError;
use super::client::{ATTEMPTS, Client, RequestError, Waiting};
use super::repository::{RemoteFile, Repository};

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A file on its way.
pub(super) struct Transfer<'t> {
    pub(super) client: &'t Client<'t>,
    pub(super) repository: &'t Repository,
    pub(super) commit: &'t str,
    pub(super) file: &'t RemoteFile,
    /// The path of its blob.
    pub(super) blob: PathBuf,
    /// The file whose lock is held meanwhile.
    pub(super) lock: PathBuf,
    /// Receives the number of bytes that arrived, negative if they were discarded; `false` ends the transfer.
    pub(super) moved: &'t dyn Fn(i64) -> bool,
    pub(super) waiting: &'t Waiting<'t>,
}

/// The path of the bytes until the file is whole.
pub(super) fn incomplete(blob: &Path) -> PathBuf {
    blob.with_extension("incomplete")
}

impl Transfer<'_> {
    /// Brings the file into the cache, or finds that another program did.
    pub(super) fn run(&self) -> Result<(), AccessError> {
        let path = incomplete(&self.blob);
        let lock = File::create(&self.lock).map_err(unwritten(&self.lock))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => lock.lock().map_err(unwritten(&self.lock))?,
            // A file system without locks: two downloads of a file may meet, and the hash tells.
            Err(TryLockError::Error(_)) => {}
        }
        if has_length(&self.blob, self.file.size) {
            (self.moved)(self.file.size as i64);
            return Ok(());
        }
        let mut partial = PartialFile::open(&path, self.file)?;
        (self.moved)(partial.length as i64);
        let resumed = partial.length > 0;
        self.fill(&mut partial)?;
        if let Err(problem) = partial.check_hash() {
            self.restart(&mut partial)?;
            // The bytes of an earlier attempt may be outdated; bytes that came in one piece are those that the hub sends.
            if !resumed {
                return Err(self.damaged(problem));
            }
            self.fill(&mut partial)?;
            if let Err(problem) = partial.check_hash() {
                self.restart(&mut partial)?;
                return Err(self.damaged(problem));
            }
        }
        partial.file.sync_all().map_err(unwritten(&path))?;
        std::fs::rename(&path, &self.blob).map_err(unwritten(&self.blob))
    }

    /// Asks for what is missing until nothing is; every byte that arrives makes another failure forgivable.
    fn fill(&self, partial: &mut PartialFile) -> Result<(), AccessError> {
        let route = self.repository.file_route(self.commit, &self.file.path);
        let mut failures = 0;
        while partial.length < self.file.size {
            let before = partial.length;
            let from = (before > 0).then_some(before);
            let failed = match self.client.get(self.repository, &route, self.commit, from, self.waiting) {
                Ok(response) => self.receive(response, partial)?,
                Err(RequestError::Transient(error)) => error,
                Err(failed) => return Err(failed.error()),
            };
            failures = if partial.length > before { 0 } else { failures + 1 };
            if partial.length == self.file.size {
                break;
            }
            if failures >= ATTEMPTS || !(self.waiting)(std::time::Duration::from_millis(250) * 2_u32.pow(failures)) {
                return Err(failed);
            }
        }
        Ok(())
    }

    /// Writes the bytes of an answer; returns the error to report if nothing more comes.
    fn receive(&self, response: Response<ureq::Body>, partial: &mut PartialFile) -> Result<AccessError, AccessError> {
        let begins = match response.status().as_u16() {
            206 => {
                let range = response.headers().get("Content-Range").and_then(|value| value.to_str().ok());
                range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok())
            }
            200 => Some(0),
            // Nothing begins there: the bytes so far are of another file.
            _ => None,
        };
        if begins != Some(partial.length) {
            self.restart(partial)?;
            if begins != Some(0) {
                return Ok(self.damaged("the hub sends another range than was asked for".to_owned()));
            }
        }
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = match body.read(&mut chunk) {
                Ok(0) => {
                    return Ok(self.damaged(format!("{} of {} bytes arrived", partial.length, self.file.size)));
                }
                Ok(read) => read,
                Err(error) => {
                    let arrived = format!("{} of {} bytes arrived: {error}", partial.length, self.file.size);
                    return Ok(self.damaged(arrived));
                }
            };
            if partial.length + read as u64 > self.file.size {
                self.restart(partial)?;
                return Err(self.damaged(format!("more than the {} bytes announced", self.file.size)));
            }
            partial.add(&chunk[..read])?;
            if !(self.moved)(read as i64) {
                return Err(self.damaged("the download was ended".to_owned()));
            }
        }
    }

    fn restart(&self, partial: &mut PartialFile) -> Result<(), AccessError> {
        (self.moved)(-(partial.length as i64));
        partial.clear()
    }

    fn damaged(&self, problem: String) -> AccessError {
        AccessError::Damaged { what: self.repository.words(), file: self.file.path.clone(), problem }
    }
}

/// The bytes of a file that have arrived, with their hash.
struct PartialFile {
    path: PathBuf,
    file: File,
    length: u64,
    announced: RemoteFile,
    hash: Hash,
}

enum Hash {
    Sha256(Sha256),
    /// Git's: of a header and the content.
    Blob(Sha1),
}

impl Hash {
    fn begin(file: &RemoteFile) -> Hash {
        match file.is_sha256() {
            true => Hash::Sha256(Sha256::new()),
            false => Hash::Blob(Sha1::new().chain_update(format!("blob {}\0", file.size))),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        match self {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Blob(hash) => hash.update(bytes),
        }
    }

    fn text(&self) -> String {
        match self {
            Hash::Sha256(hash) => format!("{:x}", hash.clone().finalize()),
            Hash::Blob(hash) => format!("{:x}", hash.clone().finalize()),
        }
    }
}

impl PartialFile {
    /// Opens the file with the bytes that an earlier attempt left, if it did.
    fn open(path: &Path, announced: &RemoteFile) -> Result<PartialFile, AccessError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(unwritten(path))?;
        let mut partial = PartialFile {
            path: path.to_owned(),
            file,
            length: 0,
            announced: announced.clone(),
            hash: Hash::begin(announced),
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match partial.file.read(&mut chunk).map_err(unwritten(path))? {
                0 => break,
                read => {
                    partial.hash.add(&chunk[..read]);
                    partial.length += read as u64;
                }
            }
        }
        if partial.length > announced.size {
            partial.clear()?;
        }
        Ok(partial)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), AccessError> {
        self.file.write_all(bytes).map_err(unwritten(&self.path))?;
        self.hash.add(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn clear(&mut self) -> Result<(), AccessError> {
        self.file.set_len(0).map_err(unwritten(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(unwritten(&self.path))?;
        self.length = 0;
        self.hash = Hash::begin(&self.announced);
        Ok(())
    }

    /// Compares the hash with the one that was announced.
    ///
    /// # Errors
    /// If they differ.
    fn check_hash(&self) -> Result<(), String> {
        let found = self.hash.text();
        match found == self.announced.hash {
            true => Ok(()),
            false => Err(format!("its hash is `{found}`, announced is `{}`", self.announced.hash)),
        }
    }
}

/// True if there is a file of this length.
pub(super) fn has_length(path: &Path, length: u64) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == length)
}

/// Turns a system error about `path` into ours.
pub(super) fn unwritten(path: &Path) -> impl FnOnce(std::io::Error) -> AccessError {
    let path = path.to_owned();
    move |source| AccessError::Write { path, source }
}
