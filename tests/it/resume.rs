//! A resumed run gives the bytes of one that never stopped, and a checkpoint resumes the same run only.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Finished, LEFT_OUT, Scratch, model, read_json, sample_rows};

const STEPS: usize = 5;

/// A copy of a run folder that ends with the checkpoint of `step`, as if the run had been killed there.
fn killed_at(scratch: &Scratch, run: &str, step: usize) -> PathBuf {
    let (from, to) = (scratch.join(run), scratch.join(&format!("{run}-{step}")));
    copy(&from, &to);
    for entry in fs::read_dir(&to).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let later = name.strip_prefix("checkpoint-").is_some_and(|saved| saved.parse::<usize>().unwrap() > step);
        if later || ["adapter", "merged"].contains(&name.as_str()) {
            fs::remove_dir_all(path).unwrap();
        } else if name == "summary.json" {
            fs::remove_file(path).unwrap();
        }
    }
    // What is under construction when a process is killed.
    fs::create_dir(to.join(".checkpoint-99.partial")).unwrap();
    fs::write(to.join(".checkpoint-99.partial/manifest.json"), "{").unwrap();
    fs::write(to.join(".summary.json.partial"), "{").unwrap();
    to
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let place = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &place),
            false => drop(fs::copy(&path, &place).unwrap()),
        }
    }
}

/// The lines of `metrics.jsonl` without what a clock or the system's memory says.
fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| without_clock(serde_json::from_str(line).unwrap())).collect()
}

fn without_clock(mut value: Value) -> Value {
    for key in ["seconds", "seconds_before_training", "tokens_per_second", "memory_bytes"] {
        value.as_object_mut().unwrap().remove(key);
    }
    value
}

/// Fails unless two runs came to the same: exports to the byte, figures, the last training state.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let name = other.display();
    for folder in ["adapter", "merged", &format!("checkpoint-{STEPS}")] {
        for file in ["adapter_model.safetensors", "model.safetensors", "training_state.safetensors"] {
            let (one, other) = (one.join(folder).join(file), other.join(folder).join(file));
            assert_eq!(one.exists(), other.exists(), "{name}: {folder}/{file}");
            if one.exists() {
                assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{name}: {folder}/{file}");
            }
        }
    }
    assert_eq!(metrics(one), metrics(other), "{name}");
    let summary = |run: &Path| without_clock(read_json(&run.join("summary.json")));
    assert_eq!(summary(one), summary(other), "{name}");
    let partial = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    let left: Vec<_> = fs::read_dir(other).unwrap().flatten().filter(partial).collect();
    assert!(left.is_empty(), "{name}: {left:?}");
}

/// Fails unless two runs export the same adapter.
pub(crate) fn assert_same_weights(one: &Path, other: &Path) {
    let weights = |run: &Path| fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
    assert!(weights(one) == weights(other), "{}", other.display());
    assert_eq!(metrics(one), metrics(other), "{}", other.display());
}

fn resumed(scratch: &Scratch, run: &Path, more: &[&str]) -> Finished {
    let arguments = [&["resume", run.to_str().unwrap()][..], more].concat();
    let finished = scratch.tune(&arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished
}

/// Runs `changes` of the small recipe straight, and with every split in two; all must come to the same.
fn every_split_equals_straight(name: &str, base: &Path, changes: &[(&str, &str)]) {
    let scratch = Scratch::new(&format!("resume-{name}"));
    let steps = STEPS.to_string();
    let common = [
        ("max_steps", steps.as_str()),
        ("num_epochs", "5"),
        ("val_set_size", "4"),
        ("eval_steps", "2"),
        ("save_strategy", "steps"),
        ("save_steps", "1"),
        ("save_total_limit", "9"),
        ("lr_scheduler", "cosine"),
    ];
    let changes = [&common[..], changes].concat();
    let recipe = scratch.recipe("recipe.yaml", base, &changes);
    scratch.run(&recipe);
    let straight = scratch.join("out");
    for step in 1..STEPS {
        let run = killed_at(&scratch, "out", step);
        let finished = resumed(&scratch, &run, &[]);
        assert!(finished.stderr.contains(&format!("checkpoint-{step}, after {step} steps")), "{}", finished.stderr);
        assert_same(&straight, &run);
    }
    // Saving changes nothing of the training.
    scratch.recipe("unsaved.yaml", base, &[&changes[..4], &[("output_dir", "unsaved")], &changes[7..]].concat());
    scratch.run(&scratch.join("unsaved.yaml"));
    let file = if straight.join("adapter").exists() { "adapter/adapter_model" } else { "merged/model" };
    let weights = |run: &Path| fs::read(run.join(format!("{file}.safetensors"))).unwrap();
    assert!(weights(&straight) == weights(&scratch.join("unsaved")), "{name}");
}

const FULL: [(&str, &str); 4] =
    [("adapter", ""), ("lora_r", LEFT_OUT), ("lora_alpha", LEFT_OUT), ("lora_target_modules", LEFT_OUT)];

#[test]
fn lora_with_dropout_packing_accumulation_and_noise_resumes_to_the_same_bytes() {
    let changes = [
        ("lora_dropout", "0.1"),
        ("sample_packing", "true"),
        ("gradient_accumulation_steps", "2"),
        ("micro_batch_size", "1"),
        ("neftune_noise_alpha", "5"),
    ];
    every_split_equals_straight("lora", &model("llama31"), &changes);
}

#[test]
fn qlora_with_8_bit_state_resumes_to_the_same_bytes() {
    let changes = [
        ("adapter", "qlora"),
        ("load_in_4bit", "true"),
        ("lora_r", "64"),
        ("lora_target_modules", "all-linear"),
        ("optimizer", "adamw_bnb_8bit"),
        ("lora_dropout", "0.05"),
    ];
    every_split_equals_straight("qlora", &model("qwen3"), &changes);
}

#[test]
fn full_fine_tuning_with_8_bit_state_resumes_to_the_same_bytes() {
    let changes = [("optimizer", "adamw_bnb_8bit"), ("learning_rate", "1e-3"), ("weight_decay", "0.1")];
    every_split_equals_straight("full", &model("qwen3"), &[&FULL[..], &changes].concat());
}

#[test]
fn dora_and_whole_modules_with_recompute_resume_to_the_same_bytes() {
    let changes =
        [("peft_use_dora", "true"), ("lora_modules_to_save", "[lm_head]"), ("gradient_checkpointing", "true")];
    every_split_equals_straight("dora", &model("qwen3"), &changes);
}

#[test]
fn full_training_of_some_parameters_in_bf16_resumes_from_f32() {
    let changes = [("unfrozen_parameters", r"['layers\.1\.']"), ("export", "\n  dtype: bf16")];
    every_split_equals_straight("some", &model("llama31_bf16"), &[&FULL[..], &changes].concat());
}

/// A small run of which every step was saved.
fn saved_run(name: &str, changes: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new(&format!("resume-{name}"));
    let common = [("max_steps", "5"), ("save_strategy", "steps"), ("save_steps", "1"), ("save_total_limit", "9")];
    scratch.recipe("recipe.yaml", &model("qwen3"), &[&common[..], changes].concat());
    scratch
}

#[test]
fn a_recipe_goes_on_by_itself_where_it_says_so() {
    let scratch = saved_run("auto", &[("auto_resume_from_checkpoints", "true")]);
    scratch.run(&scratch.join("recipe.yaml"));
    let straight = scratch.join("straight");
    copy(&scratch.join("out"), &straight);
    let killed = killed_at(&scratch, "out", 3);
    fs::remove_dir_all(scratch.join("out")).unwrap();
    fs::rename(killed, scratch.join("out")).unwrap();
    let finished = scratch.run(&scratch.join("recipe.yaml"));
    assert!(finished.stderr.contains("out/checkpoint-3, after 3 steps"), "{}", finished.stderr);
    assert_same(&straight, &scratch.join("out"));
    // A run that is done exports again.
    scratch.run(&scratch.join("recipe.yaml"));
    assert_same(&straight, &scratch.join("out"));
}

#[test]
fn a_recipe_names_the_checkpoint_that_it_goes_on_from() {
    let scratch = saved_run("named", &[]);
    scratch.run(&scratch.join("recipe.yaml"));
    let set = |run: &str, checkpoint: &str| {
        let from = format!("resume_from_checkpoint={checkpoint}");
        let output = format!("output_dir={run}");
        scratch.tune(&["run", "recipe.yaml", "--set", &from, "--set", &output])
    };
    let finished = set("other", "out/checkpoint-2");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_same(&scratch.join("out"), &scratch.join("other"));
    let finished = set("third", "out/checkpoint-7");
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("`out/checkpoint-7` is not a directory"), "{}", finished.stderr);
}

#[test]
fn what_was_set_on_the_command_line_is_remembered() {
    let scratch = saved_run("set", &[]);
    let set = ["run", "recipe.yaml", "--set", "learning_rate=3e-3", "--set", "output_dir=set"];
    assert_eq!(scratch.tune(&set).code, Some(0));
    let run = killed_at(&scratch, "set", 2);
    // From another folder, and after the recipe's file has gone.
    fs::remove_file(scratch.join("recipe.yaml")).unwrap();
    let mut command = scratch.command(&[], &["resume", run.to_str().unwrap()]);
    let finished = crate::harness::finished(command.current_dir(scratch.join("tmp")).output().unwrap());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_same(&scratch.join("set"), &run);
}

/// Goes on with a copy of a run that was killed after two steps, which must be refused.
fn refused(scratch: &Scratch, more: &[&str], expected: &[&str]) {
    let run = killed_at(scratch, "out", 2);
    let arguments = [&["resume", run.to_str().unwrap()][..], more].concat();
    let finished = scratch.tune(&arguments);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    for part in expected {
        assert!(finished.stderr.contains(part), "`{part}` is not in:\n{}", finished.stderr);
    }
    assert!(run.join("checkpoint-2/manifest.json").is_file(), "nothing is touched");
    fs::remove_dir_all(run).unwrap();
}

#[test]
fn a_recipe_that_has_changed_is_refused_by_key() {
    let scratch = saved_run("changed", &[]);
    scratch.run(&scratch.join("recipe.yaml"));
    let changed = ["--set", "learning_rate=2e-2", "--set", "max_steps=9"];
    let both = ["`learning_rate` was `1e-2`, is `2e-2`", "`max_steps` was `5`, is `9`", "another output_dir"];
    refused(&scratch, &changed, &both);
    refused(&scratch, &changed[2..], &["`max_steps` was `5`, is `9`", "hint: add --allow-change max_steps to resume"]);
    refused(&scratch, &[&changed[..], &["--allow-change", "max_steps"]].concat(), &both[..1]);
    let hint = ["`learning_rate` cannot change within a run", "hint: accepted: ", "num_epochs, max_steps"];
    refused(&scratch, &["--allow-change", "learning_rate"], &hint);
    let finished = scratch.tune(&["resume", "nowhere"]);
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("`nowhere` cannot be opened"), "{}", finished.stderr);
}

#[test]
fn data_and_base_that_have_changed_are_refused_by_name() {
    let scratch = Scratch::new("resume-inputs");
    let base = scratch.copy_model("qwen3");
    let changes = [("save_strategy", "steps"), ("save_steps", "1")];
    scratch.recipe("recipe.yaml", &base, &changes);
    scratch.run(&scratch.join("recipe.yaml"));
    scratch.write("rows.jsonl", sample_rows(23));
    refused(&scratch, &[], &["checkpoint-2: the data have changed since"]);
    // Other bytes that mean the same rows are the same data.
    scratch.write("rows.jsonl", sample_rows(24) + "\n");
    resumed(&scratch, &killed_at(&scratch, "out", 2), &[]);
    let weights = base.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    fs::remove_dir_all(scratch.join("out-2")).unwrap();
    refused(&scratch, &[], &["checkpoint-2: the base model has changed since"]);
}

#[test]
fn a_run_becomes_longer_where_that_is_allowed() {
    let scratch = saved_run("longer", &[("lr_scheduler", "constant")]);
    scratch.run(&scratch.join("recipe.yaml"));
    let short = ["run", "recipe.yaml", "--set", "max_steps=3", "--set", "output_dir=short"];
    assert_eq!(scratch.tune(&short).code, Some(0));
    let longer = ["--set", "max_steps=5", "--allow-change", "max_steps"];
    resumed(&scratch, &scratch.join("short"), &longer);
    assert_same(&scratch.join("out"), &scratch.join("short"));
    // The change is remembered, too.
    let again = killed_at(&scratch, "short", 4);
    resumed(&scratch, &again, &[]);
    assert_same(&scratch.join("out"), &again);
}

#[test]
fn what_a_killed_run_was_about_to_remove_is_removed() {
    let scratch = saved_run("pruned", &[("save_total_limit", "2")]);
    scratch.run(&scratch.join("recipe.yaml"));
    let out = scratch.join("out");
    let kept = || -> Vec<usize> { (1..=5).filter(|step| out.join(format!("checkpoint-{step}")).exists()).collect() };
    assert_eq!(kept(), [4, 5]);
    // Killed after the last checkpoint got its name, before the one that was one too many lost it.
    copy(&out.join("checkpoint-4"), &out.join("checkpoint-3"));
    fs::remove_file(out.join("summary.json")).unwrap();
    resumed(&scratch, &out, &[]);
    assert_eq!(kept(), [4, 5]);
}

#[test]
fn the_best_state_is_exported_and_kept_and_training_stops_without_patience() {
    let scratch = Scratch::new("resume-best");
    let changes = [
        ("max_steps", "12"),
        ("num_epochs", "12"),
        ("val_set_size", "4"),
        // So high a rate that the held-out loss soon rises.
        ("learning_rate", "0.5"),
        ("eval_steps", "1"),
        ("save_strategy", "steps"),
        ("save_steps", "1"),
        ("save_total_limit", "1"),
        ("early_stopping_patience", "2"),
    ];
    scratch.recipe("recipe.yaml", &model("qwen3"), &changes);
    let finished = scratch.run(&scratch.join("recipe.yaml"));
    let out = scratch.join("out");
    let evaluated: Vec<(usize, f64)> = crate::harness::metrics(&out, "eval_loss")
        .iter()
        .filter(|line| line.get("measured").is_none())
        .map(|line| (line["step"].as_u64().unwrap() as usize, line["eval_loss"].as_f64().unwrap()))
        .collect();
    let best = evaluated.iter().copied().reduce(|best, next| if next.1 < best.1 { next } else { best }).unwrap();
    let last = evaluated.last().unwrap().0;
    assert_eq!(last, best.0 + 2, "two consecutive evaluations were no better: {evaluated:?}");
    assert!(finished.stderr.contains(&format!("saved after {} steps", best.0)), "{}", finished.stderr);
    assert_eq!(read_json(&out.join("summary.json"))["loss_after"].as_f64(), Some(best.1));
    let kept: Vec<usize> = (1..=12).filter(|step| out.join(format!("checkpoint-{step}")).exists()).collect();
    assert_eq!(kept, [best.0, last], "one is kept beside the best");
    let weights = |folder: &str| fs::read(out.join(folder).join("adapter_model.safetensors")).unwrap();
    assert!(weights("adapter") == weights(&format!("checkpoint-{}", best.0)));
    // A run that is resumed after the last evaluation has no patience left either.
    fs::remove_file(out.join("summary.json")).unwrap();
    resumed(&scratch, &out, &[]);
    assert_eq!(crate::harness::losses(&out).len(), last);
}

#[test]
fn without_being_told_the_last_state_is_exported() {
    let scratch = Scratch::new("resume-last");
    let changes = [
        ("val_set_size", "4"),
        ("learning_rate", "0.5"),
        ("eval_steps", "1"),
        ("save_strategy", "steps"),
        ("save_steps", "1"),
        ("load_best_model_at_end", "false"),
    ];
    scratch.recipe("recipe.yaml", &model("qwen3"), &changes);
    scratch.run(&scratch.join("recipe.yaml"));
    let weights = |folder: &str| fs::read(scratch.join("out").join(folder).join("adapter_model.safetensors")).unwrap();
    assert!(weights("adapter") == weights("checkpoint-4"));
}

#[test]
fn a_finished_run_is_not_written_over_once_its_data_or_its_base_have_changed() {
    for (name, changes) in [("unsaved", &[][..]), ("saved", &[("save_strategy", "epoch")][..])] {
        let scratch = Scratch::new(&format!("finished-{name}"));
        let base = scratch.copy_model("qwen3");
        let recipe = scratch.recipe("recipe.yaml", &base, &[&[("max_steps", "2")], changes].concat());
        scratch.run(&recipe);
        // The same again is the same run.
        scratch.run(&recipe);
        let before = scratch.listing();
        let rows = fs::read_to_string(scratch.join("rows.jsonl")).unwrap();
        let refused = |what: &str, more: &[&str]| {
            for command in [&["run", "recipe.yaml"][..], &["run", "recipe.yaml", "--set", "device=cpu"]] {
                let again = scratch.tune(&[command, more].concat());
                assert_eq!(again.code, Some(2), "{}", again.stderr);
                let message = format!("output_dir `out` holds a finished run of this recipe, and {what}");
                assert!(again.stderr.contains(&message), "{}", again.stderr);
                assert!(again.stderr.contains("\nhint: name another output_dir, which keeps both"), "{}", again.stderr);
            }
        };
        fs::write(scratch.join("rows.jsonl"), rows.replacen("user", "system", 1)).unwrap();
        refused("the data have changed since: the rows of `datasets` give other tokens", &[]);
        fs::write(scratch.join("rows.jsonl"), &rows).unwrap();
        let path = base.join("model.safetensors");
        let weights = fs::read(&path).unwrap();
        let mut changed = weights.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, changed).unwrap();
        refused("the base model has changed since: its files have other bytes", &[]);
        fs::write(&path, weights).unwrap();
        assert_eq!(scratch.listing(), before, "nothing is touched");
        // Another folder, or none, takes it.
        fs::write(scratch.join("rows.jsonl"), rows.lines().take(8).collect::<Vec<_>>().join("\n")).unwrap();
        let elsewhere = scratch.tune(&["run", "recipe.yaml", "--set", "output_dir=new"]);
        assert_eq!(elsewhere.code, Some(0), "{}", elsewhere.stderr);
        fs::remove_dir_all(scratch.join("out")).unwrap();
        scratch.run(&recipe);
    }
}

#[test]
fn a_finished_run_is_not_written_over_once_the_adapter_that_it_continued_has_changed() {
    let scratch = Scratch::new("finished-continued");
    let first = scratch.recipe("first.yaml", &model("qwen3"), &[("max_steps", "1"), ("output_dir", "first")]);
    scratch.run(&first);
    let changes = [("max_steps", "1"), ("lora_model_dir", "first/adapter")];
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &changes);
    scratch.run(&recipe);
    scratch.run(&recipe);
    fs::remove_dir_all(scratch.join("first")).unwrap();
    scratch.run(&scratch.recipe("first.yaml", &model("qwen3"), &[("max_steps", "2"), ("output_dir", "first")]));
    let again = scratch.tune(&["run", "recipe.yaml"]);
    assert_eq!(again.code, Some(2), "{}", again.stderr);
    assert!(again.stderr.contains("the adapter of `lora_model_dir` has changed since"), "{}", again.stderr);
}
