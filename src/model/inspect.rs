//! A base model in words: what `tune inspect` prints, and the layer table that a plan prints too.
//!
//! In: the opened files. Out: text, lines of `label  value`. The weights are checked against the
//! configuration on the way, so that a model which inspects well also loads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::families::{ConfigError, ResolvedFamily, resolve};
use super::names::{ParameterKind, WeightsError, check_weights, parameters};
use super::spec::{Activation, AttentionSpec, DecoderSpec, FeedForwardSpec, LayerSpec, QkNorm, Reach};
use crate::hub::{BaseModel, HubError, Weights};

/// A base model that cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Its `config.json` is not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights are not those of its `config.json`.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// One of its files is wrong.
    #[error(transparent)]
    Hub(#[from] HubError),
}

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
}

/// Counts the parameters of a decoder.
pub fn parameter_counts(spec: &DecoderSpec) -> ParameterCounts {
    let mut counts = ParameterCounts { total: 0, embedding: 0, head: 0, layers: 0 };
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
    counts
}

/// Describes a base model, one fact per line; an error if its files contradict each other.
pub fn describe(base: &BaseModel) -> Result<String, InspectError> {
    let ResolvedFamily { family, spec, rope } = resolve(&base.config, &base.config_path)?;
    if let Some(weights) = &base.weights {
        check_weights(&spec, weights)?;
    }
    let mut text = String::new();
    line(&mut text, "model", &base.name);
    line(&mut text, "folder", &base.folder.display().to_string());
    if let Some(revision) = &base.revision {
        line(&mut text, "revision", revision);
    }
    line(&mut text, "family", family);
    describe_parameters(&mut text, &spec);
    let head = if spec.head.tied { "tied to the embedding" } else { "its own" };
    let vocabulary = format!("{} ids; hidden size {}; head {head}", grouped(spec.vocab as u64), spec.hidden);
    line(&mut text, "vocabulary", &vocabulary);
    for (index, row) in layer_table(&spec).iter().enumerate() {
        line(&mut text, if index == 0 { "layers" } else { "" }, row);
    }
    line(&mut text, "rope", &rope);
    line(&mut text, "context", &format!("{} tokens", grouped(spec.max_positions as u64)));
    describe_weights(&mut text, base.weights.as_ref());
    let eos: Vec<String> = base.eos_token_ids()?.iter().map(u32::to_string).collect();
    line(&mut text, "end ids", &if eos.is_empty() { "none".to_owned() } else { eos.join(", ") });
    let tokenizer: Vec<String> = base.tokenizer_files().iter().map(|path| file_name(path)).collect();
    let missing = "no files: give a tokenizer in the recipe".to_owned();
    line(&mut text, "tokenizer", &if tokenizer.is_empty() { missing } else { tokenizer.join(", ") });
    Ok(text)
}

/// One line per run of equal layers, such as
/// `0-27  grouped 16 heads / 8 kv x 128, qk-norm, full reach; mlp 3072 silu`.
pub fn layer_table(spec: &DecoderSpec) -> Vec<String> {
    let mut rows = Vec::new();
    let mut first = 0;
    for run in spec.layers.chunk_by(|layer, next| layer == next) {
        let last = first + run.len() - 1;
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        if let Some(layer) = run.first() {
            rows.push(format!("{range}  {}", describe_layer(layer)));
        }
        first = last + 1;
    }
    rows
}

fn describe_layer(layer: &LayerSpec) -> String {
    let AttentionSpec::Grouped(attention) = &layer.attention;
    let FeedForwardSpec::Dense(mlp) = &layer.feed_forward;
    let mut text = format!("grouped {} heads / {} kv x {}", attention.heads, attention.kv_heads, attention.head_dim);
    match (attention.qkv_bias, attention.output_bias) {
        (true, true) => text.push_str(", bias"),
        (true, false) => text.push_str(", qkv bias"),
        (false, true) => text.push_str(", output bias"),
        (false, false) => {}
    }
    match attention.qk_norm {
        QkNorm::None => {}
        QkNorm::BeforeRope(_) => text.push_str(", qk-norm"),
    }
    match attention.reach {
        Reach::Full => text.push_str(", full reach"),
        Reach::Window(window) => text.push_str(&format!(", window {window}")),
    }
    let activation = match mlp.activation {
        Activation::Silu => "silu",
    };
    text.push_str(&format!("; mlp {} {activation}", mlp.intermediate));
    if mlp.bias {
        text.push_str(", bias");
    }
    text
}

fn describe_parameters(text: &mut String, spec: &DecoderSpec) {
    let counts = parameter_counts(spec);
    let layers = spec.layers.len().max(1) as u64;
    line(text, "parameters", &format!("{} ({})", grouped(counts.total), rounded(counts.total)));
    line(text, "  embedding", &grouped(counts.embedding));
    if counts.head > 0 {
        line(text, "  head", &grouped(counts.head));
    }
    line(text, "  layers", &format!("{} ({} each)", grouped(counts.layers), grouped(counts.layers / layers)));
    line(text, "  not embedding", &grouped(counts.total - counts.embedding));
}

fn describe_weights(text: &mut String, weights: Option<&Weights>) {
    let Some(weights) = weights else {
        line(text, "weights", "none: initialised at random");
        return;
    };
    let mut bytes_by_dtype: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, info) in weights.tensors() {
        *bytes_by_dtype.entry(info.dtype.name()).or_default() += info.len_bytes() as u64;
    }
    let parts: Vec<String> =
        bytes_by_dtype.iter().map(|(dtype, bytes)| format!("{dtype} {}", megabytes(*bytes))).collect();
    line(text, "weights", &parts.join(", "));
    for (index, file) in weights.files().iter().enumerate() {
        let row = format!("{} {}", file_name(&file.path), megabytes(file.len_bytes));
        line(text, if index == 0 { "files" } else { "" }, &row);
    }
}

fn line(text: &mut String, label: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{label:<16}{value}");
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Thousands apart: `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rounded(number: u64) -> String {
    let number = number as f64;
    match number {
        number if number >= 1e9 => format!("{:.2} B", number / 1e9),
        number if number >= 1e6 => format!("{:.1} M", number / 1e6),
        number => format!("{:.1} K", number / 1e3),
    }
}

fn megabytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes => format!("{:.2} MB", bytes / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::fixtures::{Scratch, fixture};
    use crate::model::families;

    fn opened(name: &str) -> BaseModel {
        BaseModel::open(name, &[fixture("models").as_path()], None).expect("a sound model")
    }

    #[test]
    fn every_supported_reference_model_is_described() {
        for name in families::tests::supported_models() {
            let text = describe(&opened(&name)).expect("a sound model");
            assert!(text.contains("tokenizer.json"), "{text}");
            assert!(text.lines().all(|line| line.len() > 16), "{text}");
        }
    }

    #[test]
    fn the_description_states_what_the_files_say() {
        let text = describe(&opened("llama31")).expect("a sound model");
        let elements: u64 = opened("llama31")
            .weights
            .map_or(0, |weights| weights.tensors().map(|(_, info)| info.elements() as u64).sum());
        for fact in [
            "family          llama\n",
            &format!("parameters      {} (", grouped(elements)),
            "layers          0-2  grouped 4 heads / 2 kv x 16, full reach; mlp 112 silu\n",
            "rope            base 500000, llama3 scaling by 8 from 64 positions\n",
            "context         512 tokens\n",
            "weights         F32 0.60 MB\n",
            "files           model.safetensors 0.61 MB\n",
            "end ids         377, 381, 382\n",
        ] {
            assert!(text.contains(fact), "{fact} in\n{text}");
        }
        let rows = layer_table(&families::tests::spec_of("qwen3"));
        assert_eq!(rows, ["0-1  grouped 4 heads / 2 kv x 24, qk-norm, full reach; mlp 112 silu"]);
    }

    #[test]
    fn runs_of_equal_layers_are_one_row() {
        let mut spec = families::tests::spec_of("mistral_sw");
        let mut full = spec.layers[0].clone();
        let AttentionSpec::Grouped(attention) = &mut full.attention;
        attention.reach = Reach::Full;
        spec.layers.extend([full, spec.layers[0].clone()]);
        let rows = layer_table(&spec);
        assert_eq!(rows.len(), 3);
        assert!(rows[0].starts_with("0-1  ") && rows[0].contains("window 8"), "{rows:?}");
        assert!(rows[1].starts_with("2  ") && rows[1].contains("full reach"), "{rows:?}");
        assert!(rows[2].starts_with("3  "), "{rows:?}");
    }

    #[test]
    fn a_configuration_without_weights_is_initialised_at_random() {
        let folder = Scratch::new("inspect-random");
        let config = std::fs::read(fixture("models/qwen3/config.json")).expect("the fixture has a configuration");
        folder.write("tiny/config.json", config);
        let base = BaseModel::open("tiny", &[folder.path()], None).expect("a configuration is enough");
        let text = describe(&base).expect("a sound model");
        assert!(text.contains("weights         none: initialised at random"), "{text}");
        assert!(text.contains("tokenizer       no files"), "{text}");
    }

    #[test]
    fn weights_of_another_model_are_an_error() {
        let mut base = opened("llama31");
        base.weights = opened("llama32_tied").weights;
        assert!(describe(&base).is_err());
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
