//! Custom prompt formats: a prompt around the columns of a row, in the words of Axolotl.

use serde::Serialize;

/// A prompt around the columns of a row, as Python's `str.format` fills it in: Axolotl's custom prompt formats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PromptFormat {
    /// The system text of rows without a column of one.
    pub system_prompt: String,
    /// The text that stands in front where there is a system text, with `{system}`.
    pub system_format: String,
    /// Column of the system text.
    pub field_system: String,
    /// Column of the instruction.
    pub field_instruction: String,
    /// Column of the optional input.
    pub field_input: String,
    /// Column of the output, which is trained on.
    pub field_output: String,
    /// The prompt of a row with an input, with `{instruction}` and `{input}`.
    pub format: String,
    /// The prompt of a row without one, with `{instruction}`.
    pub no_input_format: String,
}

impl Default for PromptFormat {
    /// Axolotl's.
    fn default() -> Self {
        PromptFormat {
            system_prompt: String::new(),
            system_format: "{system}".to_owned(),
            field_system: "system".to_owned(),
            field_instruction: "instruction".to_owned(),
            field_input: "input".to_owned(),
            field_output: "output".to_owned(),
            format: "{instruction} {input} ".to_owned(),
            no_input_format: "{instruction} ".to_owned(),
        }
    }
}

/// The names in braces that a format may use; an error names what else stands in braces.
///
/// # Errors
/// If a brace is not closed, or holds anything but one of `names`.
pub fn check_format(format: &str, names: &[&str]) -> Result<(), String> {
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            rest = after;
            continue;
        }
        let inside = after.split_once('}').filter(|_| brace == "{");
        match inside {
            Some((name, after)) if names.contains(&name) => rest = after,
            Some((name, _)) => return Err(format!("`{{{name}}}`")),
            None => return Err(format!("a single `{brace}`")),
        }
    }
    Ok(())
}

/// A format with values in place of their names in braces, and single braces for doubled ones.
pub(crate) fn fill_in(format: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(format.len());
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        let value = after.split_once('}').and_then(|(name, after)| {
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value, after))
        });
        rest = match (after.strip_prefix(brace), value) {
            (Some(after), _) => {
                text.push_str(brace);
                after
            }
            (None, Some((value, after))) if brace == "{" => {
                text.push_str(value);
                after
            }
            (None, _) => {
                text.push_str(brace);
                after
            }
        };
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_hold_known_names_or_are_doubled() {
        for good in ["", "{a}", "x {a}{b}", "{{a}} {{}} }}", "{{{a}}}"] {
            assert_eq!(check_format(good, &["a", "b"]), Ok(()), "{good}");
        }
        for (bad, found) in
            [("{c}", "`{c}`"), ("{}", "`{}`"), ("{a!r}", "`{a!r}`"), ("{a", "a single `{`"), ("a}", "a single `}`")]
        {
            assert_eq!(check_format(bad, &["a"]), Err(found.to_owned()));
        }
    }

    #[test]
    fn values_are_not_formats() {
        assert_eq!(fill_in("<{a}|{{a}}|{{{b}}}>", &[("a", "{b}"), ("b", "1")]), "<{b}|{a}|{1}>");
    }
}
