//! Files of a commit into the cache, several at once, in the layout that huggingface_hub writes.
//!
//! `blobs/HASH` holds contents, `snapshots/COMMIT/PATH` links to them, `refs/REVISION` names a commit. Links are
//! made when every file of a request is there, so that files that are requested together appear together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use super::access::Hub;
use super::access_error::AccessError;
use super::client::Client;
use super::repository::{Listing, RemoteFile, Repository};
use super::transfer::{Transfer, has_length, incomplete, unwritten};

/// Files that are downloaded at a time.
const AT_ONCE: usize = 4;
/// Room that must be left on the disk.
const SPARE_BYTES: u64 = 64 << 20;

/// An event of a download.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// It begins.
    Begin {
        /// The repository, in words.
        what: String,
        /// Files that are not there yet.
        files: usize,
        /// Their bytes.
        bytes: u64,
        /// Those of them that an earlier attempt left.
        kept: u64,
    },
    /// So many of the bytes are there.
    At {
        /// The bytes.
        bytes: u64,
    },
    /// The hub asks to wait, or the connection broke.
    Waiting {
        /// For so long.
        seconds: f64,
    },
    /// Everything is there.
    End,
}

/// Receives the events of a download.
pub type Listener<'l> = dyn FnMut(Progress) + 'l;

/// A message from a thread of a download.
enum Message {
    /// Bytes that arrived; negative if they were discarded.
    Moved(i64),
    Waiting(Duration),
    Failed(AccessError),
}

/// A commit's folder in the cache.
pub(super) struct Snapshot {
    /// The repository's folder.
    root: PathBuf,
    commit: String,
}

impl Snapshot {
    pub(super) fn of(cache: &Path, repository: &Repository, commit: &str) -> Snapshot {
        Snapshot { root: cache.join(repository.folder()), commit: commit.to_owned() }
    }

    /// The snapshot whose folder this is.
    pub(super) fn at(folder: &Path) -> Option<Snapshot> {
        let root = folder.parent()?.parent()?;
        Some(Snapshot { root: root.to_owned(), commit: folder.file_name()?.to_str()?.to_owned() })
    }

    /// The folder with the files.
    pub(super) fn folder(&self) -> PathBuf {
        self.root.join("snapshots").join(&self.commit)
    }

    /// True if the file is there and whole.
    pub(super) fn has(&self, file: &RemoteFile) -> bool {
        has_length(&self.folder().join(&file.path), file.size)
    }

    fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.root.join("blobs").join(&file.hash)
    }

    /// The path of the list of the commit's files, which other programs ignore.
    fn listing(&self) -> PathBuf {
        self.root.join("listings").join(format!("{}.json", self.commit))
    }

    /// The commit's files, if they were listed before.
    pub(super) fn listed(&self) -> Option<Listing> {
        let text = fs::read(self.listing()).ok()?;
        serde_json::from_slice(&text).ok().filter(|listing: &Listing| listing.commit == self.commit)
    }

    /// Saves the list of files, and the commit of the revision.
    pub(super) fn save(&self, listing: &Listing, revision: &str) -> Result<(), AccessError> {
        let text = serde_json::to_vec(listing).unwrap_or_default();
        replace(&self.listing(), &text)?;
        match revision == self.commit {
            true => Ok(()),
            false => replace(&self.root.join("refs").join(revision), self.commit.as_bytes()),
        }
    }

    /// Puts a file's blob under its path.
    fn link(&self, file: &RemoteFile) -> Result<(), AccessError> {
        let place = self.folder().join(&file.path);
        let folder = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(unwritten(folder))?;
        let temporary = place.with_file_name(format!(".{}.{}", file.hash, std::process::id()));
        let _ = fs::remove_file(&temporary);
        let up = "../".repeat(2 + file.path.matches('/').count());
        link_or_copy(&format!("{up}blobs/{}", file.hash), &self.blob(file), &temporary).map_err(unwritten(&place))?;
        fs::rename(&temporary, &place).map_err(unwritten(&place))
    }
}

#[cfg(unix)]
fn link_or_copy(target: &str, _blob: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn link_or_copy(_target: &str, blob: &Path, copy: &Path) -> std::io::Result<()> {
    fs::copy(blob, copy).map(|_| ())
}

/// Brings `files` of a commit into the cache, those that are there aside.
pub(super) fn download(
    hub: &Hub,
    client: &Client<'_>,
    repository: &Repository,
    snapshot: &Snapshot,
    files: &[&RemoteFile],
    listener: &mut Listener<'_>,
) -> Result<(), AccessError> {
    let missing: Vec<&RemoteFile> = files.iter().copied().filter(|file| !snapshot.has(file)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    let wanted = |file: &&RemoteFile| !has_length(&snapshot.blob(file), file.size) && seen.insert(file.hash.clone());
    let wanted: Vec<&RemoteFile> = missing.iter().copied().filter(wanted).collect();
    let bytes = wanted.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    let length = |path: PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
    let kept: u64 = wanted.iter().map(|file| length(incomplete(&snapshot.blob(file))).min(file.size)).sum();
    let locks = hub.cache.folder()?.join(".locks").join(repository.folder());
    for folder in [&snapshot.root.join("blobs"), &locks] {
        fs::create_dir_all(folder).map_err(unwritten(folder))?;
    }
    check_space(hub.cache.folder()?, repository, bytes.saturating_sub(kept))?;
    if !wanted.is_empty() {
        listener(Progress::Begin { what: repository.words(), files: wanted.len(), bytes, kept });
        transfer_all(client, repository, snapshot, &wanted, &locks, listener)?;
        listener(Progress::End);
    }
    missing.iter().try_for_each(|file| snapshot.link(file))
}

/// Transfers files, several at once; the first failure ends all of them.
fn transfer_all(
    client: &Client<'_>,
    repository: &Repository,
    snapshot: &Snapshot,
    files: &[&RemoteFile],
    locks: &Path,
    listener: &mut Listener<'_>,
) -> Result<(), AccessError> {
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let work = |sender: Sender<Message>| {
        let continues = || !ended.load(Ordering::Relaxed);
        let moved = |bytes: i64| sender.send(Message::Moved(bytes)).is_ok() && continues();
        let waiting = |wait: Duration| {
            // A failed send means that the receiver is gone.
            let _ = sender.send(Message::Waiting(wait));
            pause(wait, &continues)
        };
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| continues()) {
            let transfer = Transfer {
                client,
                repository,
                commit: &snapshot.commit,
                file,
                blob: snapshot.blob(file),
                lock: locks.join(format!("{}.lock", file.hash)),
                moved: &moved,
                waiting: &waiting,
            };
            if let Err(error) = transfer.run() {
                ended.store(true, Ordering::Relaxed);
                let _ = sender.send(Message::Failed(error));
            }
        }
    };
    let work = &work;
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(files.len()) {
            let sender = sender.clone();
            scope.spawn(move || work(sender));
        }
        drop(sender);
        let (mut there, mut failed) = (0_i64, None);
        for message in receiver {
            match message {
                Message::Moved(bytes) => {
                    there += bytes;
                    listener(Progress::At { bytes: there.max(0) as u64 });
                }
                Message::Waiting(wait) => listener(Progress::Waiting { seconds: wait.as_secs_f64() }),
                // The first failure ends the others, which then fail for that reason.
                Message::Failed(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    })
}

/// Waits as long as the work continues; returns false if it was ended meanwhile.
pub(super) fn pause(wait: Duration, continues: &dyn Fn() -> bool) -> bool {
    let slice = Duration::from_millis(100);
    let mut left = wait;
    while !left.is_zero() && continues() {
        let nap = left.min(slice);
        std::thread::sleep(nap);
        left -= nap;
    }
    continues()
}

/// Puts a small file in place at once.
fn replace(place: &Path, bytes: &[u8]) -> Result<(), AccessError> {
    let folder = place.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(unwritten(folder))?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let temporary = place.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::write(&temporary, bytes).map_err(unwritten(&temporary))?;
    fs::rename(&temporary, place).map_err(unwritten(place))
}

#[cfg(unix)]
fn check_space(cache: &Path, repository: &Repository, needed: u64) -> Result<(), AccessError> {
    // A disk that does not report its free space is tried.
    let Ok(disk) = rustix::fs::statvfs(cache) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if needed == 0 || needed.saturating_add(SPARE_BYTES) <= free {
        return Ok(());
    }
    Err(AccessError::NoSpace { folder: cache.to_owned(), what: repository.words(), needed, free })
}

#[cfg(not(unix))]
fn check_space(_cache: &Path, _repository: &Repository, _needed: u64) -> Result<(), AccessError> {
    Ok(())
}
