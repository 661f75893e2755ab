//! Keys that decide together: what holds, against Axolotl 0.19's own code on the same keys.
//!
//! The expected figures are those of its validation, `normalize_config`, `calculate_total_num_steps` and trainer
//! arguments, with the distances that transformers 5.24 makes of them: steps, warm-up, evaluations, checkpoints and the
//! state that is exported. Deliberate differences are said in the test.

use crate::harness::{Finished, LEFT_OUT, Scratch, metrics, model, sample_rows};

/// A plan for `rows` rows with nothing set that decides about steps.
fn plan(scratch: &Scratch, rows: usize, changes: &[(&str, &str)]) -> Finished {
    scratch.write("rows.jsonl", sample_rows(rows));
    scratch.write("held-out.jsonl", sample_rows(rows + 4).lines().skip(rows).collect::<Vec<_>>().join("\n"));
    let open = [("max_steps", LEFT_OUT), ("save_strategy", LEFT_OUT), ("lr_scheduler", "cosine")];
    scratch.recipe("recipe.yaml", &model("qwen3"), &[&open[..], changes].concat());
    scratch.tune(&["check", "recipe.yaml"])
}

/// The value of a line of a plan.
fn value<'p>(plan: &'p str, label: &str) -> &'p str {
    let line = plan.lines().find(|line| line.get(..16).is_some_and(|begin| begin.trim_end() == label));
    line.unwrap_or_else(|| panic!("no `{label}` in\n{plan}")).get(16..).unwrap()
}

/// Rows that are held out, by another file, so that those to train on stay as many.
const HELD_OUT: (&str, &str) = ("test_datasets", "\n  - path: held-out.jsonl\n    type: chat_template");

#[test]
fn keys_that_override_each_other_decide_as_in_axolotl() {
    let scratch = Scratch::new("settings-table");
    let every_12 = "every 12 steps";
    // 24 rows in steps of 2: steps, warm-up, checkpoints, evaluations, and if the best state is exported.
    type Row<'a> = (&'a [(&'a str, &'a str)], usize, usize, &'a str, &'a str, bool);
    #[rustfmt::skip]
    let table: &[Row] = &[
        (&[], 12, 0, every_12, "never", false),
        // The number of steps.
        (&[("max_steps", "100")], 100, 0, every_12, "never", false),
        (&[("max_steps", "5")], 5, 0, every_12, "never", false),
        (&[("max_steps", "5"), ("num_epochs", "3")], 5, 0, every_12, "never", false),
        (&[("max_steps", "40"), ("num_epochs", "3")], 40, 2, every_12, "never", false),
        (&[("max_steps", "0"), ("num_epochs", "2")], 24, 0, every_12, "never", false),
        (&[("max_steps", "-1")], 12, 0, every_12, "never", false),
        (&[("num_epochs", "0.5")], 6, 0, every_12, "never", false),
        // The warm-up: rounded down, 1 is 2, and a share is of the epochs where max_steps is more.
        (&[("max_steps", "100"), ("warmup_ratio", "0.1")], 100, 2, every_12, "never", false),
        (&[("max_steps", "100"), ("warmup_ratio", "0.25")], 100, 3, every_12, "never", false),
        (&[("max_steps", "8"), ("warmup_ratio", "0.5")], 8, 4, every_12, "never", false),
        (&[("warmup_steps", "1")], 12, 2, every_12, "never", false),
        (&[("warmup_steps", "5"), ("warmup_ratio", "0")], 12, 5, every_12, "never", false),
        (&[("warmup_steps", "0"), ("warmup_ratio", "0.5")], 12, 0, every_12, "never", false),
        (&[("warmup_ratio", "0.1")], 12, 2, every_12, "never", false),
        (&[("warmup_ratio", "0")], 12, 0, every_12, "never", false),
        // Checkpoints.
        (&[("saves_per_epoch", "1")], 12, 0, every_12, "never", false),
        (&[("saves_per_epoch", "1"), ("num_epochs", "0.5")], 6, 0, every_12, "never", false),
        (&[("saves_per_epoch", "4")], 12, 0, "every 3 steps", "never", false),
        (&[("saves_per_epoch", "2"), ("max_steps", "5")], 5, 0, "every 3 steps", "never", false),
        (&[("saves_per_epoch", "4"), ("max_steps", "100")], 100, 0, "every 25 steps", "never", false),
        (&[("saves_per_epoch", "4"), ("save_strategy", "\"no\"")], 12, 0, "every 3 steps", "never", false),
        (&[("saves_per_epoch", "4"), ("save_strategy", "epoch")], 12, 0, "every 3 steps", "never", false),
        (&[("saves_per_epoch", "1"), ("save_strategy", "\"no\"")], 12, 0, "never", "never", false),
        (&[("save_strategy", "epoch"), ("num_epochs", "2")], 24, 0, every_12, "never", false),
        (&[("save_steps", "0.5")], 12, 0, "every 6 steps", "never", false),
        (&[("save_steps", "0.3"), ("max_steps", "100")], 100, 0, "every 30 steps", "never", false),
        // Evaluations.
        (&[("evals_per_epoch", "2"), ("val_set_size", "0")], 12, 0, every_12, "never", false),
        (&[HELD_OUT, ("eval_strategy", "steps"), ("evals_per_epoch", "4")], 12, 0, every_12, "every 3 steps", false),
        (&[HELD_OUT, ("eval_steps", "0.25"), ("max_steps", "100")], 100, 0, every_12, "every 25 steps", false),
        (&[HELD_OUT, ("eval_strategy", "\"no\"")], 12, 0, every_12, "before and after", false),
        // Both, and the state that is exported.
        (&[HELD_OUT, ("evals_per_epoch", "4"), ("saves_per_epoch", "1")], 12, 0, every_12, "every 3 steps", false),
        (&[HELD_OUT, ("evals_per_epoch", "4"), ("saves_per_epoch", "1"), ("num_epochs", "3")], 36, 2, every_12, "every 3 steps", true),
        (&[HELD_OUT, ("eval_steps", "2"), ("save_steps", "4")], 12, 0, "every 4 steps", "every 2 steps", true),
        (&[HELD_OUT, ("eval_steps", "2"), ("save_steps", "3")], 12, 0, "every 3 steps", "every 2 steps", false),
        (&[HELD_OUT, ("eval_steps", "2"), ("save_steps", "4"), ("load_best_model_at_end", "false")], 12, 0, "every 4 steps", "every 2 steps", false),
        (&[HELD_OUT, ("eval_steps", "2"), ("save_steps", "2"), ("load_best_model_at_end", "false"), ("early_stopping_patience", "2")], 12, 0, "every 2 steps", "every 2 steps", true),
    ];
    for (changes, steps, warmup, saves, evaluates, best) in table {
        let planned = plan(&scratch, 24, changes);
        assert_eq!(planned.code, Some(0), "{changes:?}: {}", planned.stderr);
        let plan = &planned.stdout;
        assert!(value(plan, "steps").starts_with(&format!("{steps} of 1 x 2 rows")), "{changes:?}\n{plan}");
        let warm = value(plan, "learning rate").split(", ").last().unwrap();
        assert_eq!(warm.split(' ').next().unwrap(), warmup.to_string(), "{changes:?}\n{plan}");
        assert!(value(plan, "checkpoints").starts_with(saves), "{changes:?}\n{plan}");
        assert!(value(plan, "evaluation").starts_with(evaluates), "{changes:?}\n{plan}");
        assert_eq!(plan.contains("\nexported        the checkpoint with"), *best, "{changes:?}\n{plan}");
    }
}

#[test]
fn keys_that_axolotl_refuses_together_are_refused() {
    let scratch = Scratch::new("settings-refused");
    let refused: &[&[(&str, &str)]] = &[
        &[("save_strategy", "\"no\""), ("save_steps", "3")],
        &[("save_steps", "3"), ("saves_per_epoch", "3")],
        &[HELD_OUT, ("eval_strategy", "\"no\""), ("evals_per_epoch", "4")],
        &[HELD_OUT, ("eval_strategy", "epoch"), ("evals_per_epoch", "4")],
        &[HELD_OUT, ("eval_steps", "2"), ("evals_per_epoch", "1")],
        &[HELD_OUT, ("eval_steps", "2"), ("eval_strategy", "epoch")],
        &[HELD_OUT, ("eval_steps", "2"), ("eval_strategy", "\"no\"")],
        &[HELD_OUT, ("val_set_size", "0.1")],
        &[("warmup_steps", "5"), ("warmup_ratio", "0.5")],
        // There a product that agrees is refused as well.
        &[("batch_size", "8"), ("gradient_accumulation_steps", "2")],
    ];
    for changes in refused {
        let planned = plan(&scratch, 24, changes);
        assert_eq!(planned.code, Some(2), "{changes:?}: {}", planned.stdout);
        assert!(planned.stderr.contains("recipe.yaml:") && planned.stderr.contains("\nhint: "), "{}", planned.stderr);
    }
}

#[test]
fn a_warm_up_by_share_is_rounded_down_and_one_step_becomes_two() {
    let scratch = Scratch::new("settings-warm-up");
    // Of 50 steps, and of 10.
    let table = [
        ("0.07", "1", 3),
        ("0.29", "1", 14),
        ("0.5", "1", 25),
        ("0.03", "1", 2),
        ("0.01", "1", 0),
        (LEFT_OUT, "1", 2),
        (LEFT_OUT, "0.6", 0),
        ("0.1", "0.2", 2),
        ("0.09", "0.2", 0),
    ];
    for (ratio, epochs, warmup) in table {
        let changes = [("micro_batch_size", "1"), ("warmup_ratio", ratio), ("num_epochs", epochs)];
        let planned = plan(&scratch, 50, &changes);
        let rate = value(&planned.stdout, "learning rate");
        assert!(rate.ends_with(&format!(", {warmup} warm-up steps")), "{ratio} of {epochs}: {rate}");
    }
    let written = plan(&scratch, 50, &[("micro_batch_size", "1"), ("warmup_steps", "1")]);
    assert!(written.stdout.contains("warmup_steps 1 means 2 steps, as in Axolotl"), "{}", written.stdout);
}

#[test]
fn the_plan_names_axolotls_number_of_steps_where_it_differs() {
    let scratch = Scratch::new("settings-steps");
    for (rows, epochs, steps, there) in [("4", "3", 39, 38), ("4", "1.5", 20, 19), ("8", "2", 14, 13)] {
        let planned = plan(&scratch, 50, &[("micro_batch_size", rows), ("num_epochs", epochs)]);
        let taken = format!("{steps} steps, where Axolotl takes {there}: the last, partial step of an epoch ");
        assert!(planned.stdout.contains(&taken), "{}", planned.stdout);
        let decided = format!("by num_epochs: {epochs}");
        assert!(value(&planned.stdout, "steps").ends_with(&decided), "{}", planned.stdout);
    }
    for (rows, epochs) in [("1", "3"), ("5", "2"), ("50", "1"), ("4", "1")] {
        let planned = plan(&scratch, 50, &[("micro_batch_size", rows), ("num_epochs", epochs)]);
        assert!(!planned.stdout.contains("where Axolotl takes"), "{}", planned.stdout);
    }
    // Its number is that of max_steps, too.
    let planned = plan(&scratch, 50, &[("micro_batch_size", "4"), ("num_epochs", "3"), ("max_steps", "30")]);
    assert!(!planned.stdout.contains("where Axolotl takes"), "{}", planned.stdout);
    let decided = "30 of 1 x 4 rows, 13 per epoch, by max_steps, which overrides num_epochs: 3 (39)";
    assert_eq!(value(&planned.stdout, "steps"), decided);
    // Packing leaves its incomplete batches out.
    let packed = [("sample_packing", "true"), ("gradient_accumulation_steps", "4"), ("num_epochs", "2")];
    let planned = plan(&scratch, 24, &packed);
    assert!(planned.stdout.contains("4 steps, where Axolotl takes about 2: "), "{}", planned.stdout);
}

#[test]
fn max_steps_trains_further_epochs() {
    let scratch = Scratch::new("settings-max-steps");
    scratch.write("rows.jsonl", sample_rows(4));
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("max_steps", "5"), ("num_epochs", "1")]);
    scratch.run(&recipe);
    let epochs: Vec<f64> =
        metrics(&scratch.join("out"), "loss").iter().map(|step| step["epoch"].as_f64().unwrap()).collect();
    assert_eq!(epochs, [0.5, 1.0, 1.5, 2.0, 2.5]);
}

#[test]
fn settings_far_from_usual_ones_are_lines_to_look_at() {
    let scratch = Scratch::new("settings-look-at");
    let looked_at: &[(&[(&str, &str)], &str)] = &[
        (&[("learning_rate", "2e4")], "learning_rate 2e4 is very high for an adapter; 2e-4 is usual"),
        (&[("learning_rate", "1e-9")], "learning_rate 1e-9 is very low"),
        (
            &[("lora_alpha", "100000")],
            "lora_alpha 100000 with lora_r 4 scales the update by 25000, which is very large",
        ),
        (&[("lora_alpha", "0.001")], "which is very small"),
        (
            &[("gradient_accumulation_steps", "1000"), ("micro_batch_size", "1")],
            "a step of 1,000 x 1 rows is more than the 24 rows there are: each epoch is one step of all of them",
        ),
        (&[("micro_batch_size", "30")], "a step of 1 x 30 rows is more than the 24 rows there are"),
        (&[("warmup_steps", "50")], "the warm-up of 50 steps does not end within the run's 12 steps"),
        (&[("warmup_steps", "9")], "the learning rate rises for 9 of the run's 12 steps"),
        (&[("max_steps", "100"), ("warmup_ratio", "0.5")], "the warm-up is a share of the 12 steps of num_epochs"),
        (&[("save_steps", "500")], "save_steps 500 is longer than the run: no checkpoint but the last falls within"),
        (&[HELD_OUT, ("eval_steps", "500")], "eval_steps 500 is longer than the run: no evaluation falls within"),
        (
            &[HELD_OUT, ("eval_steps", "6"), ("save_steps", "6"), ("early_stopping_patience", "3")],
            "early_stopping_patience 3 cannot end the run, which has only 2 evaluations",
        ),
        (&[("num_epochs", "1e9")], "every row is trained on 1,000,000,000 times; 1 to 5 is usual"),
        (&[("max_steps", "12000")], "every row is trained on 1,000 times"),
        (&[("weight_decay", "10")], "weight_decay 10 is very high; 0 to 0.1 is usual"),
        (&[("lora_dropout", "0.9")], "lora_dropout 0.9 is very high"),
        (&[("neftune_noise_alpha", "500")], "neftune_noise_alpha 500 is very high"),
        (&[("max_grad_norm", "1e-6")], "max_grad_norm 0.000001 is very low"),
        (
            &[("sequence_len", "4096")],
            "sequence_len 4,096 is longer than the 512 positions of the base model: no row is so",
        ),
        (&[("load_in_4bit", "true")], "adapter: lora with load_in_4bit: true is qlora"),
    ];
    for (changes, line) in looked_at {
        let planned = plan(&scratch, 24, changes);
        assert_eq!(planned.code, Some(0), "{changes:?}: {}", planned.stderr);
        assert!(planned.stdout.contains(line), "{changes:?}: {line}\n{}", planned.stdout);
        assert!(planned.stdout.contains("\nlook at         "), "{changes:?}\n{}", planned.stdout);
    }
    let usual = [("learning_rate", "2e-4"), ("warmup_ratio", "0.1"), ("weight_decay", "0.01")];
    let planned = plan(&scratch, 24, &usual);
    assert!(!planned.stdout.contains("look at "), "{}", planned.stdout);
}

#[test]
fn a_loss_that_rose_is_a_line_of_the_summary() {
    let scratch = Scratch::new("settings-rise");
    // From an adapter that has learnt something, so that there is something to lose.
    plan(&scratch, 24, &[("max_steps", "40"), ("output_dir", "good")]);
    scratch.run(&scratch.join("recipe.yaml"));
    let good = ("lora_model_dir", "good/adapter");
    let ended = |changes: &[(&str, &str)]| {
        plan(&scratch, 24, &[&[good, ("lr_scheduler", "constant")], changes].concat());
        let finished = scratch.run(&scratch.join("recipe.yaml"));
        std::fs::remove_dir_all(scratch.join("out")).unwrap();
        let summary = finished.stderr.find("\ntrained ").expect("a summary");
        finished.stderr[summary..].to_owned()
    };
    let summary = ended(&[("learning_rate", "50"), ("max_steps", "6"), HELD_OUT]);
    assert!(summary.contains("\nlook at         the held-out loss rose from "), "{summary}");
    assert!(summary.contains(": lower learning_rate 50 or lora_alpha 8, or train for fewer steps"), "{summary}");
    // Without held-out rows the training loss tells.
    let summary = ended(&[("learning_rate", "50"), ("max_steps", "12")]);
    assert!(summary.contains("\nlook at         the training loss rose from "), "{summary}");
    let summary = ended(&[("max_steps", "12"), HELD_OUT]);
    assert!(!summary.contains("look at "), "{summary}");
}
