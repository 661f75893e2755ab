//! Checkpoints that store weights in fewer bits, or more than the decoder: decoded on load, the rest left alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{Scratch, Stored, TEXTS, losses, model, read_json, tensors, write_tensors, write_texts};

/// A fixture model with other tensors, and with changes to its configuration.
fn changed_model(
    scratch: &Scratch,
    name: &str,
    folder: &str,
    weights: &BTreeMap<String, Stored>,
    changes: &[(&str, serde_json::Value)],
) -> PathBuf {
    let target = scratch.join(folder);
    fs::create_dir_all(&target).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"] {
        fs::copy(model(name).join(file), target.join(file)).unwrap();
    }
    let mut config = read_json(&target.join("config.json"));
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    fs::write(target.join("config.json"), config.to_string()).unwrap();
    write_tensors(&target.join("model.safetensors"), weights);
    target
}

/// Trains a few steps on `base` and returns the losses and the merged checkpoint's folder.
fn train(scratch: &Scratch, base: &Path, out: &str) -> (Vec<f64>, PathBuf) {
    let changes =
        [("lora_target_modules", "[o_proj]"), ("output_dir", out), TEXTS, ("export", "\n  formats: [merged]")];
    write_texts(scratch);
    scratch.run(&scratch.recipe(&format!("{out}.yaml"), base, &changes));
    (losses(&scratch.join(out)), scratch.join(out).join("merged"))
}

/// The value of a byte of F8_E4M3, but for NaN.
fn e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = if exponent == 0 { fraction / 512.0 } else { (8.0 + fraction) * 2f32.powi(exponent - 10) };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// A matrix in FP8, its factors for blocks of 128 x 128, and the values that these mean.
fn in_fp8(matrix: &Stored) -> [Stored; 3] {
    let &[rows, columns] = matrix.shape.as_slice() else { panic!("a matrix") };
    let (down, across) = (rows.div_ceil(128), columns.div_ceil(128));
    let factor = |block: usize| 1.0 / 512.0 * (1.0 + block as f32);
    let codes: Vec<u8> = (0..=255).filter(|byte| byte & 0x7f != 0x7f).collect();
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for (index, value) in matrix.values().into_iter().enumerate() {
        let factor = factor(index / columns / 128 * across + index % columns / 128);
        let distance = |code: &&u8| (e4m3(**code) * factor - value).abs();
        let code = *codes.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
        bytes.push(code);
        values.push(e4m3(code) * factor);
    }
    let factors: Vec<f32> = (0..down * across).map(factor).collect();
    [
        Stored { dtype: "F8_E4M3".to_owned(), shape: matrix.shape.clone(), bytes },
        Stored::of(&[down, across], &factors),
        Stored::of(&matrix.shape, &values),
    ]
}

#[test]
fn eight_bit_weights_train_as_the_values_that_they_mean_and_layers_for_further_tokens_are_ignored() {
    let scratch = Scratch::new("storage-fp8");
    let original = tensors(&model("deepseek_v3").join("model.safetensors"));
    let (mut stored, mut meant) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in &original {
        let is_linear = name.ends_with("_proj.weight") && name.contains(".layers.");
        if !is_linear {
            stored.insert(name.clone(), tensor.clone());
            meant.insert(name.clone(), tensor.clone());
            continue;
        }
        let [codes, factors, values] = in_fp8(tensor);
        stored.insert(name.clone(), codes);
        stored.insert(format!("{name}_scale_inv"), factors);
        meant.insert(name.clone(), values);
    }
    stored.insert("model.layers.3.eh_proj.weight".to_owned(), Stored::of(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
    let storage = json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]});
    let changes = [("quantization_config", storage), ("num_nextn_predict_layers", json!(1))];
    let packed = changed_model(&scratch, "deepseek_v3", "packed", &stored, &changes);
    let plain = changed_model(&scratch, "deepseek_v3", "plain", &meant, &[]);

    let inspected = scratch.tune(&["inspect".as_ref(), packed.as_os_str()]);
    assert!(inspected.stdout.contains("F8_E4M3"), "{}", inspected.stdout);
    assert!(inspected.stdout.contains("a layer that predicts further tokens"), "{}", inspected.stdout);
    let (ours, merged) = train(&scratch, &packed, "out-packed");
    let (reference, _) = train(&scratch, &plain, "out-plain");
    assert_eq!(ours, reference);

    let written = tensors(&merged.join("model.safetensors"));
    assert!(written.keys().all(|name| !name.ends_with("_scale_inv")), "{:?}", written.keys());
    assert!(written.contains_key("model.layers.3.eh_proj.weight"), "what is not trained is kept");
    assert_eq!(
        written["model.layers.0.mlp.down_proj.weight"].values(),
        meant["model.layers.0.mlp.down_proj.weight"].values()
    );
    assert!(read_json(&merged.join("config.json")).get("quantization_config").is_none());
}

#[test]
fn four_bit_experts_train_as_the_values_that_they_mean() {
    const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let scratch = Scratch::new("storage-mxfp4");
    let original = tensors(&model("gpt_oss").join("model.safetensors"));
    let (mut stored, mut meant) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in &original {
        if !name.ends_with("experts.gate_up_proj") && !name.ends_with("experts.down_proj") {
            stored.insert(name.clone(), tensor.clone());
            meant.insert(name.clone(), tensor.clone());
            continue;
        }
        let &[experts, inputs, outputs] = tensor.shape.as_slice() else { panic!("{name} is a stack") };
        let values = tensor.values();
        let mut decoded = vec![0.0; values.len()];
        let (mut blocks, mut scales) = (Vec::new(), Vec::new());
        for row in 0..experts * outputs {
            let (expert, output) = (row / outputs, row % outputs);
            for group in 0..inputs / 32 {
                // Powers from 2^-7 to 2^-4.
                let exponent = 120 + (row + group) % 4;
                scales.push(exponent as u8);
                let mut codes = Vec::new();
                for input in group * 32..(group + 1) * 32 {
                    let place = (expert * inputs + input) * outputs + output;
                    let power = 2f32.powi(exponent as i32 - 127);
                    let distance = |code: &usize| (MAGNITUDES[*code] * power - values[place].abs()).abs();
                    let code = (0..8).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
                    decoded[place] = MAGNITUDES[code] * power * values[place].signum();
                    codes.push(code as u8 | if values[place] < 0.0 { 8 } else { 0 });
                }
                blocks.extend(codes.chunks(2).map(|pair| pair[0] | pair[1] << 4));
            }
        }
        let bytes = |shape: &[usize], bytes| Stored { dtype: "U8".to_owned(), shape: shape.to_vec(), bytes };
        stored.insert(format!("{name}_blocks"), bytes(&[experts, outputs, inputs / 32, 16], blocks));
        stored.insert(format!("{name}_scales"), bytes(&[experts, outputs, inputs / 32], scales));
        meant.insert(name.clone(), Stored::of(&tensor.shape, &decoded));
    }
    let storage = json!({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]});
    let packed = changed_model(&scratch, "gpt_oss", "packed", &stored, &[("quantization_config", storage)]);
    let plain = changed_model(&scratch, "gpt_oss", "plain", &meant, &[]);
    let (ours, merged) = train(&scratch, &packed, "out-packed");
    let (reference, _) = train(&scratch, &plain, "out-plain");
    assert_eq!(ours, reference);
    let written = tensors(&merged.join("model.safetensors"));
    assert_eq!(written.keys().collect::<Vec<_>>(), meant.keys().collect::<Vec<_>>());
    let name = "model.layers.0.mlp.experts.down_proj";
    assert_eq!(written[name].values(), meant[name].values());
}

#[test]
fn a_language_model_in_a_multimodal_one_leaves_the_rest_as_it_was() {
    let scratch = Scratch::new("storage-mm");
    let (_, merged) = train(&scratch, &model("llama4_mm"), "out");
    let plan = fs::read_to_string(scratch.join("out/plan.txt")).unwrap();
    assert!(plan.contains("the vision encoder (`vision_model.*`): copied unchanged"), "{plan}");
    let (before, after) =
        (tensors(&model("llama4_mm").join("model.safetensors")), tensors(&merged.join("model.safetensors")));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let mut others = 0;
    for (name, tensor) in &before {
        others += usize::from(!name.starts_with("language_model."));
        assert_eq!(
            tensor != &after[name],
            name.starts_with("language_model.") && name.ends_with("o_proj.weight"),
            "{name}"
        );
    }
    assert!(others > 3, "{others}");
    assert_eq!(read_json(&merged.join("config.json"))["model_type"], "llama4");
}

#[test]
fn the_language_model_of_gemma_3_trains_as_it_does_alone_and_is_named_as_its_class_names_it() {
    let scratch = Scratch::new("storage-gemma");
    let alone = tensors(&model("gemma3").join("model.safetensors"));
    let mut whole: BTreeMap<String, Stored> =
        alone.iter().map(|(name, tensor)| (format!("language_model.{name}"), tensor.clone())).collect();
    let vision = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight";
    whole.insert(vision.to_owned(), Stored::of(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
    whole.insert("multi_modal_projector.mm_input_projection_weight".to_owned(), Stored::of(&[1], &[5.0]));
    let mut text = read_json(&model("gemma3").join("config.json"));
    text.as_object_mut().unwrap().remove("architectures");
    let changes =
        [("model_type", json!("gemma3")), ("text_config", text), ("vision_config", json!({"model_type": "siglip"}))];
    let base = changed_model(&scratch, "gemma3", "whole", &whole, &changes);
    // The outer configuration has none of the decoder's keys.
    let mut config = read_json(&base.join("config.json"));
    let kept = ["model_type", "text_config", "vision_config", "eos_token_id"];
    config.as_object_mut().unwrap().retain(|key, _| kept.contains(&key.as_str()));
    fs::write(base.join("config.json"), config.to_string()).unwrap();

    write_texts(&scratch);
    let run = |base: &Path, out: &str| {
        let changes = [("output_dir", out), TEXTS, ("export", "\n  formats: [adapter, merged]")];
        scratch.run(&scratch.recipe(&format!("{out}.yaml"), base, &changes));
        losses(&scratch.join(out))
    };
    // An adapter's matrices are drawn by the names of their projections: the first loss is that of the base alone.
    assert_eq!(run(&base, "out")[0], run(&model("gemma3"), "out-alone")[0]);
    let merged = tensors(&scratch.join("out/merged/model.safetensors"));
    assert_eq!(merged.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    assert_eq!(merged[vision], whole[vision]);
    let adapter = scratch.join("out/adapter");
    let key = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight";
    assert!(tensors(&adapter.join("adapter_model.safetensors")).contains_key(key));
    // The vision encoder has a `q_proj` too: short names would choose it.
    let targets = read_json(&adapter.join("adapter_config.json"))["target_modules"].clone();
    assert_eq!(targets[0], json!("model.language_model.layers.0.self_attn.q_proj"), "{targets}");
}

#[test]
fn other_storage_is_refused_by_name() {
    let scratch = Scratch::new("storage-other");
    let weights = tensors(&model("qwen3").join("model.safetensors"));
    for (storage, value) in [
        (json!({"quant_method": "gptq", "bits": 4}), "`quantization_config.quant_method` is `gptq`"),
        (
            json!({"quant_method": "fp8", "weight_block_size": [64, 64]}),
            "`quantization_config.weight_block_size` is `[64,64]`",
        ),
    ] {
        let base = changed_model(&scratch, "qwen3", "base", &weights, &[("quantization_config", storage)]);
        let finished = scratch.tune(&["inspect".as_ref(), base.as_os_str()]);
        assert_eq!(finished.code, Some(2), "{}", finished.stdout);
        assert!(finished.stderr.contains(value) && finished.stderr.contains("hint: "), "{}", finished.stderr);
    }
}
