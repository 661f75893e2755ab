//! The `configs` of a data set's card: the YAML at the head of its README that says which files are which split.
//!
//! A card comes from the network: it is read with the limits of a recipe, and only this one section of it.

use super::problem::{Position, ProblemLog};
use super::scalars::{boolean, scalar};
use super::tree;
use super::yaml::{Node, Value};

/// One configuration of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardConfig {
    /// Its name.
    pub name: String,
    /// Set if it is the one that is meant where none is named.
    pub is_default: bool,
    /// The folder that its files are in, below that of the data set.
    pub data_dir: Option<String>,
    /// Patterns of files by split, in order; empty where names of files tell the splits.
    pub splits: Vec<(String, Vec<String>)>,
}

/// The configurations that the text of a card names; none where it names none.
///
/// # Errors
/// If the section is malformed: the problem, as a sentence.
pub fn card_configs(card: &str) -> Result<Vec<CardConfig>, String> {
    let section = section(card, "configs:");
    if section.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = ProblemLog::default();
    let root = tree::parse(&section, Some(Position::Whole), &mut found);
    let configs = root.as_ref().and_then(|root| entry(root, "configs"));
    match configs.map(|configs| &configs.value) {
        Some(Value::List(configs)) => configs.iter().map(config).collect(),
        Some(Value::Scalar { .. }) => Ok(Vec::new()),
        _ => Err("`configs` in its README is not a list".to_owned()),
    }
}

/// The lines of one key at the head of a README, that key's included.
fn section(card: &str, key: &str) -> String {
    let head = card.trim_start_matches('\u{feff}').strip_prefix("---").unwrap_or_default();
    let head = head.lines().skip(1).take_while(|line| line.trim_end() != "---");
    let mut lines = head.skip_while(|line| !line.starts_with(key));
    let mut section = String::new();
    if let Some(first) = lines.next() {
        section = format!("{first}\n");
        let belongs = |line: &&str| line.is_empty() || line.starts_with([' ', '-', '#']);
        lines.take_while(belongs).for_each(|line| section.extend([line, "\n"]));
    }
    section
}

fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
        _ => None,
    }
}

fn text_of(node: &Node, key: &str) -> Option<String> {
    entry(node, key).filter(|node| !node.is_unset()).and_then(scalar).map(str::to_owned)
}

fn config(node: &Node) -> Result<CardConfig, String> {
    let name = text_of(node, "config_name").ok_or("a configuration in its README has no `config_name`")?;
    let wrong = || format!("`data_files` of the configuration `{name}` in its README are not understood");
    let splits = match entry(node, "data_files").filter(|node| !node.is_empty()) {
        None => Vec::new(),
        Some(files) => match &files.value {
            Value::List(items) if items.iter().all(|item| entry(item, "split").is_some()) => {
                let split = |item: &Node| Some((text_of(item, "split")?, texts(entry(item, "path")?)?));
                items.iter().map(|item| split(item).ok_or_else(wrong)).collect::<Result<_, _>>()?
            }
            Value::Map(entries) => {
                let split = |entry: &super::yaml::Entry| Some((entry.key.clone(), texts(&entry.node)?));
                entries.iter().map(|entry| split(entry).ok_or_else(wrong)).collect::<Result<_, _>>()?
            }
            _ => vec![("train".to_owned(), texts(files).ok_or_else(wrong)?)],
        },
    };
    let is_default = text_of(node, "default").and_then(|text| boolean(&text)).unwrap_or(name == "default");
    Ok(CardConfig { is_default, data_dir: text_of(node, "data_dir"), splits, name })
}

/// One text, or a list of them.
fn texts(node: &Node) -> Option<Vec<String>> {
    match &node.value {
        Value::List(items) => items.iter().map(|item| scalar(item).map(str::to_owned)).collect(),
        _ => scalar(node).map(|text| vec![text.to_owned()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = "---\nlicense: mit\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n  - split: test\n    path: [main/test-*, more/test.json]\n- config_name: socratic\n  default: true\n  data_dir: socratic\ntags:\n- math\n---\n# A set\nconfigs:\n- x\n";

    #[test]
    fn configurations_and_their_splits_are_read() {
        let configs = card_configs(CARD).unwrap();
        assert_eq!(configs.len(), 2);
        let (train, test) = (&configs[0].splits[0], &configs[0].splits[1]);
        assert_eq!((train.0.as_str(), train.1.as_slice()), ("train", &["main/train-*".to_owned()][..]));
        assert_eq!((test.0.as_str(), test.1.len()), ("test", 2));
        assert_eq!(configs[1].data_dir.as_deref(), Some("socratic"));
        assert!(configs[1].is_default && !configs[0].is_default);
    }

    #[test]
    fn a_list_or_a_mapping_of_files_is_understood_too() {
        let of = |files: &str| {
            card_configs(&format!("---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n"))
                .map(|configs| configs[0].splits.clone())
        };
        assert_eq!(of("a.csv").unwrap(), [("train".to_owned(), vec!["a.csv".to_owned()])]);
        assert_eq!(of("[a.csv, b.csv]").unwrap()[0].1.len(), 2);
        assert_eq!(of("{dev: b.csv}").unwrap(), [("dev".to_owned(), vec!["b.csv".to_owned()])]);
        assert!(of("[[a]]").is_err());
    }

    #[test]
    fn cards_without_configurations_name_none_and_broken_ones_are_refused() {
        for card in ["", "# A set", "---\nlicense: mit\n---\n", "---\nconfigs:\n---\n"] {
            assert_eq!(card_configs(card), Ok(Vec::new()), "{card}");
        }
        for card in ["---\nconfigs: {a: b}\n---\n", "---\nconfigs:\n- [}\n---\n", "---\nconfigs:\n- data_dir: x\n---\n"]
        {
            assert!(card_configs(card).is_err(), "{card}");
        }
    }
}
