//! QLoRA through the binary: from a recipe to an adapter, merged checkpoints of both kinds and a checkpoint in 4
//! bits, which is a base to train on in turn; and the contradictions that are refused.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::{Scratch, Stored, losses, model, read_json, tensors};

const QLORA: [(&str, &str); 3] =
    [("adapter", "qlora"), ("load_in_4bit", "true"), ("bnb_config_kwargs", "{bnb_4bit_quant_type: nf4}")];

fn changes<'a>(further: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    QLORA.iter().chain(further).copied().collect()
}

fn largest_difference(a: &Stored, b: &Stored) -> f32 {
    a.values().iter().zip(b.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn qlora_learns_and_reports_how_far_both_ways_to_merge_are_from_what_was_trained() {
    let scratch = Scratch::new("qlora-run");
    for (out, base) in [("by-default", ""), ("into-16", "\n  merge_base: 16bit"), ("into-4", "\n  merge_base: 4bit")] {
        let export = format!("\n  formats: [adapter, merged]{base}");
        let recipe = scratch.recipe(
            &format!("{out}.yaml"),
            &model("qwen3"),
            &changes(&[("export", &export), ("output_dir", out)]),
        );
        let finished = scratch.run(&recipe);
        assert!(
            finished.stderr.contains("linear maps in NF4, scales in 8 bits; all but the head"),
            "{}",
            finished.stderr
        );
        assert!(finished.stderr.contains("merged into the original weights: logits within"), "{}", finished.stderr);
        let summary = read_json(&scratch.join(out).join("summary.json"));
        let divergence = |name: &str| summary["merge_divergence"][name]["logit"].as_f64().unwrap();
        // f32 weights merge into what training saw without a loss; the original ones are another model.
        assert!(divergence("4bit") < 1e-4 && divergence("16bit") > 1e-2, "{summary}");
        assert!(summary["merge_divergence"]["16bit"]["nats"].as_f64().unwrap() > 0.0, "{summary}");
        assert!(summary["merged_logit_difference"].as_f64().unwrap() < 1e-3, "{summary}");
    }
    let losses = losses(&scratch.join("by-default"));
    assert!(losses.last() < losses.first(), "{losses:?}");
    let read = |out: &str| tensors(&scratch.join(out).join("merged/model.safetensors"));
    let (by_default, into_16, into_4) = (read("by-default"), read("into-16"), read("into-4"));
    assert_eq!(by_default, into_4, "the weights that training saw are the default");
    let original = tensors(&model("qwen3").join("model.safetensors"));
    let untouched = "model.layers.0.self_attn.k_proj.weight";
    assert_eq!(into_16[untouched], original[untouched], "a weight without an update stays the checkpoint's");
    assert!(largest_difference(&into_4[untouched], &original[untouched]) > 1e-3, "here it is what the codes stand for");
    assert_eq!(into_4["lm_head.weight"], original["lm_head.weight"], "the head is not quantised");
}

#[test]
fn lora_on_a_base_in_4_bits_trains_what_qlora_does() {
    let scratch = Scratch::new("qlora-as-lora");
    for adapter in ["lora", "qlora"] {
        let changes = changes(&[("adapter", adapter), ("output_dir", adapter), ("max_steps", "2")]);
        let finished = scratch.run(&scratch.recipe(&format!("{adapter}.yaml"), &model("qwen3"), &changes));
        assert!(finished.stderr.contains("linear maps in NF4"), "{}", finished.stderr);
        let line = "adapter: lora with load_in_4bit: true is qlora";
        assert_eq!(finished.stderr.contains(line), adapter == "lora", "{}", finished.stderr);
    }
    let read = |run: &str| tensors(&scratch.join(run).join("adapter/adapter_model.safetensors"));
    assert_eq!(read("lora"), read("qlora"));
}

#[test]
fn a_checkpoint_in_4_bits_has_the_tensors_of_bitsandbytes_and_is_a_base_to_train_on() {
    let scratch = Scratch::new("qlora-bnb");
    let skip = "{llm_int8_skip_modules: [lm_head, down_proj], bnb_4bit_use_double_quant: false}";
    let export = "\n  formats: [bnb-4bit]\n  dtype: bf16";
    let further = [("bnb_config_kwargs", skip), ("export", export)];
    let merged: Vec<(&str, &str)> =
        changes(&[]).into_iter().filter(|(key, _)| *key != "bnb_config_kwargs").chain(further).collect();
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3"), &merged));
    let folder = scratch.join("out/bnb-4bit");
    let config = read_json(&folder.join("config.json"));
    let quantised = &config["quantization_config"];
    assert_eq!(quantised["quant_method"], "bitsandbytes");
    assert_eq!(quantised["bnb_4bit_quant_type"], "nf4");
    assert_eq!(quantised["bnb_4bit_use_double_quant"], false);
    assert_eq!(quantised["llm_int8_skip_modules"], json!(["down_proj", "lm_head"]));
    let written = tensors(&folder.join("model.safetensors"));
    let path = "model.layers.1.self_attn.q_proj.weight";
    assert_eq!((written[path].dtype.as_str(), written[path].shape.as_slice()), ("U8", &[96 * 64 / 2, 1][..]));
    assert_eq!(written[&format!("{path}.absmax")].dtype, "F32");
    assert_eq!(written[&format!("{path}.quant_map")].shape, [16]);
    assert!(written.contains_key(&format!("{path}.quant_state.bitsandbytes__nf4")));
    assert_eq!(written["model.layers.1.mlp.down_proj.weight"].dtype, "BF16");

    let again = changes(&[("output_dir", "again"), ("export", "\n  formats: [adapter, bnb-4bit]")]);
    let finished = scratch.run(&scratch.recipe("again.yaml", Path::new("out/bnb-4bit"), &again));
    assert!(finished.stderr.contains("as the checkpoint stores them"), "{}", finished.stderr);
    let summary = read_json(&scratch.join("again/summary.json"));
    assert!(summary["bnb_4bit_logit_difference"].is_number(), "{summary}");
    let inspected = scratch.tune(&["inspect", "out/bnb-4bit"]);
    assert!(inspected.stdout.contains("NF4"), "{}{}", inspected.stdout, inspected.stderr);
    let answered = scratch.tune(&["generate", "out/bnb-4bit", "--prompt", "hello", "--max-tokens", "2"]);
    assert_eq!(answered.code, Some(0), "{}", answered.stderr);
}

fn refused(name: &str, base: &Path, changes: &[(&str, &str)], expected: &[&str]) {
    let scratch = Scratch::new(name);
    scratch.recipe("recipe.yaml", base, changes);
    let finished = scratch.tune(&["run", "recipe.yaml"]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    for part in expected.iter().chain(&["\nhint: "]) {
        assert!(finished.stderr.contains(part), "`{part}` is not in:\n{}", finished.stderr);
    }
}

#[test]
fn contradictions_about_4_bits_are_refused_by_name() {
    let qwen3 = model("qwen3");
    refused("q-alone", &qwen3, &[("adapter", "qlora")], &["recipe.yaml:2:10: ", "needs `load_in_4bit: true`"]);
    refused("q-8bit", &qwen3, &changes(&[("load_in_8bit", "true")]), &["`load_in_8bit` does not support `true`"]);
    let kwargs = |text: &'static str| {
        let mut changes = changes(&[]);
        changes.retain(|(key, _)| *key != "bnb_config_kwargs");
        changes.push(("bnb_config_kwargs", text));
        changes
    };
    refused(
        "q-fp4",
        &qwen3,
        &kwargs("{bnb_4bit_quant_type: fp4}"),
        &["`bnb_config_kwargs.bnb_4bit_quant_type` does not support the text `fp4`", "nf4"],
    );
    refused(
        "q-skip",
        &qwen3,
        &kwargs("{llm_int8_skip_modules: [down_porj]}"),
        &["recipe.yaml:18:45: `down_porj` is not a linear map of this model", "down_proj"],
    );
    refused(
        "q-compute",
        &qwen3,
        &kwargs("{bnb_4bit_compute_dtype: bfloat16}"),
        &["`bnb_config_kwargs.bnb_4bit_compute_dtype` is an Axolotl key that is not implemented here"],
    );
    refused(
        "q-experts",
        &model("mixtral"),
        &changes(&[("export", "{formats: [bnb-4bit]}"), ("lora_target_modules", "[q_proj, v_proj]")]),
        &["export format `bnb-4bit` is not built for models with experts"],
    );
    refused(
        "q-without",
        &qwen3,
        &[("export", "{formats: [merged], merge_base: 4bit}")],
        &["`export.merge_base` has no effect without a base in 4 bits"],
    );
}

#[test]
fn a_base_in_4_bits_is_trained_by_qlora_alone_and_damaged_ones_are_refused() {
    let scratch = Scratch::new("qlora-stored");
    let export = ("export", "\n  formats: [bnb-4bit]");
    scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3"), &changes(&[export])));
    let folder = scratch.join("out/bnb-4bit");
    refused("s-lora", &folder, &[], &["recipe.yaml:1:13: ", "stores its weights in 4 bits", "`adapter: qlora`"]);
    let merged = ("export", "{formats: [merged], merge_base: 16bit}");
    refused("s-16bit", &folder, &changes(&[merged]), &["has its weights in 4 bits alone", "`merge_base: 4bit`"]);
    let mut plain = changes(&[]);
    plain.retain(|(key, _)| *key != "bnb_config_kwargs");
    plain.push(("bnb_config_kwargs", "{bnb_4bit_use_double_quant: false}"));
    refused("s-double", &folder, &plain, &["bnb_4bit_use_double_quant is `true` in the weights"]);

    let file = folder.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(7).position(|window| window == b"\"nf4\",\"").unwrap();
    bytes[at..at + 5].copy_from_slice(b"\"fp4\"");
    fs::write(&file, bytes).unwrap();
    refused("s-fp4", &folder, &changes(&[]), &["`quant_type` is `\"fp4\"`; \"nf4\" is accepted"]);
}
