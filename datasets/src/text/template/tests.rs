//! The claims of the template environment, one by one.

use serde_json::{Value as Json, json};

use super::*;

fn render_with(source: &str, messages: &Json, variables: &Json) -> Result<Rendered, TemplateProblem> {
    let moment = jiff::civil::date(2026, 2, 3).at(4, 5, 6, 0);
    let template =
        ParsedTemplate::parse(source, "test".into(), Surroundings { clock: Clock::Fixed(moment), fuel: 1_000_000 })?;
    let messages: Vec<Value> = messages.as_array().unwrap().iter().map(to_jinja).collect();
    template.render(&TemplateInput {
        messages: &messages,
        tools: None,
        add_generation_prompt: false,
        special_tokens: &Map::new(),
        variables: variables.as_object().unwrap(),
    })
}

fn text(source: &str) -> String {
    let messages = json!([{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yo"}]);
    render_with(source, &messages, &json!({"x": {"b": "é<'", "a": [1, true, null]}})).unwrap().text
}

#[test]
fn blocks_are_trimmed_as_in_transformers() {
    assert_eq!(text("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
}

#[test]
fn python_methods_slices_and_values_work() {
    assert_eq!(text("{{ messages[0].content.strip() }}|{{ messages[::-1][0].role }}"), "Hi|assistant");
    assert_eq!(text("{{ 'a</t>b'.split('</t>')[-1] }}{{ 'xay'.rstrip('y').lstrip('x') }}"), "ba");
    assert_eq!(text("{{ 'ab'.removeprefix('a') }}{{ 'ab'.removesuffix('b') }}"), "ba");
    assert_eq!(text("{{ x.a }}{{ none }}{{ 'abc' is iterable }}"), "[1, True, None]NoneTrue");
    assert_eq!(
        text("{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.role }}{% endfor %}"),
        "assistant"
    );
}

#[test]
fn tojson_neither_escapes_nor_sorts() {
    assert_eq!(text("{{ x | tojson }}"), r#"{"b": "é<'", "a": [1, true, null]}"#);
    assert_eq!(text("{{ x.a | tojson(indent=1) }}"), "[\n 1,\n true,\n null\n]");
    assert_eq!(text("{{ x | tojson(ensure_ascii=True) }}"), r#"{"b": "\u00e9<'", "a": [1, true, null]}"#);
}

#[test]
fn the_date_is_that_of_the_clock() {
    assert_eq!(text("{{ strftime_now('%d %b %Y') }}"), "03 Feb 2026");
}

#[test]
fn a_raised_exception_keeps_its_message() {
    let problem = render_with(
        "{% for m in messages %}{{ raise_exception('No ' + m.role) }}{% endfor %}",
        &json!([{"role": "tool"}]),
        &json!({}),
    );
    assert_eq!(problem, Err(TemplateProblem::Raised("No tool".to_owned())));
}

#[test]
fn a_template_that_loops_without_end_is_stopped() {
    let source = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
    assert_eq!(render_with(source, &json!([]), &json!({})), Err(TemplateProblem::OutOfFuel));
}

#[test]
fn a_syntax_error_names_its_line() {
    let problem = render_with("a\n{% if %}", &json!([]), &json!({})).unwrap_err();
    assert!(matches!(problem, TemplateProblem::Failed(message) if message.starts_with("line 2 ")));
}

#[test]
fn generation_tags_are_tolerated_and_measured() {
    let rendered = render_with(
        "{% for m in messages %}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
        &json!([{"role": "a", "content": "é"}, {"role": "b", "content": "x"}]),
        &json!({}),
    )
    .unwrap();
    assert_eq!(rendered.text, "a: éb: x");
    assert_eq!(rendered.generated, [3..5, 8..9]);
}

#[test]
fn every_named_template_renders_a_conversation() {
    let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]);
    for name in named_templates().map(|known| known.name) {
        let source = named_source(name).unwrap();
        let special = json!({"bos_token": "<s>", "eos_token": "</s>"});
        let rendered = render_with(source, &messages, &special).unwrap();
        assert!(rendered.text.contains("Hi") && rendered.text.contains("Yo"), "{name}");
    }
    assert_eq!(
        render_with(named_source("chatml").unwrap(), &messages, &json!({})).unwrap().text,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    );
}

/// The texts are those of Axolotl's templates of the same names.
#[test]
fn named_templates_write_what_those_of_axolotl_write() {
    let two = json!([
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "r"},
        {"role": "user", "content": "p"}, {"role": "assistant", "content": "s"},
    ]);
    let system = json!([
        {"role": "system", "content": "S"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "r"},
    ]);
    let think = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nx</think>\n\nr"}]);
    let special = json!({"bos_token": "<s>", "eos_token": "</s>"});
    for (name, messages, wanted) in [
        (
            "alpaca",
            &two,
            "<s>### Instruction:\nq\n\n### Response:\nr</s>\n\n### Instruction:\np\n\n### Response:\ns</s>",
        ),
        ("alpaca", &system, "<s>S\n\n### Instruction:\nq\n\n### Response:\nr</s>"),
        ("mistral_v1", &two, "<s> [INST] q [/INST] r</s> [INST] p [/INST] s</s>"),
        ("mistral_v1", &system, "<s> [INST] S\n\nq [/INST] r</s>"),
        ("mistral", &system, "<s>[INST] S\n\nq [/INST]r</s>"),
        ("deepseek_v3", &think, "<s><｜User｜>q<｜Assistant｜>\n\nr<｜end▁of▁sentence｜>"),
    ] {
        let rendered = render_with(named_source(name).unwrap(), messages, &special).unwrap();
        assert_eq!(rendered.text, wanted, "{name}");
    }
    let late = json!([{"role": "user", "content": "q"}, {"role": "system", "content": "S"}]);
    for name in ["alpaca", "mistral_v1"] {
        let problem = render_with(named_source(name).unwrap(), &late, &special).unwrap_err();
        assert!(
            matches!(problem, TemplateProblem::Raised(message) if message.contains("system at the start")),
            "{name}"
        );
    }
}
