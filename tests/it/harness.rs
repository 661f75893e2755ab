//! What the tests that drive the binary share: a scratch folder, a small recipe, a run of `tune`.
//!
//! Every test has a folder of its own below the system's temporary folder, which is the working folder
//! of the binary too, so that whatever it leaves behind is seen. All of it is removed afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use serde_json::{Value, json};

/// A folder that is removed when the test ends.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new folder; `name` must be the test's own.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tune-it-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("tmp")).unwrap();
        Self { path: path.canonicalize().unwrap() }
    }

    /// A file or folder in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file into it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes a recipe: the small one on `model`, with `changes` to its top-level keys.
    pub(crate) fn recipe(&self, name: &str, model: &Path, changes: &[(&str, &str)]) -> PathBuf {
        if !self.join("rows.jsonl").exists() {
            self.write("rows.jsonl", sample_rows(24));
        }
        self.write(name, recipe_text(model, changes))
    }

    /// A copy of a fixture model that may be damaged.
    pub(crate) fn copy_model(&self, name: &str) -> PathBuf {
        let folder = self.join(name);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(model(name)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
        folder
    }

    /// Every file and folder in it, sorted, with the size of files.
    pub(crate) fn listing(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.path, &self.path, &mut found);
        found.sort();
        found
    }

    /// Runs `tune` in it, without network.
    pub(crate) fn tune<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Finished {
        self.tune_with(&[], arguments)
    }

    /// Runs `tune` in it, with these variables of the environment.
    pub(crate) fn tune_with<S: AsRef<std::ffi::OsStr>>(&self, variables: &[(&str, &str)], arguments: &[S]) -> Finished {
        finished(self.command(variables, arguments).output().unwrap())
    }

    /// The command that runs `tune` in it.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, variables: &[(&str, &str)], arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command
            .args(arguments)
            .current_dir(&self.path)
            .env("TMPDIR", self.join("tmp"))
            .env("HF_HOME", self.join("hf"))
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_TOKEN")
            .env_remove("HF_TOKEN_PATH")
            .env_remove("HUGGING_FACE_HUB_TOKEN")
            .env("HF_HUB_OFFLINE", "1")
            // The hub of the tests is on this machine.
            .env("NO_PROXY", "127.0.0.1")
            .env_remove("RUST_BACKTRACE")
            .env_remove("COLUMNS")
            .env("NO_COLOR", "1")
            .envs(variables.iter().copied());
        command
    }

    /// Runs `tune run` on a recipe, which must succeed.
    pub(crate) fn run(&self, recipe: &Path) -> Finished {
        let finished = self.tune(&["run".as_ref(), recipe.as_os_str()]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What a run of the binary came to.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What a process that has ended came to.
pub(crate) fn finished(output: Output) -> Finished {
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits until something that `child` does has happened.
pub(crate) fn wait_until(child: &mut Child, happened: impl Fn() -> bool) {
    let begin = Instant::now();
    while !happened() {
        assert!(child.try_wait().unwrap().is_none(), "the process ended before it happened");
        assert!(begin.elapsed() < Duration::from_secs(120), "it does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The root of the project.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fixture model's folder.
pub(crate) fn model(name: &str) -> PathBuf {
    project().join("tests/fixtures/models").join(name)
}

/// Sets a key of a model's `config.json`.
pub(crate) fn change_config(folder: &Path, key: &str, value: Value) {
    let path = folder.join("config.json");
    let mut config = read_json(&path);
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// The first rows of the sample data set.
pub(crate) fn sample_rows(count: usize) -> String {
    let text = fs::read_to_string(project().join("datasets/samples/support-tickets.jsonl")).unwrap();
    text.lines().take(count).map(|line| format!("{line}\n")).collect()
}

/// A change of [`recipe_text`] for a model without a chat template: plain texts, see [`write_texts`].
pub(crate) const TEXTS: (&str, &str) = ("datasets", "\n  - path: texts.jsonl\n    type: completion");

/// Writes the texts that [`TEXTS`] names.
pub(crate) fn write_texts(scratch: &Scratch) {
    let row = |index: usize| format!("{{\"text\": \"Ticket {index} asks for help with an order.\"}}\n");
    scratch.write("texts.jsonl", (0..24).map(row).collect::<String>());
}

/// A key of [`recipe_text`] that is left out.
pub(crate) const LEFT_OUT: &str = "<left out>";

/// LoRA on a fixture for four steps of two rows, each key replaced by the last of `changes` that has it.
pub(crate) fn recipe_text(model: &Path, changes: &[(&str, &str)]) -> String {
    let model = model.display().to_string();
    let base = [
        ("base_model", model.as_str()),
        ("adapter", "lora"),
        ("lora_r", "4"),
        ("lora_alpha", "8"),
        ("lora_target_modules", "[q_proj, v_proj]"),
        ("datasets", "\n  - path: rows.jsonl\n    type: chat_template"),
        ("sequence_len", "512"),
        ("micro_batch_size", "2"),
        ("max_steps", "4"),
        ("learning_rate", "1e-2"),
        ("lr_scheduler", "constant"),
        ("save_strategy", "\"no\""),
        ("device", "cpu"),
        ("output_dir", "out"),
    ];
    let replaced = |key: &str| changes.iter().rfind(|(changed, _)| *changed == key).map(|(_, value)| *value);
    let kept = base.iter().map(|(key, value)| (*key, replaced(key).unwrap_or(value)));
    let is_new = |key: &str| base.iter().all(|(known, _)| *known != key);
    let is_last = |at: usize, key: &str| changes[at + 1..].iter().all(|(later, _)| *later != key);
    let added = changes.iter().enumerate().filter(|(at, (key, _))| is_new(key) && is_last(*at, key));
    let added = added.map(|(_, change)| *change);
    let line = |(key, value): (&str, &str)| match value.chars().next() {
        None | Some('\n') => format!("{key}:{value}\n"),
        _ => format!("{key}: {value}\n"),
    };
    kept.chain(added).filter(|(_, value)| *value != LEFT_OUT).map(line).collect()
}

/// The steps, or with `key` `eval_loss` the evaluations, of a run's `metrics.jsonl`.
pub(crate) fn metrics(run: &Path, key: &str) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get(key).is_some()).collect()
}

/// The loss of every step of a run.
pub(crate) fn losses(run: &Path) -> Vec<f64> {
    metrics(run, "loss").iter().map(|line| line["loss"].as_f64().unwrap()).collect()
}

/// A JSON file.
pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A tensor of a safetensors file, as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// The tensors of a safetensors file.
pub(crate) fn tensors(path: &Path) -> BTreeMap<String, Stored> {
    let bytes = fs::read(path).unwrap();
    let stored = |view: safetensors::tensor::TensorView| Stored {
        dtype: format!("{:?}", view.dtype()),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, stored(view))).collect()
}

/// Writes a safetensors file.
pub(crate) fn write_tensors(path: &Path, tensors: &BTreeMap<String, Stored>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, tensor) in tensors {
        let begin = data.len();
        data.extend(&tensor.bytes);
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs::write(path, file).unwrap();
}

impl Stored {
    /// Numbers in f32.
    pub(crate) fn of(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: "F32".to_owned(), shape: shape.to_vec(), bytes }
    }

    /// The numbers of a tensor in f32.
    pub(crate) fn values(&self) -> Vec<f32> {
        assert_eq!(self.dtype, "F32");
        self.bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
}

/// The metadata of a safetensors file.
pub(crate) fn metadata(path: &Path) -> Value {
    header(&fs::read(path).unwrap()).0["__metadata__"].clone()
}

/// The header of a safetensors file and where its data begin.
pub(crate) fn header(bytes: &[u8]) -> (Value, usize) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), 8 + length)
}

fn list(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if path.is_dir() {
            found.push(format!("{name}/"));
            list(root, &path, found);
        } else {
            found.push(format!("{name} ({} bytes)", path.metadata().unwrap().len()));
        }
    }
}
