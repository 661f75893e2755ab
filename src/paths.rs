//! Paths as people write them: `~/` is the home folder, which a shell replaces only where it sees a word of its own.

use std::borrow::Cow;

/// `path` with the folder `home` in place of a `~` before the first slash.
pub(crate) fn expanded<'p>(path: &'p str, home: Option<&str>) -> Cow<'p, str> {
    match (path.strip_prefix("~/"), home) {
        (Some(below), Some(home)) if !home.is_empty() => format!("{}/{below}", home.trim_end_matches('/')).into(),
        _ => path.into(),
    }
}

/// The same with the home folder of the environment; an argument of the command line.
pub(crate) fn of_argument(path: &str) -> String {
    expanded(path, std::env::var("HOME").ok().as_deref()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_before_the_first_slash_is_the_home_folder() {
        for (path, home, wanted) in [
            ("~/a/b", Some("/home/me"), "/home/me/a/b"),
            ("~/a", Some("/"), "/a"),
            ("~/a", None, "~/a"),
            ("~/a", Some(""), "~/a"),
            ("~other/a", Some("/home/me"), "~other/a"),
            ("a/~/b", Some("/home/me"), "a/~/b"),
            ("~", Some("/home/me"), "~"),
        ] {
            assert_eq!(expanded(path, home), wanted);
        }
    }
}
