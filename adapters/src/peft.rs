//! PEFT's adapter folder, reading and writing: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Tensor names are `base_model.model.` + module path + `.lora_A.weight` `[r, in]` or `.lora_B.weight`
//! `[out, r]`, without an adapter's name in them: PEFT binds nothing else and only warns about the rest.
//! A stack of experts is a parameter of its module, on which PEFT puts one wrapper for each parameter.

mod attach;
mod config;
mod experts;
mod files;
mod modules;
mod saved;
mod write;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use half::{bf16, f16};
use thiserror::Error;

pub use attach::attach_saved;
pub use saved::{SavedAdapter, Shapes};
pub use write::{Origin, write};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// The problems of an adapter folder.
#[derive(Debug, Error)]
pub enum PeftError {
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file that is not what its name says.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
        /// The remedy.
        hint: String,
    },
    /// Tensors for a module that the model does not have.
    #[error("{}: the adapter is for a module `{module}` that this base model does not have", folder.display())]
    UnknownModule {
        /// The module path.
        module: String,
        /// The adapter folder.
        folder: PathBuf,
    },
}

impl PeftError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            PeftError::File { .. } => "an adapter folder holds adapter_config.json and adapter_model.safetensors",
            PeftError::Write { .. } => "check that the folder can be written and the disk has room",
            PeftError::Content { hint, .. } => hint,
            PeftError::UnknownModule { .. } => "name the base model that the adapter was trained on",
        };
        Some(hint.into())
    }
}

/// The paths of a decoder's modules: in its checkpoint, and in the class that PEFT puts adapters on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModulePaths {
    /// The beginning of the checkpoint's names, before `model.`.
    pub checkpoint: &'static str,
    /// The same in the class, `model.` included.
    pub class: &'static str,
}

impl ModulePaths {
    /// True if the class holds the decoder and nothing else.
    fn is_alone(&self) -> bool {
        self.class == "model."
    }

    /// A path of the checkpoint as the class has it.
    fn in_class(&self, path: &str) -> String {
        let rest = path.strip_prefix(self.checkpoint).unwrap_or(path);
        match rest.strip_prefix("model.") {
            Some(inside) => format!("{}{inside}", self.class),
            None => rest.to_owned(),
        }
    }

    /// A path of the class, or of the checkpoint, as the checkpoint has it.
    fn in_checkpoint(&self, path: &str) -> String {
        match path.strip_prefix(self.class) {
            Some(inside) => format!("{}model.{inside}", self.checkpoint),
            None if !self.checkpoint.is_empty() && path.starts_with(self.checkpoint) => path.to_owned(),
            None => format!("{}{path}", self.checkpoint),
        }
    }
}

/// Little-endian bytes of `values` in `dtype`.
pub fn encode(values: &[f32], dtype: FloatDType) -> Vec<u8> {
    match dtype {
        FloatDType::BF16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
        FloatDType::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

fn content(path: &Path, reason: String, hint: &str) -> PeftError {
    PeftError::Content { path: path.to_owned(), reason, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_decoder_in_a_larger_model_go_there_and_back() {
        let alone = ModulePaths { checkpoint: "", class: "model." };
        let wrapped = ModulePaths { checkpoint: "language_model.", class: "model." };
        let renamed = ModulePaths { checkpoint: "language_model.", class: "model.language_model." };
        let layer = "language_model.model.layers.0.self_attn.q_proj";
        assert_eq!(alone.in_class("model.layers.0.self_attn.q_proj"), "model.layers.0.self_attn.q_proj");
        assert_eq!(wrapped.in_class(layer), "model.layers.0.self_attn.q_proj");
        assert_eq!(renamed.in_class(layer), "model.language_model.layers.0.self_attn.q_proj");
        assert_eq!(wrapped.in_class("language_model.lm_head"), "lm_head");
        for paths in [wrapped, renamed] {
            assert_eq!(paths.in_checkpoint(&paths.in_class(layer)), layer);
            assert_eq!(paths.in_checkpoint(layer), layer);
            assert_eq!(paths.in_checkpoint("lm_head"), "language_model.lm_head");
        }
    }
}
