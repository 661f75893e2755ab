//! A trainer's state as a file: the trainable parameters and the optimizer's state, as they are in memory.
//!
//! Nothing else has a state: the order of the rows, dropout and noise are functions of the seed and the step alone, so
//! that a trainer that is built from such a file takes the same steps as one that never stopped.

use std::path::Path;

use safetensors::tensor::SafeTensorError;
use serde::{Deserialize, Serialize};

use super::loss_scale::LossScale;
use super::vectors::{STATE_FILE, SavedVectors, StateError, Vector};
use crate::model::Decoder;
use crate::run_dir::{WriteError, failed};

/// The beginning of the names of parameters in a state file.
const PARAMETER: &str = "parameter.";

/// The progress of a trainer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Steps done, which is also the position in the order of the rows and in every random sequence.
    pub step: usize,
    /// Steps that the optimizer has taken, which its bias correction counts.
    pub optimizer_step: i32,
    /// The factor on the loss, where numbers are f16.
    pub(super) loss_scale: LossScale,
}

/// A copy of a trainer's state in the memory of the host, which training does not change any more.
///
/// On the CPU it shares memory with the trainer until a step replaces what they share.
#[derive(Debug)]
pub struct TrainerState {
    /// The trainer's progress.
    pub position: Position,
    /// The decoder; its trainable parameters lie in host memory.
    pub decoder: Decoder,
    vectors: Vec<(String, Vector)>,
}

impl TrainerState {
    /// The state of a decoder and of its optimizer, whose vectors these are.
    pub(super) fn of(position: Position, decoder: &Decoder, optimizer: Vec<(String, Vector)>) -> Self {
        let mut decoder = decoder.clone();
        let mut vectors = Vec::new();
        decoder.visit(&mut |name, parameter| {
            if parameter.is_trainable() {
                let vector = Vector::numbers(parameter.plain());
                if let Some(values) = vector.as_numbers() {
                    // A leaf of its own, so that the trainer's graph and gradients are not held by the copy.
                    parameter.renew();
                    parameter.replace(values.clone());
                }
                vectors.push((format!("{PARAMETER}{name}"), vector));
            }
        });
        vectors.extend(optimizer);
        Self { position, decoder, vectors }
    }

    /// Writes the state into `folder`, one vector after the other.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), WriteError> {
        let path = folder.join(STATE_FILE);
        let views = self.vectors.iter().map(|(name, vector)| (name.as_str(), vector));
        safetensors::serialize_to_file(views, None, &path).map_err(|error| match error {
            SafeTensorError::IoError(error) => failed(&path)(error),
            error => failed(&path)(std::io::Error::other(error.to_string())),
        })
    }
}

/// A state that was written.
#[derive(Debug)]
pub struct SavedState {
    /// The progress of its trainer.
    pub position: Position,
    pub(super) vectors: SavedVectors,
}

impl SavedState {
    /// Opens the state in `folder`, whose bytes the caller has compared with those that were written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(folder: &Path, position: Position) -> Result<Self, StateError> {
        Ok(Self { position, vectors: SavedVectors::open(folder)? })
    }

    /// Puts the parameters into `decoder`.
    ///
    /// # Errors
    /// When its trainable parameters are others.
    pub fn restore_parameters(&self, decoder: &mut Decoder) -> Result<(), StateError> {
        let device = decoder.device().clone();
        let mut restored = Ok(0);
        decoder.visit(&mut |name, parameter| {
            if parameter.is_trainable()
                && let Ok(count) = &mut restored
            {
                match self.vectors.tensor(&format!("{PARAMETER}{name}"), parameter.count(), &device) {
                    Ok(value) => {
                        *count += 1;
                        parameter.replace(value);
                    }
                    Err(error) => restored = Err(error),
                }
            }
        });
        let (saved, trainable) = (self.vectors.count(PARAMETER), restored?);
        if saved == trainable {
            return Ok(());
        }
        Err(StateError::Other { problem: format!("it has {saved} parameters, but {trainable} are trainable") })
    }
}
