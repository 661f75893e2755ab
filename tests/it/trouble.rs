//! Runs that diverge or run out of memory.

use std::fs;

use crate::harness::{Scratch, Stored, losses, metrics, model, read_json, sample_rows, tensors, write_tensors};

/// LoRA's update is so large after the first step that what it makes is beyond f32.
const DIVERGING: [(&str, &str); 4] =
    [("learning_rate", "1e36"), ("lora_alpha", "8000"), ("max_steps", "12"), ("num_epochs", "4")];

#[test]
fn a_run_without_a_finite_loss_stops_after_its_patience_and_names_the_rows() {
    let scratch = Scratch::new("diverging");
    let changes = [&DIVERGING[..], &[("loss_watchdog_patience", "2"), ("save_strategy", "steps"), ("save_steps", "1")]];
    scratch.recipe("recipe.yaml", &model("qwen3"), &changes.concat());
    let finished = scratch.tune(&["run", "recipe.yaml"]);
    let stderr = &finished.stderr;
    assert_eq!(finished.code, Some(1), "{stderr}");
    for part in [
        "step 2: skipped, loss ",
        "step 3: skipped, loss ",
        "error: step 3: the loss is ",
        "2 consecutive steps were skipped",
        "rows of the step: rows.jsonl:",
        "the last checkpoint is out/checkpoint-1\nhint: ",
    ] {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
    let steps = metrics(&scratch.join("out"), "skipped");
    assert_eq!(steps.iter().map(|step| step["skipped"].as_bool().unwrap()).collect::<Vec<_>>(), [false, true, true]);
    assert!(steps[1]["loss"].is_null() || steps[1]["gradient_norm"].is_null(), "what is not finite has no number");
    assert!(!scratch.join("out/checkpoint-2").exists() && !scratch.join("out/adapter").exists());
    let kept = tensors(&scratch.join("out/checkpoint-1/adapter_model.safetensors"));
    assert!(kept.values().all(|tensor| tensor.values().iter().all(|value| value.is_finite())));
}

#[test]
fn rows_of_a_run_are_those_of_its_own_batch() {
    let scratch = Scratch::new("diverging-rows");
    let order = [("shuffle_merged_datasets", "false"), ("loss_watchdog_patience", "1")];
    scratch.recipe("recipe.yaml", &model("qwen3"), &[&DIVERGING[..], &order].concat());
    let finished = scratch.tune(&["run", "recipe.yaml"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    // Step 2 holds the third and the fourth row, the longer one first.
    let named = finished.stderr.lines().find(|line| line.starts_with("rows of the step: ")).unwrap();
    assert!(named.contains("rows.jsonl:3") && named.contains("rows.jsonl:4") && named.matches(".jsonl").count() == 2);
    assert!(finished.stderr.contains("there is no checkpoint"), "{}", finished.stderr);
}

#[test]
fn a_step_that_is_not_finite_is_skipped_and_the_run_continues() {
    let scratch = Scratch::new("one-bad-row");
    let folder = scratch.copy_model("qwen3");
    let rows = sample_rows(8);
    // The letter that one row alone has gets an embedding to which nothing can be added that the first layer's attention
    // makes; norms take away what is large in all other rows.
    let tokenizer = read_json(&folder.join("tokenizer.json"));
    let letter = tokenizer["model"]["vocab"]["~"].as_u64().unwrap() as usize;
    assert!(!rows.contains('~'));
    let mut lines: Vec<String> = rows.lines().map(str::to_owned).collect();
    lines[5] = lines[5].replacen("\"content\":\"", "\"content\":\"~ ", 1);
    assert!(lines[5].contains('~'));
    scratch.write("rows.jsonl", lines.join("\n") + "\n");
    let path = folder.join("model.safetensors");
    let mut weights = tensors(&path);
    let mut change = |name: &str, rows: Option<usize>, to: &dyn Fn(usize, f32) -> f32| {
        let tensor = weights.get_mut(name).unwrap();
        let (mut values, width) = (tensor.values(), tensor.shape[1]);
        let range = rows.map_or(0..values.len(), |row| row * width..(row + 1) * width);
        values[range].iter_mut().enumerate().for_each(|(index, value)| *value = to(index, *value));
        *tensor = Stored::of(&tensor.shape, &values);
    };
    change("model.embed_tokens.weight", Some(letter), &|index, _| if index % 2 == 0 { 3.4e38 } else { -3.4e38 });
    change("model.layers.0.self_attn.o_proj.weight", None, &|_, value| value * 1e38);
    write_tensors(&path, &weights);
    let changes = [
        ("shuffle_merged_datasets", "false"),
        ("micro_batch_size", "1"),
        ("gradient_accumulation_steps", "2"),
        ("num_epochs", "2"),
        ("max_steps", "8"),
        ("learning_rate", "1e-3"),
        ("loss_watchdog_patience", "2"),
    ];
    scratch.recipe("recipe.yaml", &folder, &changes);
    // The other rows teach nothing here either, so that the export refuses in the end; what counts are the steps.
    let finished = scratch.tune(&["run", "recipe.yaml"]);
    let skipped: Vec<u64> = metrics(&scratch.join("out"), "skipped")
        .iter()
        .filter(|step| step["skipped"] == true)
        .map(|step| step["step"].as_u64().unwrap())
        .collect();
    assert_eq!(skipped, [3, 7], "the step of rows 5 and 6, in both epochs: {}", finished.stderr);
    assert_eq!(losses_and_gaps(&scratch), [true, true, false, true, true, true, false, true]);
    assert!(finished.stderr.contains("step 3: skipped, loss NaN"), "{}", finished.stderr);
}

/// Whether each step of a run has a loss.
fn losses_and_gaps(scratch: &Scratch) -> Vec<bool> {
    metrics(&scratch.join("out"), "skipped").iter().map(|step| step["loss"].is_number()).collect()
}

#[test]
fn weights_that_are_not_finite_are_never_written() {
    let scratch = Scratch::new("infinite");
    // The rate of the first step, divided by one less beta1, is beyond f32.
    let changes = [("learning_rate", "1e38"), ("max_steps", "1")];
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &changes);
    let finished = scratch.tune(&["run".as_ref(), recipe.as_os_str()]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("is not finite") && finished.stderr.contains("\nhint: "), "{}", finished.stderr);
    assert!(!scratch.join("out/adapter").exists() && !scratch.join("out/summary.json").exists());
}

#[test]
fn the_watchdog_ends_a_run_whose_loss_stays_high_and_exports_its_state() {
    let scratch = Scratch::new("watchdog");
    let watched = |threshold: &str, patience: &str| {
        let folder = format!("out-{threshold}-{patience}");
        let changes = [
            ("output_dir", folder.as_str()),
            ("loss_watchdog_threshold", threshold),
            ("loss_watchdog_patience", patience),
            ("learning_rate", "1e-5"),
            ("max_steps", "6"),
        ];
        let finished = scratch.run(&scratch.recipe("recipe.yaml", &model("qwen3"), &changes));
        let out = scratch.join(&folder);
        let summary = read_json(&out.join("summary.json"));
        let stopped = summary["stopped_by_watchdog"].as_bool().unwrap();
        assert_eq!(summary["skipped_steps"], 0);
        assert_eq!(finished.stderr.contains("stopped         before the last step"), stopped, "{}", finished.stderr);
        assert!(out.join("adapter/adapter_model.safetensors").is_file());
        (losses(&out).len(), stopped)
    };
    assert_eq!(watched("0.01", "3"), (3, true));
    assert_eq!(watched("0.01", "1"), (1, true));
    assert_eq!(watched("1000", "1"), (6, false));
    let plan = fs::read_to_string(scratch.join("out-1000-1/plan.txt")).unwrap();
    assert!(plan.contains("watchdog        fails after 1 consecutive step with a non-finite loss or gradient; stops after as many with a loss above 1000"), "{plan}");
}

/// A number of the plan's line that begins with `name`, the first after `before`.
fn planned(plan: &str, name: &str, before: &str) -> f64 {
    let line = plan.lines().find(|line| line.starts_with(name)).unwrap();
    let number = line.split_once(before).unwrap().1.split_whitespace().next().unwrap();
    number.parse().unwrap()
}

#[test]
fn micro_batches_are_as_large_as_memory_allows() {
    let scratch = Scratch::new("auto");
    let check = |changes: &[(&str, &str)]| {
        let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), changes);
        let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    };
    let fixed = |rows: &str| planned(&check(&[("micro_batch_size", rows), ("batch_size", "12")]), "memory", "about ");
    let (most, least) = (fixed("12"), fixed("1"));
    assert!(most > least + 2.0, "{most} and {least} MiB");
    let auto = |allowed: f64| {
        let preflight = format!("{{max_memory: {allowed}MiB}}");
        check(&[("micro_batch_size", "auto"), ("batch_size", "12"), ("preflight", &preflight)])
    };
    let plan = auto(most + 1.0);
    assert!(plan.contains("of 1 x 12 rows"), "{plan}");
    let plan = auto((most + least) / 2.0);
    let (accumulation, rows) = (planned(&plan, "steps", "of "), planned(&plan, "steps", " x "));
    assert!(rows < 12.0 && accumulation * rows == 12.0, "{plan}");
    assert!(planned(&plan, "memory", "about ") <= (most + least) / 2.0, "{plan}");
    let recipe = scratch.join("recipe.yaml");
    scratch.run(&recipe);
    let ours = losses(&scratch.join("out"));
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("micro_batch_size", "12"), ("output_dir", "whole")]);
    scratch.run(&recipe);
    for (ours, whole) in ours.iter().zip(losses(&scratch.join("whole"))) {
        assert!((ours - whole).abs() < 1e-3 * whole, "{ours} and {whole}: the same rows a step");
    }
}
