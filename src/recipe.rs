//! The recipe as it is written: one YAML file in, one checked struct out.
//!
//! Keys are Axolotl's flat keys. Every key is either honoured and a field of [`Recipe`], or an
//! implementation hint and listed in [`Recipe::hints`], or refused with its place and advice; all
//! refusals of a file come in one [`Problems`]. The rows of the schema decide which, and they hold the defaults that
//! depend on nothing else; a field whose default depends on model, data or device is `None` unless it was written,
//! and the plan decides.

mod card;
mod checks;
mod environment;
mod kinds;
mod no_effect;
mod overrides;
mod problem;
mod read;
mod reader;
mod refused;
mod scalars;
mod schema;
mod setting;
mod syntax;
mod tree;
mod values;
mod written;
mod yaml;

#[cfg(test)]
mod circulating;
#[cfg(test)]
mod habits;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use card::{CardConfig, card_configs};
pub use no_effect::Hint;
pub use problem::{Problem, Problems};
pub use schema::{
    BnbConfig, DatasetEntry, Export, OnResume, Preflight, Recipe, changeable, is_key, json_schema, key_called,
    on_resume, reference,
};
pub use setting::{Place, Setting};
pub use values::{AdapterKind, Cadence, ChatTemplate, MicroBatchSize, Steps, Toggle};

use crate::text::{shell_word, similar_path};
use problem::{Position, Source};

impl Recipe {
    /// Reads and checks the file at `path` with `overrides` (`key=value`) on top.
    ///
    /// # Errors
    /// Every problem of the file and of the overrides, sorted by position.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Recipe, Problems> {
        let text = read_limited(path)?;
        Recipe::from_text(path, &text, overrides, &|name| std::env::var(name).ok())
    }

    /// Checks `text` as the content of `path`; `env` looks up environment variables.
    ///
    /// # Errors
    /// Every problem of the text and of the overrides, sorted by position.
    pub fn from_text(
        path: &Path,
        text: &str,
        overrides: &[String],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Recipe, Problems> {
        let source = Arc::new(Source::new(path, overrides));
        read::recipe(&source, text, env)
    }

    /// The place of a key by its dotted name, for errors of packages that do not know recipes; that of the closest
    /// enclosing key if it was not written itself. Any other code has the place from the key's [`Setting`].
    pub fn place_of(&self, key: &str) -> String {
        let source = Source::new(&self.path, &self.overrides);
        let enclosing = std::iter::successors(Some(key), |key| key.rfind('.').map(|dot| &key[..dot]));
        let position = enclosing.filter_map(|key| self.places.get(key)).next();
        source.name(position.copied().unwrap_or(Position::Whole))
    }

    /// Resolves a relative path of the recipe: in the recipe's folder if it exists there, else in the working folder.
    pub fn locate(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        let beside = self.path.parent().map(|folder| folder.join(path));
        match beside {
            Some(beside) if path.is_relative() && beside.exists() => beside,
            _ => path.to_path_buf(),
        }
    }
}

/// The text of a recipe file, refused when it cannot be read, is too large or is not valid UTF-8.
fn read_limited(path: &Path) -> Result<String, Problems> {
    let refuse = |message: String, hint: &str| {
        let at = path.display().to_string();
        Problems(vec![Problem { at, message, hint: hint.to_owned() }])
    };
    let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_ascii_lowercase());
    if suffix.is_some_and(|suffix| ["jsonl", "csv", "parquet", "arrow", "txt", "safetensors"].contains(&&*suffix)) {
        return Err(refuse(
            "this is not a recipe".to_owned(),
            "a recipe is a YAML file; data are named in its `datasets`: `datasets: [{path: train.jsonl}]`",
        ));
    }
    let file = std::fs::File::open(path).map_err(|error| {
        let meant = similar_path(path, Path::is_file).map(|path| format!("did you mean `{}`?", path.display()));
        refuse(format!("cannot be read: {error}"), &meant.unwrap_or("check the path of the recipe".to_owned()))
    })?;
    if path.join("recipe.yaml").is_file() {
        let (folder, run) = (path.display().to_string(), path.join("run.json").is_file());
        let resume =
            if run { format!("; `tune resume {}` resumes the run", shell_word(&folder)) } else { String::new() };
        return Err(refuse("is a folder".to_owned(), &format!("did you mean `{folder}/recipe.yaml`?{resume}")));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to know, and also ends endless files such as devices.
    file.take(yaml::MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(format!("cannot be read: {error}"), "a recipe is a YAML file"))?;
    if bytes.len() > yaml::MAX_BYTES {
        return Err(refuse(yaml::too_large(), "data belongs into files of its own that `datasets` names"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
        refuse(format!("line {line} is not valid UTF-8"), "save the recipe as UTF-8")
    })
}
