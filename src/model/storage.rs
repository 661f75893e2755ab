//! In which form a decoder keeps its frozen parameters: as they are computed with, in 16 bits, or as 4-bit codes.

use std::collections::HashSet;

use adapters::Role;
use adapters::nf4::{Nf4, Nf4Error, Nf4Parts, Nf4Spec};
use burn::tensor::FloatDType;

use super::names::{self, ParameterKind};
use super::spec::DecoderSpec;
use crate::hub::{Dtype, Encoding, HubError, Weights};

/// The storage of parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// The type of activations, and of whatever is kept as it is computed with.
    pub compute: FloatDType,
    /// If set, matrices of 16-bit numbers stay so where f32 is computed with: the CPU multiplies them tile by tile.
    pub keep_half: bool,
    /// The linear maps that become 4-bit codes when loaded; those that are stored so stay so in any case.
    pub quantised: Option<Quantised>,
}

/// The linear maps that become 4-bit codes; by default all but routers, with scales in 8 bits.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Quantised {
    /// The form of the codes.
    pub spec: Nf4Spec,
    /// Module paths, beginnings or last components of them, that stay as they are.
    pub skipped: Vec<String>,
}

impl Quantised {
    /// True if a linear map of a layer becomes codes: all but routers do, as far as they are not skipped.
    pub fn takes(&self, path: &str, role: Role) -> bool {
        role != Role::Router && !self.skipped.iter().any(|name| is_skipped(path, name))
    }
}

/// True if `name`, an entry of `llm_int8_skip_modules`, means `path`: its beginning or its end, as transformers reads it.
pub fn is_skipped(path: &str, name: &str) -> bool {
    path.starts_with(name) || path.ends_with(name)
}

impl Storage {
    /// Everything as it is computed with, in `compute`; 16-bit matrices stay so on the CPU.
    pub fn of(compute: FloatDType, on_host: bool) -> Self {
        Self { compute, keep_half: on_host && compute == FloatDType::F32, quantised: None }
    }

    /// True if `parameter` stays as its file has it, in 16 bits, where that is the plain type `stored`.
    pub(super) fn keeps_stored(&self, parameter: &names::Parameter, stored: FloatDType) -> bool {
        stored == self.compute || self.keeps_half(parameter)
    }

    /// True if the matrix `parameter` stays in 16 bits if its file has it so.
    fn keeps_half(&self, parameter: &names::Parameter) -> bool {
        let kinds = [ParameterKind::Embedding, ParameterKind::Head, ParameterKind::LinearWeight];
        self.keep_half && kinds.contains(&parameter.kind) && parameter.shape.len() == 2
    }

    /// Bytes of the parameters of `spec`: those of `weights`, or ones that are not there yet, in 16 bits if `half`.
    pub fn size(&self, spec: &DecoderSpec, weights: Option<&Weights>, half: bool) -> StoredSize {
        let computed = if self.compute == FloatDType::F32 { 4 } else { 2 };
        let quantised = self.quantised.as_ref();
        let taken: HashSet<String> = names::projections(spec)
            .iter()
            .filter(|name| quantised.is_some_and(|quantised| quantised.takes(&name.path, name.role)))
            .map(|name| names::weight(&name.path))
            .collect();
        let bytes = |parameter: &names::Parameter| {
            let info = weights.and_then(|weights| weights.info(&parameter.name));
            let is_half = info.map_or(half, |info| {
                info.encoding == Encoding::Plain && [Dtype::BF16, Dtype::F16].contains(&info.dtype)
            });
            match (info.map(|info| &info.encoding), quantised) {
                (Some(Encoding::Nf4 { parts }), _) => {
                    Nf4Spec { double: parts.nested.is_some() }.bytes(parameter.elements())
                }
                (_, Some(quantised)) if taken.contains(&parameter.name) => quantised.spec.bytes(parameter.elements()),
                _ if is_half && self.keeps_half(parameter) => 2 * parameter.elements(),
                _ => computed * parameter.elements(),
            }
        };
        let mut size = StoredSize::default();
        for parameter in names::parameters(spec) {
            let bytes = bytes(&parameter);
            size.bytes += bytes;
            if bytes < computed * parameter.elements() {
                size.largest_packed = size.largest_packed.max(parameter.elements());
            }
        }
        size
    }
}

/// Bytes of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredSize {
    /// Bytes of all.
    pub bytes: u64,
    /// Values of the largest that is kept in fewer bits than it is computed with.
    pub largest_packed: u64,
}

/// The NF4 weight called `name`, if it is stored as one.
///
/// # Errors
/// When its parts do not fit each other.
pub(super) fn stored_nf4(weights: &Weights, name: &str) -> Result<Option<Nf4>, HubError> {
    let Some(bytes) = weights.nf4(name)? else { return Ok(None) };
    let parts = Nf4Parts {
        codes: bytes.codes,
        scales: bytes.scales,
        book: bytes.book,
        nested: bytes.nested,
        state: bytes.state,
    };
    let path = weights.info(name).map(|info| info.file.clone()).unwrap_or_default();
    let wrong = |error: Nf4Error| HubError::Tensor { path, tensor: name.to_owned(), reason: error.to_string() };
    let (packed, _) = parts.read().map_err(wrong)?;
    Ok(Some(packed))
}

/// The values of a tensor of a checkpoint, decoded from whatever it is stored in.
///
/// # Errors
/// When there is no such tensor, or it cannot be decoded.
pub fn stored_values(weights: &Weights, name: &str) -> Result<Vec<f32>, HubError> {
    match stored_nf4(weights, name)? {
        Some(packed) => Ok(packed.dequantise()),
        None => weights.to_f32(name),
    }
}

/// The type of a tensor's numbers, as far as 4-bit codes that are made of them must remember it.
pub(super) fn stored_dtype(weights: &Weights, name: &str) -> FloatDType {
    match weights.info(name).map(|info| (info.dtype, &info.encoding)) {
        Some((Dtype::BF16, Encoding::Plain)) => FloatDType::BF16,
        Some((Dtype::F16, Encoding::Plain)) => FloatDType::F16,
        _ => FloatDType::F32,
    }
}
