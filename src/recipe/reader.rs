//! Typed reading of a recipe's tree.
//!
//! A [`Section`] is a cursor on one mapping. It reads one key at a time by the key's row in the schema; whatever was
//! not read is refused by [`Section::finish`]. Problems are collected and reading continues, so that one report has
//! them all. Unset and unreadable values both give the default.

use std::cell::RefCell;
use std::sync::Arc;

use super::kinds::{Kind, Reading};
use super::no_effect::{self, Hint};
use super::problem::{Position, ProblemLog, Source, shortened};
use super::refused;
use super::scalars::{boolean, number, scalar};
use super::schema::{Key, NoEffect, Refused, home};
use super::setting::{Place, Setting, Written};
use super::yaml::{Entry, Node, Value};
use crate::text::nearest;

/// The problems and notes that reading collects, shared by all sections of a recipe.
pub(super) struct Findings {
    pub(super) source: Arc<Source>,
    pub(super) problems: RefCell<ProblemLog>,
    pub(super) hints: RefCell<Vec<(Position, Hint)>>,
}

impl Findings {
    pub(super) fn new(source: &Arc<Source>, problems: ProblemLog) -> Findings {
        Findings { source: Arc::clone(source), problems: RefCell::new(problems), hints: RefCell::new(Vec::new()) }
    }

    /// Findings of the same source that are thrown away.
    pub(super) fn scratch(&self) -> Findings {
        Findings::new(&self.source, ProblemLog::default())
    }

    pub(super) fn problem(&self, at: Position, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.borrow_mut().add(at, message, hint);
    }

    /// Notes that `key` was accepted and has no effect.
    pub(super) fn no_effect(&self, key: &str, node: &Node, why: &str) {
        self.note(node.at, key, node.shown(), why);
    }

    /// Notes that a key has no effect beside others.
    pub(super) fn note(&self, at: Position, key: &str, value: String, why: &str) {
        let hint = Hint { key: key.to_owned(), value, at: self.source.name(at), why: why.to_owned() };
        self.hints.borrow_mut().push((at, hint));
    }
}

/// A cursor on one mapping.
pub(super) struct Section<'a> {
    pub(super) findings: &'a Findings,
    /// The place of the mapping, for keys that are missing from it.
    place: Position,
    /// The dotted name with a dot at its end; empty at the top.
    prefix: String,
    entries: &'a [Entry],
    /// The keys that were read: all that this section may have.
    read: Vec<Key>,
    /// Set if the value is not a mapping at all, so that missing keys are not worth a report.
    is_broken: bool,
}

impl<'a> Section<'a> {
    /// A cursor on `node`, which is reported if it is not a mapping. `name` is dotted, and empty for the recipe
    /// itself; keys that are missing are reported at `place`.
    pub(super) fn new(findings: &'a Findings, name: &str, node: &'a Node, place: Position) -> Section<'a> {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
        let mut section = Section { findings, place, prefix, entries: &[], read: Vec::new(), is_broken: false };
        match &node.value {
            Value::Map(entries) => section.entries = entries,
            _ if node.is_unset() => {}
            _ if name.is_empty() => {
                section.is_broken = true;
                let hint = "write one `key: value` per line, for example `base_model: path/to/model`";
                findings.problem(node.at, "a recipe is a mapping of keys to values", hint);
            }
            _ => {
                section.is_broken = true;
                let reading = Reading { findings, name: name.to_owned(), place, hint: "" };
                reading.refuse(node, "a mapping of keys to values");
            }
        }
        section
    }

    /// The value of a key by its row in the schema: as written, or its default.
    pub(super) fn read<T: 'static, F: From<T> + Default>(&mut self, key: &Key, kind: &Kind<T>) -> Setting<F> {
        self.read.push(*key);
        let name = self.name(key.name);
        let entry = self.entries.iter().find(|entry| entry.key == key.name);
        let at = entry.map_or(self.place, |entry| entry.node.at);
        let place = entry.map_or(self.place, Entry::place);
        let is_written = entry.is_some_and(|entry| !entry.node.is_empty());
        if key.is_required && !is_written && !self.is_broken {
            // A key that was left blank has a place of its own.
            self.findings.problem(at, format!("`{name}` is missing"), key.hint);
        }
        let reading = Reading { findings: self.findings, name, place, hint: key.hint };
        let blank = Node::unset(place);
        let node = entry.map_or(&blank, |entry| &entry.node);
        let value = kind.read(&reading, node);
        let is_set = is_written && value.is_some();
        let value = value.or_else(|| kind.default(key, self.findings)).map_or_else(F::default, F::from);
        let place_of = |position| Place::new(&self.findings.source, position);
        let items = match &node.value {
            Value::List(items) => items.iter().map(|item| place_of(item.at)).collect(),
            _ => Vec::new(),
        };
        let text = scalar(node).filter(|_| is_written).map(|_| node.shown());
        Setting::new(value, is_set, Written { key: reading.name, place: place_of(place), at, items, text, is_written })
    }

    /// The dotted name of a key.
    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Notes the keys that have no effect, and refuses every other key that was not read: by name and with advice
    /// where `refused` has it, else as unknown.
    pub(super) fn finish(self, no_effect: &[NoEffect], refused: &[Refused]) {
        for entry in self.entries.iter().filter(|entry| self.read.iter().all(|key| key.name != entry.key)) {
            let name = self.name(&shortened(&entry.key, 60));
            if let Some(row) = no_effect.iter().find(|row| row.key == entry.key) {
                if !entry.node.is_unset() {
                    let place = entry.place();
                    no_effect::read(row, &Reading { findings: self.findings, name, place, hint: "" }, &entry.node);
                }
                continue;
            }
            if let Some(group) = refused::find(refused, &entry.key) {
                if !group.is_off(&entry.node) {
                    let message = format!("`{name}` is {}", group.standing);
                    self.findings.problem(entry.at, message, group.advice);
                }
                continue;
            }
            let hint = if self.findings.problems.borrow().is_full() {
                String::new()
            } else {
                self.advice(&entry.key, no_effect, refused)
            };
            self.findings.problem(entry.at, format!("unknown key `{name}`"), hint);
        }
    }
}

impl Section<'_> {
    /// Advice on an unknown key: the one that has this name in other programs, the section that has it, or the nearest.
    fn advice(&self, key: &str, no_effect: &[NoEffect], refused: &[Refused]) -> String {
        let known_as = |known: &&Key| known.known_as.split_whitespace().any(|name| name == key);
        if let Some(known) = self.read.iter().find(known_as) {
            return format!("did you mean `{}`?", known.name);
        }
        if let Some(home) = home(key) {
            return match home {
                "" => format!("`{key}` belongs to the top level of the recipe: write it there, without indent"),
                "datasets" => {
                    format!("`{key}` belongs to an entry of `datasets`: `datasets: [{{path: ..., {key}: ...}}]`")
                }
                section => format!("`{key}` belongs to `{section}`: `{section}: {{{key}: ...}}`"),
            };
        }
        let ignored = no_effect.iter().map(|row| row.key);
        let names = self.read.iter().map(|key| key.name).chain(ignored).chain(refused::names(refused));
        match nearest(key, names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "remove the key, nothing here has a similar name".to_owned(),
        }
    }
}

/// A value with its kind, for messages.
pub(super) fn described(node: &Node) -> String {
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
