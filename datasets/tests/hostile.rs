//! Tokenizers and templates that were made to break whoever opens them: an error, in bounded time and memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use datasets::{Message, SpecialTokenOverrides, TemplateChoice, Tokenizer};
use serde_json::{Map, Value, json};

/// Longest that one hostile input may take, on a machine that is busy with others.
const LONGEST: Duration = Duration::from_secs(30);

/// A tokenizer's folder, removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, tokenizer: &Value) -> Folder {
        let path = std::env::temp_dir().join(format!("datasets-hostile-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        Folder(path)
    }

    fn open(&self, template: &str) -> Result<Tokenizer, String> {
        let choice = TemplateChoice::Jinja(template.to_owned());
        Tokenizer::open(&self.0, &choice, &SpecialTokenOverrides::default(), &[], &[])
            .map_err(|error| error.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A BPE tokenizer of the letters a and b, with `changes` to its file.
fn tokenizer(changes: Value) -> Value {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    });
    for (key, value) in changes.as_object().unwrap() {
        file[key] = value.clone();
    }
    file
}

fn model(vocab: Value, merges: Value) -> Value {
    tokenizer(json!({"model": {"type": "BPE", "vocab": vocab, "merges": merges}}))
}

/// Opens a tokenizer and encodes a text of `letters`, which must end soon: with tokens, or with an error in words.
fn bounded(name: &str, file: &Value, letters: usize) -> Result<usize, String> {
    let started = Instant::now();
    let folder = Folder::new(name, file);
    let text = "a".repeat(letters) + "!";
    let count = folder
        .open("{{ messages[0].content }}")
        .and_then(|tokenizer| tokenizer.encode(&text, false).map(|ids| ids.len()).map_err(|error| error.to_string()));
    assert!(started.elapsed() < LONGEST, "{name}: {:?}", started.elapsed());
    if let Err(error) = &count {
        assert!(error.contains("tokenizer.json: ") && error.contains("\nhint: "), "{name}: {error}");
    }
    count
}

#[test]
fn merges_that_lead_back_to_where_they_began_end() {
    // The empty token is merged with a again and again, if anything is.
    let empty = model(json!({"": 0, "a": 1, "b": 2}), json!([["a", ""], ["", "a"], ["", ""]]));
    let _ = bounded("empty", &empty, 20_000);
    let twice = model(json!({"a": 0, "aa": 0, "aaaa": 0}), json!([["a", "a"], ["aa", "aa"], ["a", "a"]]));
    let _ = bounded("twice", &twice, 20_000);
    let unknown = model(json!({"a": 0, "b": 1}), json!([["a", "b"]]));
    let error = bounded("unknown", &unknown, 10);
    assert!(error.is_err(), "{error:?}");
}

#[test]
fn patterns_that_go_back_without_end_are_given_up() {
    let split = |pattern: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        // As a whole by the library, and word by word.
        [split.clone(), json!({"type": "Sequence", "pretokenizers": [split, bytes]})]
    };
    for pattern in ["(a+)+$", "(a|aa)+$", "(a|a?)+$", "((a*)*)*$"] {
        for cut in split(pattern) {
            let counted = bounded("pattern", &tokenizer(json!({"pre_tokenizer": cut})), 5_000);
            assert!(counted.is_err_and(|error| error.contains("Regex")), "{pattern}");
        }
    }
    let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(bounded("deep", &tokenizer(json!({"pre_tokenizer": split(&deep)[0]})), 10).is_err());
    let wide = "(a{1,50000}){1,50000}";
    let _ = bounded("wide", &tokenizer(json!({"pre_tokenizer": split(wide)[0]})), 1_000);
}

#[test]
fn vocabularies_beyond_all_measure_are_refused() {
    let folder = Folder::new("giant", &json!({}));
    let file = std::fs::File::options().write(true).open(folder.0.join("tokenizer.json")).unwrap();
    file.set_len(100_000_001).unwrap();
    assert!(folder.open("").is_err_and(|error| error.contains("larger than 100 MB")));
    // A single token with the last number there is takes no more than itself.
    let folder = Folder::new("last", &model(json!({"a": 0, "b": u32::MAX}), json!([])));
    assert_eq!(folder.open("{{ messages }}").unwrap().vocab_size(), 1 << 32);
    assert!(bounded("beyond", &model(json!({"a": 0, "b": 1_u64 << 32}), json!([])), 1).is_err());
    assert!(bounded("negative", &model(json!({"a": -1}), json!([])), 1).is_err());
    let nested = "[".repeat(100_000);
    std::fs::write(folder.0.join("tokenizer.json"), &nested).unwrap();
    assert!(folder.open("").is_err());
    std::fs::write(folder.0.join("tokenizer.json"), json!({}).to_string()).unwrap();
    assert!(folder.open("").is_err());
}

#[test]
fn parts_that_contradict_each_other_are_refused_or_do_no_harm() {
    let cases = [
        json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA/w=="}}),
        json!({"normalizer": {"type": "Replace", "pattern": {"Regex": "a*"}, "content": "aaaaaaaa"}}),
        json!({"normalizer": {"type": "Prepend", "prepend": ""}}),
        json!({"model": {"type": "Unigram", "unk_id": 77, "vocab": [["a", -1.0]]}}),
        json!({"model": {"type": "Unigram", "unk_id": 0, "vocab": []}}),
        json!({"model": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 0, "vocab": {"a": 0}}}),
        json!({"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
            "pair": [], "special_tokens": {}}}),
        json!({"truncation": {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9}}),
        json!({"added_tokens": [{"id": 7, "content": "", "single_word": false, "lstrip": true, "rstrip": true,
            "normalized": true, "special": true}]}),
    ];
    for (index, changes) in cases.into_iter().enumerate() {
        let _ = bounded(&format!("parts-{index}"), &tokenizer(changes), 1_000);
    }
}

/// What a template makes of a short conversation, which must end soon.
fn rendered(template: &str) -> Result<String, String> {
    let started = Instant::now();
    let folder = Folder::new("template", &tokenizer(json!({})));
    let messages = [Message::new("user", "Hi"), Message::new("assistant", "Ho")];
    let text = folder
        .open(template)
        .and_then(|tokenizer| tokenizer.render(&messages, None, false, &Map::new()).map_err(|error| error.to_string()));
    assert!(started.elapsed() < LONGEST, "{template}: {:?}", started.elapsed());
    if let Err(error) = &text {
        assert!(error.starts_with("chat_template_jinja: ") && error.contains("\nhint: "), "{template}: {error}");
    }
    text
}

#[test]
fn templates_that_grow_without_end_run_out_of_fuel() {
    let doubled = "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}";
    let shared = "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x, n.x] %}{% endfor %}";
    for template in [
        doubled.to_owned(),
        format!("{doubled}{{{{ n.x }}}}"),
        "{{ 'a' * 1000000000000 }}".to_owned(),
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}".to_owned(),
        "{{ ['a' * 1000000] * 1000000 }}".to_owned(),
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'a' * 100000 }}{% endfor %}{% endfor %}".to_owned(),
        format!("{shared}{{{{ n.x | tojson }}}}"),
        format!("{shared}{{{{ n.x }}}}"),
        format!("{shared}{{{{ n.x | string | length }}}}"),
        "{{ range(99999) | map('string') | join(range(99999) | join) }}".to_owned(),
    ] {
        let problem = rendered(&template);
        assert!(problem.is_err_and(|error| error.contains("runs without end")), "{template}");
    }
}

#[test]
fn templates_that_nest_without_end_are_stopped() {
    for template in [
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}".to_owned(),
        format!("{{{{ {}1{} }}}}", "(".repeat(30_000), ")".repeat(30_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(60_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(15_000)),
        format!("{{{{ {}1 }}}}", "1+".repeat(30_000)),
        format!("{{{{ {}1 }}}}", "1**".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "1~".repeat(30_000)),
        format!("{{{{ a{} }}}}", "()".repeat(30_000)),
        format!("{{{{ a{} }}}}", ".a".repeat(30_000)),
        format!("{{{{ a{} }}}}", "|e".repeat(30_000)),
        format!("{}{{% endif %}}", "{%if a%}1{%else%}".repeat(3_500)),
        format!("{{%if a%}}1{}{{%endif%}}", "{%elif b%}".repeat(5_500)),
        "{% if a %}".repeat(6_000),
        "{% for a in b recursive %}{{ loop(b) }}{% endfor %}".repeat(1_200),
    ] {
        let _ = rendered(&template);
    }
    assert!(rendered(&"a".repeat(70_000)).is_err_and(|error| error.contains("70000 bytes, accepted are 65536")));
    // A list in a list in a list ..., made step by step, which is taken apart again by whoever drops it.
    let nested = "{% set n = namespace(x=[]) %}{% for i in range(90000) %}{% set n.x = [n.x] %}{% endfor %}";
    for use_of_it in ["", "{{ n.x | tojson }}", "{{ n.x }}", "{{ n.x == n.x[0] }}", "{{ n.x | string }}"] {
        let _ = rendered(&format!("{nested}{use_of_it}"));
    }
}

#[test]
fn templates_reach_no_file_and_no_variable_of_the_environment() {
    for template in [
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as p %}{{ p }}",
        "{% extends '/etc/passwd' %}",
        "{{ open('/etc/passwd').read() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.environ }}",
        "{{ get_env('PATH') }}",
        "{{ env('PATH') }}",
        "{{ lipsum(5) }}",
    ] {
        assert!(rendered(template).is_err(), "{template}");
    }
    for template in ["{{ environ }}", "{{ PATH }}", "{{ os }}", "{{ self }}", "{{ debug() }}"] {
        let path = std::env::var("PATH").unwrap();
        assert!(rendered(template).is_ok_and(|text| !text.contains(&path)), "{template}");
    }
}
