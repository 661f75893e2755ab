//! YAML's habits and limits, variables, overrides, own sections and places.

use std::path::{Path, PathBuf};

use adapters::Targets;
use datasets::HeldOut;

use super::tests::{BASE, Case, assert_problem, bad, good, problems, refused, with};
use super::{Cadence, ChatTemplate, MicroBatchSize, Problems, Recipe, Toggle};
use crate::device::{DeviceChoice, FloatDType};

/// The names of the export formats.
fn format_names(recipe: &Recipe) -> Vec<&str> {
    recipe.export.formats.iter().map(|format| format.name).collect()
}

/// Each text, on its own, has this as its first problem.
fn refused_text(cases: &[Case]) {
    for (text, at, message, hint) in cases {
        let first = problems(text, &[]).remove(0);
        assert_problem(&first, &format!("dir/recipe.yaml:{at}"), message, hint);
    }
}

/// Each override, on the required lines, has this problem.
fn refused_overrides(cases: &[(&str, &str, &str)]) {
    for (text, message, hint) in cases {
        let first = problems(BASE, &[text]).remove(0);
        assert_problem(&first, &format!("--set {text}"), message, hint);
    }
}

#[test]
fn circulating_yaml_habits_are_understood() {
    let recipe = good(
        "weight_decay: 2e-5\nmax_steps: '10'\nsequence_len: 4_096\nnum_epochs: 3.\nadam_epsilon: 1E-8\nmicro_batch_size: 2.0\n",
    );
    assert_eq!((*recipe.weight_decay, *recipe.max_steps, *recipe.sequence_len), (2e-5, Some(10), Some(4096)));
    assert_eq!(
        (*recipe.num_epochs, *recipe.adam_epsilon, *recipe.micro_batch_size),
        (3.0, Some(1e-8), MicroBatchSize::Rows(2))
    );
    for (text, flag) in [("yes", true), ("No", false), ("on", true), ("OFF", false), ("True", true), ("'false'", false)]
    {
        assert_eq!(good(&format!("sample_packing: {text}\n")).sample_packing, flag, "{text}");
    }
    for text in ["no", "'no'", "off", "False", "false", "No"] {
        assert_eq!(good(&format!("save_strategy: {text}\n")).save_strategy, Some(Cadence::No), "{text}");
    }
    for text in ["", "null", "~", "''", "NULL # nothing"] {
        let recipe = good(&format!("lora_r: {text}\nadapter: {text}\nspecial_tokens: {text}\neval_strategy: {text}\n"));
        assert_eq!((*recipe.lora_r, *recipe.adapter, *recipe.eval_strategy), (8, None, None), "{text}");
        assert!(!recipe.lora_r.is_set(), "{text}");
    }
    assert_eq!(good("bf16: Auto\n").bf16, Some(Toggle::Auto));
    assert_eq!(good("val_set_size: 100\n").val_set_size, Some(HeldOut::Count(100)));
    assert_eq!(good("\u{20}\n# a comment\noutput_dir: out # trailing\n").output_dir.as_deref(), Some("out"));
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = "base_model: &model m\ntokenizer_config: *model\nlearning_rate: 1\ndatasets:\n  - &first {path: a, type: alpaca}\n\
                \u{20} - <<: *first\n    path: b\n";
    let recipe = with(text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(recipe.tokenizer_config.as_deref(), Some("m"));
    assert_eq!(*recipe.datasets[1].path, "b");
    assert_eq!(recipe.datasets[1].source.format, Some("alpaca".into()));
}

#[test]
fn closing_brackets_may_stand_at_the_column_of_their_key() {
    let recipe = good("lora_r: # none\neot_tokens: [\n  'a',\n  'b',\n]\nexport: {\n  dtype: f16\n}\nseed: 5\n");
    assert_eq!(*recipe.eot_tokens, ["a", "b"]);
    assert_eq!((*recipe.export.dtype, *recipe.seed), (Some(FloatDType::F16), 5));
    assert_eq!(recipe.seed.place().to_string(), "dir/recipe.yaml:12:7");
    refused(&[("export: {\n  dtype: f16\n}}\n", "6:2", "not valid YAML", "")]);
}

#[test]
fn variables_come_from_the_environment() {
    let recipe = good(
        "output_dir: ${HOME_MODEL}/out\nmax_steps: ${STEPS}\nseed: ${NOPE:-3}\nrevision_of_model: ${EMPTY:-main}\n",
    );
    assert_eq!(recipe.output_dir.as_deref(), Some("models/home/out"));
    assert_eq!((*recipe.max_steps, *recipe.seed), (Some(7), 3));
    assert_eq!(recipe.revision_of_model.as_deref(), Some("main"));
    assert_eq!(good("output_dir: $${STEPS}${{x}}\n").output_dir.as_deref(), Some("${STEPS}${{x}}"));
    refused(&[
        ("output_dir: ${NOPE}\n", "4:13", "`NOPE` is not set", "${NOPE:-value}"),
        ("output_dir: ${STEPS-1}\n", "4:13", "not a complete variable", ""),
    ]);
}

#[test]
fn a_variable_that_is_named_like_a_secret_is_not_even_looked_up() {
    let asked = std::cell::RefCell::new(Vec::new());
    let env = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        Some("hunter2".to_owned())
    };
    for name in ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "db_password", "WANDB_API_KEY", "AUTH"] {
        let text = format!("{BASE}output_dir: runs/${{{name}:-x}}\n");
        let Err(problems) = Recipe::from_text(Path::new("r.yaml"), &text, &[], &env) else { panic!("{name} is read") };
        assert!(
            problems.to_string().contains(&format!("r.yaml:4:13: the environment variable `{name}` is named like"))
        );
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    }
    assert!(asked.borrow().iter().all(|name| name == "HOME"), "only the home folder is: {asked:?}");
    let text = format!("{BASE}output_dir: runs/${{TOKENIZER}}/${{MONKEY}}\n");
    assert!(Recipe::from_text(Path::new("r.yaml"), &text, &[], &env).is_ok());
}

#[test]
fn text_that_is_no_recipe_is_refused_with_its_place() {
    refused_text(&[
        ("a: 1\nb:\n\t- x\n", "3:1", "not valid YAML", "spaces"),
        ("a: 'x\n", "1:4", "not valid YAML", "quotes"),
        ("seed: 1\nseed: 2\n", "2:1", "`seed` is written twice, first on line 1", "keep one"),
        ("seed: 1\n---\nseed: 2\n", "2:1", "second document", "one document"),
        ("- a\n", "1:1", "a recipe is a mapping", "key: value"),
        ("just words\n", "1:1", "a recipe is a mapping", "key: value"),
        ("{{a: b}: c}\n", "1:2", "where a key is expected", ""),
        ("a: !python/object:x 1\n", "1:4", "tag", "remove"),
        ("a: &x [*x]\n", "1:8", "inside of what it repeats", ""),
        ("a: *nowhere\n", "1:4", "not valid YAML", ""),
    ]);
    assert!(problems("", &[]).iter().any(|problem| problem.message.contains("`base_model` is missing")));
}

#[test]
fn over_large_deep_and_exploding_texts_are_refused() {
    let first = |text: &str| problems(text, &[]).remove(0);
    assert!(first(&"a".repeat((1 << 20) + 1)).message.contains("larger than 1024 KiB"));
    assert!(first(&format!("a: {}", "[".repeat(40))).message.contains("deeper than 32"));
    assert!(first(&"[".repeat(1 << 20)).message.contains("recursion limit"));
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, last) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"), ("f", "e")] {
        bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{last}"); 10].join(", ")));
    }
    assert!(first(&bomb).message.contains("aliases make this recipe too large"));
    let copies = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 50].join(", "));
    assert!(first(&copies).message.contains("aliases make this recipe too large"));
    let list = format!("a: [{}]\n", vec!["x"; 20_000].join(","));
    assert!(first(&list).message.contains("more than 10000 values"));
}

#[test]
fn overrides_change_create_and_are_named_as_places() {
    let overrides = [
        "adapter=lora",
        "lora_target_modules=[q_proj, v_proj]",
        "datasets.0.path=b.jsonl",
        "datasets.1.path=c.jsonl",
        "export.formats.0=merged",
        "max_steps=1",
        "max_steps=10",
    ];
    let recipe = with(BASE, &overrides).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(recipe.lora_target_modules, Some(Targets::Names(vec!["q_proj".to_owned(), "v_proj".to_owned()])));
    assert_eq!((recipe.datasets[0].path.as_str(), recipe.datasets[1].path.as_str()), ("b.jsonl", "c.jsonl"));
    assert_eq!(format_names(&recipe), ["merged"]);
    assert_eq!(recipe.max_steps, Some(10));
    assert_eq!(recipe.max_steps.place().to_string(), "--set max_steps=10");
    assert_eq!(recipe.datasets[0].path.place().to_string(), "--set datasets.0.path=b.jsonl");
    assert_eq!(recipe.text, BASE);

    refused_overrides(&[
        ("lora_rr=8", "unknown key `lora_rr`", "`lora_r`"),
        ("fp16=half", "`fp16`", "true, false or auto"),
        ("rl=dpo", "`rl` is an Axolotl key", ""),
        ("datasets.5.path=x", "a list with 1 entries", "positions"),
        ("base_model.x=1", "holds a single value", ""),
        ("max_steps", "`key=value`", "--set max_steps=10"),
        ("a..b=1", "is not a key", ""),
        ("seed=[1", "not valid YAML", ""),
    ]);
    assert_eq!(with(BASE, &["datasets.0.type="]).map(|recipe| recipe.datasets[0].source.format.clone()), Ok(None));
}

#[test]
fn own_sections_and_templates_are_read() {
    let recipe = good(
        "device: cuda:1\nexport:\n  formats: [adapter, merged]\n  dtype: bfloat16\nchat_template: tokenizer_default_fallback_chatml\n",
    );
    assert_eq!(recipe.device, DeviceChoice::Cuda(1));
    assert_eq!(format_names(&recipe), ["adapter", "merged"]);
    assert_eq!(recipe.export.dtype, Some(FloatDType::BF16));
    assert_eq!(recipe.chat_template, Some(ChatTemplate::TokenizerDefaultOr("chatml".to_owned())));
    let devices = [
        ("auto", DeviceChoice::Auto),
        ("cpu", DeviceChoice::Cpu),
        ("cuda", DeviceChoice::Cuda(0)),
        ("vulkan:cpu", DeviceChoice::VulkanCpu),
    ];
    for (text, device) in devices {
        assert_eq!(good(&format!("device: {text}\n")).device, device);
    }
    for text in ["cpu:1", "cuda:x", "tpu", "[]"] {
        assert!(bad(&format!("device: {text}\n")).hint.contains("accepted: auto, cpu, cuda"));
    }
}

#[test]
fn targets_are_names_an_expression_or_all() {
    let targets =
        |text: &str| (*good(&format!("adapter: lora\nlora_target_modules: {text}\n")).lora_target_modules).clone();
    assert_eq!(targets("all-linear"), Some(Targets::AllLinear));
    assert_eq!(targets("'.*_proj'"), Some(Targets::Pattern(".*_proj".to_owned())));
    assert_eq!(targets("[q_proj]"), Some(Targets::Names(vec!["q_proj".to_owned()])));
    refused(&[(
        "adapter: lora\nlora_target_modules: [all-linear]\n",
        "5:23",
        "cannot be an entry of a list",
        "all-linear",
    )]);
    assert_eq!(
        *good("adapter: lora\nlora_target_linear: true\npeft_layers_to_transform: 3\n").peft_layers_to_transform,
        Some(vec![3])
    );
}

#[test]
fn values_know_their_places_and_fall_back_to_what_encloses_them() {
    let recipe = good("lora_r:\nexport: {formats: [adapter]}\neot_tokens:\n  - a\n  - b\n");
    let places = [
        (recipe.base_model.place(), "dir/recipe.yaml:1:13"),
        (recipe.lora_r.place(), "dir/recipe.yaml:4:1"),
        (recipe.datasets.place(), "dir/recipe.yaml:3:1"),
        (recipe.datasets[0].path.place(), "dir/recipe.yaml:3:19"),
        (recipe.datasets[0].chat_template.place(), "dir/recipe.yaml:3:12"),
        (recipe.export.formats.place(), "dir/recipe.yaml:5:10"),
        (recipe.export.formats.item(0), "dir/recipe.yaml:5:20"),
        (recipe.export.dtype.place(), "dir/recipe.yaml:5:1"),
        (recipe.eot_tokens.place(), "dir/recipe.yaml:6:1"),
        (recipe.eot_tokens.item(1), "dir/recipe.yaml:8:5"),
        (recipe.seed.place(), "dir/recipe.yaml"),
    ];
    for (place, expected) in places {
        assert_eq!(place.to_string(), expected);
    }
}

#[test]
fn relative_paths_are_looked_for_beside_the_recipe_first() {
    let folder = std::env::temp_dir().join(format!("tune-recipe-{}", std::process::id()));
    let made = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join("rows.jsonl"), "{}"));
    made.expect("the temporary folder is writable");
    let path = folder.join("recipe.yaml");
    std::fs::write(&path, BASE).expect("the temporary folder is writable");
    let recipe = Recipe::load(&path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(recipe.locate("rows.jsonl"), folder.join("rows.jsonl"));
    assert_eq!(recipe.locate("elsewhere.jsonl"), PathBuf::from("elsewhere.jsonl"));
    assert_eq!(recipe.locate("/absolute.jsonl"), PathBuf::from("/absolute.jsonl"));

    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("the temporary folder is writable");
    let Err(Problems(found)) = Recipe::load(&path, &[]) else { panic!("accepted") };
    assert!(found[0].message.contains("larger than"));
    std::fs::write(&path, b"seed: 1\n\xff\xfe\n").expect("the temporary folder is writable");
    let Err(Problems(found)) = Recipe::load(&path, &[]) else { panic!("accepted") };
    assert!(found[0].message.contains("line 2 is not valid UTF-8"));
    let Err(Problems(found)) = Recipe::load(&folder.join("missing.yaml"), &[]) else { panic!("accepted") };
    assert!(found[0].message.contains("cannot be read"));
    assert!(Recipe::load(&folder, &[]).is_err());
    std::fs::remove_dir_all(&folder).expect("the folder was made above");
}

#[test]
fn no_text_makes_it_panic() {
    const PIECES: &[&str] = &[
        "base_model",
        "datasets",
        "lora_r",
        ": ",
        ":",
        "- ",
        "\n",
        "  ",
        "\t",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a ",
        "*a",
        "<<",
        "!x ",
        "|",
        ">",
        "'",
        "\"",
        "#",
        "${",
        "}",
        "---",
        "...",
        "%",
        "?",
        "@",
        "1e-4",
        "no",
        "é",
        "\u{feff}",
        "\0",
        "\r",
        "path",
        "export",
        "=",
        ".",
    ];
    // A small generator with a fixed seed, so that a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..3000 {
        let text: String = (0..next(40)).map(|_| PIECES[next(PIECES.len())]).collect();
        let set: String = (0..next(8)).map(|_| PIECES[next(PIECES.len())]).collect();
        if let Err(Problems(found)) = with(&text, &[&set]) {
            assert!(!found.is_empty(), "{text:?}");
        }
    }
}
