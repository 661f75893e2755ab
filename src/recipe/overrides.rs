//! `--set key=value`: changes to the tree before it is read.
//!
//! The key is dotted and may hold list indices (`datasets.0.path`); what is missing on the way is
//! created. The value is YAML, so that numbers, lists and mappings in flow style work.

use super::problem::{Position, ProblemLog, shortened};
use super::tree;
use super::yaml::{Entry, MAX_DEPTH, Node, Value};

/// Applies every override to `root`, later ones over earlier ones.
pub(super) fn apply(root: &mut Node, overrides: &[String], problems: &mut ProblemLog) {
    for (index, text) in overrides.iter().enumerate() {
        let place = Position::Override(index);
        let Some((key, value)) = text.split_once('=') else {
            problems.add(place, "an override is `key=value`", "for example `--set max_steps=10`");
            continue;
        };
        let key = key.trim();
        let segments: Vec<&str> = key.split('.').collect();
        if segments.iter().any(|segment| segment.is_empty()) || segments.len() > MAX_DEPTH {
            let key = shortened(key, 60);
            problems.add(
                place,
                format!("`{key}` is not a key"),
                "a key is dotted, with list positions from 0: `datasets.0.path=rows.jsonl`",
            );
            continue;
        }
        let Some(node) = tree::parse(value, Some(place), problems) else {
            continue;
        };
        if let Err((message, hint)) = put(root, &segments, node, place) {
            problems.add(place, message, hint);
        }
    }
}

/// Puts `node` at the end of the path `segments` below `root`.
fn put(root: &mut Node, segments: &[&str], node: Node, place: Position) -> Result<(), (String, String)> {
    let mut target = root;
    for (depth, segment) in segments.iter().enumerate() {
        let so_far = segments[..depth].join(".");
        if target.is_unset() {
            // A path through nothing creates a list where it continues with a number.
            let numbered = segment.bytes().all(|byte| byte.is_ascii_digit());
            let value = if numbered { Value::List(Vec::new()) } else { Value::Map(Vec::new()) };
            *target = Node { at: place, value };
        }
        target = match &mut target.value {
            Value::Scalar { .. } => {
                return Err((
                    format!("`{so_far}` holds a single value, so it has no `{segment}`"),
                    format!("set `{so_far}` itself"),
                ));
            }
            Value::List(items) => {
                let count = items.len();
                let index = segment.parse::<usize>().ok().filter(|index| *index <= count);
                let Some(index) = index else {
                    return Err((
                        format!("`{so_far}` is a list with {count} entries, so it has no `{segment}`"),
                        format!("positions run from 0, and {count} adds an entry"),
                    ));
                };
                if index == count {
                    items.push(Node::unset(place));
                }
                &mut items[index]
            }
            Value::Map(entries) => {
                let index = match entries.iter().position(|entry| entry.key == *segment) {
                    Some(index) => index,
                    None => {
                        entries.push(Entry { key: (*segment).to_owned(), at: place, node: Node::unset(place) });
                        entries.len() - 1
                    }
                };
                let entry = &mut entries[index];
                if depth + 1 == segments.len() {
                    // The key counts as written where it was written last.
                    entry.at = place;
                }
                &mut entry.node
            }
        };
    }
    *target = node;
    Ok(())
}
