//! The files beside `tokenizer.json`: special tokens by name, and the model's chat template.
//!
//! `tokenizer_config.json` wins over `special_tokens_map.json`, and template files over the
//! `chat_template` of `tokenizer_config.json`, as in transformers.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::foundation::{Error, read_bounded};

/// Names of the special tokens that templates may use.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The folder of templates that have names.
const MORE_TEMPLATES: &str = "additional_chat_templates";

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
    /// The same for conversations with tools, if the model has another one for them.
    pub(crate) tool_template: Option<(String, PathBuf)>,
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
        let mut template = template_file(folder.join("chat_template.jinja"))?;
        let mut tool_template = template_file(folder.join(MORE_TEMPLATES).join("tool_use.jinja"))?;
        if template.is_none() {
            template = template_file(folder.join(MORE_TEMPLATES).join("default.jinja"))?;
        }
        if template.is_none() && tool_template.is_none() {
            let named = |name: &str| {
                let text = template_text(config.get("chat_template"), name)?;
                Some((text.to_owned(), config_path.clone()))
            };
            (template, tool_template) = (named("default"), named("tool_use"));
        }
        Ok(TokenizerFiles { special_tokens, template, tool_template })
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

/// The template of a name: one text is the default, a list has names.
fn template_text<'v>(template: Option<&'v Value>, name: &str) -> Option<&'v str> {
    match template? {
        Value::String(text) => (name == "default").then_some(text),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
            .and_then(|entry| entry.get("template"))
            .and_then(Value::as_str),
        _ => None,
    }
}

/// A template in a file of its own, if there is one.
fn template_file(path: PathBuf) -> Result<Option<(String, PathBuf)>, Error> {
    if path.is_file() { Ok(Some((read_text(&path)?, path))) } else { Ok(None) }
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
    fn templates_in_a_list_have_names() {
        let list = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        assert_eq!(template_text(Some(&list), "default"), Some("d"));
        assert_eq!(template_text(Some(&list), "tool_use"), Some("t"));
        assert_eq!(template_text(Some(&json!("x")), "default"), Some("x"));
        assert_eq!(template_text(Some(&json!("x")), "tool_use"), None);
        assert_eq!(template_text(Some(&json!([{"name": "tool_use", "template": "t"}])), "default"), None);
    }

    #[test]
    fn template_files_win_over_the_list() {
        let folder = crate::test_tokenizer::Folder::new();
        let list = json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]);
        folder.write("tokenizer_config.json", &json!({"chat_template": list}).to_string());
        let texts = |folder: &Path| {
            let files = TokenizerFiles::read(folder).unwrap();
            [files.template, files.tool_template].map(|found| found.map(|(text, _)| text))
        };
        assert_eq!(texts(folder.path()), [Some("d".to_owned()), Some("t".to_owned())]);
        folder.write("chat_template.jinja", "file");
        assert_eq!(texts(folder.path()), [Some("file".to_owned()), None]);
        std::fs::create_dir(folder.path().join(MORE_TEMPLATES)).unwrap();
        folder.write("additional_chat_templates/tool_use.jinja", "more");
        assert_eq!(texts(folder.path()), [Some("file".to_owned()), Some("more".to_owned())]);
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
