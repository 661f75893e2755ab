//! Checks that a checkpoint's tensors are exactly the parameters of a decoder.
//!
//! Shapes and types are checked here, before anything is loaded: what loads afterwards cannot meet a
//! tensor that does not fit.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{Parameter, head_weight, parameters};
use crate::hub::{MissingWeights, TensorInfo, Weights, is_beside};
use crate::model::families::Ignored;
use crate::model::spec::DecoderSpec;

/// Names in error messages before the list is cut.
const LISTED_NAMES: usize = 5;

/// Weights that are not those of the decoder that `config.json` describes.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A tensor of another shape than the configuration makes it.
    #[error("{file}: tensor `{tensor}` has shape `{found:?}`, but `config.json` requires `{expected:?}`")]
    Shape {
        /// The file that holds it.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration gives it.
        expected: Vec<usize>,
    },
    /// A tensor of a type that does not decode to f32.
    #[error(
        "{file}: tensor `{tensor}` is `{dtype}`; F32, BF16, F16, and FP8, MXFP4 and NF4 with their scales are accepted"
    )]
    Dtype {
        /// The file that holds it.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its type in the file.
        dtype: &'static str,
    },
    /// Parameters that the weights lack.
    #[error("{folder}: {count} missing from the weights: {names}; `config.json` needs {pronoun}")]
    Missing {
        /// The checkpoint's folder.
        folder: String,
        /// Their number in words.
        count: String,
        /// The first of them.
        names: String,
        /// It or them.
        pronoun: &'static str,
        /// Advice.
        hint: &'static str,
    },
    /// Tensors that the decoder has no place for.
    #[error("{folder}: {count} in the weights without a place in the model that `config.json` describes: {names}")]
    Unexpected {
        /// The checkpoint's folder.
        folder: String,
        /// Their number in words.
        count: String,
        /// The first of them.
        names: String,
    },
}

impl WeightsError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            WeightsError::Shape { .. } => {
                "`config.json` and the weights belong to different models: download both again"
            }
            WeightsError::Dtype { .. } => "use the unquantised checkpoint of the model",
            WeightsError::Missing { hint, .. } => hint,
            WeightsError::Unexpected { .. } => {
                "`config.json` and the weights belong to different models, or the model computes something that its `config.json` does not say"
            }
        };
        Some(hint.into())
    }
}

/// Checks that the weights are exactly the parameters of `spec`: none missing, none of another shape or
/// of a type that does not decode, none left over. Stored rotary frequencies, the copy of a tied head,
/// and what the family ignores, are allowed.
pub fn check_weights(spec: &DecoderSpec, ignored: &[Ignored], weights: &Weights) -> Result<(), WeightsError> {
    let parameters = parameters(spec);
    for parameter in &parameters {
        if let Some(info) = weights.info(&parameter.name) {
            check_tensor(parameter, info)?;
        }
    }
    let folder = weights.folder().display().to_string();
    check_listed(spec, ignored, &parameters, &weights.names().collect(), folder)
}

/// As [`check_weights`], of the names alone that an index promises, if there is one; scales of weights in fewer bits
/// are allowed.
pub fn check_names(
    spec: &DecoderSpec,
    ignored: &[Ignored],
    missing: &MissingWeights,
    folder: &str,
) -> Result<(), WeightsError> {
    let Some(missing) = &missing.names else { return Ok(()) };
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for name in missing {
        let whole = name.strip_suffix("_blocks").unwrap_or(name);
        if !is_beside(name) {
            names.insert(whole);
        }
    }
    check_listed(spec, ignored, &parameters(spec), &names, folder.to_owned())
}

/// Checks that `names` are those of `parameters`, none missing and none left over.
fn check_listed(
    spec: &DecoderSpec,
    ignored: &[Ignored],
    parameters: &[Parameter],
    names: &BTreeSet<&str>,
    folder: String,
) -> Result<(), WeightsError> {
    let missing: Vec<&str> =
        parameters.iter().map(|parameter| parameter.name.as_str()).filter(|name| !names.contains(name)).collect();
    if !missing.is_empty() {
        let hint = match missing.as_slice() {
            [name] if *name == head_weight(spec) => {
                "a model whose head is its embedding says so by `tie_word_embeddings: true`; else download it again"
            }
            _ => "the download is incomplete, or `config.json` is of another model: download both again",
        };
        return Err(WeightsError::Missing {
            folder,
            count: counted(missing.len()),
            names: listed(&missing),
            pronoun: if missing.len() == 1 { "it" } else { "them" },
            hint,
        });
    }
    let known: BTreeSet<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let is_ignored = |name: &str| ignored.iter().any(|part| name.starts_with(&part.prefix));
    let is_left_over = |name: &&str| !known.contains(name) && !is_harmless(spec, name) && !is_ignored(name);
    let unexpected: Vec<&str> = names.iter().copied().filter(is_left_over).collect();
    if !unexpected.is_empty() {
        let (count, names) = (counted(unexpected.len()), listed(&unexpected));
        return Err(WeightsError::Unexpected { folder, count, names });
    }
    Ok(())
}

fn check_tensor(parameter: &Parameter, info: &TensorInfo) -> Result<(), WeightsError> {
    let file = || info.file.display().to_string();
    if !info.is_decodable() {
        let (tensor, dtype) = (parameter.name.clone(), info.dtype.name());
        return Err(WeightsError::Dtype { file: file(), tensor, dtype });
    }
    if info.shape != parameter.shape {
        return Err(WeightsError::Shape {
            file: file(),
            tensor: parameter.name.clone(),
            found: info.shape.clone(),
            expected: parameter.shape.clone(),
        });
    }
    Ok(())
}

fn is_harmless(spec: &DecoderSpec, name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || is_copy_of_embedding(spec, name)
}

/// True for the tensor of a head that is the embedding.
pub fn is_copy_of_embedding(spec: &DecoderSpec, name: &str) -> bool {
    spec.head.tied && name == head_weight(spec)
}

fn counted(count: usize) -> String {
    if count == 1 { "1 tensor is".to_owned() } else { format!("{count} tensors are") }
}

fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(LISTED_NAMES).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(LISTED_NAMES);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hint::with_hint;
    use crate::hub::fixtures::{Scratch, fixture, safetensors};
    use crate::hub::read_object;
    use crate::model::families;
    use crate::model::names::{ParameterKind, projections, weight};

    /// The decoder of the configuration of a reference model, some of its keys replaced.
    fn spec(name: &str, changes: serde_json::Value) -> DecoderSpec {
        let path = fixture(&format!("models/{name}/config.json"));
        let mut config = read_object(&path).expect("the fixture has a configuration");
        for (key, value) in changes.as_object().expect("changes are an object") {
            config.insert(key.clone(), value.clone());
        }
        families::resolve(&config.into(), &path).expect("a supported model").spec
    }

    fn problem(spec: &DecoderSpec, weights: &Weights) -> String {
        let error = check_weights(spec, &[], weights).expect_err("the weights do not fit");
        with_hint(&error.to_string(), &error.hint().expect("a hint"))
    }

    fn weights(name: &str) -> Weights {
        Weights::open(&fixture(&format!("models/{name}"))).expect("sound files").expect("weights")
    }

    #[test]
    fn every_parameter_of_the_reference_models_is_in_their_weights() {
        for name in families::tests::supported_models() {
            let resolved = families::tests::resolved(&name);
            check_weights(&resolved.spec, &resolved.ignored, &weights(&name)).expect("the model's own weights");
        }
    }

    #[test]
    fn projections_are_the_matrices_among_the_parameters() {
        let spec = spec("mistral_nemo", json!({}));
        let of_parameters: Vec<(String, Vec<usize>)> = parameters(&spec)
            .into_iter()
            .filter(|parameter| parameter.kind == ParameterKind::LinearWeight)
            .map(|parameter| (parameter.name, parameter.shape))
            .collect();
        let of_projections: Vec<(String, Vec<usize>)> = projections(&spec)
            .into_iter()
            .map(|projection| (weight(&projection.path), vec![projection.out_features, projection.in_features]))
            .collect();
        assert_eq!(of_parameters, of_projections);
        // Heads of 24 although 64 / 4 is 16.
        assert_eq!(of_projections[3], ("model.layers.0.self_attn.o_proj.weight".to_owned(), vec![64, 96]));
        assert_eq!(projections(&spec)[6].short(), "down_proj");
    }

    #[test]
    fn other_shapes_name_the_tensor_and_both_shapes() {
        let text = problem(&spec("llama31", json!({ "intermediate_size": 113 })), &weights("llama31"));
        assert!(text.contains("`model.layers.0.mlp.gate_proj.weight` has shape `[112, 64]`"), "{text}");
        assert!(text.contains("`config.json` requires `[113, 64]`\nhint: "), "{text}");
    }

    #[test]
    fn missing_and_left_over_tensors_are_listed() {
        let text = problem(&spec("llama31", json!({ "num_hidden_layers": 4 })), &weights("llama31"));
        assert!(text.contains("9 tensors are missing"), "{text}");
        assert!(text.contains("`model.layers.3.self_attn.q_proj.weight`"), "{text}");
        assert!(text.contains("and 4 more; `config.json` needs them"), "{text}");
        let text = problem(&spec("llama31", json!({ "num_hidden_layers": 2 })), &weights("llama31"));
        assert!(text.contains("9 tensors are in the weights without a place"), "{text}");
        let text = problem(&spec("llama32_tied", json!({ "tie_word_embeddings": false })), &weights("llama32_tied"));
        assert!(text.contains("1 tensor is missing from the weights: `lm_head.weight`"), "{text}");
        assert!(text.contains("tie_word_embeddings: true"), "{text}");
    }

    #[test]
    fn a_tied_head_and_stored_frequencies_may_be_left_over() {
        let mut tied = spec("llama31", json!({ "tie_word_embeddings": true }));
        check_weights(&tied, &[], &weights("llama31")).expect("the copy of a tied head is allowed");
        tied.layers.clear();
        assert!(is_harmless(&tied, "model.layers.0.self_attn.rotary_emb.inv_freq"));
        assert!(!is_harmless(&tied, "score.weight"));
    }

    #[test]
    fn weights_of_other_types_are_refused_by_name() {
        let folder = Scratch::new("names-dtype");
        let mut spec = spec("llama32_tied", json!({ "vocab_size": 2, "hidden_size": 3 }));
        spec.layers.clear();
        let header = r#"{"model.embed_tokens.weight":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[0,6]},
            "model.norm.weight":{"dtype":"F32","shape":[3],"data_offsets":[6,18]}}"#;
        folder.write("model.safetensors", safetensors(header, 18));
        let weights = Weights::open(folder.path()).expect("a sound file").expect("weights");
        let text = problem(&spec, &weights);
        assert!(text.contains("`model.embed_tokens.weight` is `F8_E4M3`; F32, BF16, F16, and FP8"), "{text}");
    }
}
