//! Files as people have them, through the binary: what is no matter is read, and what is wrong is named where it is.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Finished, Scratch, model, read_json};

/// `tune preview` on a file of these bytes, with further keys of its data set.
fn preview(scratch: &Scratch, name: &str, bytes: &[u8], keys: &str, arguments: &[&str]) -> Finished {
    scratch.write(name, bytes);
    let datasets = format!("\n  - path: {name}\n{keys}");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("datasets", datasets.as_str())]);
    let recipe = recipe.display().to_string();
    let arguments: Vec<&str> = ["preview", &recipe].into_iter().chain(arguments.iter().copied()).collect();
    scratch.tune(&arguments)
}

/// The examples that `tune preview --json` shows, each as its place and its text.
fn examples(finished: &Finished) -> Vec<(String, String)> {
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let shown: Value = serde_json::from_str(&finished.stdout).unwrap();
    let text = |example: &Value| -> String {
        example["pieces"].as_array().unwrap().iter().map(|piece| piece["text"].as_str().unwrap()).collect()
    };
    let place = |example: &Value| example["location"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    shown["examples"].as_array().unwrap().iter().map(|example| (place(example), text(example))).collect()
}

fn places(finished: &Finished) -> Vec<String> {
    examples(finished).into_iter().map(|(place, _)| place).collect()
}

/// Asserts that the input is refused with a text that holds all of these.
fn refused(finished: &Finished, wanted: &[&str]) {
    assert_eq!(finished.code, Some(2), "{}{}", finished.stdout, finished.stderr);
    for text in wanted {
        assert!(finished.stderr.contains(text), "wanted {text}\n{}", finished.stderr);
    }
}

const CHAT: &str = "    type: chat_template\n";
const ALPACA: &str = "    type: alpaca\n";
const HI: &str = r#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]"#;

#[test]
fn lines_of_a_table_are_those_of_an_editor_and_line_shows_the_row_that_begins_there() {
    let scratch = Scratch::new("reading-lines");
    for (name, ending) in [("lf.csv", "\n"), ("crlf.csv", "\r\n"), ("cr.csv", "\r")] {
        let text = "instruction,input,output\nA,,B\n\nC,,\"D\nd\"\nE,,F\n".replace('\n', ending);
        let shown = preview(&scratch, name, text.as_bytes(), ALPACA, &["--json"]);
        assert_eq!(places(&shown), [2, 4, 6].map(|line| format!("{name}:{line}")));
        let shown = preview(&scratch, name, text.as_bytes(), ALPACA, &["--json", "--line", "6"]);
        let [(_, example)] = &examples(&shown)[..] else { panic!("one example") };
        assert!(example.contains("### Instruction:\nE\n"), "{example}");
        let shown = preview(&scratch, name, text.as_bytes(), ALPACA, &["--line", "5"]);
        refused(&shown, &["no training example begins on line `5`", "those around it begin on the lines 4 and 6"]);
        let bad = format!("{text}G,,H,I{ending}");
        let shown = preview(&scratch, name, bad.as_bytes(), ALPACA, &[]);
        refused(&shown, &[&format!("{name}:7: the record has 4 fields")]);
    }
}

#[test]
fn a_table_with_semicolons_is_read_and_the_plan_says_so() {
    let scratch = Scratch::new("reading-semicolons");
    let shown = preview(&scratch, "rows.csv", b"instruction;output\r\nA;\"B;b\"\r\n", ALPACA, &["--json"]);
    assert!(examples(&shown)[0].1.contains("### Response:\nB;b"), "{}", shown.stdout);
    let shown = preview(&scratch, "rows.csv", b"instruction;output\r\nA;\"B;b\"\r\n", ALPACA, &[]);
    assert!(shown.stdout.contains("rows.csv: its fields are separated by `;`"), "{}", shown.stdout);
}

#[test]
fn a_file_of_one_object_is_one_row() {
    let scratch = Scratch::new("reading-one-row");
    let rows = [
        (
            r#"{"prompt": [{"role": "user", "content": "Sky?"}], "completion": [{"role": "assistant", "content": "Blue."}]}"#,
            "",
        ),
        (
            r#"{"turns": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}]}"#,
            "    field_messages: turns\n    type: chat_template\n",
        ),
    ];
    for (row, keys) in rows {
        let shown = preview(&scratch, "one.jsonl", row.as_bytes(), keys, &["--json"]);
        let [(place, text)] = &examples(&shown)[..] else { panic!("one example") };
        assert_eq!(place, "one.jsonl:1");
        assert!(text.contains("Sky?") && text.contains("Blue."), "{text}");
    }
    let wrapped = format!("{{\"version\": 1, \"data\": [{{\"messages\": {HI}}}]}}");
    let hint = "hint: the rows are in `data`: write that list alone into the file";
    refused(&preview(&scratch, "one.json", wrapped.as_bytes(), "", &[]), &["no format fits the columns", hint]);
    refused(&preview(&scratch, "one.json", wrapped.as_bytes(), CHAT, &[]), &["the field `messages` is missing", hint]);
}

#[test]
fn numbers_that_only_python_writes_are_no_matter_unless_they_are_read() {
    let scratch = Scratch::new("reading-nan");
    let row = format!("{{\"messages\": {HI}, \"score\": NaN, \"other\": [Infinity, -Infinity]}}\n");
    let shown = preview(&scratch, "rows.jsonl", row.repeat(2).as_bytes(), CHAT, &["--json"]);
    assert_eq!(places(&shown), ["rows.jsonl:1", "rows.jsonl:2"]);
    // pandas writes a missing property of a message so.
    let row = row.replace("\"content\": \"Ho\"", "\"content\": \"Ho\", \"name\": NaN");
    assert_eq!(places(&preview(&scratch, "rows.jsonl", row.as_bytes(), CHAT, &["--json"])), ["rows.jsonl:1"]);
    for (good, bad, wanted) in [
        ("\"Ho\"", "NaN", "rows.jsonl:1: the field `messages[1].content` is `NaN`, accepted is a string"),
        ("\"role\": \"assistant\"", "\"role\": \"assistant\", \"weight\": NaN", "`messages[1].weight` is `NaN`"),
        (
            "\"content\": \"Ho\"",
            "\"content\": \"Ho\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": Infinity}}}]",
            "the field `messages[1].tool_calls` holds `Infinity`, which is not JSON",
        ),
    ] {
        let row = format!("{{\"messages\": {HI}}}\n").replace(good, bad);
        refused(&preview(&scratch, "rows.jsonl", row.as_bytes(), CHAT, &[]), &[wanted, "\nhint: "]);
    }
    let row = b"{\"instruction\": \"A\", \"input\": NaN, \"output\": \"B\"}\n";
    let wanted = "the field `input` is `NaN`, accepted is a string";
    refused(&preview(&scratch, "rows.jsonl", row, ALPACA, &[]), &[wanted]);
}

#[test]
fn a_type_that_does_not_fit_the_rows_is_answered_with_the_one_that_does() {
    let scratch = Scratch::new("reading-type");
    let row = format!("{{\"messages\": {HI}}}\n");
    let shown = preview(&scratch, "rows.jsonl", row.as_bytes(), "    type: input_output\n", &[]);
    refused(&shown, &["the field `segments` is missing", "hint: the row has `messages`: set `type: chat_template`"]);
    let row = b"{\"prompt\": \"A\", \"completion\": \"B\"}\n";
    let shown = preview(&scratch, "rows.jsonl", row, ALPACA, &[]);
    refused(
        &shown,
        &["`instruction` is missing", "the row has `prompt` and `completion`: set `type: prompt_completion`"],
    );
    for key in ["field_prompt", "field_completion"] {
        let shown = preview(&scratch, "rows.jsonl", row, &format!("    {key}: a\n"), &[]);
        refused(&shown, &[key, "`field_instruction` and `field_output`"]);
    }
    for (key, meant) in
        [("field_question", "field_instruction"), ("field_answer", "field_output"), ("field_text", "field")]
    {
        let shown = preview(&scratch, "rows.jsonl", row, &format!("    {key}: a\n"), &[]);
        refused(&shown, &[&format!("unknown key `datasets.0.{key}`"), &format!("hint: did you mean `{meant}`?")]);
    }
}

#[test]
fn paths_that_are_not_there_are_answered_with_what_is() {
    let scratch = Scratch::new("reading-paths");
    let rows = format!("{{\"messages\": {HI}}}\n");
    scratch.write("recipes/tickets.jsonl", &rows);
    scratch.write("recipes/data/train.jsonl", &rows);
    let check = |path: &str| {
        let datasets = format!("\n  - path: {path}");
        let recipe = scratch.recipe("recipes/recipe.yaml", &model("qwen3"), &[("datasets", &datasets)]);
        scratch.tune(&["check".as_ref(), recipe.as_os_str()])
    };
    for (path, hint) in [
        ("ticket.jsonl", "did you mean `tickets.jsonl`?"),
        ("dta/train.jsonl", "did you mean `data/train.jsonl`?"),
        ("data/trian.jsonl", "did you mean `data/train.jsonl`?"),
        ("recipes/dta", "did you mean `recipes/data`?"),
        ("recipes/tickets", "did you mean `recipes/tickets.jsonl`?"),
        ("nothing/at/all.jsonl", "the directory `nothing/at` does not exist either"),
        ("https://huggingface.co/datasets/openai/gsm8k", "write `path: openai/gsm8k`"),
        ("https://example.org/rows.jsonl", "download the file and name it: `path: rows.jsonl`"),
    ] {
        refused(&check(path), &["recipe.yaml:", &format!("hint: {hint}")]);
    }
    assert_eq!(check("data").code, Some(0));
    // Folders are not searched: what lies deeper is named.
    scratch.write("recipes/data/more/rows.jsonl", &rows);
    scratch.write("recipes/data/run/run.json", "{}");
    scratch.write("recipes/data/run/metrics.jsonl", "{}");
    let partly = check("data");
    assert_eq!(partly.code, Some(0), "{}", partly.stderr);
    let plan = partly.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plan.contains("data: 1 data file in its folders is not read, such as `more/rows.jsonl`"), "{plan}");
    fs::remove_file(scratch.join("recipes/data/train.jsonl")).unwrap();
    fs::create_dir_all(scratch.join("recipes/deep")).unwrap();
    fs::rename(scratch.join("recipes/data"), scratch.join("recipes/deep/inner")).unwrap();
    refused(&check("deep"), &["holds no data files", "hint: its folders hold some, such as `inner/more/rows.jsonl`"]);
}

#[test]
fn a_tilde_is_the_home_folder_in_recipes_and_arguments() {
    let scratch = Scratch::new("reading-home");
    scratch.write("home/data/rows.jsonl", format!("{{\"messages\": {HI}}}\n").repeat(8));
    let base = scratch.join("home/base");
    fs::create_dir_all(&base).unwrap();
    for entry in fs::read_dir(model("qwen3")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, base.join(path.file_name().unwrap())).unwrap();
    }
    let changes = [
        ("base_model", "~/base"),
        ("datasets", "\n  - path: ~/data/rows.jsonl"),
        ("output_dir", "~/out"),
        ("dataset_prepared_path", "~/prepared"),
        ("max_steps", "1"),
    ];
    scratch.recipe("home/recipe.yaml", &base, &changes);
    let home = scratch.join("home").display().to_string();
    let tune = |arguments: &[&str]| {
        let finished = scratch.tune_with(&[("HOME", &home)], arguments);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.stderr);
    };
    tune(&["run", "~/recipe.yaml"]);
    tune(&["merge", "~/out/adapter", "--base=~/base", "--out=~/merged"]);
    tune(&["inspect", "~/merged"]);
    tune(&["generate", "~/merged", "--prompt", "Hi", "--max-tokens", "1"]);
    tune(&["check", "~/recipe.yaml", "--set", "output_dir=~/other"]);
    assert!(scratch.join("home/prepared").is_dir() && !scratch.join("~").exists());
    assert!(!scratch.join("home/~").exists());
}

#[test]
fn ids_beyond_the_embedding_are_refused_in_the_row_that_has_them_and_nowhere_else() {
    let scratch = Scratch::new("reading-embedding");
    let folder = scratch.copy_model("gemma3");
    let path = folder.join("tokenizer.json");
    let mut tokenizer = read_json(&path);
    let token = json!({
        "id": 384, "content": "<image_soft_token>", "special": true, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false,
    });
    tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
    fs::write(path, tokenizer.to_string()).unwrap();
    let check = |text: &str| {
        let good = format!("{{\"messages\": {HI}}}\n");
        scratch.write("rows.jsonl", good.repeat(2) + &good.replace("Hi", text));
        let recipe = scratch.recipe("recipe.yaml", &folder, &[]);
        scratch.tune(&["check".as_ref(), recipe.as_os_str()])
    };
    let good = check("Hey");
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    let note = "the tokenizer has 1 id beyond the 384 rows of the model's embedding (`<image_soft_token>`)";
    assert!(good.stdout.contains(note), "{}", good.stdout);
    let bad = "rows.jsonl:3: the row has the token `<image_soft_token>` with the id 384, but the model's embedding has only 384 rows";
    refused(&check("a <image_soft_token>"), &[bad, "\nhint: "]);
    let generated = scratch.tune(&["generate", "gemma3", "--prompt", "a <image_soft_token>"]);
    refused(&generated, &["the tokenizer has the id 384, but the model's embedding has only 384 rows"]);
    assert_eq!(scratch.tune(&["generate", "gemma3", "--prompt", "a", "--max-tokens", "1"]).code, Some(0));
}

#[test]
fn rows_in_order_hold_out_the_last_ones() {
    let scratch = Scratch::new("reading-held-out");
    let row = |number: usize| format!("{{\"text\": \"Row {number}.\"}}\n");
    scratch.write("rows.jsonl", (1..=10).map(row).collect::<String>());
    let changes =
        [("datasets", "\n  - path: rows.jsonl"), ("val_set_size", "0.15"), ("shuffle_merged_datasets", "false")];
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &changes).display().to_string();
    let shown = scratch.tune(&["preview", &recipe, "--json", "--rows", "20"]);
    assert_eq!(places(&shown), (1..=8).map(|line| format!("rows.jsonl:{line}")).collect::<Vec<_>>());
    let shown = scratch.tune(&["preview", &recipe, "--json", "--rows", "20", "--set", "shuffle_merged_datasets=true"]);
    assert_eq!(places(&shown).len(), 8);
    assert_ne!(places(&shown), (1..=8).map(|line| format!("rows.jsonl:{line}")).collect::<Vec<_>>());
}

#[test]
fn held_out_rows_that_are_trained_on_are_counted_in_the_plan() {
    let scratch = Scratch::new("reading-leak");
    let row = |number: usize| format!("{{\"prompt\": \"Row {number}?\", \"completion\": \"Yes, {number}.\"}}\n");
    scratch.write("rows.jsonl", (1..=6).map(row).collect::<String>());
    scratch
        .write("asked.csv", "prompt,completion\r\nRow 2?,\"Yes, 2.\"\r\nRow 9?,\"Yes, 9.\"\r\nRow 5?,\"Yes, 5.\"\r\n");
    let check = |changes: &[(&str, &str)]| {
        let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), changes);
        let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let data = ("datasets", "\n  - path: rows.jsonl");
    let plan = check(&[data, ("test_datasets", "\n  - path: asked.csv")]);
    assert!(plan.contains("look at 2 held-out rows of 3 also trained on"), "{plan}");
    let plan = check(&[data, ("test_datasets", "\n  - path: rows.jsonl")]);
    assert!(plan.contains("look at 6 held-out rows of 6 also trained on"), "{plan}");
    assert!(!check(&[data, ("val_set_size", "0.3")]).contains("also trained on"));
}
