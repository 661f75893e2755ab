//! Lists and maps that count how much of them is read.
//!
//! A small value that holds another many times may take any time and memory to compare, to join or to write out. Jinja
//! counts instructions and the bytes that they make, but not the items that they read. So every list and map of a
//! rendering is one of these: [`super::marks`] wraps those that a template makes. Operators, filters and tests all take
//! items from [`Reading`], which ends the rendering once they were too many.

use std::cell::Cell;
use std::fmt;
use std::iter::empty;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};

use super::TemplateProblem;
use super::python::{Repr, as_float, python_float};

/// Most lists and maps that are read one within another: more than rows may nest, and few enough for any stack.
const DEEPEST: usize = 300;

/// The cost of beginning to read a list or a map, which takes as long as reading some items.
const TO_BEGIN: usize = 4;

thread_local! {
    /// The budget of the rendering of this thread: items, or 32 bytes of text each.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    /// The number of lists and maps that are being read, one within another.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Renders, reading at most `most` items and 32 times as many bytes of texts in lists and maps.
///
/// # Errors
/// Those of `render`, and if there is more to read, or it is nested more deeply.
pub(super) fn reading_at_most<T>(
    most: u64,
    render: impl FnOnce() -> Result<T, TemplateProblem>,
) -> Result<T, TemplateProblem> {
    LEFT.set(most);
    let rendered = catch_unwind(AssertUnwindSafe(render));
    LEFT.set(u64::MAX);
    rendered.unwrap_or_else(|panic| match panic.downcast::<TemplateProblem>() {
        Ok(problem) => Err(*problem),
        Err(other) => resume_unwind(other),
    })
}

/// Pays for reading a value; ends the rendering by a panic if the budget is spent. Deeply nested values cost more, since
/// they may be indented when written out.
fn spend(cost: usize) {
    match LEFT.get().checked_sub((cost + DEPTH.get() / 2) as u64) {
        Some(left) => LEFT.set(left),
        None => resume_unwind(Box::new(TemplateProblem::OutOfFuel)),
    }
}

fn cost(value: &Value) -> usize {
    1 + value.as_str().map_or(0, str::len) / 32
}

/// A value whose lists and maps are counted.
pub(super) fn counted(value: Value) -> Value {
    match value.kind() {
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable if value.downcast_object_ref::<Counted>().is_none() => {}
        _ => return value,
    }
    let Some(object) = value.as_object() else { return value };
    let _level = Level::new();
    if value.kind() == ValueKind::Map {
        let pairs = object.try_iter_pairs().into_iter().flatten().map(|(key, value)| (item(key), item(value)));
        return Counted::of(Value::from_pairs(pairs), Shape::List);
    }
    let items: Vec<Value> = object.try_iter().into_iter().flatten().map(item).collect();
    match <[Value; 2]>::try_from(items) {
        // What `groupby` makes has names for its two items.
        Ok([grouper, list]) if object.get_value_by_str("grouper").is_some() => {
            Counted::of(Value::from_object(Group { grouper, list: counted(list) }), Shape::Tuple)
        }
        Ok(two) => Counted::of(Value::from(two.to_vec()), shape_of(&value)),
        Err(items) => Counted::of(Value::from(items), shape_of(&value)),
    }
}

/// A value that is written as Python writes it: floats as text, lists and maps counted.
pub(super) fn printable(value: Value) -> Value {
    match as_float(&value) {
        Some(float) => Value::from(python_float(float)),
        None => counted(value),
    }
}

fn shape_of(value: &Value) -> Shape {
    if value.is_tuple() { Shape::Tuple } else { Shape::List }
}

/// A value counted and written in a shape.
pub(super) fn shaped(value: Value, shape: Shape) -> Value {
    let value = counted(value);
    match value.downcast_object_ref::<Counted>() {
        Some(Counted { inner, .. }) => Value::from_object(Counted { inner: inner.clone(), shape }),
        None => value,
    }
}

/// The shape of a counted value.
pub(super) fn shape(value: &Value) -> Option<&Shape> {
    value.downcast_object_ref::<Counted>().map(|counted| &counted.shape)
}

/// True if a value is a tuple, counted or not.
pub(super) fn is_tuple(value: &Value) -> bool {
    value.is_tuple() || matches!(shape(value), Some(Shape::Tuple))
}

/// An item of a counted list or map.
fn item(value: Value) -> Value {
    spend(cost(&value));
    counted(value)
}

/// A sum as a counted value: sums of lists are read from their terms, unless the sum is a new list.
pub(super) fn counted_sum(value: Value) -> Value {
    if value.downcast_object_ref::<Vec<Value>>().is_some() { counted(value) } else { value }
}

/// Bytes of a text, or of all texts in a list or a map.
pub(super) fn text_bytes(value: &Value) -> u64 {
    let Some(object) = value.as_object() else { return value.as_str().map_or(0, str::len) as u64 };
    let pairs = object.try_iter_pairs().into_iter().flatten();
    pairs.map(|(key, value)| text_bytes(&key) + text_bytes(&value)).sum()
}

/// A JSON value as a template sees it.
pub(crate) fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Array(items) => Counted::of(items.iter().map(from_json).collect(), Shape::List),
        serde_json::Value::Object(entries) => {
            let pairs = entries.iter().map(|(key, value)| (Value::from(key.as_str()), from_json(value)));
            Counted::of(Value::from_pairs(pairs), Shape::List)
        }
        other => Value::from(minijinja::value::Serde(other)),
    }
}

/// A list or a map in which lists and maps are counted too.
struct Counted {
    inner: DynObject,
    shape: Shape,
}

/// The way in which a list is written.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// Within `[` and `]`; a map within `{` and `}`.
    List,
    /// Within `(` and `)`.
    Tuple,
    /// As the method `items` of a map.
    Items,
    /// As the method `keys` of a map.
    Keys,
    /// As the method `values` of a map.
    Values,
    /// As this text.
    Text(Box<str>),
}

/// A group of `groupby`: a pair whose items have names.
#[derive(Debug)]
struct Group {
    grouper: Value,
    list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_usize(), key.as_str()) {
            (Some(0), _) | (_, Some("grouper")) => Some(self.grouper.clone()),
            (Some(1), _) | (_, Some("list")) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

impl Counted {
    /// The value of a list or a map whose items are counted already.
    fn of(value: Value, shape: Shape) -> Value {
        match value.as_object() {
            Some(inner) => Value::from_object(Counted { inner: inner.clone(), shape }),
            None => value,
        }
    }

    fn items(&self) -> impl Iterator<Item = Value> + use<> {
        let items = self.inner.try_iter().unwrap_or_else(|| Box::new(empty()));
        Reading::new(items, cost as fn(&Value) -> usize)
    }

    fn write_items(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items().enumerate() {
            write!(formatter, "{}{:?}", if index > 0 { ", " } else { "" }, Repr(&item))?;
        }
        Ok(())
    }

    fn pairs(&self) -> impl Iterator<Item = (Value, Value)> + use<> {
        let cost: fn(&(Value, Value)) -> usize = |(key, value)| cost(key) + cost(value);
        Reading::new(self.inner.try_iter_pairs().unwrap_or_else(|| Box::new(empty())), cost)
    }
}

impl Object for Counted {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        self.inner.repr()
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.inner.get_value(key)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.inner.get_value_by_str(key)
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.inner.enumerator_len()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.repr() {
            ObjectRepr::Map => Enumerator::KeyValueIter(Box::new(self.pairs())),
            _ => Enumerator::Iter(Box::new(self.items())),
        }
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_ref(), formatter)
    }
}

/// As Python writes it.
impl fmt::Debug for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |formatter: &mut fmt::Formatter<'_>| {
            formatter.write_str("[")?;
            self.write_items(formatter)?;
            formatter.write_str("]")
        };
        let named = |formatter: &mut fmt::Formatter<'_>, name: &str| {
            write!(formatter, "{name}(")?;
            list(formatter)?;
            formatter.write_str(")")
        };
        match (self.inner.repr(), &self.shape) {
            (ObjectRepr::Map, _) => {
                formatter.write_str("{")?;
                for (index, (key, value)) in self.pairs().enumerate() {
                    let separator = if index > 0 { ", " } else { "" };
                    write!(formatter, "{separator}{:?}: {:?}", Repr(&key), Repr(&value))?;
                }
                formatter.write_str("}")
            }
            (_, Shape::List) => list(formatter),
            (_, Shape::Items) => named(formatter, "dict_items"),
            (_, Shape::Keys) => named(formatter, "dict_keys"),
            (_, Shape::Values) => named(formatter, "dict_values"),
            (_, Shape::Text(text)) => formatter.write_str(text),
            (_, Shape::Tuple) => {
                formatter.write_str("(")?;
                self.write_items(formatter)?;
                formatter.write_str(if self.inner.enumerator_len() == Some(1) { ",)" } else { ")" })
            }
        }
    }
}

/// Items that are paid for one by one.
struct Reading<I, C> {
    items: I,
    cost: C,
    _level: Level,
}

impl<I: Iterator, C: Fn(&I::Item) -> usize> Reading<I, C> {
    fn new(items: I, cost: C) -> Self {
        spend(TO_BEGIN);
        Reading { items, cost, _level: Level::new() }
    }
}

impl<I: Iterator, C: Fn(&I::Item) -> usize> Iterator for Reading<I, C> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let item = self.items.next()?;
        spend((self.cost)(&item));
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

/// One list or map that is being read.
struct Level;

impl Level {
    fn new() -> Level {
        if DEPTH.get() == DEEPEST {
            let what = "a value is nested too deeply to be read".to_owned();
            resume_unwind(Box::new(TemplateProblem::Failed(what)));
        }
        DEPTH.set(DEPTH.get() + 1);
        Level
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
