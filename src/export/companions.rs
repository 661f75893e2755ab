//! The files beside exported weights, with which serving uses what training used: tokenizer, special tokens, chat
//! template, generation settings, model card.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{ExportError, write};
use crate::hub::{self, BaseModel};
use crate::run_dir::failed;

/// The files beside the weights.
#[derive(Debug, Clone)]
pub struct Companions {
    /// The folder of the tokenizer used in training.
    pub tokenizer: PathBuf,
    /// Special tokens with which the recipe replaced the tokenizer's own, by their keys, such as `pad_token`.
    pub special_tokens: Vec<(&'static str, String)>,
    /// The chat template, where it is not the tokenizer's own.
    pub template: Option<String>,
    /// The content of [`GOLDEN_PROMPTS`]; that beside the tokenizer if `None`.
    pub golden: Option<String>,
}

/// The file of prompts with their text and ids in training, against which a server can be checked.
pub const GOLDEN_PROMPTS: &str = "golden_prompts.json";

impl Companions {
    /// The tokenizer of `folder` as it is.
    pub fn of(folder: &Path) -> Self {
        Self { tokenizer: folder.to_owned(), special_tokens: Vec::new(), template: None, golden: None }
    }

    /// Writes them into `folder`, with `card` as its README.
    pub(super) fn write(&self, base: &BaseModel, folder: &Path, card: &str) -> Result<(), ExportError> {
        let golden = Some(self.tokenizer.join(GOLDEN_PROMPTS)).filter(|path| path.is_file());
        let files =
            base.generation_config_file().into_iter().chain(hub::tokenizer_files(&self.tokenizer)).chain(golden);
        for file in files {
            // Templates with names have a folder of their own, and stand back for the one that was trained with.
            let named = file.strip_prefix(&self.tokenizer).ok().filter(|path| path.components().count() > 1);
            if named.is_some() && self.template.is_some() {
                continue;
            }
            if let Some(name) = named.or(file.file_name().map(Path::new)) {
                let path = folder.join(name);
                let bytes = std::fs::read(&file).map_err(failed(&file))?;
                path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed(&path))?;
                write(&path, &bytes)?;
            }
        }
        if !self.special_tokens.is_empty() {
            for name in ["tokenizer_config.json", "special_tokens_map.json"] {
                self.replace_special_tokens(&folder.join(name))?;
            }
        }
        if let Some(template) = &self.template {
            write(&folder.join("chat_template.jinja"), template.as_bytes())?;
        }
        if let Some(golden) = &self.golden {
            write(&folder.join(GOLDEN_PROMPTS), golden.as_bytes())?;
        }
        write(&folder.join("README.md"), card.as_bytes())
    }

    /// Writes the recipe's special tokens into one of the tokenizer's files, if it exists.
    fn replace_special_tokens(&self, path: &Path) -> Result<(), ExportError> {
        if !path.is_file() {
            return Ok(());
        }
        let mut object: Map<String, Value> = hub::read_object(path)?;
        for (key, token) in &self.special_tokens {
            object.insert((*key).to_owned(), json!(token));
        }
        let text = serde_json::to_string_pretty(&object).map_err(|error| failed(path)(error.into()))?;
        write(path, (text + "\n").as_bytes())
    }
}
