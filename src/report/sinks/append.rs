//! A file in a run's folder that only grows, and is cut to its length at the checkpoint when the run resumes.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Opening, SinkPosition};
use crate::hint::hinted;
use crate::run_dir::failed;

/// The file, open at its end.
#[derive(Debug)]
pub(super) struct AppendFile {
    name: &'static str,
    file: File,
}

impl AppendFile {
    /// Opens the file `name` of a run. Where the run resumes, the lines up to the position are those of the run that made
    /// the checkpoint.
    ///
    /// # Errors
    /// When the file cannot be opened, or cut.
    pub(super) fn open(opening: &Opening, name: &'static str) -> Result<Self> {
        let path = opening.run_dir.join(name);
        if let Some((checkpoint, position)) = opening.resumed {
            go_back(&path, &checkpoint.with_file_name(name), position, opening.warn)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self { name, file: file.with_context(|| format!("{} cannot be opened", path.display()))? })
    }

    /// Appends `text` and a line break.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        let written = self.file.write_all(format!("{text}\n").as_bytes());
        let failed =
            |error| hinted(format!("{} cannot be written", self.name), "check that the disk has room").caused_by(error);
        Ok(written.map_err(failed)?)
    }

    /// The length of the file.
    ///
    /// # Errors
    /// When the system does not report it.
    pub(super) fn position(&self) -> Result<Option<SinkPosition>> {
        let unknown = || format!("the length of {} is unknown", self.name);
        let length = self.file.metadata().with_context(unknown)?.len();
        Ok(Some(SinkPosition { value: length.into(), file: Some(self.file.try_clone().with_context(unknown)?) }))
    }
}

/// Cuts the file at `path`, a copy of that of the run that made the checkpoint, to the length in `position`.
fn go_back(path: &Path, original: &Path, position: Option<&Value>, warn: &dyn Fn(&str)) -> Result<()> {
    let resolved = |path: &Path| -> Option<PathBuf> { path.canonicalize().ok() };
    if original.is_file() && resolved(original) != resolved(path) {
        fs::copy(original, path).map_err(failed(path))?;
    }
    let length = fs::metadata(path).map_or(0, |file| file.len());
    match position.and_then(Value::as_u64) {
        Some(position) if position <= length => {
            if length > 0 {
                let file = OpenOptions::new().write(true).open(path).map_err(failed(path))?;
                file.set_len(position).map_err(failed(path))?;
            }
        }
        _ => warn(&format!("{}: lines of steps before the checkpoint are missing", path.display())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::fixtures::Scratch;
    use crate::run_dir::RunDir;

    const NAME: &str = "log.txt";

    fn opened(run: &Path, resumed: Option<(&Path, Option<&Value>)>) -> (AppendFile, Vec<String>) {
        let warnings = std::cell::RefCell::new(Vec::new());
        let warn = |text: &str| warnings.borrow_mut().push(text.to_owned());
        let run_dir = RunDir::open(run).unwrap();
        let file = AppendFile::open(&Opening { run_dir: &run_dir, resumed, warn: &warn }, NAME).unwrap();
        (file, warnings.into_inner())
    }

    fn text(run: &Path) -> String {
        fs::read_to_string(run.join(NAME)).unwrap()
    }

    #[test]
    fn a_run_that_resumes_goes_back_to_the_position_of_its_checkpoint() {
        let scratch = Scratch::new("sink-append");
        let (run, other) = (scratch.path().join("run"), scratch.path().join("other"));
        let (mut file, _) = opened(&run, None);
        file.line("one").unwrap();
        let position = file.position().unwrap().unwrap().value;
        file.line("two").unwrap();
        drop(file);
        // In another folder it begins with a copy.
        let checkpoint = run.join("checkpoint-1");
        let (mut copy, warnings) = opened(&other, Some((&checkpoint, Some(&position))));
        copy.line("three").unwrap();
        assert_eq!((text(&other).as_str(), warnings.len()), ("one\nthree\n", 0));
        assert_eq!(text(&run), "one\ntwo\n");
        let (mut file, warnings) = opened(&run, Some((&checkpoint, Some(&position))));
        file.line("four").unwrap();
        assert_eq!((text(&run).as_str(), warnings.len()), ("one\nfour\n", 0));
    }

    #[test]
    fn lines_that_are_missing_are_reported() {
        let scratch = Scratch::new("sink-missing");
        let run = scratch.path().join("run");
        let (_, warnings) = opened(&run, Some((&run.join("checkpoint-1"), Some(&7.into()))));
        assert!(warnings.len() == 1 && warnings[0].contains("log.txt: lines of steps"), "{warnings:?}");
    }
}
