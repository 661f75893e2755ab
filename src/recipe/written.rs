//! The values of a recipe, key by key, as texts: by these, recipes are compared, whatever their layout.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::yaml::{Node, Value};

/// The value of every scalar that is not blank, by its dotted key.
pub(super) fn by_key(node: &Node) -> BTreeMap<String, String> {
    fn gather(node: &Node, key: &str, values: &mut BTreeMap<String, String>) {
        let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
        match &node.value {
            Value::Scalar { text, .. } if !node.is_unset() => {
                values.insert(key.to_owned(), text.clone());
            }
            Value::Scalar { .. } => {}
            Value::List(items) => {
                items.iter().enumerate().for_each(|(index, item)| gather(item, &below(&index.to_string()), values));
            }
            Value::Map(entries) => {
                entries.iter().for_each(|entry| gather(&entry.node, &below(&entry.key), values));
            }
        }
    }
    let mut values = BTreeMap::new();
    gather(node, "", &mut values);
    values
}

/// `expanded`, with a hash in place of each value that variables of the environment changed: they may be secrets, and
/// these values are kept in files.
pub(super) fn without_environment(
    written: BTreeMap<String, String>,
    mut expanded: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    for (key, value) in &mut expanded {
        if written.get(key) != Some(value) {
            let hash = Sha256::digest(value.as_bytes());
            *value = hash.iter().take(8).fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        }
    }
    expanded
}
