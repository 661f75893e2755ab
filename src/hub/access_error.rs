//! What can go wrong on the way to the hub and back.
//!
//! Every message names the repository or file, says what the hub answered, and ends with a hint. Which of them
//! are the recipe's fault decides the exit code: a network that is down is not.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::text;

/// An error of reaching the hub or of keeping what came from it.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// `HF_ENDPOINT` is no address.
    #[error("HF_ENDPOINT: `{address}` is no address")]
    Endpoint {
        /// Its value.
        address: String,
    },
    /// A token that no header can carry.
    #[error("{origin}: the token has characters that no token has")]
    Token {
        /// The variable or file that holds it.
        origin: String,
    },
    /// Something is missing in the cache, and the network is not to be asked.
    #[error("{what} is not in the cache ({folder}), and {why}", folder = folder.display())]
    Offline {
        /// What is missing.
        what: String,
        /// Where it would be.
        folder: PathBuf,
        /// Why the network is not asked.
        why: &'static str,
    },
    /// There is no folder for the cache.
    #[error("no folder for the Hugging Face cache")]
    NoCache,
    /// No connection.
    #[error("`{address}` cannot be reached: {reason}")]
    Unreachable {
        /// Scheme and host.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// The hub has no such repository, or hides it.
    #[error("{what} is not on the hub ({endpoint}), or is private{tried}")]
    NoRepository {
        /// The repository, in words.
        what: String,
        /// The hub.
        endpoint: String,
        /// Where else it was looked for, in words, or nothing.
        tried: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{what} has no revision `{revision}` on the hub")]
    NoRevision {
        /// The repository, in words.
        what: String,
        /// The revision.
        revision: String,
    },
    /// Access has to be asked for.
    #[error("{what} is gated: the hub answers {status} to {who}")]
    Gated {
        /// The repository, in words.
        what: String,
        /// The status of the answer.
        status: u16,
        /// With which token.
        who: &'static str,
        /// How to get access.
        hint: String,
    },
    /// The repository does not have a file.
    #[error("{what} has no file {file}")]
    NoFile {
        /// The repository, in words.
        what: String,
        /// The file or files, in words.
        file: String,
        /// What to do about it.
        hint: String,
    },
    /// Too many requests, for longer than is worth waiting.
    #[error("`{address}` answers 429, too many requests, and goes on doing so")]
    TooMany {
        /// Scheme and host.
        address: String,
    },
    /// An answer that nothing can be done with.
    #[error("`{address}` answers {answer} for {file}")]
    Answer {
        /// Scheme and host.
        address: String,
        /// The status, or what is wrong.
        answer: String,
        /// What was asked for.
        file: String,
    },
    /// What arrived is not what the hub announced.
    #[error("`{file}` of {what} arrived damaged: {problem}")]
    Damaged {
        /// The repository, in words.
        what: String,
        /// The file.
        file: String,
        /// What differs.
        problem: String,
    },
    /// The disk is too small.
    #[error("{folder}: {what} needs {}, but only {} of the disk is free", text::bytes(*needed), text::bytes(*free), folder = folder.display())]
    NoSpace {
        /// The cache.
        folder: PathBuf,
        /// The repository, in words.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The cache cannot be written.
    #[error("{path}: cannot be written: {source}", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl AccessError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            AccessError::Endpoint { .. } => "give scheme and host, such as `https://huggingface.co`".into(),
            AccessError::Token { .. } => "copy it again from the settings of your account on the hub".into(),
            AccessError::Offline { .. } => "download it once without that, or copy it into the cache".into(),
            AccessError::NoCache => "set HF_HOME to a folder on a disk with room".into(),
            AccessError::Unreachable { .. } => "check the network and HTTPS_PROXY, or set HF_ENDPOINT to a mirror; `--offline` keeps to what is in the cache".into(),
            AccessError::NoRepository { hint, .. } => (&**hint).into(),
            AccessError::NoRevision { .. } => "name a branch, a tag, or a whole commit".into(),
            AccessError::Gated { hint, .. } => (&**hint).into(),
            AccessError::NoFile { hint, .. } => (&**hint).into(),
            AccessError::TooMany { .. } => "try again later, or set HF_TOKEN: the limits of an account are higher".into(),
            AccessError::Answer { .. } => "try again later; the hub or a proxy between is at fault".into(),
            AccessError::Damaged { .. } => "try again; if it stays so, the mirror or a proxy changes files".into(),
            AccessError::NoSpace { .. } => "free some, or set HF_HOME to a folder on a larger disk".into(),
            AccessError::Write { .. } => "check who owns the cache, or set HF_HOME to a folder of your own".into(),
        })
    }
}

impl AccessError {
    /// Whether the recipe or the settings are at fault, and not the network, the hub or the disk.
    pub fn is_input(&self) -> bool {
        match self {
            AccessError::Endpoint { .. }
            | AccessError::Token { .. }
            | AccessError::Offline { .. }
            | AccessError::NoCache
            | AccessError::NoRepository { .. }
            | AccessError::NoRevision { .. }
            | AccessError::Gated { .. }
            | AccessError::NoFile { .. } => true,
            AccessError::Unreachable { .. }
            | AccessError::TooMany { .. }
            | AccessError::Answer { .. }
            | AccessError::Damaged { .. }
            | AccessError::NoSpace { .. }
            | AccessError::Write { .. } => false,
        }
    }
}
