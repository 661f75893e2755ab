//! Reading a `config.json`: typed getters whose errors quote file, key and value.
//!
//! `null` counts as missing everywhere; [`Config::has`] tells the two apart where a family does. Every key that is asked
//! for is noted in [`Asked`], so that the other ones can be refused.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

/// Advice on a value that cannot be meant.
pub(super) const AS_PUBLISHED: &str = "use the `config.json` that the model was published with";

/// Advice on a value that means a computation which is not built.
pub(super) const OTHER_FAMILY: &str = "use a model of a supported family";

/// A `config.json` that does not describe a model this version can build.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key is needed and missing.
    #[error("{path}: key `{key}` is missing; {accepted} is needed")]
    Missing {
        /// The file.
        path: Box<str>,
        /// The key, dotted where nested.
        key: Box<str>,
        /// The values that the key accepts.
        accepted: Box<str>,
    },
    /// A value of the wrong type or size, or one that contradicts another.
    #[error("{path}: `{key}` is `{value}`; {accepted} is accepted")]
    Value {
        /// The file.
        path: Box<str>,
        /// The key, dotted where nested.
        key: Box<str>,
        /// The value as JSON.
        value: Box<str>,
        /// The values that are accepted.
        accepted: Box<str>,
        /// Advice.
        hint: Box<str>,
    },
    /// A value that means a computation this version does not do.
    #[error(
        "{path}: `{key}` is `{value}`, which is not supported by this version for {family}; {accepted} is accepted"
    )]
    Unsupported {
        /// The file.
        path: Box<str>,
        /// The key, dotted where nested.
        key: Box<str>,
        /// The value as JSON.
        value: Box<str>,
        /// The family, for people.
        family: &'static str,
        /// The values that are accepted.
        accepted: Box<str>,
        /// Advice.
        hint: Box<str>,
    },
    /// A key that this version does not know.
    #[error("{path}: `{key}` is `{value}`, an unknown key for {family}; `false`, `null` or its absence is accepted")]
    UnknownKey {
        /// The file.
        path: Box<str>,
        /// The key, dotted where nested.
        key: Box<str>,
        /// The value as JSON.
        value: Box<str>,
        /// The family, for people.
        family: &'static str,
        /// Advice.
        hint: Box<str>,
    },
    /// A `model_type` that no family reads.
    #[error("{path}: `model_type` is `{value}`, {problem}; supported are {supported}")]
    UnknownFamily {
        /// The file.
        path: Box<str>,
        /// The value as JSON.
        value: Box<str>,
        /// Unknown, or known and not supported yet.
        problem: &'static str,
        /// The model types that are supported.
        supported: Box<str>,
        /// Advice.
        hint: Box<str>,
    },
}

impl ConfigError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            ConfigError::Missing { .. } => "use the `config.json` that the model was published with",
            ConfigError::Value { hint, .. }
            | ConfigError::Unsupported { hint, .. }
            | ConfigError::UnknownKey { hint, .. }
            | ConfigError::UnknownFamily { hint, .. } => hint,
        };
        Some(hint.into())
    }
}

/// Objects within objects that are read: `text_config.rope_parameters.full_attention`.
const DEPTH: usize = 3;

/// The keys of a `config.json` that were asked for, by the dotted path of the object that they are in.
#[derive(Debug, Default)]
pub(super) struct Asked(RefCell<BTreeMap<String, BTreeSet<String>>>);

impl Asked {
    fn note(&self, path: &str, key: &str) {
        let mut asked = self.0.borrow_mut();
        let keys = match asked.get_mut(path) {
            Some(keys) => keys,
            None => asked.entry(path.to_owned()).or_default(),
        };
        if !keys.contains(key) {
            keys.insert(key.to_owned());
        }
    }
}

/// One JSON object of a `config.json`: the whole, or a nested one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Config<'a> {
    path: &'a Path,
    family: &'static str,
    object: &'a Map<String, Value>,
    /// The keys of the objects around this one and its own; all empty for the whole itself.
    place: [&'a str; DEPTH],
    asked: &'a Asked,
    /// A key that is not read here.
    hidden: &'a str,
}

impl<'a> Config<'a> {
    /// The whole `config.json` at `path`, read for `family`.
    pub(super) fn new(path: &'a Path, family: &'static str, object: &'a Map<String, Value>, asked: &'a Asked) -> Self {
        Config { path, family, object, place: [""; DEPTH], asked, hidden: "" }
    }

    /// This object as if `key` were not written.
    pub(super) fn without(&self, key: &'a str) -> Config<'a> {
        Config { hidden: key, ..*self }
    }

    /// The object with `defaults` for what is missing.
    pub(super) fn completed(&self, defaults: &[(&str, Value)]) -> Map<String, Value> {
        let mut object = self.object.clone();
        let missing = defaults.iter().filter(|(key, _)| self.value(key).is_none());
        object.extend(missing.map(|(key, value)| ((*key).to_owned(), value.clone())));
        object
    }

    /// This place with another object in it.
    pub(super) fn with<'b>(&self, object: &'b Map<String, Value>) -> Config<'b>
    where
        'a: 'b,
    {
        Config { object, ..*self }
    }

    /// Notes `keys` as known and without effect on the computation, here or beside what else is written.
    pub(super) fn without_effect(&self, keys: &[&str]) {
        keys.iter().for_each(|key| self.asked.note(&self.dotted(""), key));
    }

    /// True if the key is written at all, `null` included.
    pub(super) fn has(&self, key: &str) -> bool {
        self.asked.note(&self.dotted(""), key);
        key != self.hidden && self.object.contains_key(key)
    }

    /// The value, unless missing or `null`.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.asked.note(&self.dotted(""), key);
        self.object.get(key).filter(|value| !value.is_null() && key != self.hidden)
    }

    /// This object and those in it that were looked into, each with its dotted path and the keys that were asked for.
    pub(super) fn objects(&self) -> Vec<(String, &'a Map<String, Value>, BTreeSet<String>)> {
        let mut objects = Vec::new();
        for (place, keys) in self.asked.0.borrow().iter() {
            let inner = |object: Option<&'a Map<String, Value>>, key: &str| object?.get(key)?.as_object();
            // Defaults of a family are asked for as well, and are not written there.
            if let Some(object) = place.split('.').filter(|key| !key.is_empty()).fold(Some(self.object), inner) {
                objects.push((place.clone(), object, keys.clone()));
            }
        }
        objects
    }

    /// The keys and values of this object.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.object.iter()
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, "a text", Value::as_str)
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A finite number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let finite = |value: &'a Value| value.as_f64().filter(|number| number.is_finite());
        self.typed(key, "a number", finite)
    }

    /// A finite number above zero.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let positive = |value: &'a Value| value.as_f64().filter(|number| number.is_finite() && *number > 0.0);
        self.typed(key, "a number above 0", positive)
    }

    /// A number above 0 and at most 1.
    pub(super) fn share(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let share = |value: &'a Value| value.as_f64().filter(|number| *number > 0.0 && *number <= 1.0);
        self.typed(key, "a number above 0 and at most 1", share)
    }

    /// A whole number from 0 to `limit`; the limit keeps a file that lies from filling the memory.
    pub(super) fn count(&self, key: &str, limit: usize) -> Result<Option<usize>, ConfigError> {
        self.typed(key, &format!("a whole number from 0 to {limit}"), |value| whole(value, 0, limit))
    }

    /// A whole number from 1 to `limit`.
    pub(super) fn size(&self, key: &str, limit: usize) -> Result<Option<usize>, ConfigError> {
        self.typed(key, &format!("a whole number from 1 to {limit}"), |value| whole(value, 1, limit))
    }

    /// As [`Config::size`], and an error if the key is missing.
    pub(super) fn required_size(&self, key: &str, limit: usize) -> Result<usize, ConfigError> {
        self.size(key, limit)?.ok_or_else(|| self.missing(key, "a whole number"))
    }

    /// A list of finite numbers.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>, ConfigError> {
        let finite = |value: &Value| value.as_f64().filter(|number| number.is_finite()).map(|number| number as f32);
        self.typed(key, "a list of numbers", |value| value.as_array()?.iter().map(finite).collect())
    }

    /// A list of whole numbers from 0 to `limit`; `true` and `false` count as 1 and 0.
    pub(super) fn counts(&self, key: &str, limit: usize) -> Result<Option<Vec<usize>>, ConfigError> {
        let count = |value: &Value| match value {
            Value::Bool(flag) => Some(usize::from(*flag)),
            value => whole(value, 0, limit),
        };
        let accepted = format!("a list of whole numbers from 0 to {limit}");
        self.typed(key, &accepted, |value| value.as_array()?.iter().map(count).collect())
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        self.typed(key, "a list of texts", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    /// A nested object.
    pub(super) fn object(&self, key: &'a str) -> Result<Option<Config<'a>>, ConfigError> {
        let object = self.typed(key, "an object", Value::as_object)?;
        let mut place = self.place;
        if let Some(free) = place.iter_mut().find(|outer| outer.is_empty()) {
            *free = key;
        }
        Ok(object.map(|object| Config { object, place, hidden: "", ..*self }))
    }

    /// The error for a needed key that is missing.
    pub(super) fn missing(&self, key: &str, accepted: &str) -> ConfigError {
        ConfigError::Missing { path: self.shown_path(), key: self.dotted(key), accepted: accepted.into() }
    }

    /// The error for a value that is wrong in itself or beside another.
    pub(super) fn wrong(&self, key: &str, accepted: impl Into<Box<str>>, hint: impl Into<Box<str>>) -> ConfigError {
        ConfigError::Value {
            path: self.shown_path(),
            key: self.dotted(key),
            value: self.shown_value(key),
            accepted: accepted.into(),
            hint: hint.into(),
        }
    }

    /// The error for a value whose computation this version does not do.
    pub(super) fn unsupported(
        &self,
        key: &str,
        accepted: impl Into<Box<str>>,
        hint: impl Into<Box<str>>,
    ) -> ConfigError {
        ConfigError::Unsupported {
            path: self.shown_path(),
            key: self.dotted(key),
            value: self.shown_value(key),
            family: self.family,
            accepted: accepted.into(),
            hint: hint.into(),
        }
    }

    /// The error for a key of the object at `place` that this version does not know.
    pub(super) fn unknown(&self, place: &str, key: &str, value: &Value, hint: String) -> ConfigError {
        let dotted = if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        let (path, value, family) = (self.shown_path(), shown(value).into(), self.family);
        ConfigError::UnknownKey { path, key: dotted.into(), value, family, hint: hint.into() }
    }

    /// The path as errors show it.
    pub(super) fn shown_path(&self) -> Box<str> {
        self.path.display().to_string().into()
    }

    fn typed<T>(
        &self,
        key: &str,
        accepted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.wrong(key, accepted, AS_PUBLISHED)),
            },
        }
    }

    /// The key with those of the objects around it; an empty one gives the path of this object.
    fn dotted(&self, key: &str) -> Box<str> {
        let parts = self.place.iter().chain([&key]).filter(|part| !part.is_empty());
        parts.copied().collect::<Vec<_>>().join(".").into()
    }

    fn shown_value(&self, key: &str) -> Box<str> {
        shown(self.object.get(key).unwrap_or(&Value::Null)).into()
    }
}

/// A value as errors quote it: JSON, texts without quotes, cut where long.
pub(super) fn shown(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

fn whole(value: &Value, least: usize, limit: usize) -> Option<usize> {
    let number = usize::try_from(value.as_u64()?).ok()?;
    (least..=limit).contains(&number).then_some(number)
}
