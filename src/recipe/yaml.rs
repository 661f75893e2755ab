//! The tree of a recipe: every key and value knows its place.
//!
//! It is what the text, the overrides and the variables have become when reading starts.

use super::problem::{Position, shortened};

/// Largest recipe, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of lists and mappings.
pub(super) const MAX_DEPTH: usize = 32;
/// Most values, with aliases written out.
pub(super) const MAX_NODES: usize = 10_000;

/// A value and where it starts (a blank one: where its key is).
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// A value by its kind.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A number, text, boolean or nothing; `plain` when it stands without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) node: Node,
}

impl Entry {
    /// The place for messages: that of the value, or of the key where the value is a block.
    pub(super) fn place(&self) -> Position {
        if matches!(self.node.value, Value::Scalar { .. }) { self.node.at } else { self.at }
    }
}

impl Node {
    /// A blank value.
    pub(super) fn unset(at: Position) -> Node {
        Node { at, value: Value::Scalar { text: String::new(), plain: true } }
    }

    /// True if nothing was written: blank, `null`, or an empty text.
    pub(super) fn is_unset(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => {
                text.is_empty() || (*plain && matches!(text.as_str(), "~" | "null" | "Null" | "NULL"))
            }
            _ => false,
        }
    }

    /// True if nothing is in it: unset, or an empty list or mapping.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            Value::Scalar { .. } => self.is_unset(),
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
        }
    }

    /// The value on one line, for messages.
    pub(super) fn shown(&self) -> String {
        fn write(node: &Node, out: &mut String) {
            // Long values are cut below; what is cut need not be written.
            if out.len() > 400 {
                return;
            }
            match &node.value {
                Value::Scalar { text, .. } => out.push_str(&shortened(text, 80)),
                Value::List(items) => {
                    out.push('[');
                    for (index, item) in items.iter().enumerate() {
                        out.push_str(if index > 0 { ", " } else { "" });
                        write(item, out);
                    }
                    out.push(']');
                }
                Value::Map(entries) => {
                    out.push('{');
                    for (index, entry) in entries.iter().enumerate() {
                        out.push_str(if index > 0 { ", " } else { "" });
                        out.push_str(&shortened(&entry.key, 40));
                        out.push_str(": ");
                        write(&entry.node, out);
                    }
                    out.push('}');
                }
            }
        }
        let mut out = String::new();
        write(self, &mut out);
        shortened(&out, 80)
    }

    /// Values and bytes of text in this one and below.
    pub(super) fn weight(&self) -> (usize, usize) {
        match &self.value {
            Value::Scalar { text, .. } => (1, text.len()),
            Value::List(items) => items.iter().map(Node::weight).fold((1, 0), add),
            Value::Map(entries) => {
                entries.iter().map(|entry| add(entry.node.weight(), (0, entry.key.len()))).fold((1, 0), add)
            }
        }
    }

    /// Levels of lists and mappings, this one included.
    pub(super) fn depth(&self) -> usize {
        match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(entries) => 1 + entries.iter().map(|entry| entry.node.depth()).max().unwrap_or(0),
        }
    }
}

fn add(left: (usize, usize), right: (usize, usize)) -> (usize, usize) {
    (left.0 + right.0, left.1 + right.1)
}

/// The message about a text above [`MAX_BYTES`].
pub(super) fn too_large() -> String {
    format!("is larger than {} KiB, the most a recipe may have", MAX_BYTES >> 10)
}
