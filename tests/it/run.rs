//! `tune run` from recipe to files: what is written, that it learns, and that the same recipe gives the same bytes.

use std::fs;
use std::path::Path;

use crate::harness::{LEFT_OUT, Scratch, losses, metrics, model, read_json, sample_rows, tensors};

const ADAPTER: &str = "adapter/adapter_model.safetensors";

#[test]
fn a_run_writes_everything_that_it_promises_and_learns() {
    let scratch = Scratch::new("run-files");
    let changes = [
        ("max_steps", "6"),
        ("num_epochs", "3"),
        ("val_set_size", "4"),
        ("eval_steps", "2"),
        ("save_strategy", "steps"),
        ("save_steps", "1"),
        ("save_total_limit", "2"),
        ("export", "\n  formats: [adapter, merged]"),
    ];
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &changes);
    let finished = scratch.run(&recipe);
    let out = scratch.join("out");
    assert_eq!(fs::read(out.join("recipe.yaml")).unwrap(), fs::read(&recipe).unwrap());
    for file in ["plan.txt", "README.md", "adapter/adapter_config.json", ADAPTER, "merged/model.safetensors"] {
        assert!(out.join(file).is_file(), "{file} is there");
    }
    let steps = metrics(&out, "loss");
    assert_eq!(steps.len(), 6);
    for key in ["step", "learning_rate", "gradient_norm", "tokens", "trained_tokens", "tokens_per_second", "seconds"] {
        assert!(steps.iter().all(|step| step[key].is_number()), "{key}");
    }
    let evaluated: Vec<u64> = metrics(&out, "eval_loss")
        .iter()
        .filter(|line| line.get("measured").is_none())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(evaluated, [2, 4]);
    let summary = read_json(&out.join("summary.json"));
    assert!(summary["loss_after"].as_f64() < summary["loss_before"].as_f64(), "{summary}");
    assert!(summary["exact_match_after"].is_number() && summary["merged_logit_difference"].is_number());
    let kept = |step: usize| out.join(format!("checkpoint-{step}")).is_dir();
    assert!(kept(6) && kept(4) && !kept(5) && !kept(2), "two checkpoints are kept: the last one and the best");
    assert!(out.join("checkpoint-6/adapter_model.safetensors").is_file(), "which PEFT loads as they are");
    assert!(finished.stderr.contains("before") && finished.stderr.contains("tune generate"), "{}", finished.stderr);
}

#[test]
fn an_optimizer_with_8_bit_state_takes_nearly_the_steps_of_one_with_32() {
    let scratch = Scratch::new("run-8bit");
    let lora = [("adapter", ""), ("lora_r", LEFT_OUT), ("lora_alpha", LEFT_OUT), ("lora_target_modules", LEFT_OUT)];
    let run = |optimizer: &str| {
        let changes =
            [("optimizer", optimizer), ("learning_rate", "1e-3"), ("max_steps", "8"), ("output_dir", optimizer)];
        scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3"), &[lora.as_slice(), &changes].concat()));
        let plan = fs::read_to_string(scratch.join(optimizer).join("plan.txt")).unwrap();
        (losses(&scratch.join(optimizer)), plan)
    };
    let ((exact, _), (rounded, plan)) = (run("adamw_torch"), run("adamw_bnb_8bit"));
    assert!(plan.contains("AdamW with 8-bit state"), "{plan}");
    // The first step's change is made before anything is rounded, and reaches the loss of the second.
    assert_eq!(exact[..2], rounded[..2]);
    assert_ne!(exact, rounded);
    for (exact, rounded) in exact.iter().zip(&rounded) {
        assert!((exact - rounded).abs() < 0.02 * exact, "{exact} and {rounded}");
    }
    let (paged, _) = run("paged_adamw_8bit");
    assert_eq!(paged, rounded);
}

#[test]
fn the_same_recipe_twice_gives_the_same_adapter_bytes() {
    let scratch = Scratch::new("run-twice");
    let changes = [("lora_dropout", "0.1"), ("neftune_noise_alpha", "5"), ("micro_batch_size", "4")];
    let recipe = scratch.recipe("recipe.yaml", &model("llama32_tied"), &changes);
    scratch.run(&recipe);
    let first = fs::read(scratch.join("out").join(ADAPTER)).unwrap();
    let losses_first = losses(&scratch.join("out"));
    scratch.run(&recipe);
    assert_eq!(first, fs::read(scratch.join("out").join(ADAPTER)).unwrap());
    assert_eq!(losses_first, losses(&scratch.join("out")));
    let other = ["--set", "seed=7", "--set", "output_dir=other"].map(std::ffi::OsStr::new);
    let other = scratch.tune(&[&["run".as_ref(), recipe.as_os_str()][..], &other].concat());
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    assert_ne!(first, fs::read(scratch.join("other").join(ADAPTER)).unwrap(), "the seed matters");
}

#[test]
fn recompute_and_packing_change_memory_and_not_the_loss() {
    let scratch = Scratch::new("run-recompute");
    // One step holds all rows, so that packed and padded steps learn from the same documents.
    let changes = [("gradient_accumulation_steps", "12"), ("num_epochs", "3"), ("max_steps", "3")];
    let run = |name: &str, more: &[(&str, &str)]| {
        let changes = [&changes[..], more, &[("output_dir", name)]].concat();
        let recipe = scratch.recipe(&format!("{name}.yaml"), &model("mistral_nemo"), &changes);
        scratch.run(&recipe);
        losses(&scratch.join(name))
    };
    let plain = run("plain", &[]);
    let near = |other: &[f64], allowed: f64| {
        assert_eq!(plain.len(), other.len());
        assert!(plain.iter().zip(other).all(|(a, b)| (a - b).abs() < allowed), "{plain:?} {other:?}");
    };
    near(&run("recomputed", &[("gradient_checkpointing", "true")]), 1e-4);
    near(&run("packed", &[("sample_packing", "true")]), 1e-4);
    assert!(plain[2] < plain[0], "{plain:?}");
}

#[test]
fn full_training_touches_what_is_unfrozen_and_nothing_else() {
    let scratch = Scratch::new("run-full");
    let changes = [
        ("adapter", ""),
        ("lora_r", LEFT_OUT),
        ("lora_alpha", LEFT_OUT),
        ("lora_target_modules", LEFT_OUT),
        ("unfrozen_parameters", r"['layers\.1\.mlp', 'model\.norm']"),
    ];
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &changes);
    scratch.run(&recipe);
    assert!(!scratch.join("out/adapter").exists(), "there is no adapter to export");
    let before = tensors(&model("qwen3").join("model.safetensors"));
    let after = tensors(&scratch.join("out/merged/model.safetensors"));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, tensor) in &before {
        let unfrozen = name.contains("layers.1.mlp") || name == "model.norm.weight";
        assert_eq!(tensor != &after[name], unfrozen, "{name}");
    }
}

#[test]
fn a_configuration_without_weights_is_trained_from_random_ones() {
    let scratch = Scratch::new("run-random");
    let folder = scratch.copy_model("llama31");
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let lora = [("lora_r", LEFT_OUT), ("lora_alpha", LEFT_OUT), ("lora_target_modules", LEFT_OUT)];
    let changes = [&lora[..], &[("adapter", "")]].concat();
    let recipe = scratch.recipe("recipe.yaml", &folder, &changes);
    scratch.run(&recipe);
    let trained = tensors(&scratch.join("out/merged/model.safetensors"));
    let published = tensors(&model("llama31").join("model.safetensors"));
    let shapes = |tensors: &std::collections::BTreeMap<String, crate::harness::Stored>| {
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect::<Vec<_>>()
    };
    assert_eq!(shapes(&trained), shapes(&published));
    let losses = losses(&scratch.join("out"));
    assert!((losses[0] - (384.0_f64).ln()).abs() < 0.5, "a random model is as good as a guess: {losses:?}");
}

#[test]
fn training_continues_from_an_adapter() {
    let scratch = Scratch::new("run-continued");
    scratch.write("rows.jsonl", sample_rows(2));
    let once = [("max_steps", "3"), ("num_epochs", "3"), ("output_dir", "first")];
    let first = scratch.recipe("first.yaml", &model("qwen2_tied"), &once);
    scratch.run(&first);
    let again = [("max_steps", "1"), ("lora_model_dir", "first/adapter"), ("output_dir", "second")];
    let second = scratch.recipe("second.yaml", &model("qwen2_tied"), &again);
    scratch.run(&second);
    let (first, second) = (losses(&scratch.join("first")), losses(&scratch.join("second")));
    assert!(second[0] < first[2], "one step further than the last: {first:?} {second:?}");
    assert!(Path::new(&scratch.join("second").join(ADAPTER)).is_file());
}
