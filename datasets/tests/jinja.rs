//! Chat templates against Python's Jinja: small templates with the results that `scripts/make_jinja_cases.py` stored.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use datasets::{Message, SpecialTokenOverrides, TemplateChoice, Tokenizer};
use serde_json::Value;

/// Parts of the messages that refuse a template by what it uses.
const REFUSALS: [&str; 9] = [
    "is not supported",
    "filter random is unknown",
    "filter striptags is unknown",
    "filter urlize is unknown",
    "filter wordwrap is unknown",
    "filter xmlattr is unknown",
    "has no method named",
    "in format spec",
    "invalid operation",
];

/// Templates in a syntax that minijinja does not have.
const UNKNOWN_SYNTAX: [&str; 2] = ["{{ 1, 2 }}", "{{ +3 }}"];

/// Templates that are rendered otherwise: a tuple that was added, cut or compared is a list, methods are no values, a
/// namespace is written as a map, and any values are ordered.
const OTHERWISE: [&str; 8] = [
    "{{ (1,) + (2,) }}",
    "{{ (1, 2, 3)[1:] }}",
    "{{ (1, 2) == [1, 2] }}",
    "{{ 'x'.upper is callable }}",
    "{{ lipsum is callable }}",
    "{{ 1 < 'a' }}",
    "{{ namespace(a=1) }}",
    "{% macro m(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}{{ m('1') }}{{ m('1', b='2') }}{{ m() }}|{{ m.name }}|{{ m.arguments }}",
];

fn render(folder: &Path, template: &str, file: &Value) -> Result<String, String> {
    let choice = TemplateChoice::Jinja(template.to_owned());
    let tokenizer = Tokenizer::open(folder, &choice, &SpecialTokenOverrides::default(), &[], &[]);
    let tokenizer = tokenizer.map_err(|error| error.to_string())?;
    let messages: Vec<Message> = file["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            let mut extra = message.as_object().unwrap().clone();
            let role = extra.shift_remove("role").unwrap();
            let content = extra.shift_remove("content").unwrap();
            Message { content, extra, ..Message::new(role.as_str().unwrap(), "") }
        })
        .collect();
    tokenizer.render(&messages, None, false, file["variables"].as_object().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn templates_give_what_python_gives_or_are_refused_by_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read_to_string(root.join("tests/fixtures/jinja.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    let folder = root.join("../tests/fixtures/tokenizers/qwen3");
    let (mut different, mut refused, mut equal) = (String::new(), 0, 0);
    for case in file["cases"].as_array().unwrap() {
        let template = case["template"].as_str().unwrap();
        match (render(&folder, template, &file), case.get("rendered").and_then(Value::as_str)) {
            (Ok(ours), Some(theirs)) if ours == theirs => equal += 1,
            (Err(_), None) => equal += 1,
            (Ok(_), _) if OTHERWISE.contains(&template) => {}
            (Err(error), Some(_)) if REFUSALS.iter().any(|refusal| error.contains(refusal)) => refused += 1,
            (Err(error), Some(_)) if error.contains("unexpected `") && UNKNOWN_SYNTAX.contains(&template) => {
                refused += 1;
            }
            (ours, theirs) => {
                writeln!(different, "{template}\n  ours   {ours:?}\n  theirs {theirs:?} {}", case["error"]).unwrap()
            }
        }
    }
    assert!(different.is_empty(), "{equal} equal, {refused} refused, different:\n{different}");
    assert!(equal > 540, "{equal} equal, {refused} refused");
}
