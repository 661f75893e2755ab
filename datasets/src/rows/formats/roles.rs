//! The names of roles in data sets.
//!
//! As in Axolotl, a recipe's `roles` takes the place of the usual names, and a name that neither has reaches the
//! template as it is.

use crate::foundation::SourceSettings;

/// The words in which a format writes conversations.
#[derive(Debug)]
pub(super) struct Dialect {
    /// From a property to its key, where that is another.
    pub(super) keys: &'static [(&'static str, &'static str)],
    /// From a name to the role that it stands for.
    roles: &'static [(&'static str, &'static str)],
    /// Names of messages that are a tool call as JSON.
    calls: &'static [&'static str],
}

/// `role` and `content`.
pub(super) const CHAT: Dialect = Dialect {
    keys: &[],
    roles: &[
        ("human", "user"),
        ("user", "user"),
        ("assistant", "assistant"),
        ("gpt", "assistant"),
        ("system", "system"),
        ("tool", "tool"),
    ],
    calls: &[],
};

/// `from` and `value`.
pub(super) const SHAREGPT: Dialect = Dialect {
    keys: &[("role", "from"), ("content", "value")],
    roles: &[
        ("human", "user"),
        ("user", "user"),
        ("prompter", "user"),
        ("assistant", "assistant"),
        ("gpt", "assistant"),
        ("chatgpt", "assistant"),
        ("bot", "assistant"),
        ("model", "assistant"),
        ("system", "system"),
        ("tool", "tool"),
        ("observation", "tool"),
        ("function_response", "tool"),
        ("function-response", "tool"),
        ("tool_response", "tool"),
    ],
    calls: &["function_call", "function-call", "tool_call"],
};

/// Roles that templates know and that stand for themselves.
const OTHER_ROLES: [&str; 3] = ["developer", "ipython", "function"];

/// How a message is read, by the name of who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// It has this role.
    Role(String),
    /// It is a tool call of the assistant, as JSON.
    Calls,
    /// The name is unknown.
    Unknown(String),
}

/// How a message of `name` is read.
pub(super) fn reader(name: &str, source: &SourceSettings, dialect: &Dialect) -> Reader {
    if let Some(role) = recipe_role(name, source) {
        return Reader::Role(role.to_owned());
    }
    if dialect.calls.contains(&name) {
        return Reader::Calls;
    }
    let usual = dialect.roles.iter().find(|(usual, _)| *usual == name).map(|(_, role)| *role);
    // The names of tools are not among those that a recipe means to replace.
    let usual = usual.filter(|role| source.roles.is_empty() || *role == name || *role == "tool");
    match usual {
        Some(role) => Reader::Role(role.to_owned()),
        None if OTHER_ROLES.contains(&name) => Reader::Role(name.to_owned()),
        None => Reader::Unknown(name.to_owned()),
    }
}

/// The role that a name in `roles_to_train` stands for; one that stands for none is a role itself.
pub(crate) fn trained_role(name: &str, source: &SourceSettings) -> String {
    let usual = || CHAT.roles.iter().find(|(usual, _)| *usual == name && source.roles.is_empty());
    let role = recipe_role(name, source).or_else(|| usual().map(|(_, role)| *role));
    role.unwrap_or(name).to_owned()
}

fn recipe_role<'s>(name: &str, source: &'s SourceSettings) -> Option<&'s str> {
    source.roles.iter().find(|(_, names)| names.iter().any(|other| other == name)).map(|(role, _)| role.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Reader {
        Reader::Role(name.to_owned())
    }

    #[test]
    fn a_recipe_replaces_the_usual_names() {
        let mut source = SourceSettings::default();
        assert_eq!(reader("human", &source, &CHAT), role("user"));
        assert_eq!(reader("gpt", &source, &CHAT), role("assistant"));
        assert_eq!(reader("model", &source, &CHAT), Reader::Unknown("model".to_owned()));
        assert_eq!(reader("developer", &source, &CHAT), role("developer"));
        assert_eq!(trained_role("gpt", &source), "assistant");
        source.roles = [("assistant".to_owned(), vec!["bot".to_owned()])].into();
        assert_eq!(reader("bot", &source, &CHAT), role("assistant"));
        assert_eq!(reader("human", &source, &CHAT), Reader::Unknown("human".to_owned()));
        assert_eq!(reader("user", &source, &CHAT), role("user"));
        assert_eq!(
            (trained_role("bot", &source), trained_role("gpt", &source)),
            ("assistant".to_owned(), "gpt".to_owned())
        );
    }

    #[test]
    fn sharegpt_has_names_for_calls_and_results() {
        let mut source = SourceSettings::default();
        for roles in [vec![], vec!["human".to_owned()]] {
            if !roles.is_empty() {
                source.roles = [("user".to_owned(), roles)].into();
            }
            assert_eq!(reader("function_call", &source, &SHAREGPT), Reader::Calls);
            assert_eq!(reader("observation", &source, &SHAREGPT), role("tool"));
        }
        source.roles = [("assistant".to_owned(), vec!["function_call".to_owned()])].into();
        assert_eq!(reader("function_call", &source, &SHAREGPT), role("assistant"));
    }
}
