//! The files beside exported weights, with which serving uses what training used: tokenizer, special tokens, chat
//! template, tokens that end a text, generation settings, model card.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{ExportError, write};
use crate::hub::{self, BaseModel, GENERATION_FILE};
use crate::run_dir::failed;

/// The files of a tokenizer that hold a chat template, and nothing else.
const TEMPLATE_FILES: [&str; 2] = ["chat_template.jinja", "chat_template.json"];

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
    /// The tokens with which a text ends, the tokenizer's own first.
    pub ends: Ends,
    /// Ids of special tokens that replace the model's own, by their keys, such as `pad_token_id`.
    pub special_ids: Vec<(&'static str, u32)>,
    /// The generation settings, where they are not the base model's.
    pub generation: Option<PathBuf>,
}

/// The tokens at which a server must stop.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// The tokenizer's end of sequence.
    pub tokenizer: Option<u32>,
    /// The tokens that end a trained turn.
    pub trained: Vec<u32>,
}

impl Ends {
    /// `known` with those that it lacks. As in transformers' trainer the tokenizer's own comes first, since some programs
    /// read but one.
    fn added_to(&self, known: &[u32]) -> Vec<u32> {
        let mut all: Vec<u32> = self.tokenizer.into_iter().filter(|id| !known.contains(id)).collect();
        for id in known.iter().chain(&self.trained) {
            if !all.contains(id) {
                all.push(*id);
            }
        }
        all
    }
}

/// The file of prompts with their text and ids in training, against which a server can be checked.
pub const GOLDEN_PROMPTS: &str = "golden_prompts.json";

impl Companions {
    /// The tokenizer of `folder` as it is, with the generation settings beside it, if there are any.
    pub fn of(folder: &Path, ends: Ends) -> Self {
        Self {
            tokenizer: folder.to_owned(),
            special_tokens: Vec::new(),
            template: None,
            golden: None,
            ends,
            special_ids: Vec::new(),
            generation: Some(folder.join(GENERATION_FILE)).filter(|path| path.is_file()),
        }
    }

    /// Writes them into `folder`, with `card` as its README; `config.json` is aligned if it is there.
    pub(super) fn write(&self, base: &BaseModel, folder: &Path, card: &str) -> Result<(), ExportError> {
        let golden = Some(self.tokenizer.join(GOLDEN_PROMPTS)).filter(|path| path.is_file());
        for file in hub::tokenizer_files(&self.tokenizer).into_iter().chain(golden) {
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
        self.write_template(folder)?;
        self.write_generation(base, folder)?;
        let config = folder.join("config.json");
        if config.is_file() {
            self.align_config(&config)?;
        }
        if let Some(golden) = &self.golden {
            write(&folder.join(GOLDEN_PROMPTS), golden.as_bytes())?;
        }
        write(&folder.join("README.md"), card.as_bytes())
    }

    /// Leaves one chat template in `folder`, that of the training. Programs differ in the file that they read first, so
    /// all of them hold it.
    fn write_template(&self, folder: &Path) -> Result<(), ExportError> {
        let [path, of_processor] = TEMPLATE_FILES.map(|name| folder.join(name));
        if let Some(template) = &self.template {
            write(&path, template.as_bytes())?;
        }
        if !path.is_file() {
            return Ok(());
        }
        let template = std::fs::read_to_string(&path).map_err(failed(&path))?;
        for (path, must_have) in
            [(folder.join("tokenizer_config.json"), self.template.is_some()), (of_processor, false)]
        {
            if !path.is_file() {
                continue;
            }
            let mut object: Map<String, Value> = hub::read_object(&path)?;
            let own = object.get("chat_template");
            let differs = own.is_some_and(|own| own.as_str() != Some(template.as_str()));
            if differs || (must_have && own.is_none()) {
                object.insert("chat_template".to_owned(), json!(template));
                write_object(&path, &object)?;
            }
        }
        Ok(())
    }

    /// Writes `generation_config.json`: as it is, or with the ends and special tokens that it lacks.
    fn write_generation(&self, base: &BaseModel, folder: &Path) -> Result<(), ExportError> {
        let file = self.generation.clone().or_else(|| base.generation_config_file());
        let into = folder.join(GENERATION_FILE);
        let mut object = match &file {
            Some(file) => hub::read_object(file)?,
            // A server reads these from the configuration only where there is no such file.
            None => {
                let special = ["bos_token_id", "pad_token_id"].into_iter();
                let own = special.filter_map(|key| Some((key.to_owned(), text_value(&base.config, key)?.clone())));
                own.collect()
            }
        };
        let known = match object.get("eos_token_id").and_then(ids_of) {
            Some(ids) => ids,
            None => base.eos_token_ids()?,
        };
        let ends = self.ends.added_to(&known);
        let is_aligned = self.special_ids.iter().all(|(key, id)| object.get(*key) == Some(&json!(id)));
        match file {
            Some(file) if ends == known && is_aligned => {
                let bytes = std::fs::read(&file).map_err(failed(&file))?;
                write(&into, &bytes)
            }
            None if ends == known && self.special_ids.is_empty() => Ok(()),
            _ => {
                self.align(&mut object, &ends);
                write_object(&into, &object)
            }
        }
    }

    /// Writes the ends and special tokens into `config.json`, and into the part of it that is the text model's.
    fn align_config(&self, path: &Path) -> Result<(), ExportError> {
        let mut config = hub::read_object(path)?;
        let whole = config.clone();
        let ends = |object: &Map<String, Value>| object.get("eos_token_id").and_then(ids_of);
        let text = config.get("text_config").and_then(Value::as_object).cloned();
        if let Some(mut text) = text {
            let known = ends(&text).or_else(|| ends(&config)).unwrap_or_default();
            self.align(&mut text, &self.ends.added_to(&known));
            config.insert("text_config".to_owned(), text.into());
        }
        if !config.contains_key("text_config") || config.contains_key("eos_token_id") {
            let known = ends(&config).unwrap_or_default();
            self.align(&mut config, &self.ends.added_to(&known));
        }
        if config == whole { Ok(()) } else { write_object(path, &config) }
    }

    fn align(&self, object: &mut Map<String, Value>, ends: &[u32]) {
        if object.get("eos_token_id").and_then(ids_of).unwrap_or_default() != ends {
            let value = if let [id] = ends { json!(id) } else { json!(ends) };
            object.insert("eos_token_id".to_owned(), value);
        }
        for (key, id) in &self.special_ids {
            object.insert((*key).to_owned(), json!(id));
        }
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
        write_object(path, &object)
    }
}

/// The value under `key` of a configuration, or of the part that is the text model's, unless it is null.
fn text_value<'a>(config: &'a Value, key: &str) -> Option<&'a Value> {
    let value = config.get(key).or_else(|| config.get("text_config")?.get(key));
    value.filter(|value| !value.is_null())
}

/// The ids in a number or a list of numbers; `None` if it is neither.
fn ids_of(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().map(id).collect(),
        value => id(value).map(|id| vec![id]),
    }
}

fn write_object(path: &Path, object: &Map<String, Value>) -> Result<(), ExportError> {
    let text = serde_json::to_string_pretty(object).map_err(|error| failed(path)(error.into()))?;
    write(path, (text + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokenizers_end_comes_first_and_no_known_one_is_lost() {
        let ends = |tokenizer, trained: &[u32]| Ends { tokenizer, trained: trained.to_vec() };
        assert_eq!(ends(Some(377), &[377]).added_to(&[375]), [377, 375]);
        assert_eq!(ends(Some(375), &[377]).added_to(&[375]), [375, 377]);
        assert_eq!(ends(Some(375), &[375]).added_to(&[380, 375]), [380, 375]);
        assert_eq!(ends(None, &[5]).added_to(&[]), [5]);
        assert_eq!(Ends::default().added_to(&[7, 8]), [7, 8]);
    }
}
