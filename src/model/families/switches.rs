//! Keys of a `config.json` that change the computation and that no family here computes.
//!
//! Each is refused by name unless its value is neutral, that is, changes nothing. A key that neither
//! this list nor a family knows is ignored: it is bookkeeping.

use serde_json::Value;

use super::config::{Config, ConfigError};

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

/// The keys, by what they change.
const KEYS: &[(&str, Neutral)] = &[
    // The weights' storage.
    ("compression_config", Neutral::Absent),
    ("pretraining_tp", Neutral::One),
    // What is no decoder of text alone.
    ("is_encoder_decoder", Neutral::Off),
    ("add_cross_attention", Neutral::Off),
    ("cross_attention_layers", Neutral::Off),
    ("vision_config", Neutral::Absent),
    ("audio_config", Neutral::Absent),
    ("text_config", Neutral::Absent),
    // Norms and wiring.
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
    ("output_router_logits", Neutral::Off),
    ("router_jitter_noise", Neutral::Off),
    ("lm_head_bias", Neutral::Off),
];

/// Refuses the first key whose value is not neutral, but for those that the family `reads`.
pub(super) fn refuse(config: &Config, reads: &[&str]) -> Result<(), ConfigError> {
    for (key, neutral) in KEYS.iter().filter(|(key, _)| !reads.contains(key)) {
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
        "quantization_config" | "compression_config" => {
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
