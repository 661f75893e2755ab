//! Typed reading of a recipe's tree.
//!
//! A [`Section`] is a cursor on one mapping. Each call asks for one key with its type and bounds,
//! and that call is the key's whole schema: what was asked for is honoured, everything else is
//! refused by [`Section::finish`]. Problems are collected and reading goes on, so that one report
//! has them all. Unset and unreadable values both come back as `None`.

use std::cell::RefCell;

use super::hints::Hint;
use super::problem::{Found, Place, Source, shortened};
use super::refused::{self, Refused};
use super::scalars::{boolean, number, scalar, whole};
use super::yaml::{Entry, Node, Value};
use crate::text::nearest;

/// What reading collects, shared by all sections of a recipe.
pub(super) struct Findings<'a> {
    pub(super) source: &'a Source,
    pub(super) problems: RefCell<Found>,
    pub(super) hints: RefCell<Vec<(Place, Hint)>>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(source: &'a Source, problems: Found) -> Findings<'a> {
        Findings { source, problems: RefCell::new(problems), hints: RefCell::new(Vec::new()) }
    }

    pub(super) fn problem(&self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.borrow_mut().add(at, message, hint);
    }

    /// Notes that `key` was accepted and has no effect.
    pub(super) fn hint(&self, key: &str, node: &Node, why: &str) {
        let at = self.source.name(node.at);
        let hint = Hint { key: key.to_owned(), value: node.shown(), at, why: why.to_owned() };
        self.hints.borrow_mut().push((node.at, hint));
    }
}

/// The bounds of a number, in words and as a test.
pub(super) struct Bounds {
    pub(super) says: &'static str,
    pub(super) holds: fn(f64) -> bool,
}

/// Above zero.
pub(super) const POSITIVE: Bounds = Bounds { says: "a number above 0", holds: |x| x > 0.0 };
/// Zero or above.
pub(super) const NOT_NEGATIVE: Bounds = Bounds { says: "a number of at least 0", holds: |x| x >= 0.0 };
/// A share that may not be all.
pub(super) const BELOW_ONE: Bounds = Bounds { says: "a number from 0 to below 1", holds: |x| (0.0..1.0).contains(&x) };
/// A share.
pub(super) const SHARE: Bounds = Bounds { says: "a number from 0 to 1", holds: |x| (0.0..=1.0).contains(&x) };

/// Largest count, so that products of two still fit.
pub(super) const MOST: usize = u32::MAX as usize;

/// A cursor on one mapping.
pub(super) struct Section<'a> {
    pub(super) findings: &'a Findings<'a>,
    /// Where the mapping is, for keys that are missing from it.
    pub(super) at: Place,
    /// Dotted name with a dot at its end; empty at the top.
    prefix: String,
    entries: &'a [Entry],
    /// The keys that were asked for: the schema of this section.
    asked: Vec<&'static str>,
    /// Whether it is no mapping at all, so that missing keys are not worth a word.
    broken: bool,
}

impl<'a> Section<'a> {
    /// A cursor on `node`, which is reported when it is no mapping. `name` is dotted, and empty
    /// for the recipe itself.
    pub(super) fn new(findings: &'a Findings<'a>, name: &str, node: &'a Node) -> Section<'a> {
        let mut section =
            Section { findings, at: node.at, prefix: String::new(), entries: &[], asked: Vec::new(), broken: false };
        if !name.is_empty() {
            section.prefix = format!("{name}.");
        }
        match &node.value {
            Value::Map(entries) => section.entries = entries,
            _ if node.is_unset() => {}
            _ if name.is_empty() => {
                section.broken = true;
                let hint = "write one `key: value` per line, for example `base_model: path/to/model`";
                findings.problem(node.at, "a recipe is a mapping of keys to values", hint);
            }
            _ => {
                section.broken = true;
                wrong(findings, name, node, "a mapping of keys to values");
            }
        }
        section
    }

    /// The value of a key as written; records that the key is honoured.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!entry.node.is_unset()).then_some(&entry.node)
    }

    /// The place of a key's value, or of the section where the key was not written.
    pub(super) fn place(&self, key: &str) -> Place {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.at, |entry| entry.node.at)
    }

    /// Whether a key that is needed was left out or left blank.
    pub(super) fn lacks(&self, key: &str) -> bool {
        let written = self.entries.iter().any(|entry| entry.key == key && !entry.node.is_empty());
        !written && !self.broken
    }

    /// Whether a key has a value, of whatever kind.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some_and(|node| !node.is_empty())
    }

    /// The value of a key, blank ones included.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The dotted name of a key.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Reports that a value is not of the kind that `accepts` describes.
    pub(super) fn refuse(&self, key: &str, node: &Node, accepts: &str) {
        wrong(self.findings, &self.name(key), node, accepts);
    }

    /// A text; numbers and booleans are taken as they are spelled.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let node = self.take(key)?;
        self.scalar(key, node, "a text").map(str::to_owned)
    }

    /// `true` or `false`, in any of YAML's spellings.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        let flag = scalar(node).and_then(boolean);
        if flag.is_none() {
            self.refuse(key, node, "true or false");
        }
        flag
    }

    /// A boolean of which only one value is supported; `instead` says what to do about the other.
    pub(super) fn only(&mut self, key: &'static str, supported: bool, instead: &str) -> Option<bool> {
        let node = self.take(key)?;
        let flag = scalar(node).and_then(boolean);
        if flag != Some(supported) {
            let message =
                format!("`{}` does not support `{}`, only `{supported}` or blank", self.name(key), node.shown());
            self.findings.problem(node.at, message, instead);
            return None;
        }
        flag
    }

    /// An integer of at least `least`.
    pub(super) fn whole(&mut self, key: &'static str, least: usize) -> Option<usize> {
        let node = self.take(key)?;
        let value = scalar(node).and_then(whole);
        if value.is_some_and(|value| value > MOST) {
            self.refuse(key, node, &format!("an integer from {least} to {MOST}"));
            return None;
        }
        let value = value.filter(|value| *value >= least);
        if value.is_none() {
            self.refuse(key, node, &format!("an integer of at least {least}"));
        }
        value
    }

    /// A number within bounds.
    pub(super) fn number(&mut self, key: &'static str, bounds: &Bounds) -> Option<f64> {
        let node = self.take(key)?;
        let value = scalar(node).and_then(number).filter(|value| (bounds.holds)(*value));
        if value.is_none() {
            self.refuse(key, node, bounds.says);
        }
        value
    }

    /// One of several names. Names from `"|"` on are spellings that are taken but not advertised.
    pub(super) fn choice<T: Clone>(&mut self, key: &'static str, accepted: &[(&str, T)]) -> Option<T> {
        let node = self.take(key)?;
        self.choose(key, node, accepted)
    }

    /// [`Section::choice`] on a value that was taken already.
    pub(super) fn choose<T: Clone>(&self, key: &str, node: &Node, accepted: &[(&str, T)]) -> Option<T> {
        let given = scalar(node).map(str::trim);
        let same = |name: &str| given.is_some_and(|given| name.trim_start_matches('|').eq_ignore_ascii_case(given));
        if let Some((_, value)) = accepted.iter().find(|(name, _)| same(name)) {
            return Some(value.clone());
        }
        let names: Vec<&str> = accepted.iter().map(|(name, _)| *name).filter(|name| !name.starts_with('|')).collect();
        self.unsupported(key, node, &names, "");
        None
    }

    /// Reports a value that is none of `names`; `advice` is said after them.
    pub(super) fn unsupported(&self, key: &str, node: &Node, names: &[&str], advice: &str) {
        let close = scalar(node).and_then(|given| nearest(given, names.iter().copied()));
        let question = close.map_or(String::new(), |name| format!("did you mean `{name}`? "));
        let hint = format!("{question}accepted: {}{advice}", names.join(", "));
        let message = format!("`{}` does not support {}", self.name(key), described(node));
        self.findings.problem(node.at, message, hint);
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let node = self.take(key)?;
        match &node.value {
            Value::List(items) => Some(self.items(key, items)),
            _ => {
                self.refuse(key, node, "a list of texts");
                None
            }
        }
    }

    /// A text or a list of texts.
    pub(super) fn text_or_texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let node = self.take(key)?;
        match &node.value {
            Value::List(items) => Some(self.items(key, items)),
            _ => self.scalar(key, node, "a text or a list of texts").map(|text| vec![text.to_owned()]),
        }
    }

    /// The texts of a list, without those that are none.
    pub(super) fn items(&self, key: &str, items: &[Node]) -> Vec<String> {
        let mut texts = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let name = format!("{key}.{index}");
            if item.is_unset() {
                self.refuse(&name, item, "a text");
            } else {
                texts.extend(self.scalar(&name, item, "a text").map(str::to_owned));
            }
        }
        texts
    }

    /// A mapping below this one.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let node = self.take(key)?;
        Some(Section::new(self.findings, &self.name(key), node))
    }

    /// A list of mappings below this one.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(node) = self.take(key) else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            self.refuse(key, node, "a list of mappings, each starting with `- `");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            sections.push(Section::new(self.findings, &self.name(&format!("{key}.{index}")), item));
        }
        sections
    }

    /// A mapping whose keys are free, entry by entry.
    pub(super) fn free(&mut self, key: &'static str) -> &'a [Entry] {
        let Some(node) = self.take(key) else {
            return &[];
        };
        match &node.value {
            Value::Map(entries) => entries,
            _ => {
                self.refuse(key, node, "a mapping");
                &[]
            }
        }
    }

    /// Refuses every key that was not asked for: by name and with advice where `known` has it,
    /// else as unknown.
    pub(super) fn finish(self, known: &[Refused]) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            let name = self.name(&shortened(&entry.key, 60));
            if let Some(group) = refused::find(known, &entry.key) {
                if !group.is_off(&entry.node) {
                    let message = format!("`{name}` is {}", group.standing);
                    self.findings.problem(entry.at, message, group.advice);
                }
                continue;
            }
            let hint = if self.findings.problems.borrow().is_full() {
                String::new()
            } else {
                let names = self.asked.iter().copied().chain(refused::names(known));
                refused::other_name(&entry.key)
                    .filter(|name| self.asked.contains(name))
                    .or_else(|| nearest(&entry.key, names))
                    .map_or("remove the key, nothing here has a similar name".to_owned(), |name| {
                        format!("did you mean `{name}`?")
                    })
            };
            self.findings.problem(entry.at, format!("unknown key `{name}`"), hint);
        }
    }

    fn scalar<'n>(&self, key: &str, node: &'n Node, accepts: &str) -> Option<&'n str> {
        let text = scalar(node);
        if text.is_none() {
            self.refuse(key, node, accepts);
        }
        text
    }
}

fn wrong(findings: &Findings<'_>, name: &str, node: &Node, accepts: &str) {
    let message = format!("`{name}` takes {accepts}, not {}", described(node));
    findings.problem(node.at, message, format!("accepted: {accepts}; leave the key out for its default"));
}

/// A value with its kind, for messages.
fn described(node: &Node) -> String {
    let kind = match &node.value {
        Value::List(_) => "the list ",
        Value::Map(_) => "the mapping ",
        Value::Scalar { text, .. } if number(text).is_some() => "",
        Value::Scalar { text, .. } if boolean(text).is_some() => "",
        Value::Scalar { text, .. } if text.is_empty() => return "a blank value".to_owned(),
        Value::Scalar { .. } => "the text ",
    };
    format!("{kind}`{}`", node.shown())
}
