//! `${NAME}` and `${NAME:-default}` in values, from the environment, and `~/` for the home folder.
//!
//! As in a shell, the default also stands in for an empty variable. `$${` writes a literal `${`,
//! and a `${` that no name follows stays as it is, since templates and patterns contain it. A variable
//! that is named like a secret is never looked up: what is in a recipe ends in plans, logs and exports.

use super::problem::ProblemLog;
use super::yaml::{MAX_BYTES, Node, Value};
use crate::paths;

/// Words that make a variable's name that of a secret.
const SECRET_WORDS: [&str; 15] = [
    "TOKEN",
    "TOKENS",
    "SECRET",
    "SECRETS",
    "PASSWORD",
    "PASSWD",
    "PASS",
    "PASSPHRASE",
    "CREDENTIAL",
    "CREDENTIALS",
    "KEY",
    "KEYS",
    "APIKEY",
    "AUTH",
    "COOKIE",
];

/// True if one of the words of `name`, between underscores, marks its value as a secret.
fn names_a_secret(name: &str) -> bool {
    name.split('_').any(|word| SECRET_WORDS.iter().any(|secret| word.eq_ignore_ascii_case(secret)))
}

/// Replaces the variables in every value of the tree; keys stay as they are.
pub(super) fn expand(node: &mut Node, env: &dyn Fn(&str) -> Option<String>, problems: &mut ProblemLog) {
    match &mut node.value {
        Value::Scalar { text, .. } => {
            if text.contains("${") {
                match expanded(text, env) {
                    Ok(replaced) => *text = replaced,
                    Err((message, hint)) => problems.add(node.at, message, hint),
                }
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| expand(item, env, problems)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| expand(&mut entry.node, env, problems)),
    }
}

/// Replaces `~` in values that begin with `~/`, which only paths do.
pub(super) fn expand_home(node: &mut Node, env: &dyn Fn(&str) -> Option<String>) {
    match &mut node.value {
        Value::Scalar { text, .. } => *text = paths::expanded(text, env("HOME").as_deref()).into_owned(),
        Value::List(items) => items.iter_mut().for_each(|item| expand_home(item, env)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| expand_home(&mut entry.node, env)),
    }
}

/// The text with its variables replaced, or the problem and a hint.
fn expanded(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &reference[2..];
            continue;
        }
        out.push_str(before);
        let inner = &reference[2..];
        let length = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
        let (name, after) = inner.split_at(length);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            out.push_str("${");
            rest = inner;
            continue;
        }
        if names_a_secret(name) {
            return Err((
                format!("the environment variable `{name}` is named like a secret, and what a recipe says is shown"),
                "no key of a recipe takes a secret; a token of the hub is read from HF_TOKEN as it is. If this is none, give it another name".to_owned(),
            ));
        }
        let value = env(name);
        if let Some(after) = after.strip_prefix('}') {
            let Some(value) = value else {
                return Err((
                    format!("the environment variable `{name}` is not set"),
                    format!("set it, or give a default: `${{{name}:-value}}`"),
                ));
            };
            out.push_str(&value);
            rest = after;
        } else if let Some((default, after)) = after.strip_prefix(":-").and_then(|after| after.split_once('}')) {
            match value {
                Some(value) if !value.is_empty() => out.push_str(&value),
                _ => out.push_str(default),
            }
            rest = after;
        } else {
            return Err((
                format!("`${{{name}` is not a complete variable"),
                format!("write `${{{name}}}` or `${{{name}:-default}}`; `$${{` stands for a literal `${{`"),
            ));
        }
        if out.len() > MAX_BYTES {
            return Err(("environment variables make this value too large".to_owned(), "shorten them".to_owned()));
        }
    }
    out.push_str(rest);
    Ok(out)
}
