//! Descriptions of a base model: the output of `tune inspect`, and the layer table that a plan prints too.
//!
//! In: the opened files and the architecture that they were checked against. Out: text, lines of `label  value`.

mod layers;

use std::collections::BTreeMap;
use std::path::Path;

pub use layers::layer_table;

use super::families::{Ignored, ResolvedFamily};
use super::names::{ParameterKind, parameters};
use super::spec::{DecoderSpec, FeedForwardSpec, LayerSpec};
use crate::hub::{BaseModel, Encoding, HubError, WeightFile, Weights, tokenizer_files};
use crate::text::{self, counted, grouped, line, lines};

/// Numbers of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCounts {
    /// All; a tied head counts once.
    pub total: u64,
    /// The embedding.
    pub embedding: u64,
    /// The head, 0 if tied.
    pub head: u64,
    /// All layers together.
    pub layers: u64,
    /// Those active for one token: all but the experts that it is not routed to.
    pub active: u64,
}

/// Counts the parameters of a decoder.
pub fn parameter_counts(spec: &DecoderSpec) -> ParameterCounts {
    let mut counts = ParameterCounts { total: 0, embedding: 0, head: 0, layers: 0, active: 0 };
    for parameter in parameters(spec) {
        let elements = parameter.elements();
        counts.total += elements;
        match (parameter.kind, parameter.layer) {
            (ParameterKind::Embedding, _) => counts.embedding += elements,
            (ParameterKind::Head, _) => counts.head += elements,
            (_, Some(_)) => counts.layers += elements,
            (_, None) => {}
        }
    }
    let idle: u64 = spec.layers.iter().map(|layer| idle_parameters(spec.hidden, layer)).sum();
    counts.active = counts.total - idle;
    counts
}

/// Parameters of the experts of `layer` that a token is not routed to.
fn idle_parameters(hidden: usize, layer: &LayerSpec) -> u64 {
    let FeedForwardSpec::Experts(experts) = &layer.feed_forward else { return 0 };
    let expert = experts.expert;
    let biases = if expert.bias { 2 * expert.intermediate + hidden } else { 0 };
    let one = 3 * hidden * expert.intermediate + biases;
    ((experts.count - experts.router.chosen) * one) as u64
}

/// Describes a base model of the architecture `model`, one fact per line.
///
/// # Errors
/// When its end-of-text ids are not token ids.
pub fn describe(base: &BaseModel, model: &ResolvedFamily) -> Result<String, HubError> {
    let ResolvedFamily { family, spec, rope, ignored } = model;
    let mut text = String::new();
    line(&mut text, "model", &base.name);
    line(&mut text, "folder", &base.folder.display().to_string());
    if let Some(revision) = &base.revision {
        line(&mut text, "revision", revision);
    }
    line(&mut text, "family", family);
    describe_parameters(&mut text, spec);
    let head = if spec.head.tied { "tied to the embedding" } else { "not tied" };
    let vocabulary = format!("{} ids; hidden size {}; head {head}", grouped(spec.vocab), spec.hidden);
    line(&mut text, "vocabulary", &vocabulary);
    lines(&mut text, "layers", layer_table(spec));
    line(&mut text, "rope", rope);
    line(&mut text, "context", &format!("{} tokens", grouped(spec.max_positions)));
    let size = |part: &Ignored| size_of(part, base.weights.as_ref());
    lines(
        &mut text,
        "not loaded",
        ignored.iter().map(|part| format!("{} (`{}*`){}", part.what, part.prefix, size(part))),
    );
    describe_weights(&mut text, base);
    let eos: Vec<String> = base.eos_token_ids()?.iter().map(u32::to_string).collect();
    line(&mut text, "eos ids", &if eos.is_empty() { "none".to_owned() } else { eos.join(", ") });
    let tokenizer: Vec<String> = tokenizer_files(&base.folder).iter().map(|path| file_name(path)).collect();
    let missing = "none: set tokenizer_config in the recipe".to_owned();
    line(&mut text, "tokenizer", &if tokenizer.is_empty() { missing } else { tokenizer.join(", ") });
    Ok(text)
}

fn describe_parameters(text: &mut String, spec: &DecoderSpec) {
    let counts = parameter_counts(spec);
    let layers = spec.layers.len().max(1) as u64;
    line(text, "parameters", &format!("{} ({})", grouped(counts.total), rounded(counts.total)));
    if counts.active < counts.total {
        line(text, "  active", &format!("{} ({})", grouped(counts.active), rounded(counts.active)));
    }
    line(text, "  embedding", &grouped(counts.embedding));
    if counts.head > 0 {
        line(text, "  head", &grouped(counts.head));
    }
    line(text, "  layers", &format!("{} ({} per layer)", grouped(counts.layers), grouped(counts.layers / layers)));
    line(text, "  non-embedding", &grouped(counts.total - counts.embedding));
}

/// The number of parameters of a part that its family does not load, if the weights are there.
fn size_of(part: &Ignored, weights: Option<&Weights>) -> String {
    let of_part = |weights: &Weights| -> u64 {
        let tensors = weights.tensors().filter(|(name, _)| name.starts_with(&part.prefix));
        tensors.map(|(_, info)| info.elements() as u64).sum()
    };
    weights.map_or(String::new(), |weights| format!(": {} parameters", grouped(of_part(weights))))
}

fn describe_weights(text: &mut String, base: &BaseModel) {
    let Some(weights) = &base.weights else {
        let missing = base.missing.as_ref().map(|missing| {
            let size = missing.bytes.map_or(String::new(), |bytes| format!(", {}", text::bytes(bytes)));
            format!("to be downloaded: {}{size}", counted(missing.files, "file"))
        });
        line(text, "weights", missing.as_deref().unwrap_or("none: initialised at random"));
        return;
    };
    let mut bytes_by_dtype: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, info) in weights.tensors() {
        let name = match info.encoding {
            Encoding::Plain | Encoding::Fp8 { .. } => info.dtype.name(),
            Encoding::Mxfp4 { .. } => "MXFP4",
            Encoding::Nf4 { .. } => "NF4",
        };
        *bytes_by_dtype.entry(name).or_default() += info.len_bytes() as u64;
    }
    let parts: Vec<String> =
        bytes_by_dtype.iter().map(|(dtype, bytes)| format!("{dtype} {}", text::bytes(*bytes))).collect();
    line(text, "weights", &parts.join(", "));
    let row = |file: &WeightFile| format!("{} {}", file_name(&file.path), text::bytes(file.len_bytes));
    lines(text, "files", weights.files().iter().map(row));
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn rounded(number: u64) -> String {
    let number = number as f64;
    match number {
        number if number >= 1e9 => format!("{:.2} B", number / 1e9),
        number if number >= 1e6 => format!("{:.1} M", number / 1e6),
        number => format!("{:.1} K", number / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::fixtures::{Scratch, fixture};
    use crate::model::families::{self, resolve};

    fn opened(name: &str) -> BaseModel {
        BaseModel::open(name, &[fixture("models").as_path()], None).expect("a sound model")
    }

    fn described(base: &BaseModel) -> String {
        let model = resolve(&base.config, &base.config_path).expect("a supported model");
        describe(base, &model).expect("a sound model")
    }

    #[test]
    fn every_supported_reference_model_is_described() {
        for name in families::tests::supported_models() {
            let text = described(&opened(&name));
            assert!(text.contains("tokenizer.json"), "{text}");
            assert!(text.lines().all(|line| line.len() > 16), "{text}");
        }
    }

    #[test]
    fn the_description_states_what_the_files_say() {
        let text = described(&opened("llama31"));
        let elements: u64 = opened("llama31")
            .weights
            .map_or(0, |weights| weights.tensors().map(|(_, info)| info.elements() as u64).sum());
        for fact in [
            "family          llama\n",
            &format!("parameters      {} (", grouped(elements)),
            "layers          0-2  grouped 4 heads / 2 kv x 16, full attention; mlp 112 silu\n",
            "rope            base 500000, llama3 scaling by 8 from 64 positions\n",
            "context         512 tokens\n",
            "weights         F32 590 KiB\n",
            "files           model.safetensors 593 KiB\n",
            "eos ids         377, 381, 382\n",
        ] {
            assert!(text.contains(fact), "{fact} in\n{text}");
        }
        let rows = layer_table(&families::tests::spec_of("qwen3"));
        assert_eq!(rows, ["0-1  grouped 4 heads / 2 kv x 24, qk-norm, full attention; mlp 112 silu"]);
    }

    #[test]
    fn a_configuration_without_weights_is_initialised_at_random() {
        let folder = Scratch::new("inspect-random");
        let config = std::fs::read(fixture("models/qwen3/config.json")).expect("the fixture has a configuration");
        folder.write("tiny/config.json", config);
        let base = BaseModel::open("tiny", &[folder.path()], None).expect("a configuration is enough");
        let text = described(&base);
        assert!(text.contains("weights         none: initialised at random"), "{text}");
        assert!(text.contains("tokenizer       none"), "{text}");
    }

    /// Published models: parameters in all and for a token, in billions. A decoder in a multimodal model is counted
    /// without the encoder of images (0.9 of Scout's 109); GPT-OSS's publisher counts a token without the embedding.
    const PUBLISHED: [(&str, f64, f64); 28] = [
        ("llama-3.1-8b", 8.03, 8.03),
        ("llama-3.1-70b", 70.6, 70.6),
        ("llama-3.1-405b", 405.9, 405.9),
        ("llama-4-scout-17b-16e", 107.8, 17.2),
        ("llama-4-maverick-17b-128e", 400.7, 17.2),
        ("mistral-7b-v0.1", 7.24, 7.24),
        ("mistral-nemo-base-2407", 12.2, 12.2),
        ("mistral-large-instruct-2407", 122.6, 122.6),
        ("mixtral-8x7b-v0.1", 46.7, 12.9),
        ("mixtral-8x22b-instruct-v0.1", 140.6, 39.2),
        ("qwen2.5-0.5b", 0.494, 0.494),
        ("deepseek-r1-distill-qwen-7b", 7.62, 7.62),
        ("qwen3-0.6b", 0.596, 0.596),
        ("qwen3-1.7b", 1.72, 1.72),
        ("qwen3-4b", 4.02, 4.02),
        ("qwen3-8b", 8.19, 8.19),
        ("qwen3-14b", 14.8, 14.8),
        ("qwen3-32b", 32.8, 32.8),
        ("qwen3-30b-a3b", 30.5, 3.35),
        ("qwen3-235b-a22b", 235.1, 22.2),
        ("deepseek-v3", 671.0, 37.6),
        ("phi-4", 14.7, 14.7),
        ("phi-4-mini-instruct", 3.84, 3.84),
        ("gpt-oss-20b", 20.9, 4.2),
        ("gpt-oss-120b", 116.8, 5.7),
        ("gemma-3-1b-pt", 1.0, 1.0),
        ("gemma-3-4b-pt", 3.88, 3.88),
        ("gemma-3-27b-pt", 27.0, 27.0),
    ];

    /// Parameters to the last, where the weights' own index gives them.
    const EXACT: [(&str, u64); 9] = [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("mistral-nemo-base-2407", 12_247_782_400),
        ("mistral-large-instruct-2407", 122_610_069_504),
        ("mixtral-8x7b-v0.1", 46_702_792_704),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-235b-a22b", 235_093_634_560),
        ("deepseek-v3", 671_026_419_200),
        ("phi-4", 14_659_507_200),
    ];

    fn published(name: &str) -> ParameterCounts {
        let path = fixture(&format!("published/{name}.json"));
        let config = crate::hub::read_object(&path).expect("a configuration");
        parameter_counts(&resolve(&config.into(), &path).expect("a supported model").spec)
    }

    #[test]
    fn published_models_have_their_published_numbers_of_parameters() {
        for (name, total, active) in PUBLISHED {
            let counts = published(name);
            for (what, count, billions) in [("total", counts.total, total), ("active", counts.active, active)] {
                let decimals = format!("{billions}").split_once('.').map_or(0, |(_, decimals)| decimals.len());
                let rounded = format!("{:.decimals$}", count as f64 / 1e9);
                assert_eq!(rounded, format!("{billions:.decimals$}"), "{name}: {what} {count}");
            }
        }
        for (name, total) in EXACT {
            assert_eq!(published(name).total, total, "{name}");
        }
    }
}
