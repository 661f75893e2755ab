//! Signals during a run: the state is saved, the exit code is 130, and the resumed run gives the same bytes.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::{Finished, Scratch, finished, model, wait_until};
use crate::resume::{assert_same_weights, copy};

const STEPS: &str = "40";

fn recipe(name: &str, changes: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new(&format!("signal-{name}"));
    let common = [("max_steps", STEPS), ("num_epochs", "40"), ("save_strategy", "steps"), ("save_steps", "1000")];
    scratch.recipe("recipe.yaml", &model("qwen3"), &[&common[..], changes].concat());
    scratch
}

/// Starts a run and waits until it has done `steps` steps.
fn started(scratch: &Scratch, arguments: &[&str], steps: usize) -> Child {
    let mut command = scratch.command(&[], arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = || fs::read_to_string(scratch.join("out/metrics.jsonl")).map_or(0, |text| text.lines().count());
    wait_until(&mut child, || lines() >= steps);
    child
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

fn ended(child: Child) -> Finished {
    finished(child.wait_with_output().unwrap())
}

fn checkpoints(run: &Path) -> Vec<String> {
    let names = fs::read_dir(run).unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("checkpoint-")).collect()
}

#[test]
fn a_signal_saves_the_state_and_the_resumed_run_gives_the_same_bytes() {
    let scratch = recipe("one", &[("lora_dropout", "0.1")]);
    scratch.run(&scratch.join("recipe.yaml"));
    copy(&scratch.join("out"), &scratch.join("straight"));
    for signal in ["-INT", "-TERM", "-HUP"] {
        fs::remove_dir_all(scratch.join("out")).unwrap();
        let child = started(&scratch, &["run", "recipe.yaml"], 3);
        send(signal, &child);
        let interrupted = ended(child);
        assert_eq!(interrupted.code, Some(130), "{signal}: {}", interrupted.stderr);
        assert!(
            interrupted.stderr.contains("which are saved: resume with `tune resume out`"),
            "{signal}: {}",
            interrupted.stderr
        );
        assert_eq!(checkpoints(&scratch.join("out")).len(), 1, "{signal}");
        // Unless it is asked to resume, the program throws nothing away.
        let again = scratch.tune(&["run", "recipe.yaml"]);
        assert_eq!(again.code, Some(2), "{signal}: {}", again.stderr);
        assert!(again.stderr.contains("holds an unfinished run of this recipe"), "{}", again.stderr);
        let resumed = scratch.tune(&["resume", "out"]);
        assert_eq!(resumed.code, Some(0), "{signal}: {}", resumed.stderr);
        assert_same_weights(&scratch.join("straight"), &scratch.join("out"));
    }
}

#[test]
fn a_signal_saves_even_where_the_recipe_saves_nothing() {
    let scratch = recipe("unsaved", &[("save_strategy", "\"no\""), ("save_steps", "")]);
    let child = started(&scratch, &["run", "recipe.yaml"], 2);
    send("-TERM", &child);
    assert_eq!(ended(child).code, Some(130));
    assert_eq!(checkpoints(&scratch.join("out")).len(), 1);
    let resumed = scratch.tune(&["resume", "out"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
}

#[test]
fn a_second_signal_ends_at_once_without_damage() {
    let scratch = recipe("two", &[("save_steps", "1"), ("save_total_limit", "2")]);
    scratch.run(&scratch.join("recipe.yaml"));
    copy(&scratch.join("out"), &scratch.join("straight"));
    fs::remove_dir_all(scratch.join("out")).unwrap();
    let child = started(&scratch, &["run", "recipe.yaml"], 4);
    send("-INT", &child);
    send("-INT", &child);
    assert_eq!(ended(child).code, Some(130));
    let resumed = scratch.tune(&["resume", "out"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(!resumed.stderr.contains("is damaged"), "{}", resumed.stderr);
    assert_same_weights(&scratch.join("straight"), &scratch.join("out"));
}

#[test]
fn a_signal_that_was_ignored_from_the_start_stays_ignored() {
    let scratch = recipe("ignored", &[]);
    // As `nohup` does.
    let mut command = Command::new("sh");
    command.current_dir(scratch.join(".")).args(["-c", r#"trap "" HUP; exec "$0" run recipe.yaml"#]);
    command.arg(env!("CARGO_BIN_EXE_tune")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    wait_until(&mut child, || scratch.join("out/metrics.jsonl").exists());
    send("-HUP", &child);
    let finished = ended(child);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}
