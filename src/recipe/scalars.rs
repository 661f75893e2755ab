//! The value of a scalar as a number or a boolean.
//!
//! Spellings are those that circulating recipes rely on: YAML 1.1's words for booleans, `1e-4`
//! without a dot, and numbers in quotes.

use super::yaml::{Node, Value};

/// The text of a single value.
pub(super) fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

/// YAML's words for true and false, of version 1.1, which circulating recipes use.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A finite decimal number, with or without exponent; `1e-4` counts, which YAML 1.1 reads as text.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    // Rust would also take `inf` and `nan`.
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let plain = if text.contains('_') { without_separators(text)? } else { text.to_owned() };
    if !plain.chars().all(numeric) {
        return None;
    }
    plain.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// A number without the underscores between its digits; `None` where one stands elsewhere.
fn without_separators(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |index: Option<usize>| index.and_then(|index| bytes.get(index)).is_some_and(u8::is_ascii_digit);
    let between = |index: usize| digit(index.checked_sub(1)) && digit(Some(index + 1));
    let misplaced = bytes.iter().enumerate().any(|(index, byte)| *byte == b'_' && !between(index));
    (!misplaced).then(|| text.replace('_', ""))
}

/// An integer from 0 on; `8.0` and `1e3` count as well.
pub(super) fn whole(text: &str) -> Option<usize> {
    let digits = text.trim().trim_start_matches('+');
    // YAML 1.1 reads `010` as eight, others as ten: refused rather than guessed.
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if let Ok(value) = digits.parse::<usize>() {
        return Some(value);
    }
    let value = number(text)?;
    // Above 2^53 a float no longer names one integer.
    let exact = value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value);
    exact.then_some(value as usize)
}
