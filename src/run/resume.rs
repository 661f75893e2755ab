//! The start of a run: at its first step, or at a checkpoint of the same run.
//!
//! A folder that holds another run is refused, and so is one whose unfinished run would be lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::checkpoints::Checkpoint;
use super::failure::Failure;
use super::prepared::Prepared;
use super::same_run::{self, Identity, PendingIdentity};
use crate::errors;
use crate::export::FORMATS;
use crate::hint::hinted;
use crate::plan::run_dir;
use crate::recipe::Recipe;
use crate::report::{Report, ResumePoint, sink_files};
use crate::run_dir::{CALL, RECIPE, RunDir, SUMMARY, checkpoints};
use crate::text::{shell_word, similar_path};

/// The options of the command line that decide about resuming, beside the recipe.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// Resume from the newest checkpoint, whatever the recipe says.
    pub newest: bool,
    /// Keys of the recipe that may have changed.
    pub allowed: Vec<String>,
}

/// `run.json`: the command that started the run.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    version: String,
    /// The recipe's path as it was given; relative paths in the recipe are looked up in its folder first.
    recipe: PathBuf,
    /// The folder that the program was started in, where they are looked up otherwise.
    working_folder: PathBuf,
    /// The values of `--set`.
    overrides: Vec<String>,
    /// The recipe's values by key.
    values: BTreeMap<String, String>,
    /// Hash of the rows that the run trains on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// The base model, once the run is done: a commit of the hub, or a hash of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_model: Option<String>,
    /// Hash of the adapter that the run continues from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adapter: Option<String>,
}

impl Call {
    fn of(recipe: &Recipe, data: String, base_model: Option<String>) -> Result<Self> {
        let working_folder = std::env::current_dir().context("the working folder is unknown")?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: recipe.path.clone(),
            working_folder,
            overrides: recipe.overrides.clone(),
            values: same_run::values(recipe),
            data: Some(data),
            base_model,
            adapter: same_run::hash_of_adapter(recipe),
        })
    }

    /// Reads the call in `folder`; none if it is missing or cannot be read.
    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(CALL)).ok()?).ok()
    }
}

/// Reads the recipe of the run in `folder` as it was called there, with `more` overrides, and changes to the working folder
/// of that call.
///
/// # Errors
/// When the folder holds no run, or the recipe is no longer valid.
pub fn recall(folder: &Path, more: &[String]) -> Result<Recipe, Failure> {
    let read = || -> Result<Recipe> {
        let given = folder;
        let folder = given
            .canonicalize()
            .map_err(|error| hinted(format!("`{}` cannot be opened: {error}", given.display()), meant_by(given)))?;
        let (Some(call), Ok(text)) = (Call::read(&folder), fs::read_to_string(folder.join(RECIPE))) else {
            bail!(hinted(format!("`{}` holds no run that can be resumed", given.display()), meant_by(given)));
        };
        // The folder may be gone, and no path of the recipe need it.
        let path = match std::env::set_current_dir(&call.working_folder) {
            Ok(()) => call.recipe,
            Err(_) => call.working_folder.join(call.recipe),
        };
        let overrides = [call.overrides.as_slice(), more].concat();
        let mut recipe = Recipe::from_text(&path, &text, &overrides, &|name| std::env::var(name).ok())?;
        if !same_place(&run_dir(&recipe), &folder) {
            // The folder was moved.
            recipe.output_dir.replace(Some(folder.display().to_string()));
        }
        Ok(recipe)
    };
    read().map_err(Failure::Input)
}

/// The hint for a folder that holds no run: the run that was probably meant, or what a run is.
fn meant_by(given: &Path) -> String {
    let is_run = |folder: &Path| folder.join(RECIPE).is_file() && folder.join(CALL).is_file();
    let command = |folder: &Path| format!("`tune resume {}`", shell_word(&folder.display().to_string()));
    if given.is_file()
        && let Ok(recipe) = Recipe::load(given, &[])
    {
        let (run, name) = (run_dir(&recipe), shell_word(&given.display().to_string()).into_owned());
        let start = format!("`tune run {name}` starts it");
        return match is_run(&run) {
            true => format!("this is a recipe, whose run is resumed with {}; {start}", command(&run)),
            false => format!("this is a recipe, of which there is no run yet: {start}"),
        };
    }
    // A checkpoint or an export of a run, or a recipe's copy in it.
    let inside = given.ancestors().skip(1).take(2).find(|folder| is_run(folder)).map(Path::to_path_buf);
    match inside.or_else(|| similar_path(given, is_run)) {
        Some(run) => format!("did you mean {}?", command(&run)),
        None => format!("name the output_dir of a run, which holds {RECIPE} and {CALL}"),
    }
}

/// Refuses, before any work, what [`find`] would refuse after it, as far as the recipe and its folder show.
///
/// # Errors
/// When the folder holds another run, is in use, or holds work that would be lost.
pub(super) fn check_folder(recipe: &Recipe, resume: &Resume) -> Result<()> {
    same_run::check_allowed(&resume.allowed)?;
    if let Some(folder) = &*recipe.resume_from_checkpoint
        && !recipe.locate(folder).is_dir()
    {
        bail!(hinted(
            format!("{}: `{folder}` is not a directory", recipe.resume_from_checkpoint.place()),
            "name a checkpoint folder, such as runs/tickets/checkpoint-100"
        ));
    }
    let folder = run_dir(recipe);
    if !folder.join(RECIPE).is_file() {
        return Ok(());
    }
    RunDir::check_free(&folder)?;
    let same_text = fs::read_to_string(folder.join(RECIPE)).is_ok_and(|text| text == recipe.text);
    let (values, call) = (same_run::values(recipe), Call::read(&folder));
    let resumes = is_resumed(recipe, resume);
    match &call {
        Some(call) if resumes => same_run::check_recipes(&call.values, &values, &resume.allowed, &folder)?,
        Some(call) => {
            let differences = same_run::differences(&call.values, &values);
            if !differences.is_empty() {
                let words: Vec<String> = differences.into_iter().map(|(_, words)| words).collect();
                return Err(another(recipe, &folder, &words.join("; ")));
            }
        }
        None if !same_text => return Err(another(recipe, &folder, "it has another recipe")),
        None => {}
    }
    match checkpoints(&folder)?.last() {
        Some(step) if !resumes && !folder.join(SUMMARY).is_file() => {
            let (place, folder) = (recipe.output_dir.place(), folder.display());
            bail!(hinted(
                format!("{place}: `{folder}` holds an unfinished run of this recipe, saved after {step} steps"),
                format!(
                    "continue it with `tune resume {}`, or always with `auto_resume_from_checkpoints: true`; delete the folder to start over",
                    shell_word(&folder.to_string())
                )
            ))
        }
        _ => Ok(()),
    }
}

/// Refuses a folder that cannot be written, and to write over what a run of the same recipe made of other rows or another
/// base model.
///
/// # Errors
/// When the folder of the run is such a one.
pub(super) fn check_results(prepared: &Prepared) -> Result<()> {
    let folder = &prepared.plan.run_dir;
    RunDir::check(folder).with_context(|| prepared.recipe.output_dir.place().to_string())?;
    let Some(call) = Call::read(folder) else { return Ok(()) };
    let is_done = folder.join(SUMMARY).is_file() || FORMATS.iter().any(|format| folder.join(format.name).exists());
    if !is_done {
        return Ok(());
    }
    let mut changed = Vec::new();
    if call.data.is_some_and(|data| data != prepared.dataset.fingerprint()) {
        changed.push("the data have changed since: the rows of `datasets` give other tokens");
    }
    if let Some(before) = call.base_model
        && before != same_run::hash_of(&prepared.base)?
    {
        changed.push("the base model has changed since: its files have other bytes");
    }
    if call.adapter.is_some() && call.adapter != same_run::hash_of_adapter(&prepared.recipe) {
        changed.push("the adapter of `lora_model_dir` has changed since: its file has other bytes");
    }
    if changed.is_empty() {
        return Ok(());
    }
    let (place, folder) = (prepared.recipe.output_dir.place(), folder.display());
    bail!(hinted(
        format!("{place}: output_dir `{folder}` holds a finished run of this recipe, and {}", changed.join("; ")),
        "name another output_dir, which keeps both, or delete that folder to train again"
    ))
}

/// Records that the run in `run_dir` is done, and what it was trained on.
///
/// # Errors
/// When it cannot be written.
pub(super) fn record(recipe: &Recipe, run_dir: &RunDir, identity: Identity) -> Result<()> {
    write_call(recipe, run_dir, identity.data, Some(identity.base_model))
}

fn another(recipe: &Recipe, folder: &Path, how: &str) -> anyhow::Error {
    let (place, folder) = (recipe.output_dir.place(), folder.display());
    hinted(
        format!("{place}: output_dir `{folder}` holds another run: {how}"),
        "name another folder, or delete that one",
    )
    .into()
}

/// True if the run is to resume from a checkpoint, should there be one.
fn is_resumed(recipe: &Recipe, resume: &Resume) -> bool {
    resume.newest || *recipe.auto_resume_from_checkpoints || recipe.resume_from_checkpoint.is_some()
}

/// The start of a run.
#[derive(Debug)]
pub(super) struct Start {
    /// The checkpoint to resume from; none at the first step.
    pub(super) checkpoint: Option<Checkpoint>,
    /// The step of that checkpoint, if it is one of this run folder.
    pub(super) last: Option<usize>,
    /// The point to which the run's sinks go back.
    pub(super) sinks: Option<ResumePoint>,
    pub(super) identity: PendingIdentity,
}

/// Finds the checkpoint to resume from, if any, and restores the run folder to that moment. Damaged checkpoints are
/// reported and set aside.
///
/// # Errors
/// When the checkpoint is of another run, or the one that the recipe names is damaged.
pub(super) fn find(prepared: &Prepared, resume: &Resume, run_dir: &RunDir, report: &Report) -> Result<Start> {
    let recipe = &prepared.recipe;
    let found = match &*recipe.resume_from_checkpoint {
        _ if !is_resumed(recipe, resume) => None,
        Some(folder) if !resume.newest => {
            let folder = recipe.locate(folder);
            let checkpoint = Checkpoint::read(&folder).with_context(|| {
                format!("{}: `{}` is not a whole checkpoint", recipe.resume_from_checkpoint.place(), folder.display())
            })?;
            Some((folder, checkpoint))
        }
        _ => newest(run_dir, report)?,
    };
    let data = prepared.dataset.fingerprint();
    let (own, base, rows) = (recipe.clone(), Arc::clone(&prepared.base), data.clone());
    let identity = move || Identity::of(&own, rows, &base);
    let Some((folder, checkpoint)) = found else {
        if resume.newest {
            report.say(&format!("there is no checkpoint in {}: starting over", run_dir.path().display()));
        }
        run_dir.start_over(sink_files())?;
        write_call(recipe, run_dir, data, None)?;
        return Ok(Start { checkpoint: None, last: None, sinks: None, identity: PendingIdentity::begin(identity) });
    };
    let now = identity()?;
    checkpoint.identity.check(&now, &resume.allowed, &folder)?;
    if checkpoint.identity.version != now.version {
        report.say(&format!(
            "{} was written by version {}: this is {}, whose arithmetic may differ in the last digits",
            folder.display(),
            checkpoint.identity.version,
            now.version
        ));
    }
    // The summary of a run that was done before it was resumed.
    let _ = fs::remove_file(run_dir.join(SUMMARY));
    write_call(recipe, run_dir, data, None)?;
    let step = checkpoint.state.position.step;
    report.say(&format!("resuming from {}, after {step} steps", folder.display()));
    let is_own = same_place(&folder, &run_dir.checkpoint(step));
    let sinks = ResumePoint { positions: checkpoint.sinks.clone(), checkpoint: folder };
    let (checkpoint, last) = (Some(checkpoint), is_own.then_some(step));
    Ok(Start { checkpoint, last, sinks: Some(sinks), identity: PendingIdentity::known(now) })
}

fn same_place(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Reads the newest checkpoint that is whole.
fn newest(run_dir: &RunDir, report: &Report) -> Result<Option<(PathBuf, Checkpoint)>> {
    for step in run_dir.checkpoints()?.into_iter().rev() {
        let folder = run_dir.checkpoint(step);
        match Checkpoint::read(&folder) {
            Ok(checkpoint) => return Ok(Some((folder, checkpoint))),
            Err(damage) => {
                let aside = run_dir.set_aside(step)?;
                report.say(&format!(
                    "{} is damaged and not used: {}; it is kept as {}",
                    folder.display(),
                    errors::message(&damage),
                    aside.display()
                ));
            }
        }
    }
    Ok(None)
}

/// Writes the recipe and how it was called into the run folder.
fn write_call(recipe: &Recipe, run_dir: &RunDir, data: String, base_model: Option<String>) -> Result<()> {
    let call = Call::of(recipe, data, base_model)?;
    let call = serde_json::to_string_pretty(&call).context("the call is plain JSON")?;
    // The recipe first: a folder that holds one belongs to a run.
    run_dir.write(RECIPE, recipe.text.as_bytes())?;
    Ok(run_dir.write(CALL, (call + "\n").as_bytes())?)
}
