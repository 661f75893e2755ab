//! Families against the reference models' configurations, and against broken ones.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::hint::with_hint;
use crate::hub::Weights;
use crate::hub::fixtures::{Scratch, fixture};
use crate::hub::read_object;
use crate::model::spec::{
    Activation, AttentionSpec, ExpertsSpec, FeedForwardSpec, GroupedSpec, LayerSpec, QkNorm, Reach, RopePairs,
    RopeSpec, RouterGroups,
};

/// The reference models whose family is supported.
pub(crate) fn supported_models() -> Vec<String> {
    let entries = std::fs::read_dir(fixture("models")).expect("the fixtures are there");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned())
        .filter(|name| {
            let Ok(config) = read_object(&fixture(&format!("models/{name}/config.json"))) else {
                return false;
            };
            let model_type = config.get("model_type").and_then(Value::as_str);
            let is_of = |family: &Family| model_type.is_some_and(|name| family.model_types.contains(&name));
            FAMILIES.iter().any(is_of)
        })
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no reference model of a supported family");
    names
}

/// A reference model's configuration as its family reads it.
pub(crate) fn resolved(name: &str) -> ResolvedFamily {
    changed(name, json!({})).expect("a supported model")
}

/// The decoder of a reference model.
pub(crate) fn spec_of(name: &str) -> DecoderSpec {
    resolved(name).spec
}

fn read(name: &str, file: &str) -> Result<ResolvedFamily, ConfigError> {
    let path = fixture(&format!("models/{name}/{file}"));
    resolve(&Value::Object(read_object(&path).expect("a configuration")), &path)
}

/// A reference model's configuration with some keys replaced; `"-"` removes one.
fn changed(name: &str, changes: Value) -> Result<ResolvedFamily, ConfigError> {
    let path = fixture(&format!("models/{name}/config.json"));
    let mut config = read_object(&path).expect("a configuration");
    for (key, value) in changes.as_object().expect("changes are an object") {
        match value.as_str() {
            Some("-") => config.remove(key),
            _ => config.insert(key.clone(), value.clone()),
        };
    }
    resolve(&Value::Object(config), Path::new("tiny/config.json"))
}

fn refused(name: &str, changes: Value) -> String {
    let shown = changes.to_string();
    match changed(name, changes) {
        Ok(_) => panic!("{shown} must be refused for {name}"),
        Err(error) => with_hint(&error.to_string(), &error.hint().expect("a hint")),
    }
}

fn attention(resolved: &ResolvedFamily, layer: usize) -> GroupedSpec {
    match &resolved.spec.layers[layer].attention {
        AttentionSpec::Grouped(attention) => attention.clone(),
        AttentionSpec::Latent(_) => panic!("layer {layer} has latent attention"),
    }
}

fn rope(attention: &GroupedSpec) -> RopeSpec {
    attention.rope.clone().expect("a layer with positions")
}

fn reaches(resolved: &ResolvedFamily) -> Vec<Reach> {
    (0..resolved.spec.layers.len()).map(|layer| attention(resolved, layer).reach).collect()
}

#[test]
fn both_styles_of_a_configuration_give_the_same_decoder() {
    for name in supported_models() {
        let hub_style = read(&name, "config.json").expect("a supported model");
        if !fixture(&format!("models/{name}/config_v5.json")).exists() {
            continue;
        }
        let new_style = read(&name, "config_v5.json").expect("a supported model");
        assert_eq!(hub_style, new_style, "{name}");
    }
}

#[test]
fn rotary_frequencies_equal_the_references() {
    let mut compared = 0;
    for name in supported_models() {
        let path = fixture(&format!("forward/{name}/forward.safetensors"));
        let layers = read(&name, "config.json").expect("a supported model").spec.layers;
        let of_layer = |layer: &LayerSpec| match &layer.attention {
            AttentionSpec::Grouped(attention) => attention.rope.clone(),
            AttentionSpec::Latent(_) => None,
        };
        // Latent attention, and frequencies that depend on the rows, are compared with the forward pass.
        let rope = layers.iter().find_map(of_layer).filter(|rope| rope.long.is_none());
        let Some(rope) = rope.filter(|_| path.exists()) else { continue };
        // Opened as weights are: by a file of their name.
        let folder = Scratch::new(&format!("rope-{name}"));
        folder.write("model.safetensors", std::fs::read(&path).expect("a readable file"));
        let forward = Weights::open(folder.path()).expect("a sound file").expect("tensors");
        if forward.info("rope.inv_freq").is_none() {
            continue;
        }
        let expected = forward.to_f32("rope.inv_freq").expect("frequencies");
        let scaling = forward.to_f32("rope.attention_scaling").expect("a factor");
        assert_eq!(rope.inv_freq.len(), expected.len(), "{name}");
        for (ours, theirs) in rope.inv_freq.iter().zip(&expected) {
            assert!((ours - theirs).abs() <= 1e-6 * theirs.abs(), "{name}: {ours} and {theirs}");
        }
        assert_eq!(vec![rope.attention_scaling], scaling, "{name}");
        compared += 1;
    }
    assert!(compared >= 6, "{compared} models compared");
}

#[test]
fn families_differ_as_published() {
    let llama = read("llama31", "config.json").expect("a supported model");
    assert_eq!((llama.family, llama.spec.head.tied, llama.spec.vocab), ("llama", false, 384));
    assert!(!attention(&llama, 0).qkv_bias);
    let qwen2 = read("qwen2_tied", "config.json").expect("a supported model");
    assert!(attention(&qwen2, 0).qkv_bias && !attention(&qwen2, 0).output_bias && qwen2.spec.head.tied);
    assert_eq!(reaches(&qwen2), [Reach::Full; 2]);
    let qwen3 = read("qwen3", "config.json").expect("a supported model");
    assert!(matches!(attention(&qwen3, 0).qk_norm, QkNorm::BeforeRope(norm) if norm.epsilon == 1e-6));
    assert_eq!(attention(&qwen3, 0).scale, 24f32.powf(-0.5));
    let mistral = read("mistral_sw", "config.json").expect("a supported model");
    assert_eq!(reaches(&mistral), [Reach::Window(8); 2]);
    let nemo = read("mistral_nemo", "config.json").expect("a supported model");
    assert_eq!((attention(&nemo, 1).head_dim, attention(&nemo, 1).reach), (24, Reach::Full));
}

#[test]
fn old_and_missing_keys_have_their_published_meaning() {
    let scaling = json!({ "type": "linear", "factor": 2.0 });
    let old = changed("mistral_nemo", json!({ "rope_scaling": scaling })).expect("the old spelling");
    let new = changed(
        "mistral_nemo",
        json!({ "rope_theta": "-", "rope_parameters": { "rope_type": "linear", "factor": 2, "rope_theta": 1e6 } }),
    );
    assert_eq!(old, new.expect("the new spelling"));
    assert_eq!(rope(&attention(&old, 0)).inv_freq[0], 0.5);
    let plain = changed("llama31", json!({ "rope_scaling": { "type": "default" }, "num_key_value_heads": "-" }));
    let plain = plain.expect("no scaling");
    assert_eq!((attention(&plain, 0).kv_heads, rope(&attention(&plain, 0)).inv_freq[0]), (4, 1.0));
    let bare = json!({ "sliding_window": "-", "rms_norm_eps": "-", "rope_theta": null, "num_key_value_heads": null });
    let bare = changed("mistral_sw", bare).expect("defaults");
    assert_eq!((attention(&bare, 0).kv_heads, attention(&bare, 0).reach), (4, Reach::Window(4096)));
    assert_eq!(bare.spec.head.norm.epsilon, 1e-6);
    // Not written, Mistral has 8 key and value heads, which 4 heads cannot share.
    assert!(refused("mistral_sw", json!({ "num_key_value_heads": "-" })).contains("`num_key_value_heads` is missing"));
    let qwen3 = changed("qwen3", json!({ "head_dim": "-" })).expect("a default");
    assert_eq!(attention(&qwen3, 0).head_dim, 128);
}

#[test]
fn missing_keys_of_larger_families_have_their_published_meaning() {
    let bare = json!({
        "model_type": "gemma3",
        "text_config": { "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2, "sliding_window": 8 },
    });
    let gemma = resolve(&bare, Path::new("tiny/config.json")).expect("defaults");
    let FeedForwardSpec::Dense(mlp) = gemma.spec.layers[0].feed_forward else { panic!("a dense layer") };
    let heads = attention(&gemma, 0);
    assert_eq!((gemma.spec.vocab, gemma.spec.head.tied, mlp.activation), (262_208, true, Activation::GeluTanh));
    assert_eq!((heads.heads, heads.kv_heads, heads.head_dim, heads.reach), (8, 4, 256, Reach::Window(8)));
    let untied = json!({ "model_type": "gemma3", "tie_word_embeddings": false, "text_config": {} });
    assert!(!resolve(&untied, Path::new("tiny/config.json")).expect("an own head").spec.head.tied);
    let plain = changed("gpt_oss", json!({ "rope_scaling": null })).expect("the published scaling");
    assert!(plain.rope.contains("yarn scaling by 32 from 4096 positions"), "{}", plain.rope);
    let unscaled = json!({ "rope_scaling": "-", "rope_theta": "-", "rope_parameters": { "rope_type": "default" } });
    assert_eq!(changed("gpt_oss", unscaled).expect("no scaling").rope, "base 150000");
    let router = |changes: Value| match &changed("deepseek_v3", changes).expect("defaults").spec.layers[2].feed_forward
    {
        FeedForwardSpec::Experts(experts) => (experts.router.groups, experts.router.scale),
        FeedForwardSpec::Dense(_) => panic!("a layer with experts"),
    };
    let eight = Some(RouterGroups { count: 8, kept: 4 });
    let missing = json!({ "n_group": "-", "topk_group": "-", "routed_scaling_factor": "-" });
    assert_eq!(router(missing), (eight, 2.5));
    assert_eq!(router(json!({ "n_group": null, "topk_group": null })).0, None);
    let scout = changed("llama4_text", json!({ "head_dim": "-" })).expect("a default");
    assert_eq!(attention(&scout, 0).head_dim, 128);
    assert!(refused("qwen2_tied", json!({ "num_key_value_heads": "-" })).contains("`num_key_value_heads` is missing"));
    let as_many = changed("qwen2_tied", json!({ "num_key_value_heads": null })).expect("null");
    assert_eq!(attention(&as_many, 0).kv_heads, 4);
}

#[test]
fn windows_hold_on_the_upper_layers_or_where_layer_types_says() {
    let on = json!({ "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1 });
    assert_eq!(reaches(&changed("qwen2_tied", on).expect("a window")), [Reach::Full, Reach::Window(8)]);
    let types = json!(["sliding_attention", "full_attention"]);
    let listed = json!({ "use_sliding_window": true, "sliding_window": 8, "layer_types": types });
    assert_eq!(reaches(&changed("qwen3", listed).expect("a window")), [Reach::Window(8), Reach::Full]);
    let off = refused("qwen3", json!({ "use_sliding_window": false, "sliding_window": 8, "layer_types": types }));
    assert!(off.contains("`layer_types` is `[\"sliding_attention\",\"full_attention\"]`"), "{off}");
    let short = refused("qwen3", json!({ "layer_types": ["full_attention"] }));
    assert!(short.contains("one entry per layer, 2 as `num_hidden_layers` says"), "{short}");
    let unknown = refused("qwen3", json!({ "layer_types": ["full_attention", "linear_attention"] }));
    assert!(unknown.contains("not supported by this version for qwen3"), "{unknown}");
    refused("mistral_sw", json!({ "layer_types": types }));
    refused("llama31", json!({ "sliding_window": 8 }));
    refused("mistral_sw", json!({ "sliding_window": 0 }));
}

#[test]
fn what_changes_the_computation_is_refused_with_key_and_value() {
    let text = refused("llama31", json!({ "rope_scaling": { "rope_type": "dynamic", "factor": 4.0 } }));
    assert_eq!(
        text,
        "tiny/config.json: `rope_scaling.rope_type` is `dynamic`, which is not supported by this version for llama; \
         one of `default`, `linear`, `llama3`, `yarn`, `longrope` is accepted\n\
         hint: use a checkpoint without this scaling; leaving the key out would compute something else"
    );
    for (key, value) in [
        ("hidden_act", json!("gelu")),
        ("pretraining_tp", json!(2)),
        ("attention_dropout", json!(0.1)),
        ("quantization_config", json!({ "quant_method": "bitsandbytes", "load_in_8bit": true })),
        ("quantization_config", json!({ "quant_method": "bitsandbytes", "load_in_4bit": true })),
        ("quantization_config", json!({ "quant_method": "gptq" })),
        ("partial_rotary_factor", json!(0.5)),
        ("use_mrope", json!(true)),
        ("logit_scale", json!(0.25)),
        ("attn_logit_softcapping", json!(50.0)),
        ("residual_multiplier", json!(0.22)),
        ("num_experts", json!(8)),
        ("no_rope_layers", json!([1, 1, 0])),
        ("is_causal", json!(false)),
        ("rope_scaling", json!({ "type": "dynamic", "factor": 2.0 })),
        ("rope_scaling", json!({ "type": "longrope", "short_factor": [1.0] })),
        ("rope_scaling", json!({ "type": "mrope", "mrope_section": [2, 3, 3] })),
        ("rope_parameters", json!({ "full_attention": { "rope_theta": 1e6 } })),
        ("rope_parameters", json!({ "rope_type": "default", "rope_theta": 1e6 })),
        ("rope_scaling", json!({ "factor": 2.0 })),
        ("rope_scaling", json!({ "type": "linear" })),
        ("rope_scaling", json!({ "type": "linear", "factor": 0.5 })),
        ("rope_scaling", json!("linear")),
    ] {
        let text = refused("llama31", json!({ key: value }));
        assert!(text.starts_with("tiny/config.json: ") && text.contains(key), "{text}");
        assert!(text.lines().count() == 2 && text.contains("\nhint: "), "{text}");
    }
}

#[test]
fn neutral_values_and_bookkeeping_are_accepted() {
    let expected = changed("llama31", json!({})).expect("a supported model");
    let neutral = json!({
        "pretraining_tp": 1, "logit_scale": 1.0, "residual_multiplier": 1, "num_experts": null, "use_mrope": false,
        "no_rope_layers": [1, 1, 1], "partial_rotary_factor": 1.0, "attn_logit_softcapping": null, "is_causal": true,
        "hidden_act": "swish", "sliding_window": null, "_name_or_path": "x", "neftune_noise_alpha": 5,
    });
    assert_eq!(changed("llama31", neutral).expect("neutral values"), expected);
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    for (key, value) in [
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(3)),
        ("num_key_value_heads", json!(3)),
        ("num_hidden_layers", json!(1_000_000_000_000_u64)),
        ("hidden_size", json!(-64)),
        ("hidden_size", json!("64")),
        ("hidden_size", json!(64.5)),
        ("hidden_size", Value::Null),
        ("head_dim", json!(15)),
        ("vocab_size", json!(0)),
        ("intermediate_size", json!([])),
        ("rms_norm_eps", json!(0)),
        ("rope_theta", json!(-1)),
        ("max_position_embeddings", json!(0)),
        ("tie_word_embeddings", json!("yes")),
    ] {
        let text = refused("llama31", json!({ key: value }));
        assert!(text.starts_with("tiny/config.json: ") && text.contains("\nhint: "), "{text}");
    }
    // More of a head than there is would be as many frequencies as the number says.
    let text = refused("phi4_mini", json!({ "partial_rotary_factor": 1e15 }));
    assert!(text.contains("at most 1"), "{text}");
}

#[test]
fn other_families_are_refused_by_name() {
    let typo = refused("llama31", json!({ "model_type": "lama" }));
    assert!(typo.contains("`model_type` is `lama`, an unknown family"), "{typo}");
    assert!(typo.contains("`gpt_oss`\nhint: did you mean `llama`?"), "{typo}");
    for name in ["gemma2", "mistral3", "qwen2_moe"] {
        let text = refused("llama31", json!({ "model_type": name }));
        assert!(text.contains(&format!("`{name}`, a family that is not supported yet")), "{text}");
    }
    assert!(refused("llama31", json!({ "model_type": 7 })).contains("`model_type` is `7`"));
    assert!(refused("llama31", json!({ "model_type": null })).contains("`model_type` is missing"));
}

#[test]
fn old_names_of_scalings_mean_the_same_and_their_parts_may_stand_outside() {
    let longrope = spec_of("phi4_mini");
    let mut config = read_object(&fixture("models/phi4_mini/config.json")).expect("a configuration");
    config["rope_scaling"]["type"] = json!("su");
    assert_eq!(changed("phi4_mini", json!({ "rope_scaling": config["rope_scaling"] })).expect("su").spec, longrope);
    let long = rope(&attention(&resolved("phi4_mini"), 0)).long.expect("longrope");
    assert_eq!((long.beyond, long.inv_freq.len()), (16, 6));
    let short =
        refused("phi4_mini", json!({ "rope_scaling": { "type": "su", "short_factor": [1.0], "long_factor": [1.0] } }));
    assert!(short.contains("6 long and short factors"), "{short}");

    let yarn =
        |factor: Value| json!({ "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 128 });
    let given = changed("llama31", json!({ "rope_scaling": yarn(json!(4.0)) })).expect("yarn");
    // 512 positions now: what is not written is their ratio to the first.
    let implied = changed("llama31", json!({ "rope_scaling": yarn(Value::Null) })).expect("yarn");
    assert_eq!(given.spec, implied.spec);
    assert_eq!(rope(&attention(&given, 0)).attention_scaling, (0.1 * 4f64.ln() + 1.0) as f32);
    let qwen = changed("qwen2_tied", json!({ "rope_scaling": yarn(json!(4.0)) })).expect("yarn");
    assert!(qwen.rope.contains("yarn scaling by 4 from 128 positions"), "{}", qwen.rope);
}

#[test]
fn layers_with_experts_are_those_that_the_configuration_says() {
    let with_experts = |name: &str, changes: Value| -> Vec<bool> {
        let spec = changed(name, changes).expect("a supported model").spec;
        spec.layers.iter().map(|layer| matches!(layer.feed_forward, FeedForwardSpec::Experts(_))).collect()
    };
    let layers = json!({ "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3] });
    assert_eq!(with_experts("qwen3_moe", layers), [false, true, false, false]);
    assert_eq!(with_experts("llama4_text", json!({ "interleave_moe_layer_step": 4 })), [false, false, false, true]);
    assert_eq!(with_experts("llama4_text", json!({ "moe_layers": [0, 2] })), [true, false, true, false]);
    assert_eq!(with_experts("deepseek_v3", json!({ "first_k_dense_replace": 2 })), [false, false, true]);
    refused("qwen3_moe", json!({ "mlp_only_layers": [2] }));
    refused("deepseek_v3", json!({ "num_experts_per_tok": 9 }));
    refused("deepseek_v3", json!({ "n_group": 3 }));
    refused("deepseek_v3", json!({ "scoring_func": "softmax" }));
    refused("mixtral", json!({ "output_router_logits": true }));
    refused("llama4_text", json!({ "attention_chunk_size": null }));
    refused("llama4_text", json!({ "no_rope_layers": [1, 1] }));
}

#[test]
fn latent_attention_may_project_queries_in_one_step_and_share_nothing() {
    let latent =
        |changes: Value| match changed("deepseek_v3", changes).expect("a supported model").spec.layers[1].clone() {
            LayerSpec { attention: AttentionSpec::Latent(latent), feed_forward, .. } => (latent, feed_forward),
            layer => panic!("{layer:?}"),
        };
    let (direct, feed_forward) =
        latent(json!({ "q_lora_rank": null, "n_shared_experts": 0, "rope_interleave": false }));
    assert_eq!((direct.query_rank, direct.rope.pairs), (None, RopePairs::Halves));
    assert!(matches!(feed_forward, FeedForwardSpec::Experts(ExpertsSpec { shared: None, .. })));
    let (low_rank, _) = latent(json!({ "attention_bias": true }));
    assert_eq!((low_rank.query_rank, low_rank.bias), (Some(24), true));
    // The stretched context raises the scores: (16 + 8)^-0.5 times (0.1 ln 40 + 1)².
    let expected = 24f64.powf(-0.5) * (0.1 * 40f64.ln() + 1.0).powi(2);
    assert!((f64::from(low_rank.scale) - expected).abs() < 1e-6, "{}", low_rank.scale);
}
