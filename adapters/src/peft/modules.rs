//! How a saved adapter changes the embedding or the head: LoRA, rows of trained tokens, or a weight in place of the base's.
//!
//! An embedding is LoRA's transposed case: `W + s Aᵀ Bᵀ` with A `[rank, vocab]` and B `[hidden, rank]`.

use burn::tensor::{Device, Tensor, TensorData};

use super::PeftError;
use crate::low_rank::LowRankSpec;

/// The ends of tensors' names, after the key of their module; a longer one before those that it ends with.
pub(super) const ENDS: &[&str] = &[
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_magnitude_vector",
    ".lora_embedding_A",
    ".lora_embedding_B",
    TOKENS,
    ".token_adapter.base_layer.weight",
    ".base_layer.weight",
    ".weight",
];

const TOKENS: &str = ".token_adapter.trainable_tokens_delta";

/// A change of the embedding or the head.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ModuleChange {
    /// Another weight.
    Whole,
    /// LoRA of an embedding.
    Embedding(LowRankSpec),
    /// LoRA of a linear map.
    Linear(LowRankSpec),
    /// Other rows for these tokens.
    Rows(Vec<usize>),
}

/// Gets a tensor by the end of its name and its shape.
type Get<'a> = &'a dyn Fn(&str, &[usize]) -> Result<&'a [f32], PeftError>;

impl ModuleChange {
    /// The change that the tensors say which a module `has`; none if they say several or none, or the rows are not known.
    pub(super) fn read(has: &dyn Fn(&str) -> bool, spec: LowRankSpec, rows: Option<&[usize]>) -> Option<Self> {
        match [has(".weight"), has(".lora_embedding_A"), has(".lora_A.weight"), has(TOKENS)] {
            [true, false, false, false] => Some(Self::Whole),
            [false, true, false, false] => Some(Self::Embedding(spec)),
            [false, false, true, false] => Some(Self::Linear(spec)),
            [false, false, false, true] => Some(Self::Rows(rows?.to_vec())),
            _ => None,
        }
    }

    /// The tensors that it needs for a weight of `[vocab, hidden]`: the ends of their names and their shapes.
    pub(super) fn tensors(&self, [vocab, hidden]: [usize; 2]) -> Vec<(&'static str, Vec<usize>)> {
        match self {
            Self::Whole => vec![(".weight", vec![vocab, hidden])],
            Self::Embedding(spec) => {
                vec![(".lora_embedding_A", vec![spec.rank, vocab]), (".lora_embedding_B", vec![hidden, spec.rank])]
            }
            Self::Linear(spec) => {
                vec![(".lora_A.weight", vec![spec.rank, hidden]), (".lora_B.weight", vec![vocab, spec.rank])]
            }
            Self::Rows(rows) => vec![(TOKENS, vec![rows.len(), hidden])],
        }
    }

    /// The ends of names under which the weight may lie that is changed, in place of the base model's.
    pub(super) fn base_ends(&self) -> &'static [&'static str] {
        match self {
            Self::Whole => &[],
            Self::Embedding(_) | Self::Linear(_) => &[".base_layer.weight"],
            Self::Rows(_) => &[".token_adapter.base_layer.weight"],
        }
    }

    /// What it makes of the weight `base` of `[vocab, hidden]`, flat, f32.
    pub(super) fn apply(
        &self,
        base: Tensor<1>,
        shape: [usize; 2],
        get: Get,
        device: &Device,
    ) -> Result<Tensor<1>, PeftError> {
        let matrix = |end: &str, shape: Vec<usize>| {
            let values = get(end, &shape)?.to_vec();
            Ok::<Tensor<2>, PeftError>(Tensor::from_data(TensorData::new(values, [shape[0], shape[1]]), device))
        };
        let mut tensors = Vec::new();
        for (end, shape) in self.tensors(shape) {
            tensors.push(matrix(end, shape)?);
        }
        let changed = match (self, tensors.as_slice()) {
            (Self::Embedding(spec), [a, b]) => {
                let change = a.clone().transpose().matmul(b.clone().transpose());
                base.reshape(shape) + change.mul_scalar(spec.scaling() as f32)
            }
            (Self::Linear(spec), [a, b]) => {
                base.reshape(shape) + b.clone().matmul(a.clone()).mul_scalar(spec.scaling() as f32)
            }
            (Self::Rows(rows), [trained]) => {
                let mut weight: Tensor<2> = base.reshape(shape);
                for (index, row) in rows.iter().enumerate() {
                    let value = trained.clone().slice([index..index + 1, 0..shape[1]]);
                    weight = weight.slice_assign([*row..*row + 1, 0..shape[1]], value);
                }
                weight
            }
            (_, [weight, ..]) => weight.clone(),
            (_, []) => base.reshape(shape),
        };
        Ok(changed.reshape([-1]))
    }
}
