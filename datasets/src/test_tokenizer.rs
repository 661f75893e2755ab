//! For unit tests: a folder that cleans up after itself, and a tokenizer of single bytes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::text::{SpecialTokenOverrides, TemplateChoice, Tokenizer};

/// A new folder for a test, removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("datasets-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes as tokens, BOS `<s>`, EOS `<|im_end|>`, and `<|im_start|>`; `<s>` is added when asked for.
pub(crate) fn byte_tokenizer(template: &TemplateChoice) -> Tokenizer {
    let folder = byte_tokenizer_folder();
    Tokenizer::open(folder.path(), template, &SpecialTokenOverrides::default(), &[], &[]).unwrap()
}

pub(crate) fn chatml_tokenizer() -> Tokenizer {
    byte_tokenizer(&TemplateChoice::Named("chatml".to_owned()))
}

pub(crate) fn byte_tokenizer_folder() -> Folder {
    let mut letters: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    letters.sort_unstable();
    let vocabulary: Map<String, Value> =
        letters.iter().enumerate().map(|(id, letter)| (letter.to_string(), json!(id))).collect();
    let added: Vec<Value> = ["<s>", "<|im_start|>", "<|im_end|>"]
        .iter()
        .enumerate()
        .map(|(index, content)| {
            json!({"id": 256 + index, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": []},
    });
    let folder = Folder::new();
    folder.write("tokenizer.json", &tokenizer.to_string());
    folder.write(
        "tokenizer_config.json",
        &json!({"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}}).to_string(),
    );
    folder
}
