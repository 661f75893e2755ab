//! A bound on the growth of a text in a tokenizer's normalizer: one that replaces `e` by a million of them, or doubles it
//! again and again, would fill any memory.

use serde_json::Value;

/// Most bytes that one byte may become: twenty times what published normalizers make of a space.
pub(crate) const MOST_GROWTH: f64 = 256.0;

/// Most bytes that a normalizer makes of one byte, by the parts of it that insert text.
pub(crate) fn growth(normalizer: &Value) -> f64 {
    let bytes = |value: &Value| value.as_str().map_or(0, str::len) as f64;
    match normalizer["type"].as_str() {
        Some("Sequence") => normalizer["normalizers"].as_array().into_iter().flatten().map(growth).product(),
        // A pattern may match nothing at all, beside the byte.
        Some("Replace") => match normalizer["pattern"].get("String") {
            Some(pattern) => (bytes(&normalizer["content"]) / bytes(pattern).max(1.0)).max(1.0),
            None => 1.0 + bytes(&normalizer["content"]),
        },
        Some("Prepend") => 1.0 + bytes(&normalizer["prepend"]),
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn growth_multiplies_along_a_sequence() {
        let replace = |pattern: &str, content: &str| json!({"type": "Replace", "pattern": {"String": pattern}, "content": content});
        let published =
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]});
        assert_eq!(growth(&published), 12.0);
        let doubled = json!({"type": "Sequence", "normalizers": vec![replace("e", "ee"); 40]});
        assert_eq!(growth(&doubled), 2f64.powi(40));
        let regex = json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "abc"});
        assert_eq!((growth(&regex), growth(&json!({"type": "NFC"})), growth(&Value::Null)), (4.0, 1.0, 1.0));
    }
}
