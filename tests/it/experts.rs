//! Adapters on models with experts, on stacks of them, on whole modules: what is exported, and what is refused.

use serde_json::json;

use crate::harness::{LEFT_OUT, Scratch, TEXTS, model, read_json, tensors, write_texts};

#[test]
fn all_linear_is_attention_and_experts_but_no_router() {
    let scratch = Scratch::new("experts-all");
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3_moe"), &[("lora_target_modules", "all-linear")]));
    let folder = scratch.join("out/adapter");
    let written = tensors(&folder.join("adapter_model.safetensors"));
    let path = "base_model.model.model.layers.0.mlp.experts.7.gate_proj";
    assert_eq!(written[&format!("{path}.lora_A.weight")].shape, [4, 48]);
    assert_eq!(written[&format!("{path}.lora_B.weight")].shape, [32, 4]);
    assert!(written.keys().all(|name| !name.contains("mlp.gate.")), "the router is not adapted");
    // 2 layers, 4 projections of attention, 8 experts of 3.
    assert_eq!(written.len(), 2 * 2 * (4 + 8 * 3));
    let targets = &read_json(&folder.join("adapter_config.json"))["target_modules"];
    assert_eq!(targets, &json!(["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]));
}

#[test]
fn a_router_is_adapted_where_it_is_named() {
    let scratch = Scratch::new("experts-router");
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3_moe"), &[("lora_target_modules", "[q_proj, mlp.gate]")]));
    let written = tensors(&scratch.join("out/adapter/adapter_model.safetensors"));
    assert!(written.contains_key("base_model.model.model.layers.1.mlp.gate.lora_A.weight"), "{:?}", written.keys());
}

#[test]
fn stacked_experts_are_written_as_peft_wraps_parameters() {
    let scratch = Scratch::new("experts-stacked");
    let changes = [
        ("lora_target_modules", LEFT_OUT),
        ("lora_target_parameters", "[mlp.experts.gate_up_proj, mlp.experts.down_proj]"),
        TEXTS,
    ];
    write_texts(&scratch);
    scratch.run(&scratch.recipe("recipe.yaml", &model("gpt_oss"), &changes));
    let folder = scratch.join("out/adapter");
    let written = tensors(&folder.join("adapter_model.safetensors"));
    let shape = |name: &str| &written[&format!("base_model.model.model.layers.0.mlp.experts.{name}.weight")].shape;
    // 4 experts, rank 4, hidden 64, width 32: the first parameter of the module is the innermost wrapper.
    assert_eq!(shape("base_layer.lora_A"), &[16, 64]);
    assert_eq!(shape("base_layer.lora_B"), &[64, 16]);
    assert_eq!(shape("lora_A"), &[16, 32]);
    assert_eq!(shape("lora_B"), &[64, 16]);
    let config = read_json(&folder.join("adapter_config.json"));
    assert_eq!(config["target_parameters"], json!(["experts.down_proj", "experts.gate_up_proj"]));
    assert_eq!(config["target_modules"], json!([]));
}

#[test]
fn an_adapter_with_a_whole_head_continues_where_it_stopped() {
    let scratch = Scratch::new("experts-head");
    let changes = [("lora_modules_to_save", "[lm_head]"), ("peft_use_dora", "true")];
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3"), &changes));
    let folder = scratch.join("out/adapter");
    let written = tensors(&folder.join("adapter_model.safetensors"));
    assert_eq!(written["base_model.model.lm_head.weight"].shape, [400, 64]);
    assert_eq!(written["base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"].shape, [96]);
    let config = read_json(&folder.join("adapter_config.json"));
    assert_eq!((&config["modules_to_save"], &config["use_dora"]), (&json!(["lm_head"]), &json!(true)));

    let from = folder.display().to_string();
    let changes = [
        ("lora_model_dir", from.as_str()),
        ("lora_target_modules", LEFT_OUT),
        ("learning_rate", "1e-30"),
        ("output_dir", "again"),
    ];
    scratch.run(&scratch.recipe("again.yaml", &model("qwen3"), &changes));
    assert_eq!(tensors(&scratch.join("again/adapter/adapter_model.safetensors")), written);
}

#[test]
fn what_peft_cannot_load_on_experts_is_refused_before_training() {
    let scratch = Scratch::new("experts-refused");
    let stacks = ("lora_target_parameters", "[experts.down_proj]");
    for (name, changes, parts) in [
        (
            "qwen3_moe",
            vec![("lora_target_modules", "[gate_proj, down_proj]")],
            ["`gate_proj` in 8, `up_proj` in 0", "recipe.yaml:5:1"],
        ),
        (
            "qwen3_moe",
            vec![("lora_target_modules", "[experts.0.down_proj]")],
            ["`down_proj` in 1 of its 8 experts", "hint: "],
        ),
        (
            "qwen3_moe",
            vec![("lora_target_modules", "all-linear"), ("peft_use_dora", "true")],
            ["DoRA on experts", "recipe.yaml:17:16"],
        ),
        ("gpt_oss", vec![stacks, ("lora_dropout", "0.1")], ["dropout on stacked experts", "hint: set lora_dropout: 0"]),
        (
            "gpt_oss",
            vec![("lora_target_parameters", "[experts.dwon_proj]")],
            ["`experts.dwon_proj`", "down_proj, gate_up_proj"],
        ),
        ("qwen3", vec![stacks], ["`experts.down_proj`", "keeps no experts in stacked tensors"]),
        ("llama32_tied", vec![("lora_modules_to_save", "[embed_tokens]")], ["also its head", "recipe.yaml:17:24"]),
        (
            "qwen3",
            vec![("lora_modules_to_save", "[head]")],
            ["`head` is not a module that can be trained as a whole", "embed_tokens, lm_head"],
        ),
    ] {
        let recipe = scratch.recipe("recipe.yaml", &model(name), &changes);
        let finished = scratch.tune(&["run".as_ref(), recipe.as_os_str()]);
        assert_eq!(finished.code, Some(2), "{changes:?}: {}", finished.stderr);
        for part in parts {
            assert!(finished.stderr.contains(part), "{changes:?}: `{part}` is not in\n{}", finished.stderr);
        }
        assert!(!scratch.join("out").exists(), "nothing was begun");
    }
}
