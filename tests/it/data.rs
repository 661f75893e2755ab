//! Data keys of the recipe on real files, through the binary.

use std::fs;

use crate::harness::{Scratch, losses, model, sample_rows};

#[test]
fn a_table_gives_the_losses_of_the_same_rows_in_json_lines() {
    let scratch = Scratch::new("data-csv");
    let mut table = "question,reply\n".to_owned();
    let mut lines = String::new();
    for number in 0..24 {
        table.push_str(&format!("\"Where is order {number}, please?\",On its way.\n"));
        let row = format!("{{\"question\": \"Where is order {number}, please?\", \"reply\": \"On its way.\"}}\n");
        lines.push_str(&row);
    }
    scratch.write("rows.csv", table);
    scratch.write("same.jsonl", lines);
    let entry = |path: &str| {
        format!(
            "\n  - path: {path}\n    type: prompt_completion\n    field_instruction: question\n    field_output: reply"
        )
    };
    for (path, out) in [("rows.csv", "table"), ("same.jsonl", "lines")] {
        let datasets = entry(path);
        let changes = [("datasets", datasets.as_str()), ("output_dir", out)];
        scratch.run(&scratch.recipe(&format!("{out}.yaml"), &model("qwen3"), &changes));
    }
    let losses = |out: &str| losses(&scratch.join(out));
    assert_eq!(losses("table").len(), 4);
    assert_eq!(losses("table"), losses("lines"));
}

#[test]
fn a_slice_of_the_rows_is_what_is_planned() {
    let scratch = Scratch::new("data-split");
    let datasets = "\n  - path: rows.jsonl\n    type: chat_template\n    split: train[:25%]";
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("datasets", datasets)]);
    let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("6 rows"), "{}", finished.stdout);
    let datasets = "\n  - path: rows.jsonl\n    split: train[abc]";
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("datasets", datasets)]);
    let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
    assert!(finished.code == Some(2) && finished.stderr.contains("train[abc]"), "{}", finished.stderr);
}

#[test]
fn prepared_rows_are_kept_and_a_changed_byte_is_seen() {
    let scratch = Scratch::new("data-prepared");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("dataset_prepared_path", "prepared")]);
    let check = || {
        let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    };
    let kept = || fs::read_dir(scratch.join("prepared")).unwrap().count();
    let first = check();
    assert_eq!((check(), kept()), (first.clone(), 1));
    scratch.write("rows.jsonl", sample_rows(25));
    assert_ne!(check(), first);
    assert_eq!(kept(), 2);
}

#[test]
fn defects_that_most_rows_share_end_the_run_unless_they_are_allowed_by_name() {
    let scratch = Scratch::new("data-defects");
    let row = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]}"#;
    let answered = row.replace("\"\"", "\"Yo\"");
    scratch.write("rows.jsonl", format!("{row}\n").repeat(24) + &format!("{answered}\n").repeat(9));
    let run = |changes: &[(&str, &str)]| {
        let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), changes);
        scratch.tune(&["check".as_ref(), recipe.as_os_str()])
    };
    let refused = run(&[]);
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    assert!(refused.stderr.contains("rows.jsonl:1") && refused.stderr.contains("hint: "), "{}", refused.stderr);
    let allowed = run(&[("preflight", "{allow: [empty_answers]}")]);
    assert_eq!(allowed.code, Some(0), "{}", allowed.stderr);
    assert!(allowed.stdout.contains("24 rows with an empty answer, which is not trained"), "{}", allowed.stdout);
    let misspelt = run(&[("preflight", "{allow: [emtpy_answers]}")]);
    assert!(
        misspelt.code == Some(2) && misspelt.stderr.contains("did you mean `empty_answers`?"),
        "{}",
        misspelt.stderr
    );
}
