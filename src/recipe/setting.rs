//! A value of a recipe together with its key and the place where it was written.
//!
//! Reading gives every key a [`Setting`], so that an error found later, by the plan or the run, names its place
//! without looking it up.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::problem::{Position, Source};

/// A place in a recipe, which displays as `recipe.yaml:9:3`, as `--set key=value`, or as the file name alone.
#[derive(Clone, Debug, Default)]
pub struct Place {
    source: Arc<Source>,
    position: Position,
}

impl Place {
    pub(super) fn new(source: &Arc<Source>, position: Position) -> Place {
        Place { source: Arc::clone(source), position }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.source.name(self.position))
    }
}

/// A key as written.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// The dotted key.
    pub(super) key: String,
    /// The place for messages: that of the value, of the key where the value is a block, and of the enclosing
    /// section where the key was not written.
    pub(super) place: Place,
    /// The position of the value itself.
    pub(super) at: Position,
    /// The places of the items of a list.
    pub(super) items: Vec<Place>,
    /// The value on one line, if it is a single one.
    pub(super) text: Option<String>,
    /// Set if the key has a value, accepted or not.
    pub(super) is_written: bool,
}

/// The value of a key: as written, or its default.
///
/// It dereferences to the value.
#[derive(Clone, Debug, Default)]
pub struct Setting<T> {
    value: T,
    is_set: bool,
    written: Written,
}

impl<T> Setting<T> {
    pub(super) fn new(value: T, is_set: bool, written: Written) -> Setting<T> {
        Setting { value, is_set, written }
    }

    /// The place of the value as written; that of the enclosing section, or of the file, if it was not written.
    pub fn place(&self) -> &Place {
        &self.written.place
    }

    /// The place of an item of a list; that of the list if it has no such item.
    pub fn item(&self, index: usize) -> &Place {
        self.written.items.get(index).unwrap_or(&self.written.place)
    }

    /// Replaces the value; its place stays.
    pub fn replace(&mut self, value: T) {
        self.value = value;
        self.is_set = true;
    }

    /// True if the recipe itself gives the value, false for a default.
    pub fn is_set(&self) -> bool {
        self.is_set
    }

    /// The value, unless it is the default.
    pub fn set(&self) -> Option<&T> {
        self.is_set.then_some(&self.value)
    }

    pub(super) fn written(&self) -> &Written {
        &self.written
    }

    pub(super) fn into_value(self) -> T {
        self.value
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq<T> for Setting<T> {
    fn eq(&self, other: &T) -> bool {
        self.value == *other
    }
}
