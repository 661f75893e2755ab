//! Tokenizers against a reference: ids and decoded text of every `encode.json`.
//!
//! The folder is `$TUNE_FIXTURES/tokenizers`, by default `tests/fixtures` of the repository, else
//! the reference files beside it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use datasets::{SpecialTokenOverrides, TemplateChoice, Tokenizer};
use serde_json::Value;

#[expect(clippy::print_stderr, reason = "a skipped test says so aloud")]
fn say(text: &str) {
    eprintln!("{text}");
}

fn folder() -> Option<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let roots = match std::env::var_os("TUNE_FIXTURES") {
        Some(root) => vec![PathBuf::from(root)],
        None => vec![manifest.join("../tests/fixtures"), manifest.join("../../shared/oracle/fixtures")],
    };
    let found = roots.iter().map(|root| root.join("tokenizers")).find(|folder| folder.is_dir());
    if found.is_none() {
        say(&format!("SKIPPED: no tokenizers in {roots:?} (set TUNE_FIXTURES)"));
    }
    found
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

#[test]
fn every_tokenizer_gives_the_ids_and_texts_of_the_reference() {
    let Some(folder) = folder() else { return };
    let (mut texts, mut failures) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Ok(cases) = std::fs::read_to_string(path.join("encode.json")) else {
            continue;
        };
        let tokenizer =
            Tokenizer::open(&path, &TemplateChoice::TokenizerDefault, &SpecialTokenOverrides::default(), &[], &[])
                .unwrap();
        let cases: Value = serde_json::from_str(&cases).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let plain = ids(&case["ids"]);
            let agrees = tokenizer.encode(text, false).unwrap() == plain
                && tokenizer.encode(text, true).unwrap() == ids(&case["ids_with_special"])
                && tokenizer.decode(&plain).unwrap() == case["decoded"].as_str().unwrap();
            if !agrees {
                failures.push(format!("{}: {text:?}", path.display()));
            }
            texts += 1;
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(texts > 0, "no encode.json was found");
    say(&format!("{texts} texts equal"));
}
