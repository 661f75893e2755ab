//! Training masks through the binary: what the row says is trained, what the template inserts is not.
//!
//! The right values are those of Axolotl 0.19 on the same rows.

use serde_json::{Value, json};

use crate::harness::{Scratch, model};

/// Qwen3's way with reasoning: a think block in the last answer, an empty one if there is none.
const THINKING: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}\
    {% set why = m.reasoning_content or '' %}{% set said = m.content or '' %}\
    {% if '</think>' in said %}{% set why = said.split('</think>')[0].split('<think>')[-1].strip() %}\
    {% set said = said.split('</think>')[-1].lstrip() %}{% endif %}\
    {% if m.role == 'assistant' and loop.last %}{{ '<think>\\n' + why + '\\n</think>\\n\\n' }}{% endif %}\
    {% for c in m.tool_calls or [] %}{{ '<tool_call>' + c.function.name + '</tool_call>' }}{% endfor %}\
    {{ said + '<|im_end|>\\n' }}{% endfor %}";

/// The text of each row, trained parts in brackets, and what the plan says of the data.
fn masks(name: &str, rows: &[Value], changes: &[(&str, &str)]) -> (Vec<String>, String) {
    let scratch = Scratch::new(name);
    scratch.write("template.jinja", THINKING);
    scratch.write("rows.jsonl", rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    let mut all = vec![("chat_template", "jinja"), ("chat_template_jinja", "template.jinja")];
    all.extend(changes);
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &all);
    let count = rows.len().to_string();
    let arguments = ["preview".as_ref(), recipe.as_os_str(), "--json".as_ref(), "--rows".as_ref(), count.as_ref()];
    let preview = scratch.tune(&arguments);
    assert_eq!(preview.code, Some(0), "{}", preview.stderr);
    let shown: Value = serde_json::from_str(&preview.stdout).unwrap();
    let text = |example: &Value| {
        let piece = |piece: &Value| {
            let text = piece["text"].as_str().unwrap();
            if piece["trained"] == true { format!("[[{text}]]") } else { text.to_owned() }
        };
        example["pieces"].as_array().unwrap().iter().map(piece).collect::<String>()
    };
    let texts = shown["examples"].as_array().unwrap().iter().map(text).collect();
    (texts, scratch.tune(&["check".as_ref(), recipe.as_os_str()]).stdout)
}

fn asked(answer: Value) -> Value {
    let mut answer = answer;
    answer["role"] = json!("assistant");
    json!({"messages": [{"role": "user", "content": "q"}, answer]})
}

#[test]
fn what_the_row_says_is_trained_and_what_the_template_inserts_is_not() {
    let calls = json!([{"type": "function", "function": {"name": "f", "arguments": {}}}]);
    let rows = [
        asked(json!({"content": "r"})),
        asked(json!({"content": "r", "reasoning_content": "why"})),
        asked(json!({"content": "<think>\nwhy\n</think>\n\nr"})),
        asked(json!({"content": "r", "tool_calls": calls})),
        asked(json!({"content": null, "tool_calls": calls})),
    ];
    let (texts, _) = masks("masks-thinking", &rows, &[]);
    let wanted = [
        "<think>\n\n</think>\n\n[[r<|im_end|>]]",
        "<think>\n[[why\n</think>\n\nr<|im_end|>]]",
        "<think>\n[[why\n</think>\n\nr<|im_end|>]]",
        "<think>\n\n</think>\n\n[[<tool_call>f</tool_call>r<|im_end|>]]",
        "<think>\n\n</think>\n\n[[<tool_call>f</tool_call><|im_end|>]]",
    ];
    let whole = |wanted: &str| format!("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n{wanted}\n");
    assert_eq!(texts, wanted.map(whole));
    let (texts, _) = masks("masks-inputs", &rows[..1], &[("train_on_inputs", "true")]);
    let wanted = "<|im_start|>user\n[[q<|im_end|>]]\n<|im_start|>assistant\n<think>\n\n</think>\n\n[[r<|im_end|>]]\n";
    assert_eq!(texts, [wanted]);
}

#[test]
fn parts_and_stretches_of_a_content_are_trained_apart() {
    let parts =
        json!([{"type": "text", "text": "Let me think.", "train": false}, {"type": "text", "text": " It is four."}]);
    let weights = json!([{"content": "Let me think.", "weight": 0}, {"value": " It is four.", "weight": 1}]);
    let stretch = json!([{"begin_offset": 13, "end_offset": 24, "train": true}]);
    let rows = [
        asked(json!({"content": parts})),
        asked(json!({"content": weights})),
        asked(json!({"content": "Let me think. It is four.", "training_detail": stretch})),
    ];
    let answer = |text: &String| text.split_once("</think>\n\n").unwrap().1.to_owned();
    let (texts, plan) = masks("masks-parts", &rows, &[]);
    assert_eq!(texts[..2].iter().map(answer).collect::<Vec<_>>(), ["Let me think.[[ It is four.<|im_end|>]]\n"; 2]);
    assert_eq!(answer(&texts[2]), "[[Let me think. It is four.<|im_end|>]]\n");
    assert!(plan.contains("1 row with `messages[].training_detail`, which is not read"), "{plan}");

    let source = "[{path: rows.jsonl, type: chat_template, message_field_training_detail: training_detail}]";
    let (texts, plan) = masks("masks-detail", &rows, &[("datasets", source)]);
    assert_eq!(texts.iter().map(answer).collect::<Vec<_>>(), ["Let me think.[[ It is four.<|im_end|>]]\n"; 3]);
    assert!(!plan.contains("which is not read"), "{plan}");
}
