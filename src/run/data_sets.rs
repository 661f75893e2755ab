//! The data sets that a recipe names on the hub, located and downloaded into the cache.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use datasets::{
    DatasetSettings, SourceSettings, SplitFiles, check_files, find_split, is_data_file, matching_paths, nearest_path,
    split_names, splits_of,
};

use crate::hint::hinted;
use crate::hub::{DataSet, Hub};
use crate::plan::sources;
use crate::recipe::{CardConfig, DatasetEntry, Recipe, card_configs};
use crate::report::Report;

/// The file that describes the files of a data set.
const CARD: &str = "README.md";

/// Replaces the data sets that a recipe names as `org/name` by files of the cache, which are downloaded if they are missing.
///
/// # Errors
/// When one is not available, or lacks what the recipe names.
pub(super) fn locate(recipe: &Recipe, settings: &mut DatasetSettings, hub: &Hub, report: &mut Report) -> Result<()> {
    let groups = [(&recipe.datasets, &mut settings.sources), (&recipe.test_datasets, &mut settings.test_sources)];
    for (entries, sources) in groups {
        for (entry, source) in entries.iter().zip(sources) {
            refuse_addresses(entry)?;
            let is_local = source.path.exists() || is_data_file(&entry.path);
            let set = if is_local { Ok(None) } else { on_hub(entry, hub, report) };
            let set = set.map_err(|error| match nearest_path(&source.path, &[&source.folder, Path::new("")]) {
                // A folder by another name is more likely than a data set that the hub does not give.
                Some(near) => hinted(
                    format!("{}: there is no file or directory `{}`", entry.path.place(), *entry.path),
                    format!("did you mean `{}`?", near.display()),
                )
                .into(),
                None => error,
            })?;
            if let Some(set) = set {
                data_set(entry, source, &set, report)?;
                continue;
            }
            for (key, setting) in [("name", &entry.name), ("revision", &entry.revision)] {
                if let Some(value) = &**setting {
                    bail!(hinted(
                        format!(
                            "{}: `{key}: {value}` of `{}`, which is not a data set of the hub",
                            setting.place(),
                            *entry.path
                        ),
                        "remove it, or name the data set as `org/name`"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The problems of data sets on this machine whose files are not there.
pub(super) fn missing(recipe: &Recipe) -> Vec<anyhow::Error> {
    let entries = [&recipe.datasets, &recipe.test_datasets];
    let sources = entries.into_iter().flat_map(|entries| entries.iter().zip(sources(recipe, entries)));
    let is_local = |entry: &DatasetEntry, source: &SourceSettings| {
        let is_address = instead_of_address(&entry.path).is_some();
        source.path.exists() || (is_data_file(&entry.path) && !is_address) || entry.path.starts_with(['.', '/'])
    };
    let local = sources.filter(|(entry, source)| is_local(entry, source));
    local.filter_map(|(_, source)| check_files(&source).err()).map(anyhow::Error::from).collect()
}

/// The data set that an entry names on the hub; `None` if its path is not `org/name`.
fn on_hub<'h>(entry: &DatasetEntry, hub: &'h Hub, report: &mut Report) -> Result<Option<DataSet<'h>>> {
    let named = if entry.revision.is_set() { entry.revision.place() } else { entry.path.place() };
    hub.data_set(&entry.path, entry.revision.as_deref(), &mut |progress| report.download(progress))
        .with_context(|| named.to_string())
}

/// Refuses addresses as paths of data.
fn refuse_addresses(entry: &DatasetEntry) -> Result<()> {
    let files = entry.data_files.iter().enumerate().map(|(index, file)| (entry.data_files.item(index), file));
    for (place, text) in std::iter::once((entry.path.place(), &*entry.path)).chain(files) {
        if let Some(hint) = instead_of_address(text) {
            bail!(hinted(
                format!(
                    "{place}: `{text}` is an address; accepted are files, folders, patterns and `org/name` of the hub"
                ),
                hint
            ));
        }
    }
    Ok(())
}

/// The thing to write for an address; `None` for a text that is not one.
fn instead_of_address(text: &str) -> Option<String> {
    let bare = text.split_once("://").map(|(_, bare)| bare);
    let on_hub = text.strip_prefix("hf://").or_else(|| {
        let bare = bare.unwrap_or(text);
        ["huggingface.co/", "hf.co/", "www.huggingface.co/"].iter().find_map(|host| bare.strip_prefix(host))
    });
    if let Some(path) = on_hub {
        let names: Vec<&str> =
            path.trim_start_matches("datasets/").split('/').filter(|name| !name.is_empty()).collect();
        let (set, below) = names.split_at_checked(2)?;
        // `resolve/main/` and `blob/main/` stand before the files of an address on the web.
        let file =
            if matches!(below.first(), Some(&("resolve" | "blob" | "tree"))) { below.get(2..) } else { Some(below) };
        let file = file.unwrap_or_default().join("/");
        let also = if file.is_empty() { String::new() } else { format!(" and `data_files: {file}`") };
        return Some(format!("write `path: {}`{also}", set.join("/")));
    }
    let file = bare?.split(['?', '#']).next()?.rsplit('/').next().filter(|name| !name.is_empty())?;
    Some(format!("download the file and name it: `path: {file}`"))
}

fn data_set(entry: &DatasetEntry, source: &mut SourceSettings, set: &DataSet<'_>, report: &mut Report) -> Result<()> {
    let wanted = split_names(source)?;
    let files: Vec<String> = set.files().map(str::to_owned).collect();
    let splits =
        if entry.data_files.is_empty() { splits(entry, set, &files, report)? } else { named_files(entry, &files)? };
    let mut chosen: Vec<SplitFiles> = Vec::new();
    for name in wanted {
        let Some(found) = find_split(&splits, &name) else {
            let names: Vec<String> = splits.iter().map(|(name, _)| format!("`{name}`")).collect();
            bail!(hinted(
                format!(
                    "{}: `{}` has no split `{name}`",
                    if entry.split.is_set() { entry.split.place() } else { entry.path.place() },
                    *entry.path
                ),
                format!("it has {}", names.join(", "))
            ));
        };
        chosen.push((name, found.clone()));
    }
    let paths: Vec<String> = chosen.iter().flat_map(|(_, files)| files.clone()).collect();
    let folder = set
        .provide(&paths, &mut |progress| report.download(progress))
        .with_context(|| entry.path.place().to_string())?;
    let in_folder = |(name, files): SplitFiles| (name, files.iter().map(|file| folder.join(file)).collect());
    source.splits = chosen.into_iter().map(in_folder).collect();
    source.data_files.clear();
    let configuration = entry.name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
    source.known_as = Some(format!("{}{configuration} at {}", *entry.path, set.commit()));
    source.path = folder;
    Ok(())
}

/// The files that the recipe names itself, as one split to train on.
fn named_files(entry: &DatasetEntry, files: &[String]) -> Result<Vec<SplitFiles>> {
    let mut found = Vec::new();
    for (index, pattern) in entry.data_files.iter().enumerate() {
        let place = entry.data_files.item(index);
        let matched = matching_paths(files, pattern)
            .map_err(|problem| anyhow!("{place}: `{pattern}` is not a valid pattern: {problem}"))?;
        if matched.is_empty() {
            bail!(hinted(
                format!("{place}: `{pattern}` matches no file of `{}`", *entry.path),
                listed("its files are", files.iter().filter(|file| is_data_file(file)))
            ));
        }
        found.extend(matched.into_iter().filter(|file| !found.contains(file)).collect::<Vec<_>>());
    }
    Ok(vec![("train".to_owned(), found)])
}

/// The splits of the chosen configuration: from the card, else from the files' names.
fn splits(entry: &DatasetEntry, set: &DataSet<'_>, files: &[String], report: &mut Report) -> Result<Vec<SplitFiles>> {
    let mut configs = Vec::new();
    if files.iter().any(|file| file == CARD) {
        let folder = set
            .provide(&[CARD.to_owned()], &mut |progress| report.download(progress))
            .with_context(|| entry.path.place().to_string())?;
        let card = std::fs::read(folder.join(CARD)).with_context(|| format!("{}/{CARD}", folder.display()))?;
        configs = card_configs(&String::from_utf8_lossy(&card)).map_err(|problem| {
            hinted(format!("{}: `{}`: {problem}", entry.path.place(), *entry.path), "name the files in `data_files`")
        })?;
    }
    let config = choose(entry, configs, files)?;
    let mut found = Vec::new();
    if config.splits.is_empty() {
        found = splits_of(&below(files, config.data_dir.as_deref()));
    }
    for (split, patterns) in &config.splits {
        let mut matched = Vec::new();
        for pattern in patterns {
            let pattern = config.data_dir.as_ref().map_or(pattern.clone(), |folder| format!("{folder}/{pattern}"));
            let fits = matching_paths(files, &pattern).unwrap_or_default();
            matched.extend(fits.into_iter().filter(|file| is_data_file(file)));
        }
        if !matched.is_empty() {
            found.push((split.clone(), matched));
        }
    }
    if found.is_empty() {
        let is_script = files.iter().any(|file| file.ends_with(".py"));
        bail!(hinted(
            format!("{}: `{}` has no file of rows; accepted: {}", entry.path.place(), *entry.path, datasets::SUFFIXES),
            if is_script {
                "its rows are made by a script, which is not run here: try `revision: refs/convert/parquet`"
            } else {
                "convert it to one of these"
            }
        ));
    }
    Ok(found)
}

/// The configuration that the recipe names, else the default one.
fn choose(entry: &DatasetEntry, mut configs: Vec<CardConfig>, files: &[String]) -> Result<CardConfig> {
    let names: Vec<String> = configs.iter().map(|config| config.name.clone()).collect();
    let position = match &*entry.name {
        Some(name) => configs.iter().position(|config| config.name == *name),
        None if configs.len() == 1 => Some(0),
        None => configs.iter().position(|config| config.is_default),
    };
    match (position, &*entry.name) {
        (Some(position), _) => Ok(configs.swap_remove(position)),
        (None, None) if configs.is_empty() => Ok(CardConfig::default()),
        // Without a card a configuration is a folder, as in the hub's parquet copies.
        (None, Some(name)) if configs.is_empty() && !below(files, Some(name)).is_empty() => {
            Ok(CardConfig { data_dir: Some(name.clone()), ..CardConfig::default() })
        }
        (None, Some(name)) => bail!(hinted(
            format!("{}: `{}` has no configuration `{name}`", entry.name.place(), *entry.path),
            listed("it has", names.iter())
        )),
        (None, None) => bail!(hinted(
            format!("{}: `{}` has several configurations", entry.path.place(), *entry.path),
            format!("choose one with `name`; {}", listed("it has", names.iter()))
        )),
    }
}

/// The paths in `folder`, or all.
fn below(files: &[String], folder: Option<&str>) -> Vec<String> {
    let Some(folder) = folder.map(|folder| folder.trim_start_matches("./").trim_end_matches('/')) else {
        return files.to_vec();
    };
    let inside = |file: &&String| file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    files.iter().filter(inside).cloned().collect()
}

/// The first few of `names`, for a hint.
fn listed<'n>(what: &str, names: impl Iterator<Item = &'n String>) -> String {
    let names: Vec<String> = names.take(10).map(|name| format!("`{name}`")).collect();
    if names.is_empty() { format!("{what} none") } else { format!("{what} {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_the_words_to_write_in_its_place() {
        for (address, wanted) in [
            ("https://huggingface.co/datasets/openai/gsm8k", "write `path: openai/gsm8k`"),
            ("https://huggingface.co/datasets/openai/gsm8k/tree/main", "write `path: openai/gsm8k`"),
            (
                "hf://datasets/openai/gsm8k/main/a.parquet",
                "write `path: openai/gsm8k` and `data_files: main/a.parquet`",
            ),
            (
                "https://huggingface.co/datasets/a/b/resolve/main/data/train.jsonl",
                "write `path: a/b` and `data_files: data/train.jsonl`",
            ),
            ("huggingface.co/datasets/a/b", "write `path: a/b`"),
            ("https://example.org/x/rows.jsonl?raw=1", "download the file and name it: `path: rows.jsonl`"),
            ("s3://bucket/rows.parquet", "download the file and name it: `path: rows.parquet`"),
        ] {
            assert_eq!(instead_of_address(address).as_deref(), Some(wanted), "{address}");
        }
        for name in ["openai/gsm8k", "data/train.jsonl", "/a/b.csv", "hf/rows.csv"] {
            assert_eq!(instead_of_address(name), None, "{name}");
        }
    }
}
