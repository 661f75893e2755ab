//! Keys of a `config.json` that families do not read: a list of what is accepted, everything else is refused.
//!
//! A key that changes the computation is in [`SWITCHES`] and refused unless its value is neutral, that is, changes
//! nothing. A key that cannot change it is in [`HARMLESS`], or noted by the family that knows it
//! ([`Config::without_effect`]). Any other key is refused by [`refuse_unknown`], unless its value says "off".

use std::collections::BTreeSet;

use serde_json::Value;

use super::config::{Config, ConfigError};
use crate::text::nearest;

/// The value with which a key changes nothing; missing and `null` always do.
#[derive(Clone, Copy)]
enum Neutral {
    /// `false`, 0, or empty.
    Off,
    /// 1.
    One,
    /// `true`.
    On,
    /// A list of ones.
    Ones,
    /// This text.
    Text(&'static str),
    /// None: the key must not be there.
    Absent,
}

/// Keys that change the computation, by what they change.
const SWITCHES: &[(&str, Neutral)] = &[
    // The weights' storage.
    ("compression_config", Neutral::Absent),
    // MLX's.
    ("quantization", Neutral::Absent),
    ("pretraining_tp", Neutral::One),
    // Models that are more than a decoder of text.
    ("is_encoder_decoder", Neutral::Off),
    ("add_cross_attention", Neutral::Off),
    ("cross_attention_layers", Neutral::Off),
    ("vision_config", Neutral::Absent),
    ("audio_config", Neutral::Absent),
    ("text_config", Neutral::Absent),
    // Norms and wiring.
    ("activation", Neutral::Text("swiglu")),
    ("norm_type", Neutral::Text("rmsnorm")),
    ("use_parallel_residual", Neutral::Off),
    ("parallel_attn", Neutral::Off),
    // Dropout inside the model, which reference implementations apply while training.
    ("attention_dropout", Neutral::Off),
    ("hidden_dropout", Neutral::Off),
    ("resid_pdrop", Neutral::Off),
    ("embd_pdrop", Neutral::Off),
    // Attention.
    ("attn_logit_softcapping", Neutral::Off),
    ("query_pre_attn_scalar", Neutral::Off),
    ("attention_multiplier", Neutral::Off),
    ("attention_chunk_size", Neutral::Off),
    ("attention_sinks", Neutral::Off),
    ("attn_temperature_tuning", Neutral::Off),
    ("clip_qkv", Neutral::Off),
    ("alibi", Neutral::Off),
    ("is_causal", Neutral::On),
    ("use_bidirectional_attention", Neutral::Off),
    ("use_qk_norm", Neutral::Off),
    ("qk_norm", Neutral::Off),
    ("qk_layernorm", Neutral::Off),
    ("kv_lora_rank", Neutral::Off),
    ("q_lora_rank", Neutral::Off),
    // Positions.
    ("partial_rotary_factor", Neutral::One),
    ("rotary_pct", Neutral::One),
    ("rope_interleaved", Neutral::Off),
    ("use_mrope", Neutral::Off),
    ("rope_local_base_freq", Neutral::Off),
    ("no_rope_layers", Neutral::Ones),
    ("no_rope_layer_interval", Neutral::Off),
    ("full_attn_mod", Neutral::One),
    ("interpolate_factor", Neutral::One),
    ("position_embedding_type", Neutral::Text("rope")),
    // Factors on the residual stream and on logits.
    ("embedding_multiplier", Neutral::One),
    ("residual_multiplier", Neutral::One),
    ("logits_scaling", Neutral::One),
    ("logit_scale", Neutral::One),
    ("scale_emb", Neutral::One),
    ("scale_depth", Neutral::Off),
    ("final_logit_softcapping", Neutral::Off),
    // Experts.
    ("num_experts", Neutral::Off),
    ("num_local_experts", Neutral::Off),
    ("n_routed_experts", Neutral::Off),
    ("n_shared_experts", Neutral::Off),
    ("moe_layers", Neutral::Off),
    ("shared_expert_intermediate_size", Neutral::Off),
    ("output_router_logits", Neutral::Off),
    ("router_jitter_noise", Neutral::Off),
    ("lm_head_bias", Neutral::Off),
];

/// Keys that cannot change what the decoder computes from tokens, by what they are about.
const HARMLESS: &[&str] = &[
    // Bookkeeping.
    "_commit_hash _from_model_config _name_or_path architectures auto_map is_decoder is_llama_config \
     model_name model_type name_or_path transformers.js_config transformers_version unsloth_fixed \
     unsloth_version",
    // The types of the checkpoint's tensors, which its files say themselves.
    "dtype torch_dtype use_bfloat16",
    // The tokenizer.
    "bos_token_id cls_token_id decoder_start_token_id eos_token_id mask_token_id max_sequence_length model_max_length \
     pad_token_id prefix sep_token_id tokenizer_class unk_token_id",
    // Generation.
    "assistant_confidence_threshold assistant_early_exit assistant_lookbehind bad_words_ids \
     begin_suppress_tokens cache_config cache_implementation compile_config constraints disable_compile \
     diversity_penalty do_sample dola_layers early_stopping encoder_no_repeat_ngram_size \
     encoder_repetition_penalty epsilon_cutoff eta_cutoff exponential_decay_length_penalty \
     force_words_ids forced_bos_token_id forced_eos_token_id guidance_scale length_penalty low_memory \
     max_length max_matching_ngram_size max_new_tokens max_time min_length min_new_tokens min_p \
     no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams \
     num_return_sequences output_logits output_scores penalty_alpha prefill_chunk_size \
     prompt_lookup_num_tokens remove_invalid_values renormalize_logits repetition_penalty \
     return_dict_in_generate return_legacy_cache sequence_bias stop_strings suppress_tokens \
     target_lookbehind temperature token_healing top_k top_p typical_p use_cache watermarking_config",
    // What a program returns beside the logits, and heads other than the language model's.
    "classifier_dropout finetuning_task id2label label2id num_labels output_attentions \
     output_hidden_states problem_type return_dict task_specific_params",
    // The choice among implementations of the same computation.
    "_attn_implementation _attn_implementation_autoset _attn_implementation_internal \
     _experts_implementation _flash_attn_2_enabled attn_implementation chunk_size_feed_forward \
     experts_implementation tf_legacy_loss torchscript use_flash_attention_2",
    // Training.
    "aux_loss_alpha gradient_checkpointing initializer_range neftune_noise_alpha router_aux_loss_coef \
     seq_aux",
];

/// Keys of the objects that describe a scaling of rotary frequencies: those of one kind have no effect beside another.
pub(super) const OF_SCALINGS: &[&str] = &[
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "long_factor",
    "low_freq_factor",
    "mscale",
    "mscale_all_dim",
    "original_max_position_embeddings",
    "rope_type",
    "short_factor",
    "truncate",
    "type",
    // Tells that the checkpoint was trained with the scaling.
    "finetuned",
];

/// Refuses the first key that was not asked for and is not known to be harmless, in the whole configuration and in
/// each object of it that was looked into.
pub(super) fn refuse_unknown(config: &Config) -> Result<(), ConfigError> {
    for (place, object, asked) in config.objects() {
        // The storage of the weights is checked by what decodes them.
        if place == "quantization_config" {
            continue;
        }
        let is_unknown = |(key, value): &(&String, &Value)| !asked.contains(*key) && !is_harmless(key, value);
        if let Some((key, value)) = object.iter().find(is_unknown) {
            return Err(config.unknown(&place, key, value, unknown_hint(key, &asked)));
        }
    }
    Ok(())
}

/// True if a key that was not asked for changes nothing, by its name or by its value.
fn is_harmless(key: &str, value: &Value) -> bool {
    let is_off = match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Number(_) => false,
    };
    is_off || HARMLESS.iter().any(|keys| keys.split_ascii_whitespace().any(|name| name == key))
}

/// Advice on a key that looks like no other.
const UNKNOWN: &str = "it may change what the model computes: use a model of a supported family, or remove the key from \
                       `config.json` if you know that it does not";

/// Advice on a key that is not known, where `known` are those that were asked for in the same object.
fn unknown_hint(key: &str, known: &BTreeSet<String>) -> String {
    nearest(key, known.iter().map(String::as_str)).map_or(UNKNOWN.to_owned(), |name| format!("did you mean `{name}`?"))
}

/// Refuses the first key whose value is not neutral, but for those that the family `reads`.
pub(super) fn refuse(config: &Config, reads: &[&str]) -> Result<(), ConfigError> {
    for (key, neutral) in SWITCHES.iter().filter(|(key, _)| !reads.contains(key)) {
        if let Some(value) = config.value(key)
            && !neutral.holds_for(value)
        {
            return Err(config.unsupported(key, neutral.accepted(), hint(key)));
        }
    }
    refuse_storage(config)
}

/// Refuses weights in a storage that is not decoded on load.
fn refuse_storage(config: &Config) -> Result<(), ConfigError> {
    let Some(storage) = config.object("quantization_config")? else { return Ok(()) };
    let accepted = "`mxfp4`, `fp8` with a `weight_block_size` of [128, 128], or `bitsandbytes` with NF4,";
    let hint = hint("quantization_config");
    match storage.text("quant_method")? {
        Some("mxfp4") => Ok(()),
        Some("fp8") if storage.counts("weight_block_size", 1 << 16)? == Some(vec![128, 128]) => Ok(()),
        Some("fp8") => Err(storage.unsupported("weight_block_size", "[128, 128]", hint)),
        Some("bitsandbytes") => match storage.text("bnb_4bit_quant_type")? {
            Some("nf4") if storage.value("load_in_4bit") == Some(&Value::Bool(true)) => Ok(()),
            Some("nf4") => Err(storage.unsupported("load_in_4bit", "`true`", hint)),
            _ => Err(storage.unsupported("bnb_4bit_quant_type", "`nf4`", hint)),
        },
        _ => Err(storage.unsupported("quant_method", accepted, hint)),
    }
}

impl Neutral {
    fn holds_for(self, value: &Value) -> bool {
        match self {
            Neutral::Off => match value {
                Value::Bool(on) => !on,
                Value::Number(number) => number.as_f64() == Some(0.0),
                Value::Array(values) => values.is_empty(),
                Value::Object(values) => values.is_empty(),
                _ => false,
            },
            Neutral::One => value.as_f64() == Some(1.0),
            Neutral::On => value.as_bool() == Some(true),
            Neutral::Ones => {
                let is_one = |value: &Value| value.as_f64() == Some(1.0) || value.as_bool() == Some(true);
                value.as_array().is_some_and(|values| values.iter().all(is_one))
            }
            Neutral::Text(text) => value.as_str() == Some(text),
            Neutral::Absent => false,
        }
    }

    fn accepted(self) -> String {
        match self {
            Neutral::Off => "0, `false` or its absence".to_owned(),
            Neutral::One => "1".to_owned(),
            Neutral::On => "`true`".to_owned(),
            Neutral::Ones => "1 for every layer".to_owned(),
            Neutral::Text(text) => format!("`{text}`"),
            Neutral::Absent => "its absence".to_owned(),
        }
    }
}

fn hint(key: &str) -> &'static str {
    match key {
        "quantization_config" | "compression_config" | "quantization" => {
            "this checkpoint is quantised: use the model's unquantised checkpoint (f32, bf16 or f16)"
        }
        "attention_dropout" | "hidden_dropout" | "resid_pdrop" | "embd_pdrop" => {
            "set it to 0.0 in the model's `config.json` to fine-tune without this dropout"
        }
        "vision_config" | "audio_config" | "text_config" => "use the text-only checkpoint of the model",
        "pretraining_tp" => "set it to 1 in the model's `config.json`: the weights are the same",
        _ => "use a model of a supported family; leaving the key out would compute something else",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, json};

    use super::super::config::shown;
    use super::super::tests::supported_models;
    use super::super::{FAMILIES, ResolvedFamily, resolve};
    use super::*;
    use crate::hint::with_hint;
    use crate::hub::fixtures::fixture;
    use crate::hub::read_object;

    /// Keys that programs write into a `config.json` beside the model's own keys.
    fn written_by_programs() -> Value {
        json!({
            "_name_or_path": "somebody/model", "_commit_hash": null, "transformers_version": "4.57.1",
            "torch_dtype": "bfloat16", "auto_map": { "AutoModelForCausalLM": "modeling.Model" },
            "unsloth_fixed": true, "unsloth_version": "2025.9.1", "transformers.js_config": { "dtype": "q4" },
            "pad_token_id": 0, "sep_token_id": null, "tokenizer_class": null, "decoder_start_token_id": null,
            "use_cache": false, "cache_implementation": "hybrid", "max_length": 20, "top_k": 50, "temperature": 1.0,
            "_attn_implementation_autoset": true, "attn_implementation": "sdpa", "torchscript": false,
            "id2label": { "0": "LABEL_0", "1": "LABEL_1" }, "label2id": { "LABEL_0": 0, "LABEL_1": 1 },
            "return_dict": true, "output_attentions": false, "problem_type": null, "finetuning_task": null,
            "is_encoder_decoder": false, "add_cross_attention": false, "cross_attention_hidden_size": null,
            "pruned_heads": {}, "tie_encoder_decoder": false, "chunk_size_feed_forward": 0, "is_decoder": false,
            "attention_dropout": 0.0, "pretraining_tp": 1, "initializer_range": 0.02, "router_aux_loss_coef": 0.001,
        })
    }

    fn config_of(name: &str) -> Map<String, Value> {
        read_object(&fixture(&format!("models/{name}/config.json"))).expect("a configuration")
    }

    fn resolved(config: Map<String, Value>) -> Result<ResolvedFamily, ConfigError> {
        resolve(&Value::Object(config), Path::new("tiny/config.json"))
    }

    /// The error for this configuration as it is shown.
    fn shown_error(config: Map<String, Value>) -> String {
        let error = resolved(config).expect_err("a configuration that is refused");
        with_hint(&error.to_string(), &error.hint().expect("a hint"))
    }

    #[test]
    fn published_configurations_are_accepted() {
        let mut families = BTreeSet::new();
        for entry in std::fs::read_dir(fixture("published")).expect("the fixtures are there") {
            let path = entry.expect("a readable folder").path();
            let config = Value::Object(read_object(&path).expect("a configuration"));
            families.insert(resolve(&config, &path).unwrap_or_else(|error| panic!("{error}")).family);
        }
        assert_eq!(families.len(), FAMILIES.len(), "{families:?}");
    }

    #[test]
    fn what_programs_write_beside_a_model_changes_nothing() {
        for name in supported_models() {
            let mut config = config_of(&name);
            let plain = resolved(config.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
            let added = written_by_programs();
            let text = config.get_mut("text_config").and_then(Value::as_object_mut);
            if let Some(text) = text {
                text.extend(added.as_object().expect("an object").clone());
            }
            config.extend(added.as_object().expect("an object").clone());
            assert_eq!(resolved(config).unwrap_or_else(|error| panic!("{name}: {error}")), plain, "{name}");
        }
    }

    #[test]
    fn an_unknown_switch_is_refused_for_every_family_unless_it_is_off() {
        for name in supported_models() {
            for (key, value) in [
                ("use_foo_attention", json!(true)),
                ("foo_scale", json!(0)),
                ("foo_config", json!({ "kind": 1 })),
                ("foo_type", json!("bar")),
            ] {
                let mut config = config_of(&name);
                config.insert(key.to_owned(), value.clone());
                let error = shown_error(config);
                assert!(error.starts_with(&format!("tiny/config.json: `{key}` is `{}`", shown(&value))), "{error}");
                assert!(error.contains("\nhint: "), "{error}");
            }
            let mut config = config_of(&name);
            for (key, value) in [("use_foo", json!(false)), ("foo", Value::Null), ("foos", json!([]))] {
                config.insert(key.to_owned(), value);
            }
            resolved(config).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn switches_within_objects_are_found_and_those_that_look_like_a_known_one_get_its_name() {
        let refused = |name: &str, object: &str, key: &str| {
            let mut config = config_of(name);
            config[object][key] = json!(true);
            shown_error(config)
        };
        let nested = refused("llama4_mm", "text_config", "use_foo_attention");
        assert!(nested.contains("`text_config.use_foo_attention` is `true`"), "{nested}");
        let scaling = refused("llama31", "rope_scaling", "extend_further");
        assert!(scaling.contains("`rope_scaling.extend_further` is `true`"), "{scaling}");
        let mut config = config_of("qwen3");
        config.insert("rms_norm_epps".to_owned(), json!(1e-6));
        assert_eq!(
            shown_error(config),
            "tiny/config.json: `rms_norm_epps` is `1e-6`, an unknown key for qwen3; `false`, `null` or its absence is \
             accepted\nhint: did you mean `rms_norm_eps`?"
        );
    }
}
