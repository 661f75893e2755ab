//! Runs on rows of plain text: what serving is told, and what `tune generate` sends, is what was trained.

use datasets::{SpecialTokenOverrides, TemplateChoice, Tokenizer};
use serde_json::{Value, json};

use crate::harness::{Finished, Scratch, model, read_json};

/// Trains on 8 rows of which the last two are held out, on a model whose tokenizer adds a BOS token.
fn run(scratch: &Scratch, kind: &str, row: impl Fn(usize) -> Value, held_out: &str) -> Finished {
    scratch.write("rows.jsonl", (0..8).map(|index| format!("{}\n", row(index))).collect::<String>());
    let datasets = format!("\n  - path: rows.jsonl\n    type: {kind}");
    let changes = [
        ("datasets", datasets.as_str()),
        ("val_set_size", held_out),
        ("shuffle_merged_datasets", "false"),
        ("max_steps", "1"),
        ("export", "\n  formats: [adapter, merged]"),
    ];
    scratch.run(&scratch.recipe("recipe.yaml", &model("llama31"), &changes))
}

/// The command that the end of a run prints.
fn next(finished: &Finished) -> String {
    let at = finished.stderr.find("\nnext ").expect("a next command") + 5;
    finished.stderr[at..].trim().to_owned()
}

fn tokenizer(scratch: &Scratch, folder: &str) -> Tokenizer {
    let choice = TemplateChoice::TokenizerDefault;
    Tokenizer::open(&scratch.join(folder), &choice, &SpecialTokenOverrides::default(), &[], &[]).unwrap()
}

fn generated(scratch: &Scratch, arguments: &[&str]) -> Finished {
    let arguments: Vec<&str> = ["generate"].into_iter().chain(arguments.iter().copied()).collect();
    let finished = scratch.tune(&[arguments.as_slice(), &["--max-tokens", "12"]].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished
}

const ALPACA: &str = "Below is an instruction that describes a task. Write a response that appropriately completes the \
                      request.\n\n### Instruction:\n";

#[test]
fn after_alpaca_everything_that_is_told_has_its_prompt() {
    let scratch = Scratch::new("plain-alpaca");
    let row = |index: usize| json!({"instruction": format!("Count to {index}."), "input": "", "output": "One."});
    let finished = run(&scratch, "alpaca", row, "2");
    let prompt = format!("{ALPACA}Count to 6.\n\n### Response:\n");
    assert_eq!(next(&finished), format!("tune generate out/adapter --raw --prompt '{prompt}'"));
    for folder in ["out/adapter", "out/merged"] {
        let prompts = read_json(&scratch.join(folder).join("golden_prompts.json"));
        let tokenizer = tokenizer(&scratch, folder);
        for golden in prompts.as_array().unwrap() {
            let text = format!("{ALPACA}{}\n\n### Response:\n", golden["question"].as_str().unwrap());
            assert_eq!((&golden["text"], &golden["messages"]), (&json!(text), &json!([])));
            assert_eq!(golden["input_ids"], json!(tokenizer.encode(&text, true).unwrap()));
            assert_eq!(golden["input_ids"][0], json!(tokenizer.bos_id().unwrap()));
        }
        let card = std::fs::read_to_string(scratch.join(folder).join("README.md")).unwrap();
        assert!(card.contains("without a chat template"), "{card}");
        assert!(card.contains(&format!("```text\n{ALPACA}{{question}}\n\n### Response:\n```")), "{card}");
        assert!(!card.contains("serve with that template"), "{card}");
    }
    // The prompt in the training's form, given as it is or as the question alone.
    let raw = generated(&scratch, &["out/adapter", "--raw", "--prompt", &prompt]);
    let question = generated(&scratch, &["out/adapter", "--prompt", "Count to 6."]);
    assert_eq!(question.stdout, raw.stdout);
    assert!(question.stderr.contains("trained on plain text"), "{}", question.stderr);
    let other = scratch.tune(&["generate", "out/merged", "--system", "Be brief.", "--prompt", "Hi"]);
    assert_eq!(other.code, Some(2));
    assert!(other.stderr.contains("has no system message"), "{}", other.stderr);
    let merged = scratch.tune(&["merge", "out/adapter", "--out", "again"]);
    assert_eq!(merged.code, Some(0), "{}", merged.stderr);
    let read = |folder: &str| std::fs::read(scratch.join(folder).join("golden_prompts.json")).unwrap();
    assert_eq!(read("again"), read("out/adapter"));
}

#[test]
fn after_prompts_and_completions_the_prompt_is_given_as_it_is() {
    let scratch = Scratch::new("plain-prompt");
    let row = |index: usize| json!({"prompt": format!("It's {index}, so "), "completion": "go."});
    let finished = run(&scratch, "prompt_completion", row, "2");
    assert_eq!(next(&finished), r"tune generate out/adapter --raw --prompt 'It'\''s 6, so '");
    let golden = &read_json(&scratch.join("out/adapter/golden_prompts.json"))[0];
    assert_eq!((&golden["text"], &golden["add_special_tokens"]), (&golden["question"], &json!(true)));
    let card = std::fs::read_to_string(scratch.join("out/README.md")).unwrap();
    assert!(card.contains("do not apply the chat template"), "{card}");
}

#[test]
fn after_texts_without_questions_the_command_has_no_chat_template_either() {
    let scratch = Scratch::new("plain-completion");
    let finished = run(&scratch, "completion", |index| json!({"text": format!("Once {index}.")}), "0");
    assert!(next(&finished).ends_with(" --raw --prompt '...'"), "{}", next(&finished));
    // Rows of segments hold their special tokens themselves, so that none are added to prompts either.
    let scratch = Scratch::new("plain-segments");
    let segments =
        |index: usize| json!([{"label": false, "text": format!("Q{index}: ")}, {"label": true, "text": "A<|eot_id|>"}]);
    let finished = run(&scratch, "input_output", |index| json!({"segments": segments(index)}), "0");
    assert!(next(&finished).ends_with(" --raw --prompt '...'"), "{}", next(&finished));
    let golden = &read_json(&scratch.join("out/adapter/golden_prompts.json"))[0];
    let tokenizer = tokenizer(&scratch, "out/adapter");
    let text = golden["text"].as_str().unwrap();
    assert_eq!(golden["add_special_tokens"], json!(false));
    assert_eq!(golden["input_ids"], json!(tokenizer.encode(text, false).unwrap()));
    assert_ne!(golden["input_ids"][0], json!(tokenizer.bos_id().unwrap()));
}

#[test]
fn conversations_are_asked_through_the_chat_template_whatever_their_columns() {
    let scratch = Scratch::new("plain-turns");
    let row = |index: usize| {
        json!({
            "prompt": [{"role": "user", "content": format!("Is it {index}?")}],
            "completion": [{"role": "assistant", "content": "Yes."}],
        })
    };
    let finished = run(&scratch, "prompt_completion", row, "2");
    assert!(next(&finished).ends_with("/adapter --prompt 'Is it 6?'"), "{}", next(&finished));
    let golden = &read_json(&scratch.join("out/adapter/golden_prompts.json"))[0];
    assert!(!golden["messages"].as_array().unwrap().is_empty() && golden.get("question").is_none());
}
