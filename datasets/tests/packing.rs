//! Packing on real rows: GSM8K, whose questions and answers are named as the data set names them.
//!
//! The rows are looked for in `TUNE_GSM8K`, or beside the repository. Where they are missing the test says so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use datasets::{
    BatchSettings, Dataset, DatasetSettings, SourceSettings, SpecialTokenOverrides, TemplateChoice, Tokenizer,
};

#[expect(clippy::print_stderr, reason = "a skipped test says so aloud")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[test]
fn gsm8k_leaves_less_than_three_in_a_hundred_positions_empty() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = || manifest.join("../../shared/data/gsm8k-train.jsonl");
    let path = std::env::var_os("TUNE_GSM8K").map_or_else(beside, PathBuf::from);
    if !path.is_file() {
        say(&format!("SKIPPED: no rows in {} (set TUNE_GSM8K)", path.display()));
        return;
    }
    let folder = manifest.join("../tests/fixtures/tokenizers/llama3");
    let choice = TemplateChoice::TokenizerDefault;
    let tokenizer = Tokenizer::open(&folder, &choice, &SpecialTokenOverrides::default(), &[], &[]).unwrap();
    let settings = DatasetSettings {
        sources: vec![SourceSettings {
            format: Some("prompt_completion".into()),
            field_instruction: Some("question".to_owned()),
            field_output: Some("answer".to_owned()),
            ..SourceSettings::new(&path, "recipe.yaml:3:5")
        }],
        sequence_len: 2048,
        batching: BatchSettings { packing: true, ..BatchSettings::default() },
        ..DatasetSettings::default()
    };
    let dataset = Dataset::load(&settings, &tokenizer, &mut |_| {}).unwrap();
    let counts = &dataset.counts;
    assert_eq!((counts.rows, counts.duplicates), (7473, 0));
    assert!(counts.packing_efficiency() >= 0.97, "{}", counts.packing_efficiency());
    say(&format!("{:.4} of positions hold a token\n{}", counts.packing_efficiency(), counts.length_histogram(10)));
}
