//! The reference's files: which cases there are, their tensors, and what our side makes of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{FloatDType, Tensor};
use datasets::{Example, MicroBatch};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tune::hub::BaseModel;
use tune::model::families::{self, ConfigError, ResolvedFamily};
use tune::model::{self, Decoder, DecoderInput, Pass, Quantised, Source, Storage, TokenRows};

use super::{Bench, say};

/// Models that this version supports: their cases must not be skipped.
const SUPPORTED: [&str; 28] = [
    "deepseek_v3",
    "deepseek_v3_direct",
    "gemma3",
    "gemma3_options",
    "gpt_oss",
    "gpt_oss_options",
    "llama31",
    "llama31_bf16",
    "llama32_tied",
    "llama4_mm",
    "llama4_options",
    "llama4_text",
    "llama_biases_yarn",
    "mistral_defaults",
    "mistral_nemo",
    "mistral_sw",
    "mixtral",
    "mixtral_window",
    "phi3_window",
    "phi4",
    "phi4_mini",
    "qwen2_tied",
    "qwen2_window",
    "qwen3",
    "qwen3_biases",
    "qwen3_moe",
    "qwen3_moe_mixed",
    "qwen3_sharded",
];

/// The root of the fixtures.
pub(crate) fn root() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::env::var_os("TUNE_FIXTURES").map_or_else(own, PathBuf::from)
}

/// Whether `TUNE_FIXTURES` names a folder with models in it.
pub(crate) fn are_others() -> bool {
    std::env::var_os("TUNE_FIXTURES").is_some() && !cases("models").is_empty()
}

/// The folders in `kind` (such as `models`), sorted.
pub(crate) fn cases(kind: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root().join(kind)) else {
        return Vec::new();
    };
    let folders = entries.map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A JSON file below the root.
pub(crate) fn json(path: &str) -> Value {
    let path = root().join(path);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// A base model whose family is supported.
pub(crate) struct Model {
    pub(crate) base: BaseModel,
    pub(crate) resolved: ResolvedFamily,
    /// What is kept in 4 bits, if anything.
    pub(crate) quantised: Option<Quantised>,
}

impl Model {
    /// The model `models/NAME`; `None`, said aloud, if this version does not support its family or a value of it.
    pub(crate) fn open(name: &str) -> Option<Self> {
        let models = root().join("models");
        let base = BaseModel::open(name, &[&models], None).unwrap_or_else(|error| panic!("{error}"));
        match families::resolve(&base.config, &base.config_path) {
            Ok(resolved) => Some(Self { base, resolved, quantised: None }),
            Err(error @ (ConfigError::UnknownFamily { .. } | ConfigError::Unsupported { .. })) => {
                assert!(!SUPPORTED.contains(&name), "{error}");
                say(&format!("SKIPPED models/{name}: {error}"));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Its decoder with frozen weights in `dtype`.
    pub(crate) fn decoder(&self, bench: &Bench, dtype: FloatDType) -> Decoder {
        let weights = self.base.weights.as_ref().unwrap();
        let source = Source::Checkpoint(weights);
        let device = &bench.device.device;
        let storage = Storage { quantised: self.quantised.clone(), ..Storage::of(dtype, bench.device.is_host) };
        model::load(&self.resolved.spec, &source, device, &storage, &mut |_| ())
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A tensor of a safetensors file, as f32, as integers or as bytes.
enum Stored {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
    Bytes(Vec<u8>),
}

/// A safetensors file.
pub(crate) struct Tensors(BTreeMap<String, (Vec<usize>, Stored)>);

impl Tensors {
    /// Reads a file below the root.
    pub(crate) fn read(path: &str) -> Self {
        Self::read_at(&root().join(path))
    }

    pub(crate) fn read_at(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = |(name, view): (String, safetensors::tensor::TensorView)| {
            let data = view.data();
            let stored = match view.dtype() {
                Dtype::F32 => {
                    Stored::Floats(data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
                }
                Dtype::BF16 => Stored::Floats(
                    data.chunks_exact(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
                ),
                Dtype::F16 => Stored::Floats(
                    data.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
                ),
                Dtype::I64 => {
                    Stored::Integers(data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect())
                }
                Dtype::U8 => Stored::Bytes(data.to_vec()),
                other => panic!("{name} is {other:?}"),
            };
            (name, (view.shape().to_vec(), stored))
        };
        Self(file.tensors().into_iter().map(read).collect())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn floats(&self, name: &str) -> &[f32] {
        match &self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}`")).1 {
            Stored::Floats(values) => values,
            Stored::Integers(_) | Stored::Bytes(_) => panic!("`{name}` holds integers"),
        }
    }

    pub(crate) fn integers(&self, name: &str) -> &[i64] {
        match &self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}`")).1 {
            Stored::Integers(values) => values,
            Stored::Floats(_) | Stored::Bytes(_) => panic!("`{name}` holds no i64"),
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        match &self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}`")).1 {
            Stored::Bytes(values) => values,
            Stored::Floats(_) | Stored::Integers(_) => panic!("`{name}` holds no bytes"),
        }
    }

    pub(crate) fn shape(&self, name: &str) -> &[usize] {
        &self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}`")).0
    }

    /// Size of the last dimension.
    pub(crate) fn width(&self, name: &str) -> usize {
        *self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}`")).0.last().unwrap()
    }

    /// The rows of `prefix.input_ids` without their padding.
    pub(crate) fn examples(&self, prefix: &str) -> Vec<Example> {
        let name = |part: &str| format!("{prefix}.{part}");
        let width = self.width(&name("input_ids"));
        let ids = self.integers(&name("input_ids")).chunks(width);
        let masks = self.integers(&name("attention_mask")).chunks(width);
        let labels = self.integers(&name("labels")).chunks(width);
        ids.zip(masks)
            .zip(labels)
            .map(|((ids, mask), labels)| {
                let length = mask.iter().take_while(|seen| **seen == 1).count();
                assert_eq!(length as i64, mask.iter().sum::<i64>(), "padding is on the right");
                example(&ids[..length], &labels[..length])
            })
            .collect()
    }

    /// The documents of the one row `packed.input_ids`: positions restart at each.
    pub(crate) fn documents(&self) -> Vec<Example> {
        let (ids, labels) = (self.integers("packed.input_ids"), self.integers("packed.labels"));
        let positions = self.integers("packed.position_ids");
        let mut starts: Vec<usize> = (0..ids.len()).filter(|&index| positions[index] == 0).collect();
        starts.push(ids.len());
        starts.windows(2).map(|ends| example(&ids[ends[0]..ends[1]], &labels[ends[0]..ends[1]])).collect()
    }
}

fn example(ids: &[i64], labels: &[i64]) -> Example {
    Example {
        tokens: ids.iter().map(|&id| u32::try_from(id).unwrap()).collect(),
        trained: labels.iter().map(|&label| label != -100).collect(),
        file: 0,
        line: 1,
    }
}

/// Each example in a row of its own, at least `width` wide.
pub(crate) fn in_rows(examples: &[Example], width: usize) -> MicroBatch {
    let rows: Vec<Vec<&Example>> = examples.iter().map(|example| vec![example]).collect();
    MicroBatch::from_examples(&rows, width)
}

/// All examples in one row.
pub(crate) fn packed(examples: &[Example]) -> MicroBatch {
    MicroBatch::from_examples(&[examples.iter().collect()], 0)
}

/// A micro-batch as the decoder takes it.
pub(crate) fn input(decoder: &Decoder, batch: &MicroBatch) -> DecoderInput {
    decoder.input(TokenRows {
        span: model::span(batch.width, &batch.documents, &batch.positions),
        rows: batch.rows,
        width: batch.width,
        tokens: &batch.tokens,
        positions: &batch.positions,
        documents: &batch.documents,
    })
}

/// Logits of every position of a micro-batch, `[rows * width, vocab]` row-major.
pub(crate) fn logits(decoder: &Decoder, batch: &MicroBatch) -> Vec<f32> {
    values(decoder.logits(decoder.normalise(decoder.hidden(&input(decoder, batch), Pass::default()))))
}

/// The values of a tensor as f32.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().cast(FloatDType::F32).into_data().try_to_vec::<f32>().unwrap()
}

/// The rows of `values` (`[positions, width]`) that are not padding in `batch`.
pub(crate) fn real(values: &[f32], batch: &MicroBatch) -> Vec<f32> {
    let width = values.len() / batch.documents.len();
    let rows = values.chunks(width).zip(&batch.documents).filter(|(_, document)| **document >= 0);
    rows.flat_map(|(row, _)| row.iter().copied()).collect()
}
