//! Lines that are cut at words where they are longer than a terminal is wide.

use std::borrow::Cow;

use console::Term;

/// The column in which the values of the plan and other tables begin.
const VALUE_COLUMN: usize = 16;

/// The beginning of a line with a command to copy, which a line break would change.
const COMMAND: &str = "next  ";

/// A terminal that is narrower than this is written to as if it were wide.
const NARROWEST: usize = 40;

/// The columns of the terminal, or those that `COLUMNS` promises to a reader that is none; `None` if there is neither.
pub(super) fn columns(terminal: &Term) -> Option<usize> {
    let promised = || std::env::var("COLUMNS").ok()?.parse().ok();
    let seen = if terminal.is_term() { terminal.size_checked().map(|(_, columns)| usize::from(columns)) } else { None };
    seen.or_else(promised).filter(|columns| *columns >= NARROWEST)
}

/// The lines of a table or message, no longer than `columns`: what does not fit continues below its value.
pub(super) fn wrapped(text: &str, columns: Option<usize>) -> Cow<'_, str> {
    let Some(columns) = columns.filter(|columns| text.lines().any(|line| line.chars().count() > *columns)) else {
        return text.into();
    };
    let indent = |line: &str| {
        let begin: Vec<char> = line.chars().take(VALUE_COLUMN + 1).collect();
        let in_table = begin.len() > VALUE_COLUMN && begin[VALUE_COLUMN - 2..VALUE_COLUMN] == [' ', ' '];
        match (in_table, line.starts_with(' ')) {
            (true, _) => VALUE_COLUMN,
            (false, true) => description(line),
            (false, false) => 0,
        }
    };
    let wrap = |line: &str| match line.starts_with(COMMAND) {
        true => line.to_owned(),
        false => wrapped_line(line, columns, indent(line)),
    };
    text.split('\n').map(wrap).collect::<Vec<_>>().join("\n").into()
}

/// The text of `--help`, whose lines are no longer than `columns`: a description continues below its beginning.
pub fn wrapped_help(text: &str) -> String {
    const USUAL: usize = 80;
    const WIDEST: usize = 100;
    let columns = columns(&Term::stdout()).unwrap_or(USUAL).min(WIDEST);
    text.split('\n').map(|line| wrapped_line(line, columns, description(line))).collect::<Vec<_>>().join("\n")
}

/// The column in which the description of an option or command begins.
fn description(line: &str) -> usize {
    let (mut column, mut named, mut gap) = (0, false, 0);
    for character in visible(line) {
        match character {
            ' ' if named => gap += 1,
            ' ' => {}
            _ if gap > 1 => return column,
            _ => (named, gap) = (true, 0),
        }
        column += 1;
    }
    0
}

/// One line in as many as it takes, of which all but the first begin with `indent` spaces. Words are never cut.
fn wrapped_line(line: &str, columns: usize, indent: usize) -> String {
    if visible(line).count() <= columns {
        return line.to_owned();
    }
    let (mut text, mut width) = (String::new(), 0);
    // The gap before a word stays with it, so that columns in the first line stay where they are.
    for word in words(line) {
        let length = visible(word).count();
        if width + length > columns && width > indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            let word = word.trim_start_matches(' ');
            text.push_str(word);
            width = indent + visible(word).count();
        } else {
            text.push_str(word);
            width += length;
        }
    }
    text
}

/// The words of a line, each with the spaces before it.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let begin = rest.find(|character| character != ' ').unwrap_or(rest.len());
        let end = rest[begin..].find(' ').map_or(rest.len(), |length| begin + length);
        let (word, after) = rest.split_at(end);
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// The characters that are seen: all but those that switch styles.
fn visible(text: &str) -> impl Iterator<Item = char> {
    let mut styles = false;
    text.chars().filter(move |character| {
        let begins = *character == '\u{1b}';
        let is_seen = !styles && !begins;
        styles = begins || (styles && *character != 'm');
        is_seen
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_continues_in_its_column_and_a_message_at_its_beginning() {
        let text = "memory          about 3.0 MiB: weights 1.0 MiB, adapters 2.0 MiB\nrope            base 1";
        let expected = "memory          about 3.0 MiB:\n                weights 1.0 MiB,\n                adapters 2.0 MiB\nrope            base 1";
        assert_eq!(wrapped(text, Some(34)), expected);
        assert_eq!(wrapped("error: a long message for a person", Some(20)), "error: a long\nmessage for a person");
        assert_eq!(wrapped(text, None), text);
        assert_eq!(
            wrapped("  prompt  two or three words", Some(20)),
            "  prompt  two or\n          three\n          words"
        );
        let command = "next            tune generate out/adapter --prompt 'two words'";
        assert_eq!(wrapped(command, Some(40)), command);
        let word = "x".repeat(50);
        assert_eq!(wrapped(&word, Some(40)), word);
    }

    #[test]
    fn a_description_continues_below_itself_whatever_its_style() {
        let line = "      \u{1b}[1m--rows\u{1b}[0m <ROWS>  Number of examples of the data set";
        assert_eq!(description(line), 21);
        let expected = "      \u{1b}[1m--rows\u{1b}[0m <ROWS>  Number of\n                     examples of the\n                     data set";
        assert_eq!(wrapped_line(line, 37, 21), expected);
    }
}
