//! Why a command failed, and with it the exit code.

use crate::hub::{AccessError, HubError};

/// Why a command failed, and with it the exit code.
#[derive(Debug)]
pub enum Failure {
    /// The recipe, the model or the data are wrong: exit code 2.
    Input(anyhow::Error),
    /// Something failed on the way: exit code 1.
    Work(anyhow::Error),
    /// A signal ended the run: exit code 130. What to say, such as how to go on.
    Interrupted(String),
}

impl Failure {
    /// What ended a preparation: the input's fault, but for a network, a hub or a disk that fails.
    pub fn of_preparation(error: anyhow::Error) -> Self {
        let is_input = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<HubError>() {
            Some(HubError::Access(error)) => error.is_input(),
            _ => cause.downcast_ref::<AccessError>().is_none_or(AccessError::is_input),
        };
        match error.chain().all(is_input) {
            true => Self::Input(error),
            false => Self::Work(error),
        }
    }
}
