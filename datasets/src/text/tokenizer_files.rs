//! The files beside `tokenizer.json`: special tokens by name, and the model's chat template.
//!
//! `tokenizer_config.json` wins over `special_tokens_map.json`, and `chat_template.jinja` over the
//! `chat_template` of `tokenizer_config.json`, as in transformers.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::foundation::{Error, read_bounded};

/// Names of the special tokens that templates may use.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Most bytes of a file beside the tokenizer; those with the most added tokens have a few megabytes.
const MOST_BYTES: u64 = 64_000_000;

/// Special tokens that the recipe sets in place of the tokenizer's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokenOverrides {
    /// Beginning of sequence.
    pub bos_token: Option<String>,
    /// End of sequence.
    pub eos_token: Option<String>,
    /// Padding.
    pub pad_token: Option<String>,
    /// Unknown.
    pub unk_token: Option<String>,
}

impl SpecialTokenOverrides {
    /// The tokens that are set, by their keys.
    pub fn set(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let tokens = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("pad_token", &self.pad_token),
            ("unk_token", &self.unk_token),
        ];
        tokens.into_iter().filter_map(|(name, token)| Some((name, token.as_deref()?)))
    }
}

/// The files beside `tokenizer.json`, read.
#[derive(Debug, Default)]
pub(crate) struct TokenizerFiles {
    /// From `bos_token` ... to the token's text.
    pub(crate) special_tokens: Map<String, Value>,
    /// The model's chat template and the file that holds it.
    pub(crate) template: Option<(String, PathBuf)>,
}

impl TokenizerFiles {
    /// Reads the files, every one of which may be missing.
    pub(crate) fn read(folder: &Path) -> Result<TokenizerFiles, Error> {
        let config_path = folder.join("tokenizer_config.json");
        let config = read_object(&config_path)?;
        let map = read_object(&folder.join("special_tokens_map.json"))?;
        let mut special_tokens = Map::new();
        for name in NAMES {
            let text = token_text(config.get(name)).or_else(|| token_text(map.get(name)));
            if let Some(text) = text {
                special_tokens.insert(name.to_owned(), Value::String(text.to_owned()));
            }
        }
        if let Some(Value::Object(extra)) = config.get("extra_special_tokens") {
            for (name, token) in extra {
                if let Some(text) = token_text(Some(token)) {
                    special_tokens.insert(name.clone(), Value::String(text.to_owned()));
                }
            }
        }
        let template_path = folder.join("chat_template.jinja");
        let template = if template_path.is_file() {
            Some((read_text(&template_path)?, template_path))
        } else {
            template_text(config.get("chat_template")).map(|text| (text.to_owned(), config_path))
        };
        Ok(TokenizerFiles { special_tokens, template })
    }

    /// Puts the recipe's tokens in place of the tokenizer's own.
    pub(crate) fn override_tokens(&mut self, overrides: &SpecialTokenOverrides) {
        for (name, token) in overrides.set() {
            self.special_tokens.insert(name.to_owned(), Value::String(token.to_owned()));
        }
    }

    /// The text of a special token.
    pub(crate) fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.get(name).and_then(Value::as_str)
    }
}

/// A special token's text: written as a string, or as an object with `content`.
fn token_text(token: Option<&Value>) -> Option<&str> {
    match token? {
        Value::String(text) => Some(text),
        Value::Object(object) => object.get("content").and_then(Value::as_str),
        _ => None,
    }
}

/// The template: one text, or the one called `default` in a list.
fn template_text(template: Option<&Value>) -> Option<&str> {
    match template? {
        Value::String(text) => Some(text),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template"))
            .and_then(Value::as_str),
        _ => None,
    }
}

fn read_text(path: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::Unreadable { path: path.display().to_string(), source };
    let bytes = read_bounded(path, MOST_BYTES).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| unreadable(std::io::Error::from(std::io::ErrorKind::InvalidData)))
}

/// A JSON object, empty where the file does not exist.
fn read_object(path: &Path) -> Result<Map<String, Value>, Error> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    serde_json::from_str(&read_text(path)?).map_err(|error| Error::Tokenizer {
        path: path.display().to_string(),
        problem: format!("broken JSON: {error}"),
        hint: "copy the file from the model's repository again".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_list_of_templates_the_default_one_is_taken() {
        let list = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        assert_eq!(template_text(Some(&list)), Some("d"));
        assert_eq!(template_text(Some(&json!("x"))), Some("x"));
        assert_eq!(template_text(Some(&json!([{"name": "tool_use", "template": "t"}]))), None);
    }

    #[test]
    fn special_tokens_may_be_strings_or_objects() {
        assert_eq!(token_text(Some(&json!("<s>"))), Some("<s>"));
        assert_eq!(token_text(Some(&json!({"content": "</s>", "lstrip": false}))), Some("</s>"));
        assert_eq!(token_text(Some(&Value::Null)), None);
    }

    #[test]
    fn the_recipe_wins_over_the_tokenizer() {
        let mut files = TokenizerFiles::default();
        files.special_tokens.insert("eos_token".to_owned(), json!("</s>"));
        files.override_tokens(&SpecialTokenOverrides {
            eos_token: Some("<|im_end|>".to_owned()),
            ..SpecialTokenOverrides::default()
        });
        assert_eq!(files.special_token("eos_token"), Some("<|im_end|>"));
        assert_eq!(files.special_token("bos_token"), None);
    }
}
