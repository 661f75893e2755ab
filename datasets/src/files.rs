//! From a source's path to the files that hold its rows.
//!
//! A file is itself; of a folder either the named `data_files`, or the files whose names begin
//! with the split (`train` unless the recipe says another).

use std::path::{Path, PathBuf};

use crate::error::{Error, nearest, quoted_list};
use crate::settings::SourceSettings;

/// Suffixes that are read.
const SUFFIXES: [&str; 2] = ["jsonl", "json"];

/// Files that lie beside data and hold none.
const NO_DATA: [&str; 4] = ["dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json"];

/// The files of a source, in order.
pub(crate) fn resolve(source: &SourceSettings) -> Result<Vec<PathBuf>, Error> {
    let path = &source.path;
    if path.is_file() {
        if let Some(split) = source.split.as_deref().filter(|split| *split != "train") {
            return Err(Error::Setting {
                location: source.location.clone(),
                problem: format!("`{}` is one file and has no split `{split}`, accepted is `train`", path.display()),
                hint: "leave `split` out, or name a folder".to_owned(),
            });
        }
        return Ok(vec![accepted(path, source)?]);
    }
    if !path.is_dir() {
        return Err(missing(path, source));
    }
    if source.data_files.is_empty() {
        return files_of_split(path, source);
    }
    let mut files = Vec::new();
    for name in &source.data_files {
        let file = path.join(name);
        if !file.is_file() {
            return Err(missing(&file, source));
        }
        files.push(accepted(&file, source)?);
    }
    Ok(files)
}

fn files_of_split(folder: &Path, source: &SourceSettings) -> Result<Vec<PathBuf>, Error> {
    let mut files = listed(folder)?;
    let data = folder.join("data");
    if files.is_empty() && data.is_dir() {
        files = listed(&data)?;
    }
    let split = source.split.as_deref().unwrap_or("train");
    let of_split: Vec<PathBuf> = files.iter().filter(|file| belongs(file, split)).cloned().collect();
    let names = || files.iter().map(|file| file_name(file)).collect::<Vec<_>>();
    match (of_split.is_empty(), source.split.is_some()) {
        (false, _) => Ok(of_split),
        (true, true) => Err(Error::NoFiles {
            location: source.location.clone(),
            path: folder.display().to_string(),
            problem: format!("holds no file of the split `{split}`; there are {}", quoted_list(names())),
            hint: "name the files with `data_files`".to_owned(),
        }),
        (true, false) if files.is_empty() => Err(Error::NoFiles {
            location: source.location.clone(),
            path: folder.display().to_string(),
            problem: "holds no `.jsonl` or `.json` file".to_owned(),
            hint: "name a folder with data files, or the file itself".to_owned(),
        }),
        (true, false) => Ok(files),
    }
}

/// The readable files directly in a folder, by name.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable { path: folder.display().to_string(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let known = SUFFIXES.contains(&suffix(&path).as_str());
        if known && path.is_file() && !NO_DATA.contains(&file_name(&path).as_str()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file name is the split, or begins with it and a separator.
fn belongs(path: &Path, split: &str) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match stem.strip_prefix(split) {
        Some(rest) => rest.is_empty() || rest.starts_with(['-', '_', '.']),
        None => false,
    }
}

fn accepted(path: &Path, source: &SourceSettings) -> Result<PathBuf, Error> {
    let suffix = suffix(path);
    if SUFFIXES.contains(&suffix.as_str()) {
        return Ok(path.to_owned());
    }
    Err(Error::UnsupportedSuffix {
        location: source.location.clone(),
        path: path.display().to_string(),
        suffix: if suffix.is_empty() { suffix } else { format!(".{suffix}") },
    })
}

fn missing(path: &Path, source: &SourceSettings) -> Error {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let neighbours: Vec<String> = std::fs::read_dir(parent)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let hint = match nearest(&file_name(path), neighbours.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{}`?", parent.join(near).display()),
        None if !parent.is_dir() => {
            format!("the folder `{}` does not exist either", parent.display())
        }
        None => "data sets are read from files and folders on this machine".to_owned(),
    };
    Error::MissingFile { location: source.location.clone(), path: path.display().to_string(), hint }
}

fn suffix(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizer::Folder;

    fn names(source: &SourceSettings) -> Vec<String> {
        resolve(source).unwrap().iter().map(|path| file_name(path)).collect()
    }

    #[test]
    fn a_folder_gives_the_files_of_its_split() {
        let folder = Folder::new();
        for name in ["train-0.jsonl", "train-1.jsonl", "trains.jsonl", "test.json", "dataset_info.json", "a.txt"] {
            folder.write(name, "{}");
        }
        let mut source = SourceSettings::new(folder.path(), "recipe.yaml:3:5");
        assert_eq!(names(&source), ["train-0.jsonl", "train-1.jsonl"]);
        source.split = Some("test".to_owned());
        assert_eq!(names(&source), ["test.json"]);
        source.split = Some("dev".to_owned());
        let error = resolve(&source).unwrap_err().to_string();
        assert!(error.contains("no file of the split `dev`") && error.contains("`test.json`"), "{error}");
        source.data_files = vec!["trains.jsonl".to_owned()];
        assert_eq!(names(&source), ["trains.jsonl"]);
    }

    #[test]
    fn a_missing_file_names_the_recipe_and_a_neighbour() {
        let folder = Folder::new();
        folder.write("tickets.jsonl", "{}");
        let source = SourceSettings::new(folder.path().join("ticket.jsonl"), "recipe.yaml:3:5");
        let error = resolve(&source).unwrap_err().to_string();
        assert!(error.starts_with("recipe.yaml:3:5: there is no file"), "{error}");
        assert!(error.contains("tickets.jsonl"), "{error}");
    }

    #[test]
    fn other_suffixes_are_refused_by_name() {
        let folder = Folder::new();
        folder.write("rows.parquet", "x");
        let source = SourceSettings::new(folder.path().join("rows.parquet"), "recipe.yaml:3:5");
        let error = resolve(&source).unwrap_err().to_string();
        assert!(error.contains("suffix `.parquet`, accepted are `.jsonl` and `.json`"), "{error}");
    }
}
