//! The splits of a list of files: for data sets whose files' names are known before the files are there.
//!
//! As Hugging Face reads them: numbered shards in `data/`, then folders, then names of files that contain a split; files
//! that contain none are the training data.

use std::path::Path;

use super::container::Kind;
use super::split::{parts_of, split_named};
use crate::foundation::{Error, SourceSettings};

/// Files that lie beside data and hold none.
pub(super) const NO_DATA: [&str; 7] = [
    "dataset_info.json",
    "dataset_dict.json",
    "dataset_infos.json",
    "state.json",
    "config.json",
    "README.txt",
    "LICENSE.txt",
];

/// A split's name and its files.
pub type SplitFiles = (String, Vec<String>);

/// True if a file holds rows by its name.
pub fn is_data_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let hidden = path.split('/').any(|part| part.starts_with(['.', '_']));
    Kind::of_name(Path::new(path)).is_some() && !hidden && !NO_DATA.contains(&name)
}

/// The splits that a source takes rows from.
///
/// # Errors
/// If its `split` is not valid.
pub fn split_names(source: &SourceSettings) -> Result<Vec<String>, Error> {
    Ok(parts_of(source)?.into_iter().map(|part| part.name).collect())
}

/// The splits of the data files among `paths`, each with its files in order.
pub fn splits_of(paths: &[String]) -> Vec<SplitFiles> {
    let mut files: Vec<&String> = paths.iter().filter(|path| is_data_file(path)).collect();
    files.sort();
    let by: [fn(&str) -> Option<String>; 3] = [numbered, folder_named, file_named];
    for split_of in by {
        let mut splits: Vec<SplitFiles> = Vec::new();
        for file in &files {
            let Some(split) = split_of(file) else { continue };
            match splits.iter_mut().find(|(name, _)| *name == split) {
                Some((_, files)) => files.push((*file).clone()),
                None => splits.push((split, vec![(*file).clone()])),
            }
        }
        if !splits.is_empty() {
            return splits;
        }
    }
    if files.is_empty() { Vec::new() } else { vec![("train".to_owned(), files.into_iter().cloned().collect())] }
}

/// The paths that a pattern matches, in order; `*` stays within a folder, `**` does not.
///
/// # Errors
/// If the pattern is not valid: the reason.
pub fn matching_paths(paths: &[String], pattern: &str) -> Result<Vec<String>, String> {
    let pattern = pattern.trim_start_matches("./");
    let compiled = glob::Pattern::new(pattern).map_err(|error| error.msg.to_owned())?;
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let fits = |path: &&String| path.as_str() == pattern || compiled.matches_with(path, options);
    let mut found: Vec<String> = paths.iter().filter(fits).cloned().collect();
    found.sort();
    Ok(found)
}

/// The split of a numbered shard: `data/train_sft-00000-of-00002.parquet`, hashes after the numbers or not.
fn numbered(path: &str) -> Option<String> {
    let name = path.strip_prefix("data/").filter(|name| !name.contains('/'))?;
    let (before, after) = name.split_once("-of-")?;
    let (split, number) = before.rsplit_once('-')?;
    let digits = |text: &str| text.len() >= 5 && text.bytes().take(5).all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(after) && !split.is_empty()).then(|| split.to_owned())
}

fn folder_named(path: &str) -> Option<String> {
    let (folders, _) = path.rsplit_once('/')?;
    folders.split('/').find_map(file_named)
}

fn file_named(path: &str) -> Option<String> {
    split_named(path.rsplit('/').next()?).and_then(|names| names.first()).map(|name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(paths: &[&str]) -> Vec<(String, usize)> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        splits_of(&paths).into_iter().map(|(name, files)| (name, files.len())).collect()
    }

    #[test]
    fn splits_are_found_by_shards_then_folders_then_names() {
        let sharded = ["data/train_sft-00000-of-00002.parquet", "data/train_sft-00001-of-00002-ab12.parquet", "x.json"];
        assert_eq!(splits(&sharded), [("train_sft".to_owned(), 2)]);
        let folders = ["en/train/0000.parquet", "en/test/0000.parquet", "README.md"];
        assert_eq!(splits(&folders), [("test".to_owned(), 1), ("train".to_owned(), 1)]);
        let names = ["math-dev.jsonl", "math-train.jsonl", "dataset_infos.json", ".hidden/train.jsonl"];
        assert_eq!(splits(&names), [("validation".to_owned(), 1), ("train".to_owned(), 1)]);
        assert_eq!(splits(&["b.jsonl", "a.jsonl.gz", "LICENSE"]), [("train".to_owned(), 2)]);
        assert_eq!(splits(&["load.py", "a.zip"]), []);
    }

    #[test]
    fn a_star_stays_within_a_folder() {
        let paths: Vec<String> = ["a/x.json", "a/b/y.json", "z.json"].map(str::to_owned).to_vec();
        assert_eq!(matching_paths(&paths, "a/*.json").unwrap(), ["a/x.json"]);
        assert_eq!(matching_paths(&paths, "**/*.json").unwrap().len(), 3);
        assert_eq!(matching_paths(&paths, "./z.json").unwrap(), ["z.json"]);
        assert!(matching_paths(&paths, "a***").is_err());
    }
}
