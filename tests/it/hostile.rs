//! Recipes, models, adapters and data of a stranger through the binary: an error with its place, no panic, nothing left
//! behind, in moments and without the memory that a file claims.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Finished, LEFT_OUT, Scratch, model, project, read_json, write_tensors};

/// Longest that a refusal may take on a machine that is busy with others.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs `tune` with these arguments, which must refuse in words and leave every file as it was.
fn refused(scratch: &Scratch, arguments: &[&str], expected: &[&str]) {
    refused_with(scratch, &[], arguments, expected);
}

fn refused_with(scratch: &Scratch, variables: &[(&str, &str)], arguments: &[&str], expected: &[&str]) -> String {
    let before = scratch.listing();
    let started = Instant::now();
    let Finished { code, stdout, stderr } = scratch.tune_with(variables, arguments);
    assert!(started.elapsed() < LONGEST, "{arguments:?}: {:?}", started.elapsed());
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.len() < 100_000 && stdout.is_empty(), "{} bytes", stderr.len());
    for part in expected {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
    assert!(stderr.contains("error: ") && stderr.contains("\nhint: "), "{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("internal error"), "{stderr}");
    assert!(stderr.chars().all(|letter| letter == '\n' || letter == '\t' || !letter.is_control()), "{stderr:?}");
    assert_eq!(before, scratch.listing(), "{stderr}");
    stderr
}

fn changed(name: &str, changes: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new(name);
    scratch.recipe("recipe.yaml", &model("qwen3"), changes);
    scratch
}

#[test]
fn recipes_that_are_bombs_are_refused() {
    let scratch = changed("bombs", &[]);
    let sound = fs::read_to_string(scratch.join("recipe.yaml")).unwrap();
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for pair in ["ab", "bc", "cd", "de", "ef", "fg", "gh", "hi"] {
        let (last, name) = pair.split_at(1);
        bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{last}"); 10].join(", ")));
    }
    let cases = [
        (bomb, "aliases make this recipe too large"),
        (sound.clone() + "# " + &"x".repeat(10 << 20), "larger than 1024 KiB"),
        (format!("{sound}export: {}{}", "[".repeat(500_000), "]".repeat(500_000)), "recipe.yaml:17:"),
        (format!("{sound}export: {}1{}", "{a: ".repeat(100_000), "}".repeat(100_000)), "recipe.yaml:17:"),
        (format!("{sound}? {}\n", "? ".repeat(100_000)), "recipe.yaml:17:"),
        (format!("{sound}{}", "- ".repeat(200_000)), "recipe.yaml:"),
        (sound.replace("max_steps: 4", &format!("max_steps: {}", "9".repeat(100_000))), "recipe.yaml:11:12: "),
        (sound.replace("lora_r: 4", "lora_r: 1e308"), "recipe.yaml:3:9: "),
        (sound.replace("lora_alpha: 8", "lora_alpha: 1e999"), "recipe.yaml:4:13: "),
        (sound.replace("sequence_len: 512", "sequence_len: 18446744073709551616"), "recipe.yaml:9:15: "),
        (sound.replace("\"no\"", &format!("\"{}\"", "x".repeat(900_000))), "recipe.yaml:14:16: "),
        (sound.replace("cpu", "\"\\e]0;owned\\a\\e[31mcpu\""), "recipe.yaml:15:9: "),
        (sound.replace("output_dir", "\"\\e[2Joutput\\u202edir\""), "recipe.yaml:16:1: "),
    ];
    for (text, expected) in cases {
        scratch.write("recipe.yaml", text);
        refused(&scratch, &["run", "recipe.yaml"], &[expected]);
    }
    scratch.recipe("recipe.yaml", &model("qwen3"), &[("base_model", "\"\\e[31mnowhere\\r\\n\"")]);
    refused(&scratch, &["run", "recipe.yaml"], &["recipe.yaml:1:13: ", "\\u{1b}[31mnowhere"]);
    scratch.recipe(
        "recipe.yaml",
        &model("qwen3"),
        &[("pad_to_sequence_len", "true"), ("micro_batch_size", "4294967295")],
    );
    refused(&scratch, &["run", "recipe.yaml"], &["recipe.yaml:17:22: ", "positions"]);
}

#[test]
fn a_secret_of_the_environment_gets_nowhere() {
    let scratch = changed("secret", &[("output_dir", "runs/${HF_TOKEN}")]);
    let secret = [("HF_TOKEN", "hf_hunter2"), ("MY_API_KEY", "hf_hunter2")];
    let stderr = refused_with(&scratch, &secret, &["run", "recipe.yaml"], &["recipe.yaml:16:13: ", "`HF_TOKEN`"]);
    assert!(!stderr.contains("hunter2"));
    scratch.recipe("recipe.yaml", &model("qwen3"), &[]);
    let set = ["check", "recipe.yaml", "--set", "base_model=${MY_API_KEY}"];
    assert!(!refused_with(&scratch, &secret, &set, &["`MY_API_KEY`"]).contains("hunter2"));
}

/// A folder with the small recipe on a copy of qwen3 whose `config.json` has these values.
fn configured(name: &str, values: &Value) -> Scratch {
    let scratch = Scratch::new(name);
    let folder = scratch.copy_model("qwen3");
    let mut config = read_json(&folder.join("config.json"));
    for (key, value) in values.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    scratch.recipe("recipe.yaml", &folder, &[]);
    scratch
}

#[test]
fn configurations_of_absurd_sizes_are_refused_by_key() {
    for (index, (values, expected)) in [
        (json!({"hidden_size": 1_u64 << 60}), "hidden_size"),
        (json!({"num_hidden_layers": 1_000_000_000}), "num_hidden_layers"),
        (json!({"vocab_size": u64::MAX}), "vocab_size"),
        (json!({"head_dim": 1_u64 << 40}), "head_dim"),
        (json!({"num_attention_heads": -4}), "num_attention_heads"),
        (json!({"hidden_size": 1 << 20, "vocab_size": 1 << 26}), "hidden_size"),
        (json!({"rms_norm_eps": 0}), "rms_norm_eps"),
        (json!({"max_position_embeddings": "x".repeat(10_000_000)}), "max_position_embeddings"),
    ]
    .into_iter()
    .enumerate()
    {
        let scratch = configured(&format!("absurd-{index}"), &values);
        refused(&scratch, &["run", "recipe.yaml"], &["config.json: ", expected]);
        refused(&scratch, &["inspect", "qwen3"], &["config.json: ", expected]);
    }
    let scratch = configured("nested", &json!({}));
    scratch.write("qwen3/config.json", format!("{{\"a\": {}", "[".repeat(1_000_000)));
    refused(&scratch, &["run", "recipe.yaml"], &["config.json: ", "recursion limit"]);
}

#[test]
fn a_run_that_needs_more_memory_than_the_machine_has_is_not_begun() {
    let sizes = json!({"hidden_size": 1 << 17, "intermediate_size": 1 << 19});
    let scratch = configured("no-room", &sizes);
    fs::remove_file(scratch.join("qwen3/model.safetensors")).unwrap();
    let full = [("adapter", ""), ("lora_r", LEFT_OUT), ("lora_alpha", LEFT_OUT), ("lora_target_modules", LEFT_OUT)];
    scratch.recipe("recipe.yaml", &scratch.join("qwen3"), &full);
    refused(&scratch, &["run", "recipe.yaml"], &["recipe.yaml:7:19: the run needs about ", " is free: weights "]);
    let planned = scratch.tune(&["check", "recipe.yaml"]);
    assert_eq!(planned.code, Some(0), "{}", planned.stderr);
    assert!(planned.stdout.contains("warning         the run needs about "), "{}", planned.stdout);
}

/// An adapter's folder that is a copy of a sound one.
fn adapter(scratch: &Scratch) -> PathBuf {
    let sound = project().join("tests/fixtures/lora/qwen3_all_linear/final");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        scratch.write(&format!("adapter/{name}"), fs::read(sound.join(name)).unwrap());
    }
    scratch.join("adapter")
}

#[test]
fn adapters_that_lie_are_refused() {
    let scratch = Scratch::new("adapter");
    let folder = adapter(&scratch);
    let base = model("qwen3").display().to_string();
    let arguments = ["merge", "adapter", "--base", &base, "--out", "merged"];
    let sound = read_json(&folder.join("adapter_config.json"));
    for (key, value) in [
        ("r", json!(0)),
        ("r", json!(u64::MAX)),
        ("r", json!(1e300)),
        ("lora_alpha", json!(1e300)),
        ("lora_alpha", json!(-8)),
        ("lora_dropout", json!(7)),
        ("peft_type", json!("x".repeat(1_000_000))),
        ("rank_pattern", json!({".*": 1_000_000_000})),
    ] {
        let mut config = sound.clone();
        config[key] = value;
        fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
        refused(&scratch, &arguments, &["adapter_config.json: ", key]);
    }
    fs::write(folder.join("adapter_config.json"), sound.to_string()).unwrap();
    let weights = folder.join("adapter_model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for damaged in [&[][..], &[0xff; 8], &[0xff; 100], &bytes[..bytes.len() / 2], &bytes[8..]] {
        fs::write(&weights, damaged).unwrap();
        refused(&scratch, &arguments, &["adapter_model.safetensors: "]);
    }
    // A file with a hole, larger than any adapter of this rank on this model.
    File::create(&weights).unwrap().set_len(1 << 40).unwrap();
    refused(&scratch, &arguments, &["adapter_model.safetensors: it has more than the "]);
    #[cfg(unix)]
    {
        fs::remove_file(&weights).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &weights).unwrap();
        refused(&scratch, &arguments, &["adapter_model.safetensors: it is not a regular file"]);
    }
}

#[test]
fn a_tokenizer_whose_last_id_has_no_row_costs_nothing_while_no_row_has_it() {
    let scratch = configured("last-id", &json!({}));
    let path = scratch.join("qwen3/tokenizer.json");
    let mut tokenizer = read_json(&path);
    tokenizer["model"]["vocab"]["zzzz"] = json!(u32::MAX);
    fs::write(&path, tokenizer.to_string()).unwrap();
    let started = Instant::now();
    let Finished { code, stdout, stderr } = scratch.tune(&["check", "recipe.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(started.elapsed() < LONGEST, "{:?}", started.elapsed());
    assert!(stdout.contains("1 id beyond the 400 rows of the model's embedding (`zzzz`)"), "{stdout}");
}

#[test]
fn a_tokenizer_that_lengthens_texts_without_end_is_refused() {
    let scratch = configured("growing", &json!({}));
    let path = scratch.join("qwen3/tokenizer.json");
    let mut tokenizer = read_json(&path);
    let double = json!({"type": "Replace", "pattern": {"String": "e"}, "content": "ee"});
    tokenizer["normalizer"] = json!({"type": "Sequence", "normalizers": vec![double; 40]});
    fs::write(&path, tokenizer.to_string()).unwrap();
    let told = "tokenizer.json: its normalizer makes up to 1099511627776 bytes of one byte, accepted are 256";
    refused(&scratch, &["run", "recipe.yaml"], &[told]);
}

#[test]
fn a_template_of_a_model_folder_that_never_ends_is_stopped() {
    let scratch = configured("endless", &json!({}));
    for template in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'a' * 1000 }}{% endfor %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(50) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}",
    ] {
        scratch.write("qwen3/chat_template.jinja", template);
        refused(&scratch, &["run", "recipe.yaml"], &["does not end, or takes too long"]);
    }
    scratch.write("qwen3/chat_template.jinja", "{% include '/etc/passwd' %}");
    refused(&scratch, &["run", "recipe.yaml"], &["the chat template fails"]);
}

/// Says that something is done, when it is dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `work` while another thread sets the time of the last change of `path`, again and again.
fn while_it_changes(path: &Path, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            let file = File::options().append(true).open(path).unwrap();
            let times = (1_u64..).map(|second| std::time::UNIX_EPOCH + Duration::from_secs(second));
            for time in times.take_while(|_| !done.load(Ordering::Relaxed)) {
                file.set_modified(time).unwrap();
            }
        });
        work();
    });
}

#[test]
fn files_that_change_while_they_are_read_are_refused() {
    let scratch = Scratch::new("changing");
    let folder = scratch.copy_model("qwen3");
    scratch.recipe("recipe.yaml", &folder, &[]);
    for (file, named) in [("rows.jsonl", "rows.jsonl"), ("qwen3/model.safetensors", "model.safetensors")] {
        let expected = format!("{named}: the file changed while it was being read");
        while_it_changes(&scratch.join(file), || {
            // On a busy machine the other thread may rest while a file is read.
            let refusal = (0..20).find_map(|attempt| {
                let output = format!("output_dir=out-{attempt}");
                let finished = scratch.tune(&["run", "recipe.yaml", "--set", &output]);
                (finished.code == Some(2)).then_some(finished.stderr)
            });
            let stderr = refusal.expect("a file that changes without end is noticed");
            assert!(stderr.contains(&expected) && stderr.contains("\nhint: "), "{stderr}");
        });
    }
}

/// Runs `tune` where no file may grow beyond `blocks` of 512 bytes, as on a disk without room.
#[cfg(unix)]
fn without_room(scratch: &Scratch, blocks: usize, arguments: &[&str]) -> std::process::Output {
    std::process::Command::new("sh")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_tune")])
        .args(arguments)
        .current_dir(scratch.join(""))
        .env("TMPDIR", scratch.join("tmp"))
        .env("HF_HOME", scratch.join("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap()
}

#[cfg(unix)]
#[test]
fn a_cache_that_finds_no_room_leaves_nothing_that_is_taken_for_one() {
    let scratch = changed("no-room-cache", &[("dataset_prepared_path", "prepared")]);
    let output = without_room(&scratch, 8, &["check", "recipe.yaml"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("recipe.yaml:17:24: prepared examples cannot be written to "), "{stderr}");
    assert!(stderr.contains("\nhint: ") && !stderr.contains("panicked"), "{stderr}");
    assert_eq!(fs::read_dir(scratch.join("prepared")).unwrap().count(), 0, "nothing half-written stays");
    let there = scratch.tune(&["check", "recipe.yaml"]);
    assert_eq!(there.code, Some(0), "{}", there.stderr);
    assert_eq!(fs::read_dir(scratch.join("prepared")).unwrap().count(), 1);
}

#[test]
fn hub_names_that_lead_elsewhere_are_no_names() {
    for name in ["../../etc", "org/../x", "org/name/more", "org/na--me", "org/.git", "org/na me", "o\u{e9}/x", "/", "."]
    {
        let quoted = format!("{name:?}");
        let scratch = changed("hub-name", &[("base_model", &quoted)]);
        refused(&scratch, &["run", "recipe.yaml"], &["recipe.yaml:1:13: "]);
        assert!(!scratch.join("hf").exists(), "{name}");
    }
}

#[test]
fn tensors_with_names_of_paths_are_only_names() {
    let scratch = configured("paths", &json!({}));
    let path = scratch.join("qwen3/model.safetensors");
    let mut tensors = crate::harness::tensors(&path);
    let norm = tensors["model.norm.weight"].clone();
    tensors.insert("../../../../tmp/owned\u{1b}[31m".to_owned(), norm);
    write_tensors(&path, &tensors);
    refused(&scratch, &["run", "recipe.yaml"], &["`../../../../tmp/owned\\u{1b}[31m`"]);
}
