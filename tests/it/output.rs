//! Output that cannot be written: a lost reader of the log ends nothing, and results that are lost are a failure.
#![cfg(unix)]

use std::fs;
use std::fs::File;
use std::process::{Command, Stdio};

use crate::harness::{Finished, Scratch, finished, model};

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
