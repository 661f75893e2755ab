//! Small inputs from public bug reports of other programs, each with the right value: the folders of `../shared/cases`.
//!
//! A folder has a `case.md` with the command that reads it. Every folder is run as a copy and may not crash the program; those
//! that are known by name must come to the right value. Where the folders are missing the test says so and passes.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::harness::{Finished, Scratch, project, read_json};
use crate::parity::say;

/// The exit code of a panic.
const PANICKED: i32 = 101;

/// A call that a template of the cases writes.
const CALL: &str = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call><|im_end|>";
/// The tool of the cases as their template writes it.
const TOOL: &str = "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Weather of a city.\", \
                    \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \
                    \"required\": [\"city\"]}}}";

/// What is right for a folder.
type Check = fn(&Case);

/// The folders that are known by name.
const KNOWN: &[(&str, Check)] = &[
    ("01-tool-arguments-string", |case| {
        let trained = case.trained("recipe.yaml", &["sequence_len=512"]);
        let call = CALL.replace("\"Rome\"", "\"Rome\", \"days\": 2");
        assert_eq!(trained, [call.as_str(), "It is sunny.<|im_end|>"]);
    }),
    ("02-tool-parameters-string", |case| {
        let settings = ["sequence_len=512"];
        assert!(case.text("recipe.yaml", &settings).contains(TOOL), "{}", case.text("recipe.yaml", &settings));
        assert_eq!(case.trained("recipe.yaml", &settings), [CALL, "It is sunny.<|im_end|>"]);
    }),
    ("03-null-tool-calls", |case| {
        let header = |role: &str| format!("<|start_header_id|>{role}<|end_header_id|>\n\n");
        let text = format!("<|begin_of_text|>{}Hi<|eot_id|>{}Hello!<|eot_id|>", header("user"), header("assistant"));
        assert_eq!(case.text("recipe.yaml", &[]), text);
        assert_eq!(case.trained("recipe.yaml", &[]), ["Hello!<|eot_id|>"]);
    }),
    ("04-content-null", |case| {
        let trained = case.trained("recipe.yaml", &[]);
        assert_eq!(trained, ["<tool_call>weather</tool_call><|im_end|>", "It is sunny.<|im_end|>"]);
    }),
    ("05-system-column", |case| {
        let text = "<|im_start|>system\nAnswer in one word.<|im_end|>\n<|im_start|>user\nCapital of Italy?<|im_end|>\n\
                    <|im_start|>assistant\nRome<|im_end|>\n";
        assert_eq!(case.text("recipe.yaml", &[]), text);
        assert_eq!(case.trained("recipe.yaml", &[]), ["Rome<|im_end|>"]);
    }),
    ("06-sharegpt-function-call", |case| {
        let text = case.text("recipe.yaml", &["sequence_len=512"]);
        assert!(text.contains("<|im_start|>user\n<tool_response>\n15\n</tool_response><|im_end|>"), "{text}");
        let call = "<tool_call>\n{\"name\": \"area\", \"arguments\": {\"sides\": [5, 3]}}\n</tool_call><|im_end|>";
        assert_eq!(case.trained("recipe.yaml", &["sequence_len=512"]), [call, "It is 15.<|im_end|>"]);
    }),
    ("10-jsonl-separators", |case| {
        assert_eq!(case.trained("recipe.yaml", &["datasets.0.path=nan.jsonl"]), ["A<|im_end|>"]);
    }),
    ("12-parquet-types", |case| {
        assert_eq!(
            case.trained("recipe.yaml", &["datasets.0.path=timestamp.parquet"]),
            ["A<|im_end|>", "A2<|im_end|>"]
        );
    }),
    ("13-conversational-completion", |case| {
        let text = "<|im_start|>user\nSky?<|im_end|>\n<|im_start|>assistant\nBlue.<|im_end|>\n";
        assert_eq!(case.text("recipe.yaml", &[]), text);
        assert_eq!(case.trained("recipe.yaml", &[]), ["Blue.<|im_end|>"]);
    }),
    ("14-content-parts-train", |case| assert_eq!(case.trained("recipe.yaml", &[]), [" It is four.<|im_end|>"])),
    // PEFT's factors belong to the base less its principal part: refused by name.
    ("15-adapter-pissa", |case| {
        let merged = case.tune(&["merge", "adapter", "--base", "model", "--out", "merged"]);
        assert_eq!(merged.code, Some(2), "{}", merged.stderr);
        assert!(merged.stderr.contains("init_lora_weights") && merged.stderr.contains("pissa"), "{}", merged.stderr);
        assert!(!case.scratch.join("merged").exists());
    }),
    ("17-adapter-patterns", |case| {
        case.merges(&|name| match name {
            _ if name.contains("q_proj") => 16.0 / 2.0,
            _ if name.contains("layers.1.mlp.down_proj") => 8.0 / 6.0,
            _ => 8.0 / 4.0,
        });
    }),
    ("22-adapter-embedding", |case| case.merges(&|_| 8.0 / 4.0)),
    ("28-named-templates", |case| {
        let text = case.text("recipe.yaml", &["sequence_len=512"]);
        assert!(text.starts_with(&format!("<|im_start|>system\nTools:\n{TOOL}<|im_end|>")), "{text}");
        assert_eq!(case.trained("recipe.yaml", &["sequence_len=512"]), [CALL, "It is sunny.<|im_end|>"]);
    }),
    ("34-base-model-eos", |case| {
        let run = case.tune(&["run", "eos.yaml"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let settings = read_json(&case.scratch.join("out-eos/merged/generation_config.json"));
        assert_eq!(settings["eos_token_id"], serde_json::json!([377, 375]));
    }),
    ("37-tiny-data", |case| {
        let check = case.tune(&["check", "long-sequence.yaml", "--set", "datasets.0.path=one.jsonl"]);
        assert_eq!(check.code, Some(0), "{}", check.stderr);
        assert!(check.stdout.contains("4,096") || check.stdout.contains("4096"), "{}", check.stdout);
    }),
    ("42-tool-calls-string", |case| {
        assert_eq!(case.trained("recipe.yaml", &["sequence_len=512"]), [CALL, "It is sunny.<|im_end|>"]);
    }),
    // A single text is a pattern for the whole name, which matches nothing here; the name as it stands is no advice.
    ("46-targets", |case| {
        let check = case.tune(&["check", "one-string.yaml"]);
        assert_eq!(check.code, Some(2), "{}", check.stdout);
        assert!(
            check.stderr.contains("`q_proj`") && !check.stderr.contains("did you mean `q_proj`"),
            "{}",
            check.stderr
        );
        assert_eq!(case.tune(&["check", "both.yaml"]).code, Some(0));
    }),
    // The other programs drop reasoning that a template does not show without a word.
    ("47-reasoning-unseen", |case| {
        let preview = case.tune(&["preview", "recipe.yaml"]);
        assert_ne!(preview.code, Some(0), "{}", preview.stdout);
        assert!(preview.stderr.contains("reasoning"), "{}", preview.stderr);
    }),
    ("50-csv-crlf-lines", |case| {
        let preview = case.tune(&["preview", "recipe.yaml", "--set", "datasets.0.path=bad.csv"]);
        assert_eq!(preview.code, Some(2), "{}", preview.stdout);
        assert!(preview.stderr.contains("bad.csv:4"), "{}", preview.stderr);
    }),
    ("53-enable-thinking", |case| {
        let setting = "chat_template_kwargs={enable_thinking: false}";
        let check = case.tune(&["check", "--recipe-only", "recipe.yaml", "--set", setting]);
        assert_eq!(check.code, Some(0), "{}", check.stderr);
    }),
];

/// A copy of a folder.
struct Case {
    scratch: Scratch,
    folder: PathBuf,
}

impl Case {
    /// `test` is the name of the test, of which several run at a time.
    fn copy(folder: &Path, test: &str) -> Case {
        let scratch = Scratch::new(&format!("{test}-{}", folder.file_name().unwrap().display()));
        copy_files(folder, &scratch.join("."));
        Case { scratch, folder: folder.to_owned() }
    }

    fn tune<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Finished {
        let finished = self.scratch.tune(arguments);
        assert_ne!(finished.code, Some(PANICKED), "{}", finished.stderr);
        finished
    }

    /// The pieces of every example of a recipe, with these changes of its keys.
    fn pieces(&self, recipe: &str, settings: &[&str]) -> Vec<Value> {
        let mut arguments = vec!["preview", recipe, "--json", "--rows", "100"];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let finished = self.tune(&arguments);
        assert_eq!(finished.code, Some(0), "{}: {}", self.folder.display(), finished.stderr);
        let shown: Value = serde_json::from_str(&finished.stdout).unwrap();
        let examples = shown["examples"].as_array().unwrap();
        examples.iter().flat_map(|example| example["pieces"].as_array().unwrap().clone()).collect()
    }

    fn text(&self, recipe: &str, settings: &[&str]) -> String {
        self.pieces(recipe, settings).iter().map(|piece| piece["text"].as_str().unwrap().to_owned()).collect()
    }

    fn trained(&self, recipe: &str, settings: &[&str]) -> Vec<String> {
        let pieces = self.pieces(recipe, settings);
        let trained = pieces.iter().filter(|piece| piece["trained"] == true);
        trained.map(|piece| piece["text"].as_str().unwrap().to_owned()).collect()
    }

    /// Merges the adapter and compares every weight with the base's plus the update, whose scale depends on the name.
    fn merges(&self, scale: &dyn Fn(&str) -> f32) {
        let merged = self.tune(&["merge", "adapter", "--base", "model", "--out", "merged"]);
        assert_eq!(merged.code, Some(0), "{}", merged.stderr);
        let read = |path: &str| fs::read(self.scratch.join(path)).unwrap();
        let files = [
            read("model/model.safetensors"),
            read("merged/model.safetensors"),
            read("adapter/adapter_model.safetensors"),
        ];
        let [base, merged, adapter] = files.each_ref().map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        let mut changed = 0;
        for name in base.names() {
            let module = format!("base_model.model.{}", name.trim_end_matches(".weight"));
            let mut expected = numbers(&base, name);
            let factor = |kinds: [&str; 2]| {
                kinds.into_iter().map(|kind| format!("{module}.{kind}")).find(|name| adapter.tensor(name).is_ok())
            };
            let (down, up) =
                (factor(["lora_A.weight", "lora_embedding_A"]), factor(["lora_B.weight", "lora_embedding_B"]));
            if let (Some(down), Some(up)) = (down, up) {
                changed += 1;
                let rank = adapter.tensor(&down).unwrap().shape()[0];
                let (rows, columns) =
                    (adapter.tensor(&up).unwrap().shape()[0], adapter.tensor(&down).unwrap().shape()[1]);
                let (of_a, of_b) = (numbers(&adapter, &down), numbers(&adapter, &up));
                // B is [rows, rank], A [rank, columns]; an embedding's update is that of its transpose.
                for row in 0..rows {
                    for column in 0..columns {
                        let products = (0..rank).map(|inner| of_b[row * rank + inner] * of_a[inner * columns + column]);
                        let update = scale(name) * products.sum::<f32>();
                        let at = if name.contains("embed") { column * rows + row } else { row * columns + column };
                        expected[at] += update;
                    }
                }
            }
            let found = numbers(&merged, name);
            let difference = expected.iter().zip(&found).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
            assert!(expected.len() == found.len() && difference < 1e-5, "{name}: {difference}");
        }
        assert_eq!(2 * changed, adapter.names().iter().filter(|name| name.contains("lora_")).count());
    }
}

/// The values of a tensor in float32.
fn numbers(file: &SafeTensors, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
    tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Copies files and folders; the copies may be written to.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_files(&path, &target);
        } else {
            fs::write(target, fs::read(&path).unwrap()).unwrap();
        }
    }
}

/// The folders of cases, if they are there.
fn folders() -> Vec<PathBuf> {
    let root = project().join("../shared/cases");
    let Ok(entries) = fs::read_dir(&root) else {
        say(&format!("SKIPPED: no cases in {}", root.display()));
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The names of the files of a folder that end in one of `suffixes`.
fn files(folder: &Path, suffixes: &[&str]) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| suffixes.iter().any(|suffix| name.ends_with(suffix))).collect();
    names.sort();
    names
}

/// The commands of a `case.md`, as far as they can be run as they stand.
fn commands(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("case.md")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("- Command: `")).unwrap_or_default();
    let line = line.split(['`', '[', ';']).next().unwrap_or_default();
    let words: Vec<String> = line.split_whitespace().skip(1).map(|word| word.trim_matches('\'').to_owned()).collect();
    let is_plain = words.len() > 1
        && !words.iter().any(|word| word.contains(['{', '}']) || word.contains("FILE") || word.contains("NAME"));
    if is_plain { vec![words] } else { Vec::new() }
}

#[test]
fn inputs_of_bug_reports_come_to_the_right_value() {
    let mut wrong = Vec::new();
    for folder in folders() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        if let Some((_, check)) = KNOWN.iter().find(|(known, _)| *known == name) {
            let checked = std::panic::catch_unwind(|| check(&Case::copy(&folder, "case")));
            if let Err(reason) = checked {
                let text = reason.downcast_ref::<String>().cloned();
                let text = text.or_else(|| reason.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                wrong.push(format!("{name}: {}", text.unwrap_or_default()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn no_input_of_a_bug_report_crashes() {
    for folder in folders() {
        let case = Case::copy(&folder, "crash");
        for command in commands(&folder) {
            case.tune(&command);
        }
        for recipe in files(&folder, &[".yaml", ".yml"]) {
            case.tune(&["check", &recipe]);
            for data in files(&folder, &[".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt"]) {
                case.tune(&["preview", &recipe, "--set", &format!("datasets.0.path={data}")]);
            }
        }
        if folder.join("adapter").is_dir() && folder.join("model").is_dir() {
            case.tune(&["merge", "adapter", "--base", "model", "--out", "merged-again"]);
        }
    }
}
