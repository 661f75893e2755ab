//! A trainer's state as a file: the parameters that learn and the optimizer's moments, as they are in memory.
//!
//! Nothing else has a state: the order of the rows, dropout and noise are functions of the seed and the step alone, so
//! that a trainer that is built from such a file takes the same steps as one that never stopped.

use std::borrow::Cow;
use std::path::Path;

use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensorError, View};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::loss_scale::LossScale;
use super::optimizer::AdamW;
use crate::device;
use crate::hub::{HubError, Weights};
use crate::model::Decoder;
use crate::run_dir::{WriteError, failed};

/// The file's name in a checkpoint folder.
pub const STATE_FILE: &str = "training_state.safetensors";
/// What the names of parameters begin with there.
const PARAMETER: &str = "parameter.";

/// How far a trainer has come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Steps done, which is also the position in the order of the rows and in every random sequence.
    pub step: usize,
    /// Steps that the optimizer's bias correction has counted.
    pub optimizer_step: i32,
    /// The factor on the loss, where numbers are f16.
    pub(super) loss_scale: LossScale,
}

/// A copy of a trainer's state in the memory of the host, which training does not change any more.
///
/// On the CPU it shares memory with the trainer until a step replaces what they share.
#[derive(Debug)]
pub struct TrainerState {
    /// How far it is.
    pub position: Position,
    /// The decoder; what learns in it lies in host memory.
    pub decoder: Decoder,
    vectors: Vec<(String, Vector)>,
}

/// A vector of the state.
#[derive(Debug, Clone)]
pub(super) struct Vector {
    length: [usize; 1],
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    /// f32, in host memory.
    Numbers(Box<Tensor<1>>),
    /// 8 bits each.
    Codes(Vec<u8>),
}

impl Vector {
    /// Numbers on any device.
    pub(super) fn numbers(values: Tensor<1>) -> Self {
        let values = values.cast(FloatDType::F32);
        let values = match device::is_host(&values.device()) {
            true => values,
            false => Tensor::from_data(values.into_data(), (&device::host(), DType::F32)),
        };
        Self { length: values.dims(), values: Values::Numbers(Box::new(values)) }
    }

    /// Codes of 8 bits.
    pub(super) fn codes(codes: Vec<u8>) -> Self {
        Self { length: [codes.len()], values: Values::Codes(codes) }
    }
}

impl View for &Vector {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::Numbers(_) => Dtype::F32,
            Values::Codes(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.length
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::Numbers(values) => Cow::Owned(values.as_ref().clone().into_data().as_bytes().to_vec()),
            Values::Codes(codes) => Cow::Borrowed(codes),
        }
    }

    fn data_len(&self) -> usize {
        match &self.values {
            Values::Numbers(_) => 4 * self.length[0],
            Values::Codes(codes) => codes.len(),
        }
    }
}

/// Why a state does not fit.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] HubError),
    /// It holds other parameters than the decoder.
    #[error("{STATE_FILE}: {problem}\nhint: it was written for another model or recipe")]
    Other {
        /// What does not fit.
        problem: String,
    },
}

impl TrainerState {
    /// The state of a decoder and its optimizer.
    pub(super) fn of(position: Position, decoder: &Decoder, optimizer: &AdamW) -> Self {
        let mut decoder = decoder.clone();
        let mut vectors = Vec::new();
        decoder.visit(&mut |name, parameter| {
            if parameter.is_trainable() {
                let vector = Vector::numbers(parameter.plain());
                if let Values::Numbers(values) = &vector.values {
                    // A leaf of its own, so that the trainer's graph and gradients are not held by the copy.
                    parameter.renew();
                    parameter.replace(values.as_ref().clone());
                }
                vectors.push((format!("{PARAMETER}{name}"), vector));
            }
        });
        vectors.extend(optimizer.state());
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
    /// How far its trainer was.
    pub position: Position,
    vectors: Weights,
}

impl SavedState {
    /// Opens the state in `folder`, whose bytes the caller has compared with those that were written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(folder: &Path, position: Position) -> Result<Self, StateError> {
        Ok(Self { position, vectors: Weights::open_file(&folder.join(STATE_FILE))? })
    }

    /// Puts the parameters into `decoder`.
    ///
    /// # Errors
    /// When it has others.
    pub fn restore_parameters(&self, decoder: &mut Decoder) -> Result<(), StateError> {
        let device = decoder.device().clone();
        let mut restored = Ok(0);
        decoder.visit(&mut |name, parameter| {
            if parameter.is_trainable()
                && let Ok(count) = &mut restored
            {
                match self.numbers(&format!("{PARAMETER}{name}"), parameter.count()) {
                    Ok(values) => {
                        *count += 1;
                        let length = values.len();
                        parameter.replace(Tensor::from_data(TensorData::new(values, [length]), (&device, DType::F32)));
                    }
                    Err(error) => restored = Err(error),
                }
            }
        });
        let saved = self.vectors.names().filter(|name| name.starts_with(PARAMETER)).count();
        match restored? {
            count if count == saved => Ok(()),
            count => Err(StateError::Other { problem: format!("it has {saved} parameters, {count} learn") }),
        }
    }

    /// `length` numbers.
    pub(super) fn numbers(&self, name: &str, length: usize) -> Result<Vec<f32>, StateError> {
        let values = self.vectors.to_f32(name)?;
        match values.len() {
            found if found == length => Ok(values),
            found => Err(StateError::Other { problem: format!("`{name}` has {found} values where {length} learn") }),
        }
    }

    /// `length` codes, if the state has them under this name.
    pub(super) fn codes(&self, name: &str, length: usize) -> Result<Option<Vec<u8>>, StateError> {
        if self.vectors.info(name).is_none() {
            return Ok(None);
        }
        let codes = self.vectors.bytes(name)?;
        match codes.len() {
            found if found == length => Ok(Some(codes.to_vec())),
            found => Err(StateError::Other { problem: format!("`{name}` has {found} codes where {length} learn") }),
        }
    }

    /// Whether the state has a vector of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.vectors.info(name).is_some()
    }
}
