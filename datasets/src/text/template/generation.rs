//! `{% generation %}` tags, by which a template marks what the model generates.
//!
//! The tags become blocks that write two code points which Unicode reserves for internal use; they are
//! removed after rendering, which leaves byte ranges.

use std::ops::Range;
use std::sync::LazyLock;

use fancy_regex::{Captures, Regex};

use super::Rendered;

const BEGIN: char = '\u{FDD0}';
const END: char = '\u{FDD1}';

static TAG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("the pattern is constant and valid")
});

/// The template with marks in place of the tags, and true if there were any.
///
/// A mark is wrapped in a block, so that whitespace around it is trimmed as around the tag.
pub(super) fn replace_tags(source: &str) -> (String, bool) {
    let mut found = false;
    let replaced = TAG.replace_all(source, |tag: &Captures<'_, str>| {
        found = true;
        let text = |index: usize| tag.get(index).map_or("", |group| group.as_str());
        let mark = if text(2).is_empty() { BEGIN } else { END };
        format!("{{%{} if true %}}{mark}{{% endif {}%}}", text(1), text(3))
    });
    (replaced.into_owned(), found)
}

/// The rendered text without marks, and the ranges between them.
pub(super) fn take_marks(marked: String) -> Rendered {
    if !marked.contains([BEGIN, END]) {
        return Rendered { text: marked, generated: Vec::new() };
    }
    let mut text = String::with_capacity(marked.len());
    let mut generated: Vec<Range<usize>> = Vec::new();
    let mut start = None;
    for character in marked.chars() {
        match character {
            BEGIN => start = start.or(Some(text.len())),
            END => {
                let Some(start) = start.take() else { continue };
                // Neighbours are one turn: a template may mark its content and its end apart.
                match generated.last_mut() {
                    Some(last) if last.end == start => last.end = text.len(),
                    _ => generated.push(start..text.len()),
                }
            }
            other => text.push(other),
        }
    }
    Rendered { text, generated }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_their_whitespace_control() {
        let (replaced, found) = replace_tags("a {%- generation -%} b {% endgeneration %}");
        assert!(found);
        assert_eq!(replaced, format!("a {{%- if true %}}{BEGIN}{{% endif -%}} b {{% if true %}}{END}{{% endif %}}"));
        assert_eq!(replace_tags("{{ x }}"), ("{{ x }}".to_owned(), false));
    }

    #[test]
    fn marks_become_byte_ranges() {
        let rendered = take_marks(format!("é{BEGIN}a{END}{BEGIN}b{END}c{BEGIN}{END}"));
        assert_eq!(rendered.text, "éabc");
        assert_eq!(rendered.generated, [2..4, 5..5]);
    }
}
