//! YAML text to a tree whose every key and value knows its place.
//!
//! Stricter than YAML where a recipe can only be a mistake: one document, text keys, no key
//! twice, no tags of one's own. Size, depth and what aliases expand to are bounded, so that no
//! text takes more than a moment and a few megabytes.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::problem::{Found, Place, shortened};

/// Largest recipe, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of lists and mappings.
pub(super) const MAX_DEPTH: usize = 32;
/// Most values, with aliases written out.
const MAX_NODES: usize = 10_000;

/// A value and where it starts (a blank one: where its key is).
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// What a value is.
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
    pub(super) at: Place,
    pub(super) node: Node,
}

impl Node {
    /// Whether nothing was written: blank, `null`, or an empty text.
    pub(super) fn is_unset(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => {
                text.is_empty()
                    || (*plain && matches!(text.as_str(), "~" | "null" | "Null" | "NULL"))
            }
            _ => false,
        }
    }

    /// Whether nothing is in it: unset, or an empty list or mapping.
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
    fn weight(&self) -> (usize, usize) {
        match &self.value {
            Value::Scalar { text, .. } => (1, text.len()),
            Value::List(items) => items.iter().map(Node::weight).fold((1, 0), add),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| add(entry.node.weight(), (0, entry.key.len())))
                .fold((1, 0), add),
        }
    }

    /// Levels of lists and mappings, this one included.
    fn depth(&self) -> usize {
        match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(entries) => {
                1 + entries
                    .iter()
                    .map(|entry| entry.node.depth())
                    .max()
                    .unwrap_or(0)
            }
        }
    }
}

fn add(left: (usize, usize), right: (usize, usize)) -> (usize, usize) {
    (left.0 + right.0, left.1 + right.1)
}

/// The message about a text above [`MAX_BYTES`].
pub(super) fn too_large() -> String {
    format!(
        "is larger than {} KiB, the most a recipe may have",
        MAX_BYTES >> 10
    )
}

/// The tree of `text`; an empty text is an unset scalar. `within` replaces every place by one,
/// for texts that are no file. What is wrong goes to `found`, and nothing comes back where the
/// text is no tree at all.
pub(super) fn parse(text: &str, within: Option<Place>, found: &mut Found) -> Option<Node> {
    if text.len() > MAX_BYTES {
        found.add(
            within.unwrap_or(Place::Whole),
            too_large(),
            "data belongs into files of its own",
        );
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut tree = Tree {
        within,
        found,
        stack: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        nodes: 0,
        copied: 0,
    };
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = match next {
            Ok(next) => next,
            Err(error) => {
                let place = tree.place(error.marker());
                tree.found.add(
                    place,
                    format!("not valid YAML: {}", error.info()),
                    syntax_hint(text, error.marker()),
                );
                return None;
            }
        };
        let at = tree.place(&span.start);
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                tree.found.add(
                    at,
                    "a second document starts here",
                    "a recipe is one document: remove the `---` line, or split the file",
                );
                return None;
            }
        }
        // An error that cannot be continued from is reported inside.
        tree.event(event, at)?;
    }
    let blank = Node {
        at: within.unwrap_or(Place::Whole),
        value: Value::Scalar {
            text: String::new(),
            plain: true,
        },
    };
    Some(tree.root.unwrap_or(blank))
}

/// Advice on a syntax error, with the likeliest cause first.
fn syntax_hint(text: &str, marker: &Marker) -> &'static str {
    let line = text
        .lines()
        .nth(marker.line().saturating_sub(1))
        .unwrap_or("");
    let above = text
        .lines()
        .nth(marker.line().saturating_sub(2))
        .unwrap_or("");
    let indented_by_tab = |line: &str| {
        line.chars()
            .take_while(|c| c.is_whitespace())
            .any(|c| c == '\t')
    };
    if indented_by_tab(line) || indented_by_tab(above) {
        "indent with spaces, YAML allows no tabs there"
    } else {
        "check the indentation, quotes and colons of this line and the one above"
    }
}

/// A list or mapping that is still open.
enum Open {
    List {
        at: Place,
        anchor: usize,
        items: Vec<Node>,
    },
    Map(OpenMap),
}

struct OpenMap {
    at: Place,
    anchor: usize,
    entries: Vec<Entry>,
    /// The key whose value comes next, with its place and whether it was plain.
    key: Option<(String, Place, bool)>,
    seen: HashSet<String>,
    /// What `<<` names, in order.
    merged: Vec<Node>,
}

struct Tree<'a> {
    within: Option<Place>,
    found: &'a mut Found,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
    /// Bytes of text that aliases have repeated.
    copied: usize,
}

impl Tree<'_> {
    fn place(&self, marker: &Marker) -> Place {
        // Lines count from 1 and columns from 0 in the parser.
        let position = Place::Text {
            line: marker.line().max(1),
            column: marker.col() + 1,
        };
        self.within.unwrap_or(position)
    }

    fn event(&mut self, event: Event<'_>, at: Place) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.is_plain(style == ScalarStyle::Plain, tag.as_deref(), at)?;
                let node = Node {
                    at,
                    value: Value::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                };
                self.close(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.is_plain(true, tag.as_deref(), at)?;
                self.open(
                    Open::List {
                        at,
                        anchor,
                        items: Vec::new(),
                    },
                    at,
                )
            }
            Event::MappingStart(anchor, tag) => {
                self.is_plain(true, tag.as_deref(), at)?;
                let map = OpenMap {
                    at,
                    anchor,
                    entries: Vec::new(),
                    key: None,
                    seen: HashSet::new(),
                    merged: Vec::new(),
                };
                self.open(Open::Map(map), at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop()? {
                Open::List { at, anchor, items } => self.close(
                    Node {
                        at,
                        value: Value::List(items),
                    },
                    anchor,
                ),
                Open::Map(map) => {
                    let (at, anchor) = (map.at, map.anchor);
                    let entries = self.merge(map);
                    self.close(
                        Node {
                            at,
                            value: Value::Map(entries),
                        },
                        anchor,
                    )
                }
            },
            Event::Alias(anchor) => self.alias(anchor, at),
            _ => Some(()),
        }
    }

    /// Whether a scalar counts as unquoted, given its tag; refuses tags that are not YAML's own.
    fn is_plain(&mut self, unquoted: bool, tag: Option<&Tag>, at: Place) -> Option<bool> {
        match tag {
            None => Some(unquoted),
            Some(tag) if tag.is_yaml_core_schema() => Some(unquoted && tag.suffix != "str"),
            Some(tag) => {
                let tag = shortened(&tag.to_string(), 40);
                self.found.add(
                    at,
                    format!("the tag `{tag}` means nothing in a recipe"),
                    "remove the tag",
                );
                None
            }
        }
    }

    fn open(&mut self, open: Open, at: Place) -> Option<()> {
        if self.stack.len() >= MAX_DEPTH {
            self.found.add(
                at,
                format!("nested deeper than {MAX_DEPTH} levels"),
                "no key of a recipe is nested that deep",
            );
            return None;
        }
        if let Some(Open::Map(OpenMap { key: None, .. })) = self.stack.last() {
            self.found.add(at, "a list or mapping stands where a key is expected", "keys are plain texts such as `lora_r:`; put a text with braces or brackets in quotes");
            return None;
        }
        self.stack.push(open);
        Some(())
    }

    fn alias(&mut self, anchor: usize, at: Place) -> Option<()> {
        let Some(node) = self.anchors.get(&anchor) else {
            self.found.add(
                at,
                "this alias stands inside of what it repeats",
                "name something that is complete before this line",
            );
            return None;
        };
        let (nodes, bytes) = node.weight();
        self.nodes += nodes;
        self.copied += bytes;
        if self.nodes > MAX_NODES
            || self.copied > MAX_BYTES
            || self.stack.len() + node.depth() > MAX_DEPTH
        {
            self.found.add(
                at,
                "aliases make this recipe too large",
                "write out what is needed instead of `*name`",
            );
            return None;
        }
        let node = node.clone();
        self.close(node, 0)
    }

    /// Puts a complete value where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Option<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.found.add(
                node.at,
                format!("more than {MAX_NODES} values"),
                "data belongs into files of its own that `datasets` names",
            );
            return None;
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map(map)) => match map.key.take() {
                None => return self.key(node),
                Some((key, _, true)) if key == "<<" => map.merged.push(node),
                Some((key, at, _)) => {
                    // A blank value has no place of its own.
                    let place = if node.is_unset() { at } else { node.at };
                    if map.seen.insert(key.clone()) {
                        map.entries.push(Entry {
                            key,
                            at,
                            node: Node { at: place, ..node },
                        });
                    } else {
                        let first = map
                            .entries
                            .iter()
                            .find(|entry| entry.key == key)
                            .map(|entry| entry.at);
                        let line = match first {
                            Some(Place::Text { line, .. }) => format!(", first on line {line}"),
                            _ => String::new(),
                        };
                        let key = shortened(&key, 60);
                        self.found.add(
                            at,
                            format!("the key `{key}` is written twice{line}"),
                            "keep one of them",
                        );
                    }
                }
            },
        }
        Some(())
    }

    /// Takes a scalar as the next key of the open mapping.
    fn key(&mut self, node: Node) -> Option<()> {
        let Value::Scalar { text, plain } = node.value else {
            self.found.add(
                node.at,
                "a list or mapping stands where a key is expected",
                "keys are plain texts such as `lora_r:`",
            );
            return None;
        };
        if let Some(Open::Map(map)) = self.stack.last_mut() {
            map.key = Some((text, node.at, plain));
        }
        Some(())
    }

    /// A mapping's own entries, followed by those of `<<` that it does not have itself.
    fn merge(&mut self, mut map: OpenMap) -> Vec<Entry> {
        for node in std::mem::take(&mut map.merged) {
            let at = node.at;
            let sources = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            for source in sources {
                let Value::Map(entries) = source.value else {
                    self.found.add(
                        at,
                        "`<<` takes a mapping or a list of mappings",
                        "name an anchored mapping: `<<: *name`",
                    );
                    continue;
                };
                for entry in entries {
                    if map.seen.insert(entry.key.clone()) {
                        map.entries.push(entry);
                    }
                }
            }
        }
        map.entries
    }
}
