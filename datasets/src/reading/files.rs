//! From a source's path to the files that hold its rows, and the slices of their rows.
//!
//! A file stands for itself and a pattern (`data/*.parquet`) for its matches. Of a folder, the files are
//! the named `data_files`, or those whose names begin with the split (`train` by default).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::container::Kind;
use super::listing::{NO_DATA, is_data_file};
use super::split::{Slice, find_split, parts_of, split_named};
use crate::foundation::{Error, SourceSettings, nearest, quoted_list};

/// The suffixes that are read, for people.
pub const SUFFIXES: &str =
    "`.jsonl`, `.json`, `.csv`, `.tsv`, `.txt`, `.parquet` and `.arrow`, each also as `.gz` and `.zst`";

/// A file and how it is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

/// The files of a part of a split, and the slice of their rows, which are numbered across the files.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PartFiles {
    pub(crate) files: Vec<DataFile>,
    pub(crate) slice: Option<Slice>,
}

/// The files of a source, in order; one part unless `split` has several.
pub(crate) fn resolve(source: &SourceSettings) -> Result<Vec<PartFiles>, Error> {
    parts_of(source)?
        .into_iter()
        .map(|part| {
            let files = files_of(source, &part.name)?;
            let files = files.into_iter().map(|path| read_as(path, source)).collect::<Result<Vec<_>, _>>()?;
            Ok(PartFiles { files, slice: part.slice })
        })
        .collect()
}

/// Looks for the files of a source, without reading them.
///
/// # Errors
/// When they are not there, or are not files of rows.
pub fn check_files(source: &SourceSettings) -> Result<(), Error> {
    resolve(source).map(|_| ())
}

fn files_of(source: &SourceSettings, split: &str) -> Result<Vec<PathBuf>, Error> {
    let path = &source.path;
    if !source.splits.is_empty() {
        return find_split(&source.splits, split).cloned().ok_or_else(|| Error::NoFiles {
            location: source.location.clone(),
            path: path.display().to_string(),
            problem: format!("has no split `{split}`"),
            hint: format!("it has {}", quoted_list(source.splits.iter().map(|(name, _)| name))),
        });
    }
    let one_split = |what: &str| match split {
        "train" => Ok(()),
        _ => Err(Error::Setting {
            location: source.location.as_str().into(),
            problem: format!("`{}` is {what} and has no split `{split}`, accepted is `train`", path.display()),
            hint: "leave the name of the split out, or name a directory".to_owned(),
        }),
    };
    if path.is_file() {
        one_split("one file")?;
        return Ok(vec![path.clone()]);
    }
    if let Some(folder) = beside_loader(source) {
        one_split("a loader with `data_files`")?;
        return data_files(folder, source);
    }
    if !path.is_dir() {
        if is_pattern(path) {
            one_split("a pattern")?;
            return matching(path, source);
        }
        return Err(missing(path, source));
    }
    if source.data_files.is_empty() {
        return files_of_split(path, split, source);
    }
    one_split("narrowed down by `data_files`")?;
    data_files(path, source)
}

/// The recipe's folder, if `path: json` or the like names a loader instead of data.
fn beside_loader(source: &SourceSettings) -> Option<&Path> {
    loader_name(source).and_then(|_| source.path.parent())
}

fn loader_name(source: &SourceSettings) -> Option<&str> {
    let name = source.path.file_name().and_then(|name| name.to_str())?;
    let known = ["json", "csv", "text", "parquet", "arrow"].contains(&name);
    (known && !source.data_files.is_empty() && !source.path.exists()).then_some(name)
}

fn data_files(folder: &Path, source: &SourceSettings) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for name in &source.data_files {
        let file = folder.join(name);
        if file.is_file() {
            files.push(file);
        } else if is_pattern(Path::new(name)) {
            files.extend(matching(&file, source)?);
        } else {
            return Err(missing(&file, source));
        }
    }
    Ok(files)
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// The files that a pattern matches, by name.
fn matching(pattern: &Path, source: &SourceSettings) -> Result<Vec<PathBuf>, Error> {
    let text = pattern.to_string_lossy();
    let nothing = |problem: String, hint: &str| Error::NoFiles {
        location: source.location.clone(),
        path: text.clone().into_owned(),
        problem,
        hint: hint.to_owned(),
    };
    let paths = glob::glob(&text).map_err(|error| {
        nothing(
            format!("is not a valid pattern: {}", error.msg),
            "`*` matches within a name, `**` directories, `?` one character",
        )
    })?;
    let mut files: Vec<PathBuf> = paths.flatten().filter(|path| path.is_file()).collect();
    files.sort();
    if files.is_empty() {
        return Err(nothing("matches no file".to_owned(), "a pattern is relative to the recipe's directory"));
    }
    Ok(files)
}

fn files_of_split(folder: &Path, split: &str, source: &SourceSettings) -> Result<Vec<PathBuf>, Error> {
    let mut files = listed(folder, source)?;
    for inside in ["data", split] {
        let inside = folder.join(inside);
        if files.is_empty() && inside.is_dir() {
            files = listed(&inside, source)?;
            if inside.ends_with(split) && !files.is_empty() {
                return Ok(files);
            }
        }
    }
    let no_files = |problem: String, hint: &str| Error::NoFiles {
        location: source.location.clone(),
        path: folder.display().to_string(),
        problem,
        hint: hint.to_owned(),
    };
    if files.is_empty() {
        let problem = format!("holds no data files, accepted are {SUFFIXES}");
        let deeper = deeper_files(folder, &[]);
        let pattern = folder.join("**/*.jsonl");
        let hint = match deeper.first() {
            Some(first) => format!(
                "its folders hold some, such as `{}`: name one of them, or a pattern such as `{}`",
                first.display(),
                pattern.display()
            ),
            None => "name a directory with data files, or the file itself".to_owned(),
        };
        return Err(no_files(problem, &hint));
    }
    let of_split: Vec<PathBuf> = files.iter().filter(|file| belongs(file, split)).cloned().collect();
    // If no file names a split, all files are training data.
    let no_splits = split == "train" && files.iter().all(|file| split_named(&file_name(file)).is_none());
    if !of_split.is_empty() {
        return Ok(of_split);
    }
    if no_splits {
        return Ok(files);
    }
    let names = quoted_list(files.iter().map(|file| file_name(file)));
    let problem = format!("holds no file of the split `{split}`; its files are {names}");
    Err(no_files(problem, "set `split`, or name the files with `data_files`"))
}

/// The readable files directly in a folder, by name.
fn listed(folder: &Path, source: &SourceSettings) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable { path: folder.display().to_string(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = file_name(&path);
        let known = Kind::of_name(&path).is_some() || (source.ds_type.is_some() && !name.starts_with('.'));
        if known && path.is_file() && !NO_DATA.contains(&name.as_str()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The data files that lie deeper in a folder than those that are read from it, relative to it, as far as a short search
/// finds them; the folders of runs hold none.
fn deeper_files(folder: &Path, read: &[&Path]) -> Vec<PathBuf> {
    /// Levels of folders and entries that are looked at.
    const LEVELS: usize = 5;
    const ENTRIES: usize = 10_000;
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    let mut seen = 0;
    while let Some((current, level)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&current) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            let path = entry.path();
            let Ok(below) = path.strip_prefix(folder) else { continue };
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && level < LEVELS && seen < ENTRIES && !path.join("run.json").exists() {
                folders.push((path, level + 1));
            } else if !is_folder
                && level > 0
                && is_data_file(&below.to_string_lossy())
                && !read.contains(&path.as_path())
            {
                found.push(below.to_owned());
            }
        }
    }
    found.sort();
    found
}

/// A statement on the data files of a source's folder that are not among those `read` because they lie deeper in it; none
/// of those in the folder `besides`.
pub(crate) fn overlooked(source: &SourceSettings, read: &[&Path], besides: Option<&Path>) -> Option<String> {
    if !source.path.is_dir() || !source.data_files.is_empty() || !source.splits.is_empty() {
        return None;
    }
    let mut files = deeper_files(&source.path, read);
    files.retain(|file| besides.is_none_or(|besides| !source.path.join(file).starts_with(besides)));
    // Those of other splits are left out on purpose.
    let wanted = parts_of(source).unwrap_or_default();
    files.retain(|file| {
        let mut splits = file.iter().filter_map(|part| split_named(&part.to_string_lossy()));
        splits.all(|names| wanted.iter().any(|part| names.contains(&part.name.as_str())))
    });
    let first = files.first()?;
    let (plural, verb) = if files.len() == 1 { ("", "is") } else { ("s", "are") };
    let folder = source.path.display();
    Some(format!(
        "{folder}: {} data file{plural} in its folders {verb} not read, such as `{}`; name them with a pattern",
        files.len(),
        first.display()
    ))
}

/// True if a file belongs to a split by its name: `train.jsonl`, `train_sft-00000-of-00001.parquet`, `math-train.csv`.
fn belongs(path: &Path, split: &str) -> bool {
    let name = file_name(path);
    let begins = name.strip_prefix(split).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.']));
    begins || split_named(&name).is_some_and(|names| names.contains(&split))
}

fn read_as(path: PathBuf, source: &SourceSettings) -> Result<DataFile, Error> {
    if let Some(ds_type) = source.ds_type.as_deref().or(loader_name(source)) {
        let kind = Kind::of_type(&path, ds_type, &source.location)?;
        return Ok(DataFile { path, kind });
    }
    match Kind::of_name(&path) {
        Some(kind) => Ok(DataFile { path, kind }),
        None => Err(Error::UnsupportedSuffix {
            location: source.location.clone(),
            path: path.display().to_string(),
            suffix: path.extension().map(|suffix| format!(".{}", suffix.to_string_lossy())).unwrap_or_default(),
            accepted: SUFFIXES.to_owned(),
        }),
    }
}

fn missing(path: &Path, source: &SourceSettings) -> Error {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let roots = [source.folder.as_path(), Path::new("")];
    let hint = match nearest_path(path, &roots) {
        Some(near) => format!("did you mean `{}`?", near.display()),
        None => match parent.filter(|parent| !roots.iter().any(|root| root.join(parent).is_dir())) {
            Some(parent) => format!("the directory `{}` does not exist either", parent.display()),
            None => "a path is relative to the recipe, or to the working directory".to_owned(),
        },
    };
    Error::MissingFile { location: source.location.clone(), path: path.display().to_string(), hint }
}

/// The existing file or directory that a path which does not exist most likely means, written as the path is: it
/// differs in one name, and lies below one of `roots` if it is relative.
pub fn nearest_path(path: &Path, roots: &[&Path]) -> Option<PathBuf> {
    let names: Vec<&OsStr> = path.iter().collect();
    roots.iter().find_map(|root| {
        let wrong =
            (1..=names.len()).find(|count| !root.join(names[..*count].iter().collect::<PathBuf>()).exists())? - 1;
        let before: PathBuf = names[..wrong].iter().collect();
        let after: PathBuf = names[wrong + 1..].iter().collect();
        let folder = root.join(&before);
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let entries = std::fs::read_dir(folder).ok()?.flatten();
        let entries: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let ends = |name: &&String| after.as_os_str().is_empty() || folder.join(name).join(&after).exists();
        let fits = entries.iter().filter(ends);
        let name = names[wrong].to_string_lossy();
        let of_suffix = |other: &str| other.strip_prefix(&*name).is_some_and(|rest| rest.starts_with('.'));
        let without_suffix = entries.iter().map(String::as_str).find(|other| is_data_file(other) && of_suffix(other));
        let near =
            nearest(&name, fits.map(String::as_str)).or(without_suffix.filter(|_| after.as_os_str().is_empty()))?;
        let found = before.join(near);
        Some(if after.as_os_str().is_empty() { found } else { found.join(after) })
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizer::Folder;

    fn names(source: &SourceSettings) -> Vec<String> {
        let parts = resolve(source).unwrap();
        parts.iter().flat_map(|part| &part.files).map(|file| file_name(&file.path)).collect()
    }

    #[test]
    fn a_folder_gives_the_files_of_its_split() {
        let folder = Folder::new();
        for name in ["train-0.jsonl", "train-1.csv.gz", "trains.jsonl", "test.json", "dataset_info.json", "a.md"] {
            folder.write(name, "{}");
        }
        let mut source = SourceSettings::new(folder.path(), "recipe.yaml:3:5");
        assert_eq!(names(&source), ["train-0.jsonl", "train-1.csv.gz"]);
        source.split = Some("test".to_owned());
        assert_eq!(names(&source), ["test.json"]);
        source.split = Some("test[:1]+train".to_owned());
        assert_eq!(names(&source), ["test.json", "train-0.jsonl", "train-1.csv.gz"]);
        source.split = Some("dev".to_owned());
        let error = resolve(&source).unwrap_err().shown();
        assert!(error.contains("no file of the split `dev`") && error.contains("`test.json`"), "{error}");
        let only_tests = Folder::new();
        only_tests.write("test.jsonl", "{}");
        let error = resolve(&SourceSettings::new(only_tests.path(), "recipe.yaml:3:5")).unwrap_err().shown();
        assert!(error.contains("no file of the split `train`; its files are `test.jsonl`"), "{error}");
        source.split = None;
        source.data_files = vec!["trains.jsonl".to_owned(), "train-*".to_owned()];
        assert_eq!(names(&source), ["trains.jsonl", "train-0.jsonl", "train-1.csv.gz"]);
    }

    #[test]
    fn the_split_is_a_word_of_a_files_name() {
        for (name, split, wanted) in [
            ("train.jsonl", "train", true),
            ("train_sft-00000-of-00002.parquet", "train_sft", true),
            ("math-train.csv", "train", true),
            ("train00001.json", "training", true),
            ("math_val.jsonl.gz", "validation", true),
            ("math-test.csv", "train", false),
            ("trains.jsonl", "train", false),
            ("gen.jsonl", "gen", true),
        ] {
            assert_eq!(belongs(Path::new(name), split), wanted, "{name} {split}");
        }
    }

    #[test]
    fn a_pattern_gives_the_files_that_it_matches() {
        let folder = Folder::new();
        for name in ["b.jsonl", "a.jsonl", "c.txt"] {
            folder.write(name, "{}");
        }
        let mut source = SourceSettings::new(folder.path().join("*.jsonl"), "recipe.yaml:3:5");
        assert_eq!(names(&source), ["a.jsonl", "b.jsonl"]);
        source.path = folder.path().join("*.csv");
        let error = resolve(&source).unwrap_err().shown();
        assert!(error.starts_with("recipe.yaml:3:5: `") && error.contains("matches no file"), "{error}");
    }

    #[test]
    fn a_missing_file_names_the_recipe_and_a_neighbour() {
        let folder = Folder::new();
        folder.write("tickets.jsonl", "{}");
        let source = SourceSettings::new(folder.path().join("ticket.jsonl"), "recipe.yaml:3:5");
        let error = resolve(&source).unwrap_err().shown();
        assert!(error.starts_with("recipe.yaml:3:5: there is no file"), "{error}");
        assert!(error.contains("tickets.jsonl"), "{error}");
    }

    #[test]
    fn a_path_that_differs_in_one_name_is_suggested_as_it_was_written() {
        let folder = Folder::new();
        folder.write("tickets.jsonl", "{}");
        std::fs::create_dir_all(folder.path().join("data/parts")).unwrap();
        folder.write("data/parts/train.jsonl", "{}");
        let roots = [folder.path(), Path::new("")];
        for (written, wanted) in [
            ("ticket.jsonl", Some("tickets.jsonl")),
            ("tickets.json", Some("tickets.jsonl")),
            ("dta/parts/train.jsonl", Some("data/parts/train.jsonl")),
            ("data/part/train.jsonl", Some("data/parts/train.jsonl")),
            ("data/parts/trian.jsonl", Some("data/parts/train.jsonl")),
            ("data/prts", Some("data/parts")),
            ("tickets", Some("tickets.jsonl")),
            ("data/parts/train", Some("data/parts/train.jsonl")),
            ("other/parts/train.jsonl", None),
            ("dta/prts/train.jsonl", None),
        ] {
            assert_eq!(nearest_path(Path::new(written), &roots).as_deref(), wanted.map(Path::new), "{written}");
        }
        let written = folder.path().join("dta/parts/train.jsonl");
        assert_eq!(nearest_path(&written, &roots), Some(folder.path().join("data/parts/train.jsonl")));
        let mut source = SourceSettings::new("ticket.jsonl", "recipe.yaml:3:5");
        source.folder = folder.path().to_owned();
        let error = resolve(&source).unwrap_err().shown();
        assert!(error.ends_with("hint: did you mean `tickets.jsonl`?"), "{error}");
    }

    #[test]
    fn other_suffixes_are_refused_by_name_and_ds_type_overrides_them() {
        let folder = Folder::new();
        folder.write("rows.dat", "x");
        let mut source = SourceSettings::new(folder.path().join("rows.dat"), "recipe.yaml:3:5");
        let error = resolve(&source).unwrap_err().shown();
        assert!(error.contains("suffix `.dat`, accepted are `.jsonl`, `.json`"), "{error}");
        source.ds_type = Some("csv".to_owned());
        assert_eq!(names(&source), ["rows.dat"]);
        source.ds_type = Some("xls".to_owned());
        let error = resolve(&source).unwrap_err().shown();
        assert!(error.contains("unknown `ds_type: xls`, accepted are `json`"), "{error}");
        source.ds_type = None;
        source.path = folder.path().join("json");
        source.data_files = vec!["rows.dat".to_owned()];
        assert_eq!(resolve(&source).unwrap()[0].files[0].kind.container, super::super::container::Container::Json);
        source.split = Some("train[:80".to_owned());
        let error = resolve(&source).unwrap_err().shown();
        assert!(error.contains("`split: train[:80` is not valid"), "{error}");
    }
}
