//! The complete output of the main commands and of each class of refusal, kept as files in `snapshots/`, so that a
//! change of wording is seen in review. docs/style.md says how to accept a change.
//!
//! Figures that depend on the clock, the memory or the processor are replaced by their kind, as `<seconds>`.

use std::fs;

use fancy_regex::Regex;

use crate::harness::{Finished, LEFT_OUT, Scratch, change_config, model, project, sample_rows};

/// Full fine-tuning: the keys of LoRA are left out.
const FULL: [(&str, &str); 4] =
    [("adapter", ""), ("lora_r", LEFT_OUT), ("lora_alpha", LEFT_OUT), ("lora_target_modules", LEFT_OUT)];

/// A run of three steps with a held-out part and checkpoints.
const RUN: [(&str, &str); 5] =
    [("max_steps", "3"), ("save_strategy", "steps"), ("save_steps", "2"), ("val_set_size", "4"), ("eval_steps", "2")];

/// Patterns of what varies, and what stands for it; `^` and `$` are the ends of a line.
const FILTERS: [(&str, &str); 12] = [
    // Steps are shown every few seconds.
    (r"^step (?!1/)\d+/\d+: .* left\n", ""),
    // Libraries that look for a display.
    (r"^error: XDG_RUNTIME_DIR .*\n", ""),
    // Memory is not known on every system.
    (r"\b\d+ tokens/s(, [\d.]+ [KMG]iB)?, lr", "<rate> tokens/s, <size>, lr"),
    (
        r" in [\d.]+ (?:ms|s|min) \(\d+ tokens/s\)(, peak memory .*)?$",
        " in <seconds> (<rate> tokens/s), peak memory <size>",
    ),
    (r", [\d.]+ (?:ms|s|min) left$", ", <seconds> left"),
    (r"(gradient norm )[\d.]+", "$1<norm>"),
    (r"\bloss [\d.]+", "loss <loss>"),
    (r"^(held-out loss +)[\d.]+ before, [\d.]+ after", "$1<loss> before, <loss> after"),
    (r"(logits within )[\d.e-]+", "$1<difference>"),
    (r"^(  (?:before|after) +).*$", "$1<text>"),
    // The memory of threads depends on their number.
    (r"[\d.]+ [KMG]iB(?=.*, temporary )|(?<=, temporary )[\d.]+ [KMG]iB", "<size>"),
    (r"^(cpu        ).*$", "$1<types>"),
];

/// Commands and their output, as a person would see them in a terminal.
struct Transcript {
    scratch: Scratch,
    text: String,
}

impl Transcript {
    /// A transcript in a folder of its own, with the small recipe on `name`, changed.
    fn new(folder: &str, name: &str, changes: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new(&format!("snapshots-{folder}"));
        scratch.recipe("recipe.yaml", &model(name), changes);
        Self { scratch, text: String::new() }
    }

    /// Runs `tune` and adds what it prints.
    fn tune(&mut self, arguments: &[&str]) -> &mut Self {
        let finished = self.scratch.tune(arguments);
        self.add(arguments, finished)
    }

    /// Writes the small recipe again, changed, and checks it.
    fn check(&mut self, title: &str, changes: &[(&str, &str)]) -> &mut Self {
        self.scratch.recipe("recipe.yaml", &model("qwen3"), changes);
        self.titled(title, &["check", "recipe.yaml"])
    }

    /// Runs `tune` and adds what it prints below a title.
    fn titled(&mut self, title: &str, arguments: &[&str]) -> &mut Self {
        self.text += &format!("# {title}\n");
        self.tune(arguments)
    }

    /// Runs `tune` and adds what it prints after the plan.
    fn after_plan(&mut self, title: &str, arguments: &[&str]) -> &mut Self {
        let Finished { code, stdout, stderr } = self.scratch.tune(arguments);
        let (_, rest) = stderr.split_once("\n\n").expect("a blank line below the plan");
        self.text += &format!("# {title}\n");
        self.add(arguments, Finished { code, stdout, stderr: format!("<plan>\n\n{rest}") })
    }

    fn add(&mut self, arguments: &[&str], Finished { code, stdout, stderr }: Finished) -> &mut Self {
        self.text += &format!("$ tune {}\n", self.stable(&arguments.join(" ")));
        self.text += &self.stable(&stdout);
        if !stderr.is_empty() {
            self.text += &format!("--- stderr\n{}", self.stable(&stderr));
        }
        if code != Some(0) {
            self.text += &format!("--- exit code {}\n", code.map_or("none".to_owned(), |code| code.to_string()));
        }
        self.text.push('\n');
        self
    }

    /// A text without what differs from machine to machine and run to run.
    fn stable(&self, text: &str) -> String {
        let scratch = self.scratch.join("").display().to_string();
        let project = project().display().to_string();
        let text = text.replace(&scratch, "").replace(scratch.trim_end_matches('/'), "<scratch>");
        let text = text.replace(&project, "<project>").replace(env!("CARGO_PKG_VERSION"), "<version>");
        FILTERS.iter().fold(text, |text, (pattern, replacement)| {
            Regex::new(&format!("(?m){pattern}")).unwrap().replace_all(&text, *replacement).into_owned()
        })
    }

    /// Compares the transcript with the kept one.
    fn assert(&self, name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, self.text.trim_end()));
    }
}

#[test]
fn help() {
    let mut transcript = Transcript::new("help", "qwen3", &[]);
    transcript.tune(&["--help"]);
    for command in ["run", "resume", "check", "preview", "inspect", "merge", "generate", "schema", "devices"] {
        transcript.tune(&[command, "--help"]);
    }
    transcript.assert("help");
}

#[test]
fn plan_of_lora() {
    let changes = [
        ("val_set_size", "4"),
        ("num_epochs", "2"),
        ("max_steps", LEFT_OUT),
        ("sample_packing", "true"),
        ("gradient_accumulation_steps", "2"),
        ("lr_scheduler", "cosine"),
        ("warmup_steps", "1"),
        ("early_stopping_patience", "2"),
        ("eval_steps", "2"),
        ("save_strategy", "steps"),
        ("save_steps", "2"),
        ("flash_attention", "true"),
    ];
    let mut transcript = Transcript::new("plan-lora", "qwen3", &changes);
    transcript.tune(&["check", "--recipe-only", "recipe.yaml"]).tune(&["check", "recipe.yaml"]).assert("plan_lora");
}

#[test]
fn plan_of_qlora() {
    let changes = [
        ("adapter", "qlora"),
        ("load_in_4bit", "true"),
        ("lora_target_modules", "all-linear"),
        ("gradient_checkpointing", "true"),
        ("optimizer", "adamw_bnb_8bit"),
        ("export", "\n  formats: [adapter, merged]"),
    ];
    Transcript::new("plan-qlora", "llama31", &changes).tune(&["check", "recipe.yaml"]).assert("plan_qlora");
}

#[test]
fn plan_of_full_fine_tuning() {
    let changes = [("neftune_noise_alpha", "5"), ("weight_decay", "0.1"), ("lr_scheduler", "linear")];
    let mut transcript = Transcript::new("plan-full", "gemma3", &[&FULL[..], &changes].concat());
    transcript.tune(&["check", "recipe.yaml"]).assert("plan_full");
}

#[test]
fn a_run_its_resumption_and_its_merge() {
    let mut transcript = Transcript::new("run", "qwen3", &RUN);
    transcript.tune(&["run", "recipe.yaml"]).assert("run");
    transcript.text.clear();
    transcript.after_plan("a run that is done", &["resume", "out"]);
    fs::remove_dir_all(transcript.scratch.join("out/checkpoint-3")).unwrap();
    transcript.after_plan("a run that was interrupted", &["resume", "out"]).assert("resume");
    transcript.text.clear();
    transcript.tune(&["merge", "out/adapter", "--out", "merged"]).assert("merge");
    transcript.text.clear();
    fs::write(transcript.scratch.join("out/checkpoint-3/manifest.json"), "{").unwrap();
    transcript
        .titled("a folder that exists", &["merge", "out/adapter", "--out", "merged"])
        .titled("no adapter", &["merge", "merged", "--out", "again"])
        .titled("the recipe has changed", &["resume", "out", "--set", "max_steps=4"])
        .titled("no folder", &["resume", "nothing"])
        .titled("no run", &["resume", "merged"])
        .after_plan("damaged checkpoint", &["resume", "out"]);
    fs::remove_dir_all(transcript.scratch.join("out/checkpoint-2")).unwrap();
    fs::remove_dir_all(transcript.scratch.join("out/checkpoint-3")).unwrap();
    transcript.after_plan("no checkpoint", &["resume", "out"]);
    transcript.scratch.recipe("other.yaml", &model("qwen3"), &[&RUN[..], &[("learning_rate", "1e-3")]].concat());
    transcript.titled("folder of another run", &["run", "other.yaml"]);
    transcript.scratch.write("papers/thesis.tex", "years of work");
    transcript.titled("folder of other files", &["run", "recipe.yaml", "--set", "output_dir=papers"]);
    transcript.assert("refused_run");
}

#[test]
fn examples_and_models() {
    let mut transcript = Transcript::new("preview", "qwen3", &[("val_set_size", "4")]);
    transcript.tune(&["preview", "recipe.yaml", "--rows", "2"]).tune(&[
        "preview",
        "recipe.yaml",
        "--line",
        "1",
        "--json",
    ]);
    transcript.titled("a line that is not there", &["preview", "recipe.yaml", "--line", "25"]).assert("preview");
    transcript.text.clear();
    for name in ["qwen3", "gpt_oss", "deepseek_v3"] {
        let folder = model(name).display().to_string();
        transcript.tune(&["inspect", &folder]);
    }
    transcript.titled("no model", &["inspect", "nobody/nothing"]).assert("inspect");
}

#[test]
fn devices_of_which_the_cpu_is_one() {
    let mut transcript = Transcript::new("devices", "qwen3", &[]);
    let Finished { code, stdout, .. } = transcript.scratch.tune(&["devices"]);
    let cpu = stdout.lines().filter(|line| line.starts_with("cpu ")).map(|line| format!("{line}\n")).collect();
    transcript.add(&["devices"], Finished { code, stdout: cpu, stderr: String::new() });
    transcript.titled("unknown device", &["devices", "--measure", "toaster"]).assert("devices");
}

#[test]
fn refused_recipes() {
    let mut transcript = Transcript::new("recipes", "qwen3", &[]);
    transcript
        .check("unknown key", &[("learning_rat", "1e-3")])
        .check("key of Axolotl that is not supported", &[("rl", "dpo")])
        .check("wrong value", &[("lr_scheduler", "cosin")])
        .check("wrong type", &[("lora_r", "many")])
        .check(
            "several problems",
            &[
                ("micro_batch_size", "0"),
                ("learning_rate", "-1"),
                ("datasets", "\n  - path: rows.jsonl\n    tpye: alpaca"),
            ],
        )
        .check("contradiction", &[("adapter", "qlora")])
        .check("target that matches nothing", &[("lora_target_modules", "[q_proj, v_porj]")])
        .check("pattern that matches nothing", &[&FULL[..], &[("unfrozen_parameters", "[layers.9]")]].concat())
        .check("export that does not fit", &[&FULL[..], &[("export", "\n  formats: [adapter]")]].concat())
        .check("unknown device", &[("device", "toaster")])
        .check("more memory than allowed", &[("preflight", "{max_memory: 1MiB}")]);
    transcript.scratch.recipe("recipe.yaml", &model("qwen3"), &[]);
    transcript
        .titled("unknown key in --set", &["check", "recipe.yaml", "--set", "max_step=3"])
        .titled("wrong value in --set", &["check", "recipe.yaml", "--set", "max_steps=some"])
        .titled("--set without a value", &["check", "recipe.yaml", "--set", "max_steps"])
        .titled("no recipe", &["check", "recipes.yaml"]);
    transcript.scratch.write("recipe.yaml", "base_model: [a\nadapter: lora\n");
    transcript.titled("broken YAML", &["check", "recipe.yaml"]);
    transcript.assert("refused_recipe");
}

#[test]
fn refused_models() {
    let mut transcript = Transcript::new("models", "qwen3", &[]);
    transcript.check("missing base model", &[("base_model", "nobody/nothing")]);
    let folder = transcript.scratch.copy_model("qwen3");
    let base = folder.display().to_string();
    let config = fs::read(folder.join("config.json")).unwrap();
    let weights = fs::read(folder.join("model.safetensors")).unwrap();
    transcript.scratch.write("qwen3/config.json", &config[..40]);
    transcript.check("broken config.json", &[("base_model", &base)]);
    for (title, key, value) in [
        ("unknown key of config.json", "logit_bias_scale", serde_json::json!(2.0)),
        ("unknown value in config.json", "hidden_act", serde_json::json!("tanh_of_doom")),
        ("unknown family", "model_type", serde_json::json!("zebra")),
        ("shape that contradicts config.json", "intermediate_size", serde_json::json!(113)),
    ] {
        transcript.scratch.write("qwen3/config.json", &config);
        change_config(&folder, key, value);
        transcript.check(title, &[("base_model", &base)]);
    }
    transcript.scratch.write("qwen3/config.json", &config);
    transcript.scratch.write("qwen3/model.safetensors", &weights[..weights.len() - 1000]);
    transcript.check("truncated weights", &[("base_model", &base)]);
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    transcript.check("no weights", &[("base_model", &base)]);
    transcript.scratch.write("qwen3/model.safetensors", &weights);
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    transcript.check("no tokenizer", &[("base_model", &base)]);
    transcript.assert("refused_model");
}

#[test]
fn refused_data() {
    let mut transcript = Transcript::new("data", "qwen3", &[]);
    transcript
        .check("missing file", &[("datasets", "\n  - path: row.jsonl")])
        .check("unknown type", &[("datasets", "\n  - path: rows.jsonl\n    type: alpacca")])
        .check("all rows held out", &[("val_set_size", "24")])
        .check("all rows too long", &[("sequence_len", "32")])
        .check(
            "nothing to train on",
            &[("datasets", "\n  - path: rows.jsonl\n    type: chat_template\n    roles_to_train: [tool]")],
        )
        .check(
            "template that does not parse",
            &[("chat_template", "jinja"), ("chat_template_jinja", "\"{% for m in messages %}\"")],
        );
    let role = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "narrator", "content": 3}]}"#;
    for (title, row) in [
        ("broken JSON", "{\"messages\": ["),
        ("wrong field", "{\"message\": []}"),
        ("wrong content", role),
        ("row that is a list", "[1, 2]"),
    ] {
        transcript.scratch.write("rows.jsonl", sample_rows(2) + row + "\n");
        transcript.check(title, &[]);
    }
    let turns = |answer: &str| format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"a\"}}, {answer}]}}\n");
    for (title, row) in [
        ("unknown role", turns(r#"{"role": "narrator", "content": "b"}"#)),
        ("calls that are no JSON", turns(r#"{"role": "assistant", "tool_calls": "f(1)"}"#)),
        ("a question in a column", "{\"question\": \"a\", \"answer\": \"b\"}\n".to_owned()),
    ] {
        transcript.scratch.write("rows.jsonl", row);
        transcript.check(title, &[("datasets", "\n  - path: rows.jsonl")]);
    }
    let reasoning = turns(r#"{"role": "assistant", "content": "b", "reasoning_content": "c"}"#);
    transcript.scratch.write("rows.jsonl", reasoning);
    transcript.check("reasoning that is not shown", &[("chat_template", "chatml")]);
    transcript.scratch.write("rows.jsonl", "");
    transcript.check("no rows", &[]);
    transcript.assert("refused_data");
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_device_that_is_not_in_the_build() {
    let mut transcript = Transcript::new("device", "qwen3", &[]);
    transcript.check("device that is not in the build", &[("device", "cuda")]).assert("refused_device");
}
