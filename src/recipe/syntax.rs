//! Syntax errors of YAML in the words of people who write recipes: the line that is wrong and what to change.
//!
//! The parser notices an error where it cannot continue, which is often a line before or after the one to be changed,
//! and names it by the rule of YAML that is broken.

use saphyr_parser::ScanError;

use crate::text::counted;

/// A syntax error, its place counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) problem: String,
    pub(super) hint: String,
}

/// The error that the parser found in `text`, where it is to be repaired.
pub(super) fn explained(text: &str, error: &ScanError) -> SyntaxError {
    let lines: Vec<&str> = text.lines().collect();
    let (line, column) = (error.marker().line().max(1), error.marker().col() + 1);
    tab(&lines, line)
        .or_else(|| key_without_value(&lines, line, error.info()))
        .or_else(|| open_bracket(&lines, line, column, error.info()))
        .unwrap_or_else(|| SyntaxError {
            line,
            column,
            problem: match error.info() {
                info if info.contains("did not find expected") && info.contains("block") => {
                    "the indentation of this line fits none of those above".to_owned()
                }
                info => info.to_owned(),
            },
            hint: indentation(&lines, line, error.info()).unwrap_or_else(|| {
                "check the indentation, quotes and colons of this line and the one above".to_owned()
            }),
        })
}

/// True for a line with something on it besides a comment.
fn has_content(line: &str) -> bool {
    let text = line.trim_start();
    !text.is_empty() && !text.starts_with('#')
}

/// The number of the nearest line with content before `line`, or after it.
fn neighbour(lines: &[&str], line: usize, forward: bool) -> Option<usize> {
    let holds = |number: &usize| lines.get(number - 1).is_some_and(|line| has_content(line));
    if forward { (line + 1..=lines.len()).find(holds) } else { (1..line.min(lines.len() + 1)).rev().find(holds) }
}

/// Spaces at the beginning of a line.
fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// A tab that indents the line of the error or one of its neighbours, or stands after the colon of a key.
fn tab(lines: &[&str], line: usize) -> Option<SyntaxError> {
    let near = [Some(line), neighbour(lines, line, true), neighbour(lines, line, false)];
    for number in near.into_iter().flatten() {
        let text = lines.get(number - 1).copied().unwrap_or_default();
        let begin = text.len() - text.trim_start().len();
        if let Some(at) = text[..begin].find('\t').filter(|_| has_content(text)) {
            return Some(SyntaxError {
                line: number,
                column: at + 1,
                problem: "a tab indents this line".to_owned(),
                hint: "indent with spaces, not tabs".to_owned(),
            });
        }
    }
    let text = lines.get(line - 1)?;
    let at = text.find(":\t")?;
    Some(SyntaxError {
        line,
        column: text[..at].chars().count() + 2,
        problem: "a tab stands between key and value".to_owned(),
        hint: "separate them with spaces, not tabs".to_owned(),
    })
}

/// A line before that of the error that is a text without a value, such as `lora_r:8`.
fn key_without_value(lines: &[&str], line: usize, info: &str) -> Option<SyntaxError> {
    if !info.starts_with("simple key expect") {
        return None;
    }
    let number = neighbour(lines, line, false)?;
    let text = lines[number - 1].trim();
    let hint = match text.trim_start_matches("- ").split_once(':') {
        Some((key, value)) if !value.is_empty() => format!("put a space after the colon: `{key}: {value}`"),
        _ => "a key and its value are written `key: value`, an entry of a list `- value`".to_owned(),
    };
    let problem = "this is neither a key with a value nor an entry of a list".to_owned();
    Some(SyntaxError { line: number, column: indent(lines[number - 1]) + 1, problem, hint })
}

/// A bracket that is still open where the parser gives up.
fn open_bracket(lines: &[&str], line: usize, column: usize, info: &str) -> Option<SyntaxError> {
    const SIGNS: [&str; 3] = ["invalid indentation", "illegal placement", "parsing a flow"];
    if info.contains("quoted") || !SIGNS.iter().any(|sign| info.contains(sign)) {
        return None;
    }
    let mut open = Vec::new();
    for (index, text) in lines.iter().enumerate().take(line) {
        let mut quote = None;
        let read = if index + 1 == line { column } else { usize::MAX };
        for (column, letter) in text.chars().enumerate().take(read) {
            match (quote, letter) {
                (Some(begun), letter) if begun == letter => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(letter),
                (None, '#') => break,
                (None, '[' | '{') => open.push((index + 1, column + 1, letter)),
                (None, ']' | '}') => drop(open.pop()),
                _ => {}
            }
        }
    }
    let (line, column, bracket) = open.pop()?;
    let closing = if bracket == '[' { ']' } else { '}' };
    let problem = format!("this `{bracket}` is not closed");
    Some(SyntaxError { line, column, problem, hint: format!("close it with `{closing}`") })
}

/// The column from 0 at which the text of a line begins, behind the dashes of a list.
fn text_column(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '-']).len()
}

/// Advice on a line that is not indented as its neighbours are.
fn indentation(lines: &[&str], line: usize, info: &str) -> Option<String> {
    if info.contains("quoted scalar") {
        return Some("close the quotes that begin here".to_owned());
    }
    let is_value = info.contains("mapping values are not allowed");
    let Some(above) = neighbour(lines, line, false).map(|above| lines[above - 1]) else {
        return is_value.then(|| "put a value that holds `: ` in quotes".to_owned());
    };
    let text = lines.get(line - 1)?;
    let own = indent(text);
    if let Some(entry) = above.trim_start().strip_prefix('-').filter(|entry| !entry.starts_with([' ', '-'])) {
        return Some(format!("put a space after the dash of the line above: `- {entry}`"));
    }
    if is_value && text_column(text) > text_column(above) {
        return Some(format!(
            "the line is indented by {}, but that above it by {}, and its value is complete: indent both alike",
            counted(own, "space"),
            indent(above)
        ));
    }
    if is_value {
        return Some("put a value that holds `: ` in quotes".to_owned());
    }
    info.contains("did not find expected").then(|| {
        format!(
            "the line is indented by {}, that above it by {}: indent it like the keys or entries that it belongs with",
            counted(own, "space"),
            indent(above)
        )
    })
}

#[cfg(test)]
mod tests {
    use saphyr_parser::Parser;

    use super::*;

    /// Place, problem and hint of the first error in `text`.
    fn error(text: &str) -> (usize, usize, String) {
        let error = Parser::new_from_str(text).find_map(Result::err).expect("the text is broken");
        let SyntaxError { line, column, problem, hint } = explained(text, &error);
        (line, column, format!("{problem}\n{hint}"))
    }

    #[test]
    fn a_tab_is_named_by_its_own_line() {
        for (text, line, column) in [
            ("a: 1\n\tb: 2\nc: 3\n", 2, 1),
            ("a: 1\r\n\tb: 2\r\nc: 3\r\n", 2, 1),
            ("datasets:\n\t- path: x\n", 2, 1),
            ("datasets:\n  - path: x\n\ttype: y\nlr: 1\n", 3, 1),
            ("datasets:\n  - path: x\n\n  # here\n  \ttype: y\nlr: 1\n", 5, 3),
            ("text: |\n  one\n\ttwo\nb: 2\n", 3, 1),
            ("text: |\n\tone\nb: 2\n", 2, 1),
            ("a: 1\nb:\t1\n", 2, 3),
        ] {
            let (found, at, shown) = error(text);
            assert_eq!((found, at), (line, column), "{text:?}: {shown}");
            assert!(shown.contains("with spaces, not tabs"), "{text:?}: {shown}");
        }
    }

    #[test]
    fn a_line_that_is_indented_otherwise_is_named_with_both_indentations() {
        for (text, line, said) in [
            ("datasets:\n  - path: x\n    type: y\n   split: z\nlr: 1\n", 4, "by 3 spaces, that above it by 4"),
            ("datasets:\n  - path: x\n  type: y\nlr: 1\n", 3, "by 2 spaces, that above it by 2"),
            ("datasets:\r\n  - path: x\r\n  type: y\r\n", 3, "by 2 spaces, that above it by 2"),
            ("a:\n  b: 1\n c: 2\nd: 1\n", 3, "by 1 space, that above it by 2"),
            ("a: 1\n b: 2\nc: 3\n", 2, "by 1 space, but that above it by 0"),
            ("a:\n  b: 1\n    c: 2\nd: 1\n", 3, "by 4 spaces, but that above it by 2"),
        ] {
            let (found, _, shown) = error(text);
            assert!(found == line && shown.contains(said), "{text:?}: {found} {shown}");
        }
    }

    #[test]
    fn a_missing_space_an_open_bracket_and_a_colon_in_a_value_are_named() {
        let (line, column, shown) = error("a: 1\n  \nb:2\nc: 3\n");
        assert_eq!((line, column), (3, 1));
        assert!(shown.contains("put a space after the colon: `b: 2`"), "{shown}");
        let (line, column, shown) = error("export:\n  formats: [adapter, merged\nb: 2\n");
        assert_eq!((line, column), (2, 12));
        assert_eq!(shown, "this `[` is not closed\nclose it with `]`");
        let (line, column, shown) = error("a: 1\nnames: [q_proj, v_proj\nlora_r: 4\n");
        assert!((line, column) == (2, 8) && shown.starts_with("this `[` is not closed"), "{shown}");
        for text in ["a: 1\nname: x: y\n", "- a: 1\n  name: x: y\n", "# b\na: x: y\n"] {
            let (line, _, shown) = error(text);
            assert!(line == 2 && shown.contains("in quotes"), "{shown}");
        }
        let (_, _, shown) = error("d:\n  -path: a\n   type: b\n");
        assert!(shown.contains("`- path: a`"), "{shown}");
        let (line, _, shown) = error("b: \"x\nc: 3\n");
        assert!(line == 1 && shown.contains("close the quote"), "{shown}");
    }
}
