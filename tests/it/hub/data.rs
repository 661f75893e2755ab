//! Data sets of the hub through the binary: which of their files are taken, and from where.

use super::server::{COMMIT, Server};
use super::{MODEL, asked_for, cached, online};
use crate::harness::{Finished, Scratch, model, sample_rows};

const DATA: &str = "datasets/org/tickets";

/// A check of a recipe on `org/tickets` with further keys of the entry.
fn check(scratch: &Scratch, server: &Server, keys: &str) -> Finished {
    let datasets = format!("\n  - path: org/tickets\n    type: chat_template\n{keys}");
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("datasets", datasets.trim_end())]);
    online(scratch, server, &[], &["check", "recipe.yaml"])
}

fn rows(finished: &Finished, source: &str, count: usize) {
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let line = format!("data            org/tickets{source} at {COMMIT}: {count} rows");
    assert!(finished.stdout.contains(&line), "{line}\n{}", finished.stdout);
}

#[test]
fn the_card_says_which_files_are_which_split() {
    let (scratch, server) = (Scratch::new("hub-data-card"), Server::start());
    let card = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/a-*\n  - split: test\n    path: main/b.jsonl\n- config_name: other\n  data_dir: other\n---\n# Tickets\n";
    server.file(DATA, "README.md", card);
    server.file(DATA, "main/a-1.jsonl", sample_rows(5));
    server.file(DATA, "main/a-2.jsonl", sample_rows(3));
    server.file(DATA, "main/b.jsonl", sample_rows(2));
    server.file(DATA, "other/train.jsonl", sample_rows(7));
    rows(&check(&scratch, &server, "    name: main"), " (main)", 8);
    assert!(asked_for(&server.asked(), "b.jsonl").is_empty(), "of other splits nothing is downloaded");
    rows(&check(&scratch, &server, "    name: main\n    split: test+train[:2]"), " (main)", 4);
    rows(&check(&scratch, &server, "    name: other\n    revision: main"), " (other)", 7);
    for (keys, place, words) in [
        ("", "path", "has several configurations\nhint: choose one with `name`; it has `main`, `other`"),
        ("    name: nothing", "name", "has no configuration `nothing`\nhint: it has `main`, `other`"),
        ("    name: main\n    split: dev", "split", "has no split `dev`\nhint: it has `train`, `test`"),
        ("    revision: v9", "revision", "data set `org/tickets` has no revision `v9`"),
    ] {
        let finished = check(&scratch, &server, keys);
        assert_eq!(finished.code, Some(2), "{place}: {}", finished.stderr);
        assert!(finished.stderr.contains(words), "{place}: {}", finished.stderr);
        assert!(finished.stderr.contains("recipe.yaml:"), "{}", finished.stderr);
    }
}

#[test]
fn without_a_card_names_tell_the_splits_and_data_files_choose() {
    let (scratch, server) = (Scratch::new("hub-data-names"), Server::start());
    server.file(DATA, "data/train-00000-of-00001.jsonl", sample_rows(6));
    server.file(DATA, "data/test-00000-of-00001.jsonl", sample_rows(2));
    server.file(DATA, "extra/more.jsonl", sample_rows(4));
    rows(&check(&scratch, &server, ""), "", 6);
    rows(&check(&scratch, &server, "    split: test"), "", 2);
    rows(&check(&scratch, &server, "    data_files: extra/*.jsonl"), "", 4);
    let finished = check(&scratch, &server, "    data_files: nothing/*.jsonl");
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    let words =
        "`nothing/*.jsonl` matches no file of `org/tickets`\nhint: its files are `data/test-00000-of-00001.jsonl`";
    assert!(finished.stderr.contains(words), "{}", finished.stderr);

    // What is there is enough without network, and what is not is named.
    let finished = scratch.tune(&["--offline", "check", "recipe.yaml"]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    let datasets = "\n  - path: org/tickets\n    type: chat_template";
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("datasets", datasets)]);
    let finished = scratch.tune(&["--offline", "check", "recipe.yaml"]);
    rows(&finished, "", 6);
    let snapshot = cached(&scratch, "datasets--org--tickets").join("snapshots").join(COMMIT);
    std::fs::remove_file(snapshot.join("data/train-00000-of-00001.jsonl")).unwrap();
    let finished = scratch.tune(&["--offline", "check", "recipe.yaml"]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    let words = "`data/train-00000-of-00001.jsonl` of data set `org/tickets` is not in the cache";
    assert!(finished.stderr.contains(words) && finished.stderr.contains("`--offline` is set"), "{}", finished.stderr);
}

#[test]
fn a_snapshot_that_another_program_filled_is_read_as_it_is_offline() {
    let scratch = Scratch::new("hub-data-filled");
    let folder = format!("hf/hub/datasets--org--tickets/snapshots/{COMMIT}");
    scratch.write(&format!("{folder}/train.jsonl"), sample_rows(5));
    scratch.write("hf/hub/datasets--org--tickets/refs/main", COMMIT);
    let datasets = "\n  - path: org/tickets\n    type: chat_template";
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("datasets", datasets)]);
    rows(&scratch.tune(&["--offline", "check", "recipe.yaml"]), "", 5);
}

#[test]
fn names_and_revisions_are_of_the_hub_alone() {
    let (scratch, server) = (Scratch::new("hub-data-local"), Server::start());
    server.folder(MODEL, &model("qwen3"));
    let datasets = "\n  - path: rows.jsonl\n    type: chat_template\n    revision: main";
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("datasets", datasets)]);
    let finished = online(&scratch, &server, &[], &["check", "recipe.yaml"]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    let words = "`revision: main` of `rows.jsonl`, which is not a data set of the hub";
    assert!(finished.stderr.contains(words), "{}", finished.stderr);
    // A file that is missing is a file, not a data set.
    let datasets = "\n  - path: data/absent.jsonl\n    type: chat_template";
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("datasets", datasets)]);
    let finished = online(&scratch, &server, &[], &["check", "recipe.yaml"]);
    assert!(finished.code == Some(2) && finished.stderr.contains("there is no file"), "{}", finished.stderr);
    let finished = check(&scratch, &server, "");
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("data set `org/tickets` is not on the hub"), "{}", finished.stderr);
    server.file(DATA, "tickets.py", "import os");
    let finished = check(&scratch, &server, "");
    assert!(finished.code == Some(2) && finished.stderr.contains("refs/convert/parquet"), "{}", finished.stderr);
}
