//! Where a run begins: at its first step, or at a checkpoint of the same run.
//!
//! A folder that holds another run is refused, and so is one whose unfinished run would be lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::checkpoints::Saved;
use super::same_run::{self, Origin, Traced};
use crate::plan::run_dir;
use crate::recipe::Recipe;
use crate::report::{Report, ResumePoint, sink_files};
use crate::run_dir::{CALL, RECIPE, RunDir, SUMMARY, checkpoints};

/// What was asked for on the command line, beside the recipe.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// Go on from the newest checkpoint, whatever the recipe says.
    pub newest: bool,
    /// Keys of the recipe that may have changed.
    pub allowed: Vec<String>,
}

/// `run.json`: how a recipe was called.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    version: String,
    /// The recipe as it was named; its relative paths belong to its folder.
    recipe: PathBuf,
    /// The folder that the program was started in, to which they belong otherwise.
    working_folder: PathBuf,
    /// What `--set` said.
    overrides: Vec<String>,
    /// The recipe's values by key.
    values: BTreeMap<String, String>,
}

impl Call {
    fn of(recipe: &Recipe) -> Result<Self> {
        let working_folder = std::env::current_dir().context("the working folder is not known")?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: recipe.path.clone(),
            working_folder,
            overrides: recipe.overrides.clone(),
            values: same_run::values(recipe),
        })
    }

    /// None where there is none, or none that can be read.
    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(CALL)).ok()?).ok()
    }
}

/// The recipe of the run in `folder` as it was called there, with `more` overrides; its working folder becomes this
/// process's.
///
/// # Errors
/// When the folder holds no run, or the recipe is not valid any more.
pub fn recall(folder: &Path, more: &[String]) -> Result<Recipe, Failure> {
    let read = || -> Result<Recipe> {
        let folder = folder.canonicalize().with_context(|| format!("`{}` cannot be opened", folder.display()))?;
        let (Some(call), Ok(text)) = (Call::read(&folder), fs::read_to_string(folder.join(RECIPE))) else {
            bail!(
                "`{}` holds no run that can go on\nhint: name the output_dir of a run: it holds {RECIPE} and {CALL}",
                folder.display()
            );
        };
        // A folder that is gone can still be one that no path of the recipe needs.
        let path = match std::env::set_current_dir(&call.working_folder) {
            Ok(()) => call.recipe,
            Err(_) => call.working_folder.join(call.recipe),
        };
        let overrides = [call.overrides.as_slice(), more].concat();
        let mut recipe = Recipe::from_text(&path, &text, &overrides, &|name| std::env::var(name).ok())?;
        if !same_place(&run_dir(&recipe), &folder) {
            // The folder was moved.
            recipe.output_dir = Some(folder.display().to_string());
        }
        Ok(recipe)
    };
    read().map_err(Failure::Input)
}

/// Refuses, before any work, what [`find`] would refuse after it, as far as the recipe and its folder tell.
///
/// # Errors
/// When the folder is another run's, is in use, or holds work that would be lost.
pub(super) fn check_folder(recipe: &Recipe, resume: &Resume) -> Result<()> {
    same_run::check_allowed(&resume.allowed)?;
    if let Some(folder) = &recipe.resume_from_checkpoint
        && !recipe.locate(folder).is_dir()
    {
        bail!(
            "{}: `{folder}` is no folder\nhint: name a checkpoint folder, such as runs/tickets/checkpoint-100",
            recipe.at("resume_from_checkpoint")
        );
    }
    let folder = run_dir(recipe);
    if !folder.join(RECIPE).is_file() {
        return Ok(());
    }
    RunDir::check_free(&folder)?;
    let same_text = fs::read_to_string(folder.join(RECIPE)).is_ok_and(|text| text == recipe.text);
    let (values, call) = (same_run::values(recipe), Call::read(&folder));
    let resumes = goes_on(recipe, resume);
    match &call {
        Some(call) if resumes => same_run::check_recipes(&call.values, &values, &resume.allowed, &folder)?,
        Some(call) => {
            let differences = same_run::differences(&call.values, &values);
            if !differences.is_empty() {
                let words: Vec<String> = differences.into_iter().map(|(_, words)| words).collect();
                return Err(another(recipe, &folder, &words.join("; ")));
            }
        }
        None if !same_text => return Err(another(recipe, &folder, "its recipe is another")),
        None => {}
    }
    match checkpoints(&folder)?.last() {
        Some(step) if !resumes && !folder.join(SUMMARY).is_file() => bail!(
            "{}: `{}` holds an unfinished run of this recipe, saved after {step} steps\nhint: `tune resume {0}` goes on with it, `auto_resume_from_checkpoints: true` always does so; remove the folder to begin anew",
            recipe.at("output_dir"),
            folder.display()
        ),
        _ => Ok(()),
    }
}

fn another(recipe: &Recipe, folder: &Path, how: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{}: output_dir `{}` holds another run: {how}\nhint: name another folder, or remove that one",
        recipe.at("output_dir"),
        folder.display()
    )
}

/// Whether the run is to go on where a checkpoint is.
fn goes_on(recipe: &Recipe, resume: &Resume) -> bool {
    resume.newest || recipe.auto_resume_from_checkpoints == Some(true) || recipe.resume_from_checkpoint.is_some()
}

/// Where a run begins.
#[derive(Debug)]
pub(super) struct Start {
    /// The checkpoint that it goes on from; none at the first step.
    pub(super) saved: Option<Saved>,
    /// The step of that checkpoint, if it is one of this run folder.
    pub(super) last: Option<usize>,
    /// The point to which the run's sinks go back.
    pub(super) sinks: Option<ResumePoint>,
    pub(super) origin: Traced,
}

/// Finds out where the run begins, and puts its folder into the state of that moment. Damaged checkpoints are told and
/// set aside.
///
/// # Errors
/// When what the checkpoint comes from has changed, or the one that the recipe names is damaged.
pub(super) fn find(
    recipe: &Recipe,
    resume: &Resume,
    run_dir: &RunDir,
    trace: impl FnOnce() -> Result<Origin> + Send + 'static,
    report: &Report,
) -> Result<Start> {
    let found = match &recipe.resume_from_checkpoint {
        _ if !goes_on(recipe, resume) => None,
        Some(folder) if !resume.newest => {
            let folder = recipe.locate(folder);
            let saved = Saved::open(&folder).with_context(|| {
                format!("{}: `{}` is no whole checkpoint", recipe.at("resume_from_checkpoint"), folder.display())
            })?;
            Some((folder, saved))
        }
        _ => newest(run_dir, report)?,
    };
    let Some((folder, saved)) = found else {
        run_dir.begin_anew(sink_files())?;
        remember(recipe, run_dir)?;
        return Ok(Start { saved: None, last: None, sinks: None, origin: Traced::begin(trace) });
    };
    let now = trace()?;
    saved.origin.check(&now, &resume.allowed, &folder)?;
    if saved.origin.version != now.version {
        report.say(&format!(
            "{} was written by version {}: this is {}, whose arithmetic may differ in the last digits",
            folder.display(),
            saved.origin.version,
            now.version
        ));
    }
    // The figures of a run that was done before it was resumed.
    let _ = fs::remove_file(run_dir.join(SUMMARY));
    remember(recipe, run_dir)?;
    let step = saved.state.position.step;
    report.say(&format!("going on from {}, after {step} steps", folder.display()));
    let own = same_place(&folder, &run_dir.checkpoint(step));
    let sinks = ResumePoint { positions: saved.sinks.clone(), checkpoint: folder };
    Ok(Start { saved: Some(saved), last: own.then_some(step), sinks: Some(sinks), origin: Traced::known(now) })
}

fn same_place(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The newest checkpoint that is whole.
fn newest(run_dir: &RunDir, report: &Report) -> Result<Option<(PathBuf, Saved)>> {
    for step in run_dir.checkpoints()?.into_iter().rev() {
        let folder = run_dir.checkpoint(step);
        match Saved::open(&folder) {
            Ok(saved) => return Ok(Some((folder, saved))),
            Err(damage) => {
                let aside = run_dir.set_aside(step)?;
                report.say(&format!(
                    "{} is damaged and not used: {damage:#}; it is kept as {}",
                    folder.display(),
                    aside.display()
                ));
            }
        }
    }
    Ok(None)
}

/// Writes the recipe and how it was called into the run folder.
fn remember(recipe: &Recipe, run_dir: &RunDir) -> Result<()> {
    let call = serde_json::to_string_pretty(&Call::of(recipe)?).context("the call is plain JSON")?;
    // The recipe first: a folder that holds one is a run's.
    run_dir.write(RECIPE, recipe.text.as_bytes())?;
    Ok(run_dir.write(CALL, (call + "\n").as_bytes())?)
}
