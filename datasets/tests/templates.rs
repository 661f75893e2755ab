//! Chat templates and training masks against a reference: transformers' rendering, ids and masks.
//!
//! The reference is a folder of JSON files (`chat/*.json`, `tokenizers/*`): `TUNE_FIXTURES` if it has one, else
//! `TUNE_ORACLE`, else beside the repository. Where it is missing the tests say so and pass.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use datasets::{
    Dataset, DatasetSettings, Defect, Example, Excess, Message, SourceSettings, SpecialTokenOverrides, TemplateChoice,
    Tokenizer,
};
use serde_json::{Map, Value, json};

/// The one case in which more is trained on than in the reference, and what: its mask was made with a tagged template
/// that leaves turns with tool calls out. The tagged template gives that mask; with the plain one, which says nothing
/// of the sort, the row gives it by the flag of such a message.
const UNTAGGED_CALL: (&str, &str) = (
    "qwen2_5-tools",
    r#"trained "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": 2}}\n</tool_call><|im_end|>12 degrees.<|im_end|>""#,
);

/// What the reference trains of a plain template and we do not, since the template inserts it, by the file: an empty
/// block, or the beginning of one that the row fills.
const INSERTED: [(&str, &str); 2] = [("qwen3", "<think>\n\n</think>\n\n"), ("qwen3", "<think>\n")];

/// Files whose template ends in an end-of-sequence token after the last end of turn, which is trained too, as in Axolotl.
const CLOSED: [&str; 2] = ["phi3", "phi4_mini"];

/// The folder of reference files, if there is one.
fn oracle() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracle/fixtures");
    let given = std::env::var_os("TUNE_FIXTURES").map(PathBuf::from).filter(|root| root.join("chat").is_dir());
    let root = given.unwrap_or_else(|| std::env::var_os("TUNE_ORACLE").map_or_else(beside, PathBuf::from));
    if root.join("chat").is_dir() {
        return Some(root);
    }
    say(&format!("SKIPPED: no reference files in {} (set TUNE_ORACLE)", root.display()));
    None
}

#[expect(clippy::print_stderr, reason = "a skipped test says so aloud")]
fn say(text: &str) {
    eprintln!("{text}");
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn special(tokens: &Value) -> SpecialTokenOverrides {
    let token = |name: &str| tokens.get(name).and_then(Value::as_str).map(str::to_owned);
    SpecialTokenOverrides {
        bos_token: token("bos_token"),
        eos_token: token("eos_token"),
        pad_token: token("pad_token"),
        unk_token: token("unk_token"),
    }
}

fn messages(case: &Value) -> Vec<Message> {
    case["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            let mut extra = message.as_object().unwrap().clone();
            let role = extra.shift_remove("role").unwrap();
            let content = extra.shift_remove("content").unwrap_or(Value::Null);
            Message { content, extra, ..Message::new(role.as_str().unwrap(), "") }
        })
        .collect()
}

/// The one example that a data set of one row yields.
fn load(tokenizer: &Tokenizer, row: &Value, variables: Map<String, Value>, name: &str) -> Result<Example, String> {
    let folder = std::env::temp_dir().join(format!("datasets-templates-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}.jsonl"));
    std::fs::write(&path, row.to_string()).unwrap();
    let settings = DatasetSettings {
        sources: vec![SourceSettings {
            template_variables: variables,
            ..SourceSettings::new(&path, "recipe.yaml:3:5")
        }],
        sequence_len: 4096,
        excess: Excess::Raise,
        // One row is all there is, so that what it lacks is the rule.
        allowed: vec![Defect::EmptyAnswers],
        ..DatasetSettings::default()
    };
    let loaded = Dataset::load(&settings, tokenizer, &mut |_| {});
    std::fs::remove_file(&path).unwrap();
    loaded.map(|dataset| dataset.train.first().unwrap()).map_err(|error| error.to_string())
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// The difference of a case, if there is one.
///
/// Unless `trains_on_calls` is set, messages with tool calls carry the flag that they are not trained on.
fn difference(tokenizer: &Tokenizer, case: &Value, name: &str, trains_on_calls: bool) -> Option<String> {
    let mut variables = case["kwargs"].as_object().unwrap().clone();
    let prompt = variables.shift_remove("add_generation_prompt") == Some(json!(true));
    let tools = case.get("tools").filter(|tools| !tools.is_null());
    let rendered = tokenizer.render(&messages(case), tools, prompt, &variables);
    if let Some(wanted) = case.get("error").and_then(Value::as_str) {
        return match rendered {
            Err(error) if error.to_string().contains(wanted) => None,
            other => Some(format!("wanted the error `{wanted}`, got {other:?}")),
        };
    }
    let rendered = match rendered {
        Ok(rendered) => rendered,
        Err(error) => return Some(error.to_string()),
    };
    if rendered != case["rendered"].as_str().unwrap() {
        return Some(format!("rendered {rendered:?}, wanted {}", case["rendered"]));
    }
    let wanted = ids(&case["input_ids"]);
    if tokenizer.encode(&rendered, false).unwrap() != wanted {
        return Some("the ids differ".to_owned());
    }
    let mask = case.get("assistant_mask").filter(|mask| mask.is_array())?;
    let mut row = json!({"messages": case["messages"], "tools": case["tools"]});
    if !trains_on_calls {
        for message in row["messages"].as_array_mut().unwrap() {
            if message.get("tool_calls").is_some() {
                message["weight"] = json!(0);
            }
        }
    }
    let by_tags = name.starts_with("template_with_generation_tags");
    let last_is_empty = row["messages"].as_array().unwrap().last().unwrap()["content"] == "";
    let example = match load(tokenizer, &row, variables, name) {
        // Of an empty answer nothing is trained.
        Err(error) if !by_tags && last_is_empty && error.contains("1 of 1 have an empty answer") => return None,
        Ok(example) => example,
        Err(error) => return Some(error),
    };
    if example.tokens != wanted {
        return Some("the example's ids differ".to_owned());
    }
    let mut trained: Vec<bool> = mask.as_array().unwrap().iter().map(|bit| bit.as_u64() == Some(1)).collect();
    if !by_tags {
        leave_out_inserted(tokenizer, &wanted, &mut trained, name);
    }
    if example.trained == trained {
        // The label of a token is its id where it is trained on and -100 elsewhere.
        let label = |(id, trained): (&u32, &bool)| if *trained { i64::from(*id) } else { -100 };
        let labels: Vec<i64> = example.tokens.iter().zip(&example.trained).map(label).collect();
        return (by_tags && json!(labels) != case["labels"]).then(|| "the labels differ".to_owned());
    }
    let chosen: Vec<u32> =
        example.tokens.iter().zip(&example.trained).filter(|(_, trained)| **trained).map(|(id, _)| *id).collect();
    Some(format!("trained {:?}, wanted {}", tokenizer.decode(&chosen).unwrap(), case["trained_text"]))
}

/// The mask of the reference without what a template inserts, and with the end that it does not train.
fn leave_out_inserted(tokenizer: &Tokenizer, ids: &[u32], trained: &mut [bool], name: &str) {
    let is_of = |stem: &str| name.starts_with(&format!("template-{stem}-"));
    for start in 0..ids.len() {
        let begins = trained[start] && (start == 0 || !trained[start - 1]);
        for (_, inserted) in INSERTED.iter().filter(|(stem, _)| begins && is_of(stem)) {
            let inserted = tokenizer.encode(inserted, false).unwrap();
            if trained[start] && ids[start..].starts_with(&inserted) {
                trained[start..start + inserted.len()].fill(false);
            }
        }
    }
    if CLOSED.iter().any(|stem| is_of(stem)) {
        // Its end is two tokens before it at most.
        let last = ids.len() - 1;
        trained[last] = Some(ids[last]) == tokenizer.eos_id() && trained[last.saturating_sub(2)..last].contains(&true);
    }
}

fn check_templates(template_key: &str) {
    let Some(root) = oracle() else { return };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root.join("chat")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut passed, mut failures) = (0, BTreeMap::new());
    for path in files {
        let file = read(&path);
        let Some(template) = file.get(template_key).and_then(Value::as_str) else {
            continue;
        };
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let tokenizer = Tokenizer::open(
            &root.join(file["tokenizer"].as_str().unwrap()),
            &TemplateChoice::Jinja(template.to_owned()),
            &special(&file["special_tokens"]),
            &[],
            &[],
        )
        .unwrap();
        for case in file["cases"].as_array().unwrap() {
            // Text without a mask is that of the plain template alone.
            if template_key != "template" && !case["assistant_mask"].is_array() {
                continue;
            }
            let name = format!("{stem}-{}", case["name"].as_str().unwrap());
            let is_untagged = template_key == "template" && name == UNTAGGED_CALL.0;
            let file_name = format!("{template_key}-{name}");
            if is_untagged {
                let with_calls = difference(&tokenizer, case, &file_name, true).unwrap_or_default();
                assert!(with_calls.starts_with(UNTAGGED_CALL.1), "{with_calls}");
            }
            match difference(&tokenizer, case, &file_name, !is_untagged) {
                None => passed += 1,
                Some(difference) => {
                    failures.insert(name, difference);
                }
            }
        }
    }
    say(&format!("{template_key}: {passed} cases equal"));
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(passed > 0, "no cases in {}", root.display());
}

#[test]
fn templates_give_the_text_ids_and_masks_of_transformers() {
    check_templates("template");
}

#[test]
fn generation_tags_give_the_masks_of_transformers() {
    check_templates("template_with_generation_tags");
}

#[test]
fn alpaca_rows_give_the_ids_and_masks_of_the_reference() {
    let Some(root) = oracle() else { return };
    let file = read(&root.join("chat/alpaca.json"));
    for (index, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let folder = root.join(case["tokenizer"].as_str().unwrap());
        let tokenizer =
            Tokenizer::open(&folder, &TemplateChoice::TokenizerDefault, &SpecialTokenOverrides::default(), &[], &[])
                .unwrap();
        let example = load(&tokenizer, &case["record"], Map::new(), &format!("alpaca-{index}")).unwrap();
        assert_eq!(example.tokens, ids(&case["input_ids"]), "case {index}");
        let trained: Vec<bool> =
            case["labels"].as_array().unwrap().iter().map(|label| label.as_i64() != Some(-100)).collect();
        assert_eq!(example.trained, trained, "case {index}");
    }
}

#[test]
fn named_templates_write_what_the_publishers_write() {
    let Some(root) = oracle() else { return };
    let pairs = [
        ("chatml", "chatml"),
        ("deepseek_v3", "deepseek_v3"),
        ("gemma", "gemma3"),
        ("llama3", "llama3"),
        ("mistral", "mistral_v1"),
        ("phi_4", "phi4"),
        ("qwen_25", "qwen2_5"),
    ];
    let mut equal = 0;
    for (name, stem) in pairs {
        let file = read(&root.join(format!("chat/{stem}.json")));
        let folder = root.join(file["tokenizer"].as_str().unwrap());
        let choice = TemplateChoice::Named(name.to_owned());
        let tokenizer = Tokenizer::open(&folder, &choice, &special(&file["special_tokens"]), &[], &[]).unwrap();
        for case in file["cases"].as_array().unwrap() {
            // The named templates are the plain formats, without tools and without reasoning; what
            // they refuse, they refuse in their own words.
            let text = case["messages"].to_string();
            let without_system = name == "gemma" && text.contains("system");
            if case.get("error").is_some()
                || without_system
                || text.contains("tool")
                || text.contains("think")
                || text.contains("\"type\"")
            {
                continue;
            }
            let file_name = format!("named-{name}-{}", case["name"].as_str().unwrap());
            let difference = difference(&tokenizer, case, &file_name, true);
            assert_eq!(difference, None, "{name}: {}", case["name"]);
            equal += 1;
        }
    }
    say(&format!("named templates: {equal} cases equal"));
}
