//! The kinds of values that keys take: each as a phrase for messages, as JSON Schema, and as a reader.

mod rows;
mod special;

use serde_json::{Value as Json, json};

use super::problem::Position;
use super::reader::{Findings, Section, described};
use super::scalars::{boolean, number, scalar, whole as whole_number};
use super::schema::{Key, Keys, NoEffect, Refused, Row};
use super::yaml::{Node, Value};

pub(super) use rows::*;
pub(super) use special::*;

use crate::text::nearest;

/// Largest count, so that products of two still fit.
pub(super) const MOST: usize = u32::MAX as usize;

/// A kind of values.
pub(super) struct Kind<T> {
    /// The accepted values as a phrase: `an integer of at least 1`.
    pub(super) accepts: String,
    /// The accepted values as JSON Schema, blank ones and variables aside.
    pub(super) schema: Json,
    /// The keys of a mapping, or of each mapping of a list.
    pub(super) inner: Option<Inner>,
    /// Reads a value that is not blank; `None` for one that is reported, and for one that means "unset".
    read: Read<T>,
}

/// Reads a value.
type Read<T> = Box<dyn Fn(&Reading<'_>, &Node) -> Option<T>>;

/// The keys of a section.
pub(super) struct Inner {
    pub(super) rows: Vec<Row>,
    pub(super) no_effect: &'static [NoEffect],
    pub(super) refused: &'static [Refused],
    /// Set for a list of mappings.
    pub(super) is_list: bool,
}

/// A value that is being read.
pub(super) struct Reading<'a> {
    pub(super) findings: &'a Findings,
    /// The dotted key.
    pub(super) name: String,
    /// The place for what is missing from the value.
    pub(super) place: Position,
    /// Advice on a value that is not accepted, shown after the accepted ones.
    pub(super) hint: &'static str,
}

impl<'a> Reading<'a> {
    /// The same for an item or a key of the value.
    pub(super) fn inside(&self, name: &str, place: Position) -> Reading<'a> {
        Reading { findings: self.findings, name: format!("{}.{name}", self.name), place, hint: self.hint }
    }

    /// Reports that a value is not of the kind that `accepts` describes.
    pub(super) fn refuse(&self, node: &Node, accepts: &str) {
        let message = format!("`{}` takes {accepts}, not {}", self.name, described(node));
        let advice = match self.hint.trim_start_matches("; ") {
            "" => "a key with a default may also be left out",
            advice => advice,
        };
        self.findings.problem(node.at, message, format!("accepted: {accepts}; {advice}"));
    }

    /// Reports a value that is none of `names`; `advice` follows them.
    pub(super) fn unsupported(&self, node: &Node, names: &[&str], advice: &str) {
        let close = scalar(node).and_then(|given| nearest(given, names.iter().copied()));
        let question = close.map_or(String::new(), |name| format!("did you mean `{name}`? "));
        let hint = format!("{question}accepted: {}{advice}", names.join(", "));
        self.findings.problem(node.at, format!("`{}` does not support {}", self.name, described(node)), hint);
    }

    /// Notes that the value changes nothing, with the reason.
    fn no_effect(&self, node: &Node, why: &str) {
        self.findings.no_effect(&self.name, node, why);
    }

    /// A single value, refused if it is a list or a mapping.
    fn single<'n>(&self, node: &'n Node, accepts: &str) -> Option<&'n str> {
        let text = scalar(node);
        if text.is_none() {
            self.refuse(node, accepts);
        }
        text
    }

    /// The texts of a list; blank ones are refused.
    fn texts(&self, items: &[Node]) -> Vec<String> {
        let text = |(index, item): (usize, &Node)| {
            let inside = self.inside(&index.to_string(), item.at);
            if item.is_unset() {
                inside.refuse(item, "a text");
                return None;
            }
            inside.single(item, "a text").map(str::to_owned)
        };
        items.iter().enumerate().filter_map(text).collect()
    }
}

impl<T: 'static> Kind<T> {
    fn new(
        accepts: impl Into<String>,
        schema: Json,
        read: impl Fn(&Reading<'_>, &Node) -> Option<T> + 'static,
    ) -> Kind<T> {
        Kind { accepts: accepts.into(), schema, inner: None, read: Box::new(read) }
    }

    /// Reads a value; sections also read a blank one, for the defaults of their keys.
    pub(super) fn read(&self, reading: &Reading<'_>, node: &Node) -> Option<T> {
        let reads_blank = self.inner.as_ref().is_some_and(|inner| !inner.is_list);
        if node.is_unset() && !reads_blank { None } else { (self.read)(reading, node) }
    }

    /// The value that a key has if it is not written, given as YAML.
    pub(super) fn default(&self, key: &Key, findings: &Findings) -> Option<T> {
        let text = key.default?;
        let node = Node { at: Position::Whole, value: Value::Scalar { text: text.to_owned(), plain: true } };
        let scratch = findings.scratch();
        let reading = Reading { findings: &scratch, name: key.name.to_owned(), place: Position::Whole, hint: key.hint };
        self.read(&reading, &node)
    }

    /// Another type of the same values; `None` for those that mean "unset".
    fn map<U: 'static>(self, change: impl Fn(T) -> Option<U> + 'static) -> Kind<U> {
        let read = self.read;
        Kind {
            accepts: self.accepts,
            schema: self.schema,
            inner: self.inner,
            read: Box::new(move |reading, node| read(reading, node).and_then(&change)),
        }
    }

    /// The same with another phrase.
    fn accepting(self, accepts: impl Into<String>) -> Kind<T> {
        Kind { accepts: accepts.into(), ..self }
    }
}

/// A text; numbers and booleans are taken as they are spelled.
pub(super) fn text() -> Kind<String> {
    Kind::new("a text", json!({"$ref": "#/$defs/text"}), |reading, node| {
        reading.single(node, "a text").map(str::to_owned)
    })
}

/// `true` or `false`, in any of YAML's spellings.
pub(super) fn flag() -> Kind<bool> {
    const ACCEPTS: &str = "true or false";
    Kind::new(ACCEPTS, json!({"$ref": "#/$defs/flag"}), |reading, node| {
        let flag = scalar(node).and_then(boolean);
        if flag.is_none() {
            reading.refuse(node, ACCEPTS);
        }
        flag
    })
}

/// A boolean of which only one value is supported; the key's hint says what to do about the other.
pub(super) fn only(supported: bool) -> Kind<bool> {
    Kind::new(format!("only `{supported}`"), json!({"const": supported}), move |reading, node| {
        let flag = scalar(node).and_then(boolean).filter(|flag| *flag == supported);
        if flag.is_none() {
            let message =
                format!("`{}` does not support `{}`, only `{supported}` or blank", reading.name, node.shown());
            reading.findings.problem(node.at, message, reading.hint);
        }
        flag
    })
}

/// An integer from `least` to [`MOST`].
pub(super) fn whole(least: usize) -> Kind<usize> {
    let schema = json!({"anyOf": [
        {"type": "integer", "minimum": least, "maximum": MOST},
        {"$ref": "#/$defs/quoted_number"},
    ]});
    Kind::new(format!("an integer of at least {least}"), schema, move |reading, node| {
        let value = scalar(node).and_then(whole_number);
        if value.is_some_and(|value| value > MOST) {
            reading.refuse(node, &format!("an integer from {least} to {MOST}"));
            return None;
        }
        let value = value.filter(|value| *value >= least);
        if value.is_none() {
            reading.refuse(node, &format!("an integer of at least {least}"));
        }
        value
    })
}

/// An integer of at least 1, or 0 for "unset", which is how circulating recipes leave it off.
pub(super) fn whole_or_zero() -> Kind<usize> {
    whole(0).map(|count| (count > 0).then_some(count)).accepting("an integer of at least 1, or 0 for none")
}

/// The bounds of a number: as a phrase, and as a keyword of JSON Schema with its limit.
pub(super) struct Bounds {
    accepts: &'static str,
    limits: &'static [(&'static str, f64)],
}

/// Above zero.
pub(super) const POSITIVE: &Bounds = &Bounds { accepts: "a number above 0", limits: &[("exclusiveMinimum", 0.0)] };
/// Zero or above.
pub(super) const NOT_NEGATIVE: &Bounds = &Bounds { accepts: "a number of at least 0", limits: &[("minimum", 0.0)] };
/// A share that may not be all.
pub(super) const BELOW_ONE: &Bounds =
    &Bounds { accepts: "a number from 0 to below 1", limits: &[("minimum", 0.0), ("exclusiveMaximum", 1.0)] };
/// A share.
pub(super) const SHARE: &Bounds =
    &Bounds { accepts: "a number from 0 to 1", limits: &[("minimum", 0.0), ("maximum", 1.0)] };

impl Bounds {
    fn hold(&self, value: f64) -> bool {
        self.limits.iter().all(|(keyword, limit)| match *keyword {
            "minimum" => value >= *limit,
            "exclusiveMinimum" => value > *limit,
            "maximum" => value <= *limit,
            _ => value < *limit,
        })
    }
}

/// A number within bounds.
pub(super) fn decimal(bounds: &'static Bounds) -> Kind<f64> {
    let mut schema = json!({"type": "number"});
    for (keyword, limit) in bounds.limits {
        schema[*keyword] = json!(*limit as u64);
    }
    let schema = json!({"anyOf": [schema, {"$ref": "#/$defs/quoted_number"}]});
    Kind::new(bounds.accepts, schema, move |reading, node| {
        let value = scalar(node).and_then(number).filter(|value| bounds.hold(*value));
        if value.is_none() {
            reading.refuse(node, bounds.accepts);
        }
        value
    })
}

/// One of several names, in any case. Names from `|` on are spellings that are accepted but not advertised.
pub(super) fn choice<T: Clone + 'static>(accepted: impl IntoIterator<Item = (&'static str, T)>) -> Kind<T> {
    let accepted: Vec<(&str, T)> = accepted.into_iter().collect();
    let named = |hidden: bool| {
        let names = accepted.iter().map(|(name, _)| *name).filter(move |name| name.starts_with('|') == hidden);
        names.map(|name| name.trim_start_matches('|')).collect::<Vec<&str>>()
    };
    let (names, spellings) = (named(false), named(true));
    let mut schema = json!({"enum": names});
    if !spellings.is_empty() {
        // A spelling of a boolean is one in YAML too.
        let also: Vec<Json> = spellings.iter().flat_map(|name| [json!(name)].into_iter().chain(truth(name))).collect();
        schema = json!({"anyOf": [schema, {"enum": also}]});
    }
    let shown = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Kind::new(shown, schema, move |reading, node| {
        let given = scalar(node).map(str::trim);
        let same = |name: &str| given.is_some_and(|given| name.trim_start_matches('|').eq_ignore_ascii_case(given));
        let chosen = accepted.iter().find(|(name, _)| same(name)).map(|(_, value)| value.clone());
        if chosen.is_none() {
            reading.unsupported(node, &names, reading.hint);
        }
        chosen
    })
}

/// The boolean that is spelled so in JSON.
fn truth(name: &str) -> Option<Json> {
    match name {
        "true" => Some(json!(true)),
        "false" => Some(json!(false)),
        _ => None,
    }
}

/// A list of names, each at most once in the result; `example` is what a list looks like.
pub(super) fn choices<T: Clone + PartialEq + 'static>(
    accepted: impl IntoIterator<Item = (&'static str, T)>,
    example: &'static str,
) -> Kind<Vec<T>> {
    let one = choice(accepted);
    let schema = json!({"type": "array", "items": one.schema});
    Kind::new(format!("a list of {}", one.accepts), schema, move |reading, node| {
        let Value::List(items) = &node.value else {
            reading.refuse(node, example);
            return None;
        };
        let mut chosen = Vec::new();
        for (index, item) in items.iter().enumerate() {
            // A blank item is refused like any other that is not a name.
            let value = (one.read)(&reading.inside(&index.to_string(), item.at), item);
            chosen.extend(value.filter(|value| !chosen.contains(value)));
        }
        Some(chosen)
    })
}

/// A list of texts.
pub(super) fn texts() -> Kind<Vec<String>> {
    const ACCEPTS: &str = "a list of texts";
    Kind::new(ACCEPTS, json!({"type": "array", "items": {"$ref": "#/$defs/text"}}), |reading, node| match &node.value {
        Value::List(items) => Some(reading.texts(items)),
        _ => {
            reading.refuse(node, ACCEPTS);
            None
        }
    })
}

/// A text or a list of texts.
pub(super) fn text_or_texts() -> Kind<Vec<String>> {
    const ACCEPTS: &str = "a text or a list of texts";
    let text = json!({"$ref": "#/$defs/text"});
    Kind::new(ACCEPTS, json!({"anyOf": [text, {"type": "array", "items": text}]}), |reading, node| match &node.value {
        Value::List(items) => Some(reading.texts(items)),
        _ => reading.single(node, ACCEPTS).map(|text| vec![text.to_owned()]),
    })
}

/// A mapping with keys of its own.
pub(super) fn section<S: Keys + 'static>() -> Kind<S> {
    let inner = Inner { rows: S::rows(), no_effect: S::NO_EFFECT, refused: S::REFUSED, is_list: false };
    Kind {
        inner: Some(inner),
        ..Kind::new("a mapping", Json::Null, |reading, node| {
            let mut section = Section::new(reading.findings, &reading.name, node, reading.place);
            let keys = S::read(&mut section);
            section.finish(S::NO_EFFECT, S::REFUSED);
            Some(keys)
        })
    }
}

/// A list of mappings with keys of their own.
pub(super) fn sections<S: Keys + 'static>() -> Kind<Vec<S>> {
    let one = section::<S>();
    let inner = one.inner.map(|inner| Inner { is_list: true, ..inner });
    let read = one.read;
    Kind {
        inner,
        ..Kind::new("a list of mappings", Json::Null, move |reading, node| {
            let Value::List(items) = &node.value else {
                reading.refuse(node, "a list of mappings, each starting with `- `");
                return None;
            };
            let item = |(index, item): (usize, &Node)| read(&reading.inside(&index.to_string(), item.at), item);
            Some(items.iter().enumerate().filter_map(item).collect())
        })
    }
}
