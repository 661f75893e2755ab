//! Disks that are full, folders that may not be written, checkpoints that are damaged, two runs in one folder: a clear
//! error, and nothing that was saved is lost.
#![cfg(unix)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Finished, Scratch, finished, losses, metrics, model, wait_until};
use crate::resume::{assert_same, copy};

/// A recipe of five steps, all of them saved.
fn saved(name: &str, changes: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new(&format!("fault-{name}"));
    let common = [("max_steps", "5"), ("save_strategy", "steps"), ("save_steps", "1"), ("save_total_limit", "9")];
    scratch.recipe("recipe.yaml", &model("qwen3"), &[&common[..], changes].concat());
    scratch
}

fn resume(scratch: &Scratch, run: &str) -> Finished {
    let finished = scratch.tune(&["resume", run]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished
}

#[expect(clippy::print_stderr, reason = "skipped cases are said aloud")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Does something to a checkpoint's folder.
type Damage<'a> = &'a dyn Fn(&Path);

/// A small disk of its own, unmounted in the end.
struct Disk(PathBuf);

impl Disk {
    /// None, and said so, where this process may not mount.
    fn mount(place: PathBuf, bytes: u64) -> Option<Self> {
        fs::create_dir_all(&place).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(place));
        }
        skipped("a disk that is full needs the right to mount one");
        None
    }

    fn resize(&self, bytes: u64) {
        let options = format!("remount,size={bytes}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let size = |path: PathBuf| {
        if path.is_dir() { bytes_in(&path) } else { path.metadata().unwrap().len().next_multiple_of(4096) }
    };
    fs::read_dir(folder).unwrap().map(|entry| size(entry.unwrap().path())).sum()
}

/// Fills the disk of a run at ever later moments; the checkpoint is resumed once there is room.
#[test]
fn a_disk_that_is_full_ends_a_run_that_goes_on_once_there_is_room() {
    let scratch = saved("full", &[("export", "\n  formats: [adapter, merged]")]);
    scratch.run(&scratch.join("recipe.yaml"));
    let straight = scratch.join("straight");
    fs::rename(scratch.join("out"), &straight).unwrap();
    let checkpoint = bytes_in(&straight.join("checkpoint-5"));
    let whole = bytes_in(&straight);
    let Some(disk) = Disk::mount(scratch.join("out"), 64 << 20) else { return };
    // In the second checkpoint, in the fourth, and in the exports.
    for (room, least) in [(checkpoint * 3 / 2, 1), (checkpoint * 7 / 2, 3), (whole - checkpoint, 5)] {
        disk.resize(room.next_multiple_of(4096));
        let full = scratch.tune(&["run", "recipe.yaml"]);
        assert_eq!(full.code, Some(1), "{}", full.stderr);
        assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
        assert!(
            full.stderr.contains("hint: check that the folder can be written and the disk has room"),
            "{}",
            full.stderr
        );
        assert!(scratch.join(&format!("out/checkpoint-{least}/manifest.json")).is_file(), "{least}: {}", full.stderr);
        disk.resize(64 << 20);
        let resumed = resume(&scratch, "out");
        assert!(resumed.stderr.contains("resuming from") && !resumed.stderr.contains("damaged"), "{}", resumed.stderr);
        assert_same(&straight, &scratch.join("out"));
        for entry in fs::read_dir(scratch.join("out")).unwrap() {
            let path = entry.unwrap().path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_is_used() {
    let scratch = saved("damaged", &[]);
    scratch.run(&scratch.join("recipe.yaml"));
    let damages: [(&str, Damage); 4] = [
        ("training_state.safetensors is not what was written", &|folder| {
            let path = folder.join("training_state.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(path, bytes).unwrap();
        }),
        ("adapter_model.safetensors has", &|folder| {
            let path = folder.join("adapter_model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 5]).unwrap();
        }),
        ("training_state.json cannot be read", &|folder| fs::remove_file(folder.join("training_state.json")).unwrap()),
        ("manifest.json cannot be read", &|folder| fs::remove_file(folder.join("manifest.json")).unwrap()),
    ];
    for (words, damage) in damages {
        copy(&scratch.join("out"), &scratch.join("hurt"));
        damage(&scratch.join("hurt/checkpoint-5"));
        damage(&scratch.join("hurt/checkpoint-4"));
        let resumed = resume(&scratch, "hurt");
        for step in [4, 5] {
            let told = format!("checkpoint-{step} is damaged and not used: {words}");
            assert!(resumed.stderr.contains(&told), "{told}: {}", resumed.stderr);
        }
        assert!(resumed.stderr.contains("checkpoint-3, after 3 steps"), "{}", resumed.stderr);
        assert_same(&scratch.join("out"), &scratch.join("hurt"));
        fs::remove_dir_all(scratch.join("hurt")).unwrap();
    }
    // One that is asked for by name is not silently replaced.
    fs::write(scratch.join("out/checkpoint-5/adapter_config.json"), "{}").unwrap();
    let named = ["run", "recipe.yaml", "--set", "resume_from_checkpoint=out/checkpoint-5", "--set", "output_dir=new"];
    let finished = scratch.tune(&named);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("adapter_config.json has 2 bytes where"), "{}", finished.stderr);
}

#[test]
fn a_clock_that_goes_backwards_decides_nothing() {
    let scratch = saved("clock", &[]);
    scratch.run(&scratch.join("recipe.yaml"));
    copy(&scratch.join("out"), &scratch.join("straight"));
    fs::remove_dir_all(scratch.join("out/checkpoint-5")).unwrap();
    // The more steps, the older its files say they are; everything is from the future.
    let now = std::time::SystemTime::now();
    for step in 1..5 {
        let time = now + std::time::Duration::from_secs(86_400 * (10 - step));
        let folder = scratch.join(&format!("out/checkpoint-{step}"));
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        for path in files.chain([folder.clone()]) {
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        }
    }
    let resumed = resume(&scratch, "out");
    assert!(resumed.stderr.contains("checkpoint-4, after 4 steps"), "{}", resumed.stderr);
    assert_same(&scratch.join("straight"), &scratch.join("out"));
}

#[test]
fn a_folder_of_another_run_is_refused_before_any_work() {
    let scratch = saved("another", &[]);
    scratch.run(&scratch.join("recipe.yaml"));
    let listing = scratch.listing();
    let other = scratch.tune(&["run", "recipe.yaml", "--set", "seed=7"]);
    assert_eq!(other.code, Some(2), "{}", other.stderr);
    assert!(
        other.stderr.contains("output_dir `out` holds another run: `seed` was not set, is `7`"),
        "{}",
        other.stderr
    );
    assert!(other.stderr.contains("\nhint: name another folder"), "{}", other.stderr);
    let text = fs::read_to_string(scratch.join("recipe.yaml")).unwrap();
    fs::write(scratch.join("recipe.yaml"), text.replace("lora_r: 4", "lora_r: 8")).unwrap();
    let other = scratch.tune(&["run", "recipe.yaml"]);
    assert_eq!(other.code, Some(2), "{}", other.stderr);
    assert!(other.stderr.contains("`lora_r` was `4`, is `8`"), "{}", other.stderr);
    assert_eq!(listing, scratch.listing(), "nothing is touched");
    // A comment makes no other run, and a run that is done may be done again.
    fs::write(scratch.join("recipe.yaml"), format!("# again\n{text}")).unwrap();
    scratch.run(&scratch.join("recipe.yaml"));
}

#[test]
fn two_processes_in_one_folder_are_refused_and_a_lock_that_was_left_is_taken_over() {
    let scratch = saved("lock", &[("max_steps", "2000"), ("num_epochs", "200"), ("save_steps", "1000")]);
    let mut command = scratch.command(&[], &["run", "recipe.yaml"]);
    let mut first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(&mut first, || scratch.join("out/metrics.jsonl").exists());
    for arguments in [["run", "recipe.yaml"], ["resume", "out"]] {
        let second = scratch.tune(&arguments);
        assert_eq!(second.code, Some(2), "{}", second.stderr);
        let told = format!("is in use by process {}", first.id());
        assert!(second.stderr.contains(&told), "{}", second.stderr);
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(scratch.join("out/.lock").is_file(), "a killed run leaves its lock");
    let resumed = scratch.tune(&["resume", "out", "--set", "max_steps=2", "--allow-change", "max_steps"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(!scratch.join("out/.lock").exists());
}

/// The command that runs `tune` without root's right to write anywhere; none, and said so, where that is not possible.
fn without_privilege(scratch: &Scratch, arguments: &[&str]) -> Option<Command> {
    if Command::new("id").arg("-u").output().unwrap().stdout != b"0\n" {
        return Some(scratch.command(&[], arguments));
    }
    let known = Command::new("setpriv").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        skipped("root may write anywhere, and there is no setpriv to give that up");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]).arg(env!("CARGO_BIN_EXE_tune"));
    command.args(arguments).current_dir(scratch.join(".")).env("TMPDIR", scratch.join("tmp"));
    Some(command)
}

fn allow(scratch: &Scratch, folder: &str, mode: u32) {
    fs::set_permissions(scratch.join(folder), Permissions::from_mode(mode)).unwrap();
}

#[test]
fn folders_that_may_not_be_written_end_a_run_before_it_begins_or_before_it_goes_on() {
    let scratch = saved("rights", &[]);
    scratch.run(&scratch.join("recipe.yaml"));
    copy(&scratch.join("out"), &scratch.join("straight"));
    fs::remove_dir_all(scratch.join("out/checkpoint-5")).unwrap();
    fs::remove_file(scratch.join("out/summary.json")).unwrap();
    fs::create_dir(scratch.join("readonly")).unwrap();
    let fresh = without_privilege(&scratch, &["run", "recipe.yaml", "--set", "output_dir=readonly/run"]);
    let (Some(mut fresh), Some(mut going_on)) = (fresh, without_privilege(&scratch, &["resume", "out"])) else {
        return;
    };
    ["readonly", "out"].iter().for_each(|folder| allow(&scratch, folder, 0o555));
    let (fresh, going_on) = (finished(fresh.output().unwrap()), finished(going_on.output().unwrap()));
    ["readonly", "out"].iter().for_each(|folder| allow(&scratch, folder, 0o755));
    assert_eq!(fresh.code, Some(2), "{}", fresh.stderr);
    assert!(fresh.stderr.contains("cannot be written"), "{}", fresh.stderr);
    assert_eq!(going_on.code, Some(2), "{}", going_on.stderr);
    assert!(going_on.stderr.contains("cannot be written"), "{}", going_on.stderr);
    resume(&scratch, "out");
    assert_same(&scratch.join("straight"), &scratch.join("out"));
}

#[test]
fn rights_that_are_lost_midway_end_the_run_with_what_was_saved() {
    let scratch = saved("revoked", &[("max_steps", "3000"), ("num_epochs", "300"), ("save_total_limit", "3000")]);
    let Some(mut command) = without_privilege(&scratch, &["run", "recipe.yaml"]) else { return };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(&mut child, || scratch.join("out/checkpoint-2").exists());
    allow(&scratch, "out", 0o555);
    let ended = finished(child.wait_with_output().unwrap());
    allow(&scratch, "out", 0o755);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot be saved: out/"), "{}", ended.stderr);
    assert!(ended.stderr.contains("Permission denied"), "{}", ended.stderr);
    assert!(ended.stderr.contains("\nhint: check that the folder can be written"), "{}", ended.stderr);
    let saved = (1..3000).rev().find(|step| scratch.join(&format!("out/checkpoint-{step}")).exists()).unwrap();
    let set = format!("max_steps={}", saved + 2);
    let resumed = scratch.tune(&["resume", "out", "--set", &set, "--allow-change", "max_steps"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(resumed.stderr.contains(&format!("after {saved} steps")), "{}", resumed.stderr);
}

/// The ways in which a device says that its memory ran out, as `TUNE_TEST_SHORTAGE` takes them, and what is told of them.
const SHORTAGES: [(&str, &str); 3] = [
    ("read", "out of device memory allocating 4096 bytes"),
    ("panic", "out of device memory allocating 4096 bytes"),
    ("thread", "Out of Memory"),
];

#[test]
fn memory_that_runs_out_ends_a_run_with_the_plans_count_and_what_was_saved() {
    let scratch = saved("memory", &[]);
    scratch.run(&scratch.join("recipe.yaml"));
    fs::rename(scratch.join("out"), scratch.join("straight")).unwrap();
    for (kind, told) in SHORTAGES {
        let variables = [("TUNE_TEST_SHORTAGE", &*format!("{kind}:1:3"))];
        let short = scratch.tune_with(&variables, &["run", "recipe.yaml"]);
        assert_eq!(short.code, Some(1), "{}", short.stderr);
        let words = format!("error: the device ran out of memory: {told}\nthe plan estimated a peak of ");
        assert!(short.stderr.contains(&words), "{}", short.stderr);
        let hint = "hint: write `micro_batch_size: auto` with `batch_size`, lower sequence_len, set gradient_checkpointing: true, or close";
        assert!(short.stderr.contains(hint), "{}", short.stderr);
        let resumed = resume(&scratch, "out");
        assert!(resumed.stderr.contains("checkpoint-3, after 3 steps"), "{}", resumed.stderr);
        assert_same(&scratch.join("straight"), &scratch.join("out"));
        fs::remove_dir_all(scratch.join("out")).unwrap();
    }
}

/// A run that finds its own micro-batches for steps of four rows.
const AUTO: [(&str, &str); 2] = [("micro_batch_size", "auto"), ("batch_size", "4")];

#[test]
fn micro_batches_are_halved_while_memory_runs_out_where_the_recipe_says_auto() {
    let scratch = saved("memory-auto", &AUTO);
    scratch.run(&scratch.join("recipe.yaml"));
    let straight = losses(&scratch.join("out"));
    fs::remove_dir_all(scratch.join("out")).unwrap();
    for (kind, _) in SHORTAGES {
        let variables = [("TUNE_TEST_SHORTAGE", &*format!("{kind}:1:2"))];
        let halved = scratch.tune_with(&variables, &["run", "recipe.yaml"]);
        assert_eq!(halved.code, Some(0), "{}", halved.stderr);
        for rows in [(2, 2), (1, 4)] {
            let told = format!("out of memory: continuing with micro-batches of {} rows, {} per step", rows.0, rows.1);
            assert!(halved.stderr.contains(&told), "{}", halved.stderr);
        }
        let out = scratch.join("out");
        let cut: Vec<_> = metrics(&out, "loss").iter().map(|step| step["micro_batches"].as_u64().unwrap()).collect();
        assert_eq!(cut, [1, 1, 4, 4, 4], "{kind}");
        let apart = losses(&out).iter().zip(&straight).map(|(loss, same)| (loss - same).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-3, "{kind}: the same rows teach the same: {apart}");
        fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn a_single_row_without_room_is_not_told_to_be_cut() {
    let scratch = saved("memory-one", &[&AUTO[..], &[("gradient_checkpointing", "true")]].concat());
    for (kind, told) in SHORTAGES {
        let variables = [("TUNE_TEST_SHORTAGE", &*format!("{kind}:0:1"))];
        let short = scratch.tune_with(&variables, &["run", "recipe.yaml"]);
        assert_eq!(short.code, Some(1), "{}", short.stderr);
        assert!(short.stderr.contains("continuing with micro-batches of 1 rows, 4 per step"), "{}", short.stderr);
        assert!(short.stderr.contains(&format!("error: the device ran out of memory: {told}\n")), "{}", short.stderr);
        let hint = "\nhint: lower sequence_len, or close other programs that use the device's memory\n";
        assert!(short.stderr.contains(hint), "{}", short.stderr);
        assert!(scratch.join("out/checkpoint-1/manifest.json").is_file());
        fs::remove_dir_all(scratch.join("out")).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_cannot_start_is_not_the_templates_fault() {
    let scratch = saved("threads", &[]);
    // Too little for the stack of one more thread, enough for all before it.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 500000; exec \"$0\" check recipe.yaml", env!("CARGO_BIN_EXE_tune")]);
    command.current_dir(scratch.join(".")).env("HF_HUB_OFFLINE", "1").env("RAYON_NUM_THREADS", "1");
    let refused = finished(command.output().unwrap());
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let told = "tokenizer_config.json: the system refuses a thread for the chat template: ";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    assert!(refused.stderr.contains("\nhint: raise the limit on threads or address space"), "{}", refused.stderr);
}

#[test]
fn a_disk_that_is_full_from_the_start_is_not_the_recipes_fault() {
    let scratch = saved("full-start", &[("dataset_prepared_path", "prepared")]);
    let Some(prepared) = Disk::mount(scratch.join("prepared"), 4096) else { return };
    let full = scratch.tune(&["check", "recipe.yaml"]);
    assert_eq!(full.code, Some(1), "{}", full.stderr);
    assert!(full.stderr.contains("prepared examples cannot be written to `prepared/"), "{}", full.stderr);
    assert!(full.stderr.contains("No space left on device") && full.stderr.contains("\nhint: "), "{}", full.stderr);
    prepared.resize(1 << 20);
    let Some(out) = Disk::mount(scratch.join("out"), 4096) else { return };
    let full = scratch.tune(&["run", "recipe.yaml"]);
    assert_eq!(full.code, Some(1), "{}", full.stderr);
    assert!(full.stderr.contains("No space left on device") && full.stderr.contains("\nhint: "), "{}", full.stderr);
    out.resize(64 << 20);
    scratch.run(&scratch.join("recipe.yaml"));
}
