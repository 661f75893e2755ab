//! Python's methods of strings, lists, maps and numbers, where minijinja's own set lacks one or does otherwise.

use std::sync::LazyLock;

use fancy_regex::Regex;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::counted::{Shape, counted, is_tuple, shaped, text_bytes};
use super::python::as_float;

/// Python's methods of strings, lists, maps and numbers.
pub(super) fn python_method(
    state: &mut State,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let known = match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            string_method(state, text, method, arguments)?.or(string_test(text, method, arguments)?)
        }
        ValueKind::Map => map_method(state, value, method, arguments)?,
        ValueKind::Seq => list_method(value, method, arguments)?,
        ValueKind::Number => number_method(value, method, arguments)?,
        _ => None,
    };
    match known {
        Some(result) => Ok(counted(result)),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments).map(counted),
    }
}

fn string_method(state: &State, text: &str, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let list = |parts: Vec<&str>| parts.into_iter().map(Value::from).collect::<Value>();
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "format" => Value::from(formatted(state, FormatStyle::StrFormat, text, arguments)?),
        "split" | "rsplit" => {
            let (separator, most) = split_arguments(arguments)?;
            list(split(text, separator.as_deref(), most, method == "rsplit"))
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(arguments)?;
            list(lines(text, keep.unwrap_or(false)))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            if separator.is_empty() {
                return Err(wrong("empty separator"));
            }
            let from_right = method == "rpartition";
            let found = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if from_right => ["", "", text],
                None => [text, "", ""],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (part, start, end): (&str, Option<i64>, Option<i64>) = from_args(arguments)?;
            let (within, skipped) = characters(text, start, end);
            let position = |byte: usize| (skipped + within[..byte].chars().count()) as i64;
            match method {
                "count" => Value::from(within.matches(part).count()),
                "find" => Value::from(within.find(part).map_or(-1, position)),
                "rfind" => Value::from(within.rfind(part).map_or(-1, position)),
                _ => {
                    let found = if method == "index" { within.find(part) } else { within.rfind(part) };
                    Value::from(found.map(position).ok_or_else(|| wrong("substring not found"))?)
                }
            }
        }
        "startswith" | "endswith" => {
            let (part, start, end): (&Value, Option<i64>, Option<i64>) = from_args(arguments)?;
            let (within, _) = characters(text, start, end);
            let fits = |part: &Value| {
                let part =
                    part.as_str().ok_or_else(|| wrong(format!("{method} takes a string or a tuple of strings")))?;
                Ok(if method == "startswith" { within.starts_with(part) } else { within.ends_with(part) })
            };
            match part.kind() {
                ValueKind::String => Value::from(fits(part)?),
                _ => Value::from(
                    part.try_iter()?.map(|part| fits(&part)).collect::<Result<Vec<bool>, Error>>()?.contains(&true),
                ),
            }
        }
        "ljust" | "rjust" | "center" | "zfill" => {
            let (width, fill): (usize, Option<&str>) = from_args(arguments)?;
            let fill = fill.unwrap_or(" ");
            if fill.chars().count() != 1 {
                return Err(wrong("the fill character must be exactly one character long"));
            }
            state.consume_fuel(width.saturating_mul(fill.len()) as u64 / 64)?;
            Value::from(padded(text, width, fill, method))
        }
        "expandtabs" => {
            let (width,): (Option<usize>,) = from_args(arguments)?;
            let width = width.unwrap_or(8);
            state.consume_fuel((text.matches('\t').count().saturating_mul(width)) as u64 / 64)?;
            Value::from(without_tabs(text, width))
        }
        "swapcase" => {
            let () = from_args(arguments)?;
            Value::from(text.chars().flat_map(|letter| swapped(letter).into_iter()).collect::<String>())
        }
        "casefold" => {
            let () = from_args(arguments)?;
            Value::from(text.to_uppercase().to_lowercase().replace('ς', "σ"))
        }
        "title" => {
            let () = from_args(arguments)?;
            Value::from(title(text))
        }
        _ => return Ok(None),
    }))
}

fn string_test(text: &str, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    static DIGITS: LazyLock<Regex> = LazyLock::new(|| regex(r"^[\p{Nd}²³¹⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐]+$"));
    static DECIMALS: LazyLock<Regex> = LazyLock::new(|| regex(r"^\p{Nd}+$"));
    static IDENTIFIER: LazyLock<Regex> =
        LazyLock::new(|| regex(r"^[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*$"));
    static UNPRINTABLE: LazyLock<Regex> = LazyLock::new(|| regex(r"[\p{C}\p{Z}]"));
    let fits = |pattern: &Regex, text: &str| pattern.is_match(text).unwrap_or(false);
    let holds = match method {
        "isdigit" => fits(&DIGITS, text),
        "isdecimal" => fits(&DECIMALS, text),
        "isidentifier" => fits(&IDENTIFIER, text),
        "isprintable" => !fits(&UNPRINTABLE, &text.replace(' ', "")),
        "istitle" => text.chars().any(|letter| letter.is_uppercase()) && title(text) == text,
        _ => return Ok(None),
    };
    let () = from_args(arguments)?;
    Ok(Some(Value::from(holds)))
}

fn map_method(state: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let shape = match method {
        "copy" => {
            let () = from_args(arguments)?;
            return Ok(Some(value.clone()));
        }
        "items" => Shape::Items,
        "keys" => Shape::Keys,
        "values" => Shape::Values,
        _ => return Ok(None),
    };
    let listed = minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)?;
    Ok(Some(shaped(listed, shape)))
}

fn list_method(value: &Value, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "copy" if !is_tuple(value) => {
            let () = from_args(arguments)?;
            Ok(Some(value.clone()))
        }
        "index" => {
            let (wanted,): (&Value,) = from_args(arguments)?;
            let place = value.try_iter()?.position(|item| item == *wanted);
            place.map(|place| Some(Value::from(place))).ok_or_else(|| wrong("the value is not in the list"))
        }
        _ => Ok(None),
    }
}

fn number_method(value: &Value, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    if method != "is_integer" {
        return Ok(None);
    }
    let () = from_args(arguments)?;
    Ok(Some(Value::from(as_float(value).is_none_or(|float| float.fract() == 0.0))))
}

/// The separator and the most cuts of `split`; `None` for white space, and for no limit.
fn split_arguments(arguments: &[Value]) -> Result<(Option<String>, Option<usize>), Error> {
    let (separator, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(arguments)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => named.get::<Option<Value>>("sep")?,
    };
    let most = match most {
        Some(most) => Some(most),
        None => named.get::<Option<i64>>("maxsplit")?,
    };
    named.assert_all_used()?;
    let separator = separator.filter(|separator| !separator.is_none() && !separator.is_undefined());
    let separator = match &separator {
        None => None,
        Some(separator) => Some(separator.as_str().ok_or_else(|| wrong("split takes a string"))?.to_owned()),
    };
    if separator.as_deref() == Some("") {
        return Err(wrong("empty separator"));
    }
    Ok((separator, most.and_then(|most| usize::try_from(most).ok())))
}

/// A text cut at most `most` times, from the right if `from_right` is set.
fn split<'a>(text: &'a str, separator: Option<&str>, most: Option<usize>, from_right: bool) -> Vec<&'a str> {
    let mut parts: Vec<&str> = match (separator, most) {
        (Some(separator), None) => text.split(separator).collect(),
        (Some(separator), Some(most)) if from_right => text.rsplitn(most.saturating_add(1), separator).collect(),
        (Some(separator), Some(most)) => text.splitn(most.saturating_add(1), separator).collect(),
        (None, None) => text.split_whitespace().collect(),
        (None, Some(most)) => return split_at_space(text, most, from_right),
    };
    if from_right && separator.is_some() && most.is_some() {
        parts.reverse();
    }
    parts
}

/// A text cut at runs of white space, at most `most` times; the rest keeps the white space at its far end.
fn split_at_space(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = if from_right { text.trim_end() } else { text.trim_start() };
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        match cut.filter(|_| parts.len() < most) {
            None => {
                parts.push(rest);
                break;
            }
            Some(cut) if from_right => {
                let space = rest[cut..].chars().next().map_or(1, char::len_utf8);
                parts.push(&rest[cut + space..]);
                rest = rest[..cut].trim_end();
            }
            Some(cut) => {
                parts.push(&rest[..cut]);
                rest = rest[cut..].trim_start();
            }
        }
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// The lines of a text, ended by any of Python's line breaks.
fn lines(text: &str, keep: bool) -> Vec<&str> {
    let is_break = |letter: char| {
        matches!(letter, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(end) = rest.find(is_break) else {
            lines.push(rest);
            break;
        };
        let is_pair = rest[end..].starts_with("\r\n");
        let length = if is_pair { 2 } else { rest[end..].chars().next().map_or(1, char::len_utf8) };
        lines.push(&rest[..if keep { end + length } else { end }]);
        rest = &rest[end + length..];
    }
    lines
}

/// The characters from `start` to `end`, which may count from the end, and the number of those before.
fn characters(text: &str, start: Option<i64>, end: Option<i64>) -> (&str, usize) {
    if start.is_none() && end.is_none() {
        return (text, 0);
    }
    let count = text.chars().count() as i64;
    let place = |place: i64| if place < 0 { (count + place).max(0) } else { place.min(count) } as usize;
    let start = place(start.unwrap_or(0));
    let end = place(end.unwrap_or(count)).max(start);
    let byte = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(byte, _)| byte);
    (&text[byte(start)..byte(end)], start)
}

fn padded(text: &str, width: usize, fill: &str, method: &str) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let pad = |count: usize| fill.repeat(count);
    match method {
        "ljust" => text.to_owned() + &pad(missing),
        "rjust" => pad(missing) + text,
        "zfill" => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", "0".repeat(missing))
        }
        _ => {
            // As Python does: of an odd rest, the larger half is on the left if the width is odd.
            let left = missing / 2 + (missing & width & 1);
            pad(left) + text + &pad(missing - left)
        }
    }
}

fn without_tabs(text: &str, width: usize) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut column = 0;
    for letter in text.chars() {
        match letter {
            '\t' => {
                let spaces = if width == 0 { 0 } else { width - column % width };
                expanded.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                expanded.push(letter);
                column = 0;
            }
            _ => {
                expanded.push(letter);
                column += 1;
            }
        }
    }
    expanded
}

fn swapped(letter: char) -> Vec<char> {
    if letter.is_uppercase() { letter.to_lowercase().collect() } else { letter.to_uppercase().collect() }
}

/// Each letter after one that is none in upper case, the others in lower case.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut after_letter = false;
    for letter in text.chars() {
        if after_letter {
            titled.extend(letter.to_lowercase());
        } else {
            titled.extend(letter.to_uppercase());
        }
        after_letter = letter.is_alphabetic();
    }
    titled
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is constant and valid")
}

/// Formats values, after taking the fuel for the longest possible result: the texts of all values in each field, and the
/// widths.
pub(super) fn formatted(state: &State, style: FormatStyle, text: &str, arguments: &[Value]) -> Result<String, Error> {
    let fields = text.matches(['{', '%']).count() as u64;
    let digits = text.split(|character: char| !character.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let mut widths = digits.map(|digits| digits.parse().unwrap_or(u64::MAX)).fold(0, u64::saturating_add);
    if text.contains('*') {
        let given = arguments.iter().filter_map(|value| u64::try_from(value.clone()).ok());
        widths = given.fold(widths, u64::saturating_add);
    }
    let texts: u64 = arguments.iter().map(text_bytes).sum();
    state.consume_fuel(fields.saturating_mul(texts).saturating_add(widths) / 64)?;
    format(style, text, arguments)
}

fn wrong(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}
