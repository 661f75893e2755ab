//! YAML text to a tree whose every key and value knows its place.
//!
//! Stricter than YAML where a recipe can only be a mistake: one document, text keys, no key
//! twice, no custom tags. Size, depth and what aliases expand to are bounded, so that no
//! text takes more than a moment and a few megabytes.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::problem::{Position, ProblemLog, shortened};
use super::syntax::{self, SyntaxError};
use super::yaml::{Entry, MAX_BYTES, MAX_DEPTH, MAX_NODES, Node, Value, too_large};

/// The most times that a text is read again after a repair, see [`parse`].
const MAX_REPAIRS: usize = 64;
/// Columns that a repair moves a line to the right: more than any recipe is indented.
const SHIFT: usize = 64;

/// The tree of `text`; an empty text is an unset scalar. `within` replaces every place by one,
/// for texts that are not a file. Problems go to `problems`, and nothing comes back if the text
/// is not a tree at all.
pub(super) fn parse(text: &str, within: Option<Position>, problems: &mut ProblemLog) -> Option<Node> {
    if text.len() > MAX_BYTES {
        let hint = "data belongs into files of its own that `datasets` names";
        problems.add(within.unwrap_or(Position::Whole), too_large(), hint);
        return None;
    }
    let mut text = Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut shifted = HashSet::new();
    loop {
        let mut tree = Tree {
            within,
            problems: ProblemLog::default(),
            stack: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            nodes: 0,
            copied: 0,
            shifted: &shifted,
        };
        let error = match tree.read(&text) {
            Ok(()) => None,
            Err(Stop::Reported) => {
                problems.append(tree.problems);
                return None;
            }
            Err(Stop::Syntax(error)) => Some(error),
        };
        let Some(error) = error else {
            let root = tree.root.take();
            problems.append(tree.problems);
            let at = within.unwrap_or(Position::Whole);
            let value = Value::Scalar { text: String::new(), plain: true };
            return Some(root.unwrap_or(Node { at, value }));
        };
        let line = error.marker().line();
        if shifted.len() < MAX_REPAIRS && !shifted.contains(&line) && closes_too_early(&text, &error) {
            // The closing bracket of a list or mapping that is left of its key is YAML to every
            // other reader, and circulates: moved to the right, it says the same.
            text = Cow::Owned(moved(&text, line));
            shifted.insert(line);
            continue;
        }
        let SyntaxError { line, column, problem, hint } = syntax::explained(&text, &error);
        let place = tree.shown(line, column);
        let mut all = tree.problems;
        all.add(place, format!("not valid YAML: {problem}"), hint);
        problems.append(all);
        return None;
    }
}

/// True if the only problem is the indentation of a closing bracket.
fn closes_too_early(text: &str, error: &ScanError) -> bool {
    let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or("");
    error.info().starts_with("invalid indentation") && line.trim_start().starts_with([']', '}'])
}

/// The text with one line, counted from 1, moved to the right.
fn moved(text: &str, line: usize) -> String {
    let mut out = String::with_capacity(text.len() + SHIFT);
    for (index, content) in text.split_inclusive('\n').enumerate() {
        if index + 1 == line {
            out.extend(std::iter::repeat_n(' ', SHIFT));
        }
        out.push_str(content);
    }
    out
}

/// Why reading ended early.
enum Stop {
    /// The parser does not understand the text.
    Syntax(ScanError),
    /// A limit or a rule of recipes was broken, and that was reported.
    Reported,
}

/// A list or mapping that is still open.
enum Open {
    List { at: Position, anchor: usize, items: Vec<Node> },
    Map(OpenMap),
}

struct OpenMap {
    at: Position,
    anchor: usize,
    entries: Vec<Entry>,
    /// The key whose value comes next, with its place and whether it was plain.
    key: Option<(String, Position, bool)>,
    seen: HashSet<String>,
    /// The mappings that `<<` names, in order.
    merged: Vec<Node>,
}

struct Tree<'a> {
    within: Option<Position>,
    problems: ProblemLog,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
    /// Bytes of text that aliases have repeated.
    copied: usize,
    /// Lines that a repair moved to the right.
    shifted: &'a HashSet<usize>,
}

impl Tree<'_> {
    /// Reads the whole text into `root`.
    fn read(&mut self, text: &str) -> Result<(), Stop> {
        let mut documents = 0;
        let mut parser = Parser::new_from_str(text);
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(Stop::Syntax)?;
            let at = self.place(&span.start);
            if let Event::DocumentStart(_) = event {
                documents += 1;
                if documents > 1 {
                    let hint = "a recipe is one document: remove the `---` line, or split the file";
                    self.problems.add(at, "a second document starts here", hint);
                    return Err(Stop::Reported);
                }
            }
            self.event(event, at).ok_or(Stop::Reported)?;
        }
        Ok(())
    }

    fn place(&self, marker: &Marker) -> Position {
        // Lines count from 1 and columns from 0 in the parser.
        self.shown(marker.line().max(1), marker.col() + 1)
    }

    /// The place of a line and a column, both counted from 1, in the text as it was written.
    fn shown(&self, line: usize, column: usize) -> Position {
        let shift = if self.shifted.contains(&line) { SHIFT } else { 0 };
        self.within.unwrap_or(Position::Text { line, column: column.saturating_sub(shift).max(1) })
    }

    /// Takes one event; `None` when reading cannot continue, which was reported.
    fn event(&mut self, event: Event<'_>, at: Position) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.is_plain(style == ScalarStyle::Plain, tag.as_deref(), at)?;
                let node = Node { at, value: Value::Scalar { text: text.into_owned(), plain } };
                self.close(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.is_plain(true, tag.as_deref(), at)?;
                self.open(Open::List { at, anchor, items: Vec::new() }, at)
            }
            Event::MappingStart(anchor, tag) => {
                self.is_plain(true, tag.as_deref(), at)?;
                let map =
                    OpenMap { at, anchor, entries: Vec::new(), key: None, seen: HashSet::new(), merged: Vec::new() };
                self.open(Open::Map(map), at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop()? {
                Open::List { at, anchor, items } => self.close(Node { at, value: Value::List(items) }, anchor),
                Open::Map(map) => {
                    let (at, anchor) = (map.at, map.anchor);
                    let entries = self.merge(map);
                    self.close(Node { at, value: Value::Map(entries) }, anchor)
                }
            },
            Event::Alias(anchor) => self.alias(anchor, at),
            _ => Some(()),
        }
    }

    /// True if a scalar counts as unquoted, given its tag; refuses tags that are not YAML's own.
    fn is_plain(&mut self, unquoted: bool, tag: Option<&Tag>, at: Position) -> Option<bool> {
        match tag {
            None => Some(unquoted),
            Some(tag) if tag.is_yaml_core_schema() => Some(unquoted && tag.suffix != "str"),
            Some(tag) => {
                let tag = shortened(&tag.to_string(), 40);
                self.problems.add(at, format!("the tag `{tag}` means nothing in a recipe"), "remove the tag");
                None
            }
        }
    }

    fn open(&mut self, open: Open, at: Position) -> Option<()> {
        if self.stack.len() >= MAX_DEPTH {
            self.problems.add(
                at,
                format!("nested deeper than {MAX_DEPTH} levels"),
                "no key of a recipe is nested that deep",
            );
            return None;
        }
        if let Some(Open::Map(OpenMap { key: None, .. })) = self.stack.last() {
            self.problems.add(
                at,
                "a list or mapping stands where a key is expected",
                "keys are plain texts such as `lora_r:`; put a text with braces or brackets in quotes",
            );
            return None;
        }
        self.stack.push(open);
        Some(())
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Option<()> {
        let Some(node) = self.anchors.get(&anchor) else {
            self.problems.add(
                at,
                "this alias stands inside of what it repeats",
                "name something that is complete before this line",
            );
            return None;
        };
        let (nodes, bytes) = node.weight();
        self.nodes += nodes;
        self.copied += bytes;
        if self.nodes > MAX_NODES || self.copied > MAX_BYTES || self.stack.len() + node.depth() > MAX_DEPTH {
            self.problems.add(at, "aliases make this recipe too large", "write out what is needed instead of `*name`");
            return None;
        }
        let node = node.clone();
        self.close(node, 0)
    }

    /// Puts a complete value where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Option<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.problems.add(
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
                        map.entries.push(Entry { key, at, node: Node { at: place, ..node } });
                    } else {
                        let first = map.entries.iter().find(|entry| entry.key == key).map(|entry| entry.at);
                        let line = match first {
                            Some(Position::Text { line, .. }) => format!(", first on line {line}"),
                            _ => String::new(),
                        };
                        let key = shortened(&key, 60);
                        self.problems.add(at, format!("the key `{key}` is written twice{line}"), "keep one of them");
                    }
                }
            },
        }
        Some(())
    }

    /// Takes a scalar as the next key of the open mapping.
    fn key(&mut self, node: Node) -> Option<()> {
        let Value::Scalar { text, plain } = node.value else {
            self.problems.add(
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
                    self.problems.add(
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
