//! Text that may have come from a stranger (names in recipes, rows, model folders), made fit for a terminal.

use std::borrow::Cow;

/// `text` with every character that steers a terminal or reorders what is read written as its escape, such as
/// `\u{1b}`; line breaks and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match steers(character) {
            true => out.extend(character.escape_unicode()),
            false => out.push(character),
        }
    }
    Cow::Owned(out)
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
    fn what_steers_a_terminal_becomes_visible_and_all_else_stays() {
        assert_eq!(printable("a\u{1b}[31mb\rc\u{9b}\u{202e}"), "a\\u{1b}[31mb\\u{d}c\\u{9b}\\u{202e}");
        let plain = "ä\tb\n⟦c⟧ 日本 עברית";
        assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
    }
}
