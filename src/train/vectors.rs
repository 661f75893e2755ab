//! The vectors that a trainer's state consists of: to be written, and as they were read again.

use std::borrow::Cow;
use std::path::Path;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use safetensors::tensor::{Dtype, View};
use thiserror::Error;

use crate::device;
use crate::hub::{HubError, Weights};

/// The file's name in a checkpoint folder.
pub const STATE_FILE: &str = "training_state.safetensors";

/// An error about a saved state that does not fit.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] HubError),
    /// It holds other parameters than the decoder.
    #[error("{STATE_FILE}: {problem}")]
    Other {
        /// The mismatch.
        problem: String,
    },
}

impl StateError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            StateError::File(error) => return error.hint(),
            StateError::Other { .. } => "it was written for another model or recipe",
        };
        Some(hint.into())
    }
}

/// A vector of the state in the memory of the host.
#[derive(Debug, Clone)]
pub(super) struct Vector {
    length: [usize; 1],
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    /// f32.
    Numbers(Box<Tensor<1>>),
    /// 8 bits each.
    Codes(Vec<u8>),
}

impl Vector {
    /// Numbers on any device.
    pub(super) fn numbers(values: Tensor<1>) -> Self {
        let values = values.cast(FloatDType::F32);
        let values = if device::is_host(&values.device()) {
            values
        } else {
            Tensor::from_data(values.into_data(), (&device::host(), DType::F32))
        };
        Self { length: values.dims(), values: Values::Numbers(Box::new(values)) }
    }

    /// Codes of 8 bits.
    pub(super) fn codes(codes: Vec<u8>) -> Self {
        Self { length: [codes.len()], values: Values::Codes(codes) }
    }

    /// The numbers, if it consists of such.
    pub(super) fn as_numbers(&self) -> Option<&Tensor<1>> {
        match &self.values {
            Values::Numbers(values) => Some(values),
            Values::Codes(_) => None,
        }
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

/// The vectors of a state file, by name.
#[derive(Debug)]
pub(super) struct SavedVectors(Weights);

impl SavedVectors {
    /// Opens the state file in `folder`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open(folder: &Path) -> Result<Self, StateError> {
        Ok(Self(Weights::open_file(&folder.join(STATE_FILE))?))
    }

    /// True if there is a vector called `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.info(name).is_some()
    }

    /// The number of vectors whose name begins with `prefix`.
    pub(super) fn count(&self, prefix: &str) -> usize {
        self.0.names().filter(|name| name.starts_with(prefix)).count()
    }

    /// The `length` numbers called `name`.
    ///
    /// # Errors
    /// When they are missing, cannot be read, or are of another length.
    pub(super) fn numbers(&self, name: &str, length: usize) -> Result<Vec<f32>, StateError> {
        let values = self.0.to_f32(name)?;
        check_length(name, "values", values.len(), length)?;
        Ok(values)
    }

    /// The `length` numbers called `name`, on `device`.
    ///
    /// # Errors
    /// When they are missing, cannot be read, or are of another length.
    pub(super) fn tensor(&self, name: &str, length: usize, device: &Device) -> Result<Tensor<1>, StateError> {
        let values = TensorData::new(self.numbers(name, length)?, [length]);
        Ok(Tensor::from_data(values, (device, DType::F32)))
    }

    /// The `length` codes called `name`.
    ///
    /// # Errors
    /// When they are missing, cannot be read, or are of another length.
    pub(super) fn codes(&self, name: &str, length: usize) -> Result<Vec<u8>, StateError> {
        let codes = self.0.bytes(name)?;
        check_length(name, "codes", codes.len(), length)?;
        Ok(codes.to_vec())
    }
}

fn check_length(name: &str, what: &str, saved: usize, trainable: usize) -> Result<(), StateError> {
    if saved == trainable {
        return Ok(());
    }
    Err(StateError::Other { problem: format!("`{name}` has {saved} {what} for {trainable} trainable values") })
}
