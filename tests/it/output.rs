//! Output that cannot be written: a lost reader of the log ends nothing, and results that are lost are a failure.
#![cfg(unix)]

use std::fs;
use std::fs::File;
use std::process::{Command, Stdio};

use crate::harness::{Finished, Scratch, finished, metrics, model, project};
use crate::parity::say;

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe whose reader has gone.
fn unread() -> Stdio {
    let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let writer = reader.stdin.take().unwrap();
    reader.wait().unwrap();
    writer.into()
}

fn small(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    let changes = [("val_set_size", "4"), ("save_strategy", "steps"), ("save_steps", "2"), ("max_steps", "3")];
    scratch.recipe("recipe.yaml", &model("qwen3"), &changes);
    scratch
}

#[test]
fn a_lost_reader_of_the_log_never_ends_a_run() {
    let scratch = small("output-log");
    for name in ["full", "unread", "closed", "first line"] {
        let mut command = if name == "closed" {
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$0\" run recipe.yaml >&- 2>&-", env!("CARGO_BIN_EXE_tune")]);
            shell.current_dir(scratch.join(".")).env("HF_HUB_OFFLINE", "1");
            shell
        } else {
            scratch.command(&[], &["run", "recipe.yaml"])
        };
        command.stdin(Stdio::null());
        match name {
            "full" => command.stderr(full()).stdout(full()),
            "unread" => command.stderr(unread()).stdout(unread()),
            "first line" => command.stderr(Stdio::piped()),
            _ => &mut command,
        };
        let mut child = command.spawn().unwrap();
        if let Some(mut stderr) = child.stderr.take() {
            // As `| head -1`: a line, and nobody reads on.
            std::io::Read::read_exact(&mut stderr, &mut [0; 16]).unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
        for file in ["summary.json", "metrics.jsonl", "checkpoint-2/manifest.json", "adapter/adapter_model.safetensors"]
        {
            assert!(scratch.join("out").join(file).is_file(), "{name}: {file}");
        }
        fs::remove_dir_all(scratch.join("out")).unwrap();
    }
    // A mistake is a mistake, whoever reads of it.
    let mut command = scratch.command(&[], &["run", "nothing.yaml"]);
    assert_eq!(command.stderr(full()).status().unwrap().code(), Some(2));
    let mut command = scratch.command(&[], &["run"]);
    assert_eq!(command.stderr(unread()).status().unwrap().code(), Some(2));
}

#[test]
fn results_that_cannot_be_written_are_a_failure() {
    let scratch = small("output-results");
    scratch.run(&scratch.join("recipe.yaml"));
    let base = model("qwen3").display().to_string();
    let commands: [&[&str]; 12] = [
        &["schema"],
        &["schema", "--markdown"],
        &["preview", "recipe.yaml", "--json"],
        &["preview", "recipe.yaml"],
        &["check", "recipe.yaml"],
        &["check", "recipe.yaml", "--recipe-only"],
        &["inspect", &base],
        &["devices"],
        &["generate", "out/adapter", "--prompt", "hello", "--max-tokens", "4"],
        &["--help"],
        &["run", "--help"],
        &["--version"],
    ];
    for arguments in commands {
        let written = scratch.tune(arguments);
        assert_eq!(written.code, Some(0), "{arguments:?}: {}", written.stderr);
        let mut command = scratch.command(&[], arguments);
        let output = command.stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let Finished { code, stderr, .. } = finished(output);
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        let message = "error: stdout cannot be written: No space left on device (os error 28)\nhint: check that the disk has room\n";
        assert!(stderr.ends_with(message), "{arguments:?}: {stderr}");
        // A reader that has seen enough is no failure, as of `| head -1`.
        let output = scratch.command(&[], arguments).stdout(unread()).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

/// What `tune` shows on a terminal of 80 columns; none, and said so, where no terminal can be had.
fn on_terminal(scratch: &Scratch, arguments: &str) -> Option<String> {
    let command = format!("stty cols 80 rows 24; exec {} {arguments}", env!("CARGO_BIN_EXE_tune"));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &command, "/dev/null"]).current_dir(scratch.join(".")).env("HF_HUB_OFFLINE", "1");
    terminal.env("NO_COLOR", "1").env("TERM", "xterm").env_remove("COLUMNS").stdin(Stdio::null());
    match terminal.output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            say(&format!("SKIPPED: there is no `script` to run a terminal: {error}"));
            None
        }
    }
}

/// The lines of a terminal, those that were overwritten among them, without what moves its cursor.
fn lines(shown: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut characters = shown.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // A sequence ends with a letter.
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain.split(['\r', '\n']).map(str::to_owned).collect()
}

#[test]
fn a_terminal_of_80_columns_shows_the_step_and_keeps_the_loss() {
    let scratch = small("output-terminal");
    let Some(shown) = on_terminal(&scratch, "run recipe.yaml --set logging_steps=2 --set max_steps=5") else { return };
    let lines = lines(&shown);
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    assert!(has("train 3/5, epoch 0.30, loss ") || has("train 5/5, epoch 0.50, loss "), "{shown}");
    for step in [2, 4, 5] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("step {step}/5: loss "))), "{step}: {shown}");
    }
    assert!(!has("step 1/5: loss ") && !has("step 3/5: loss "), "{shown}");
    let begin = lines.iter().position(|line| line.starts_with("base model")).unwrap();
    let end = lines.iter().position(|line| line.starts_with("trained  ")).unwrap();
    // A path is one word.
    let long =
        lines[begin..end].iter().filter(|line| !line.contains("fixtures")).filter(|line| line.chars().count() > 80);
    assert_eq!(long.collect::<Vec<_>>(), [""; 0]);
    assert!(has("                "), "values continue in their column: {shown}");
    for command in ["--help", "run --help", "generate --help", "check --help", "devices --help"] {
        let shown = on_terminal(&scratch, command).unwrap();
        assert!(
            shown.lines().count() > 5 && shown.lines().all(|line| line.trim_end().chars().count() <= 80),
            "{shown}"
        );
    }
}

#[test]
fn a_log_has_the_loss_at_logging_steps() {
    let scratch = small("output-logged");
    let finished = scratch.tune(&["run", "recipe.yaml", "--set", "logging_steps=2", "--set", "max_steps=7"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let shown: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("/7: loss ")).collect();
    let steps: Vec<&str> = shown.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(steps, ["step 2/7", "step 4/7", "step 6/7", "step 7/7"]);
}

#[test]
fn every_field_of_the_metrics_is_documented_and_holds_what_the_run_came_to() {
    let scratch = small("output-metrics");
    scratch.run(&scratch.join("recipe.yaml"));
    let page = fs::read_to_string(project().join("docs/exports.md")).unwrap();
    let section = page.split("\n### Metrics\n").nth(1).unwrap();
    let out = scratch.join("out");
    let all = metrics(&out, "step");
    for line in &all {
        for field in line.as_object().unwrap().keys() {
            assert!(section.contains(&format!("`{field}`")), "{field} is not documented");
        }
    }
    let measured: Vec<_> = metrics(&out, "measured");
    let of = |index: usize, field: &str| measured[index][field].clone();
    assert_eq!((of(0, "measured"), of(0, "step")), ("before".into(), 0.into()));
    assert_eq!((of(1, "measured"), of(1, "step")), ("after".into(), 3.into()));
    assert_eq!(measured.len(), 2);
    assert_eq!((all.first().unwrap(), all.last().unwrap()), (&measured[0], &measured[1]));
    let summary = crate::harness::read_json(&out.join("summary.json"));
    for (index, moment) in ["before", "after"].into_iter().enumerate() {
        assert_eq!(of(index, "eval_loss"), summary[format!("loss_{moment}")]);
        assert_eq!(of(index, "exact_match"), summary[format!("exact_match_{moment}")]);
        assert_eq!(of(index, "prompts"), 4);
    }
}
