//! Errors of access to the hub and of its cache.
//!
//! Every message names the repository or file and the answer of the hub. Only errors that are the recipe's fault, as a
//! network that is down is not, have the exit code of wrong input.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::text;

/// An error of access to the hub or of its cache.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// `HF_ENDPOINT` is not an address.
    #[error("HF_ENDPOINT: `{address}` is not an address")]
    Endpoint {
        /// Its value.
        address: String,
    },
    /// A token with characters that a header cannot have.
    #[error("{variable}: the token has characters that no token has")]
    Token {
        /// The variable or file that holds it.
        variable: String,
    },
    /// Something is missing in the cache, and the network is not to be asked.
    #[error("{what} is not in the cache ({folder}), and {why}", folder = folder.display())]
    Offline {
        /// The missing file or repository, in words.
        what: String,
        /// Its place in the cache.
        folder: PathBuf,
        /// The reason for not using the network.
        why: &'static str,
    },
    /// No variable of the environment leads to a folder for the cache.
    #[error("there is no folder for the Hugging Face cache")]
    NoCache,
    /// No connection.
    #[error("`{address}` cannot be reached: {reason}")]
    Unreachable {
        /// Scheme and host.
        address: String,
        /// The system's error.
        reason: String,
    },
    /// The hub has no such repository, or hides it.
    #[error("{what} is not on the hub ({endpoint}), or is private{tried}")]
    NoRepository {
        /// The repository, in words.
        what: String,
        /// The hub.
        endpoint: String,
        /// The other places that were tried, in words, or nothing.
        tried: String,
        /// The hint.
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
        /// The request, with its token or without one, in words.
        who: &'static str,
        /// The hint: how to get access.
        hint: String,
    },
    /// The repository does not have a file.
    #[error("{what} has no file {file}")]
    NoFile {
        /// The repository, in words.
        what: String,
        /// The file or files, in words.
        file: String,
        /// The hint.
        hint: String,
    },
    /// Too many requests, and a longer wait than is worthwhile.
    #[error("`{address}` keeps answering 429, too many requests")]
    TooMany {
        /// Scheme and host.
        address: String,
    },
    /// An answer that cannot be used.
    #[error("`{address}` answers {answer} for {file}")]
    Answer {
        /// Scheme and host.
        address: String,
        /// The status, or the problem.
        answer: String,
        /// The file or route that was requested.
        file: String,
    },
    /// A file that is not the one that the hub announced.
    #[error("`{file}` of {what} arrived damaged: {problem}")]
    Damaged {
        /// The repository, in words.
        what: String,
        /// The file.
        file: String,
        /// The difference.
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
        /// The system's error.
        source: std::io::Error,
    },
}

impl AccessError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            AccessError::Endpoint { .. } => "give scheme and host, such as `https://huggingface.co`",
            AccessError::Token { .. } => "copy it again from the settings of your account on the hub",
            AccessError::Offline { .. } => "download it once without that, or copy it into the cache",
            AccessError::NoCache => "set HF_HOME to a folder on a disk with room",
            AccessError::Unreachable { .. } => {
                "check the network and HTTPS_PROXY, or set HF_ENDPOINT to a mirror; `--offline` keeps to what is in the cache"
            }
            AccessError::NoRepository { hint, .. } => hint,
            AccessError::NoRevision { .. } => "name a branch, a tag, or a whole commit",
            AccessError::Gated { hint, .. } => hint,
            AccessError::NoFile { hint, .. } => hint,
            AccessError::TooMany { .. } => "try again later, or set HF_TOKEN: the limits of an account are higher",
            AccessError::Answer { .. } => "try again later; the hub or a proxy between is at fault",
            AccessError::Damaged { .. } => "try again; if it stays so, the mirror or a proxy changes files",
            AccessError::NoSpace { .. } => "free some, or set HF_HOME to a folder on a larger disk",
            AccessError::Write { .. } => "check who owns the cache, or set HF_HOME to a folder that you may write to",
        };
        Some(hint.into())
    }
}

impl AccessError {
    /// True if the recipe or the settings are at fault, and not the network, the hub or the disk.
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
