//! The failure of a command, and with it the exit code.

use std::io::ErrorKind::{QuotaExceeded, StorageFull};

use crate::hub::{AccessError, HubError};

/// The failure of a command, which decides its exit code.
#[derive(Debug)]
pub enum Failure {
    /// The recipe, the model or the data are wrong: exit code 2.
    Input(anyhow::Error),
    /// Something failed during the work: exit code 1.
    Work(anyhow::Error),
    /// A signal ended the run: exit code 130. Holds the message, such as how to resume.
    Interrupted(String),
}

impl Failure {
    /// The failure of a preparation: the input's fault, unless a network, a hub or a disk failed.
    pub fn of_preparation(error: anyhow::Error) -> Self {
        let is_input = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<HubError>() {
            Some(HubError::Access(error)) => error.is_input(),
            _ => {
                let full = |error: &std::io::Error| matches!(error.kind(), StorageFull | QuotaExceeded);
                cause.downcast_ref::<AccessError>().is_none_or(AccessError::is_input)
                    && !cause.downcast_ref().is_some_and(full)
            }
        };
        if error.chain().all(is_input) { Self::Input(error) } else { Self::Work(error) }
    }
}
