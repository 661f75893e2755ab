//! Which type a run computes in: bf16 where it pays, else f32.
//!
//! Trainable tensors, norms, softmax and loss are f32 in any case.

use anyhow::{Result, bail};

use crate::device::{FloatDType, OpenDevice};
use crate::recipe::{DtypeName, Recipe, Toggle};

/// The type of frozen weights and activations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Precision {
    /// The type.
    pub compute: FloatDType,
    /// Why it was chosen.
    pub reason: &'static str,
}

impl Precision {
    /// What `bf16`, `fp16` and `tf32` mean on `device`.
    ///
    /// # Errors
    /// When the device cannot do what is asked for.
    pub fn resolve(recipe: &Recipe, device: &OpenDevice) -> Result<Self> {
        let cuda = device.name.starts_with("cuda");
        if cuda && recipe.tf32 == Some(Toggle::False) {
            bail!(
                "{}: tf32: false cannot be kept on {}, whose f32 matrix products run on tensor cores\nhint: leave tf32 out, or set device: cpu",
                recipe.at("tf32"),
                device.name,
            );
        }
        let supported = device.supports(FloatDType::BF16);
        match recipe.bf16 {
            Some(Toggle::True) if !supported => bail!(
                "{}: bf16: true is not possible on {}, which has no bf16 arithmetic\nhint: set bf16: auto to compute in f32 there",
                recipe.at("bf16"),
                device.name,
            ),
            Some(Toggle::True) => Ok(Self { compute: FloatDType::BF16, reason: "bf16: true" }),
            Some(Toggle::False) => Ok(Self { compute: FloatDType::F32, reason: "bf16: false" }),
            // The CPU converts bf16 to f32 and back around every product: slower and no smaller at its peak.
            _ if supported && cuda => Ok(Self { compute: FloatDType::BF16, reason: "the device computes in bf16" }),
            _ => Ok(Self { compute: FloatDType::F32, reason: "the device computes best in f32" }),
        }
    }

    /// Bytes of one value.
    pub fn bytes(&self) -> u64 {
        match self.compute {
            FloatDType::BF16 | FloatDType::F16 => 2,
            _ => 4,
        }
    }

    /// The type's name.
    pub fn name(&self) -> &'static str {
        match self.compute {
            FloatDType::BF16 => "bf16",
            FloatDType::F16 => "f16",
            _ => "f32",
        }
    }
}

/// A recipe's type name as a type.
pub(super) fn float_dtype(name: DtypeName) -> FloatDType {
    match name {
        DtypeName::F32 => FloatDType::F32,
        DtypeName::Bf16 => FloatDType::BF16,
        DtypeName::F16 => FloatDType::F16,
    }
}
