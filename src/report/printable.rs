//! Untrusted text (names in recipes, rows, model folders) made safe for a terminal.

use std::borrow::Cow;

/// Returns `text` with every character that controls a terminal or reorders what is read replaced by its escape, such as
/// `\u{1b}`; line breaks and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// Returns `text` with the middle of overlong lines left out: untrusted text may be of any length.
pub fn bounded(text: &str) -> String {
    const LONGEST: usize = 2000;
    const ENDS: [usize; 2] = [1500, 300];
    let line = |line: &str| {
        let count = line.chars().count();
        if count <= LONGEST {
            return line.to_owned();
        }
        let (begin, end): (String, String) =
            (line.chars().take(ENDS[0]).collect(), line.chars().skip(count - ENDS[1]).collect());
        format!("{begin} ({} characters more) {end}", count - ENDS[0] - ENDS[1])
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Control characters, and those by which text runs from right to left where it should not (Boucher and Anderson 2021,
/// "Trojan Source").
fn steers(character: char) -> bool {
    let reorders = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    reorders || (character.is_control() && character != '\n' && character != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_any_length_become_lines_that_can_be_read() {
        let text = format!("a\n{}{}", "ä".repeat(5000), "z".repeat(300));
        let short = bounded(&text);
        assert!(short.starts_with("a\nää") && short.ends_with(&format!(" (3500 characters more) {}", "z".repeat(300))));
        assert_eq!(bounded("a\nb\n"), "a\nb\n");
    }

    #[test]
    fn what_steers_a_terminal_becomes_visible_and_all_else_stays() {
        assert_eq!(printable("a\u{1b}[31mb\rc\u{9b}\u{202e}"), "a\\u{1b}[31mb\\u{d}c\\u{9b}\\u{202e}");
        let plain = "ä\tb\n⟦c⟧ 日本 עברית";
        assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
    }
}
