//! `tune run`, from the recipe to the summary. Read this first: the modules of `run/` hold what its lines call.
//!
//! Whatever is wrong with a recipe, a model folder or data is found by [`prepare`] and [`Prepared::load`], before any
//! work; what fails later is not the input's fault.

mod advice;
mod checkpoints;
mod checks;
mod data_sets;
mod failure;
mod prepared;
mod progress;
mod resume;
mod same_run;
mod session;
mod summary;

use std::path::Path;

use anyhow::{Context, Result};
use datasets::{Dataset, Tokenizer};

pub use failure::Failure;
pub use prepared::Prepared;
pub use resume::{Resume, recall};

use crate::errors::{kept, together};
use crate::export::{Format, Job, Probe, export};
use crate::hub::{Hub, ModelFiles};
use crate::interruption;
use crate::model::Storage;
use crate::open;
use crate::plan::{Plan, Steps, plan_text};
use crate::recipe::Recipe;
use crate::report::{Card, Report, card, memory_bytes, printable};
use crate::run_dir::{RunDir, SUMMARY};
use crate::train::{Verdict, evaluate};
use session::Session;
use summary::Summary;

/// Fine-tunes the model of `recipe` and writes the result into its run folder, from the first step or, as `resume` and
/// the recipe say, from a checkpoint.
///
/// # Errors
/// [`Failure::Input`] before any work, [`Failure::Work`] after; [`Failure::Interrupted`] when a signal came.
pub fn run(recipe: Recipe, resume: &Resume, hub: &Hub, report: &mut Report) -> Result<(), Failure> {
    resume::check_folder(&recipe, resume).map_err(Failure::Input)?;
    let mut prepared = prepare(recipe, hub, report).map_err(Failure::of_preparation)?;
    let place = || prepared.recipe.output_dir.place().to_string();
    RunDir::check(&prepared.plan.run_dir).with_context(place).map_err(Failure::of_preparation)?;
    resume::check_inputs(&prepared).map_err(Failure::Input)?;
    report.say(&prepared.text);
    checks::free_memory(&prepared.steps, &prepared.recipe).map_err(Failure::Input)?;
    prepared.download_weights(hub, report).map_err(Failure::of_preparation)?;
    let steps = prepared.steps.clone();
    advice::on_shortage(&steps, || train(prepared, resume, report))
}

/// Opens the base model, makes every decision and reads the data, from the hub where the recipe says so; no weight is
/// touched. `tune check` and `tune preview` end here.
///
/// # Errors
/// When the recipe, the model's files, the data or the run folder are not as they must be.
pub fn prepare(recipe: Recipe, hub: &Hub, report: &mut Report) -> Result<Prepared> {
    let (name, revision) = (&recipe.base_model, recipe.revision_of_model.as_deref());
    let roots = [recipe.path.parent().unwrap_or(Path::new("")), Path::new("")];
    let base = open::locate(name, &roots, revision, ModelFiles::Plan, hub, &mut |progress| report.download(progress))
        .with_context(|| recipe.base_model.place().to_string());
    let mut problems = Vec::new();
    let planned = base.and_then(|base| Ok((Plan::resolve(&recipe, &base)?, base)));
    let planned = kept(planned, &mut problems);
    problems.extend(data_sets::missing(&recipe));
    let (Some((mut plan, base)), true) = (planned, problems.is_empty()) else {
        return Err(together(problems));
    };
    let eos = base.eos_token_ids()?;
    let tokenizer = Tokenizer::open(&plan.tokenizer, &plan.template, &plan.special_tokens, &plan.eot_tokens, &eos)
        .map_err(|error| error.locate(|key| recipe.place_of(key)))?;
    data_sets::locate(&recipe, &mut plan.dataset, hub, report)?;
    let mut dataset = Dataset::load(&plan.dataset, &tokenizer, &mut |progress| report.loading(&progress))
        .map_err(|error| error.locate(|key| recipe.place_of(key)))?;
    report.finish();
    dataset.counts.notes.extend(checks::beyond_embedding(&tokenizer, plan.model.spec.vocab));
    let steps = Steps::resolve(&recipe, &plan, &mut dataset)?;
    plan.dataset.batching = dataset.batching().clone();
    checks::steps(&steps, &recipe)?;
    let text = printable(&plan_text(&recipe, &base, &plan, &steps, &dataset.counts)).into_owned();
    Ok(Prepared { recipe, base: base.into(), plan: plan.into(), tokenizer, dataset, steps, text })
}

fn train(prepared: Prepared, resume: &Resume, report: &mut Report) -> Result<(), Failure> {
    let decoder = prepared.load(report).map_err(Failure::of_preparation)?;
    let run_dir = RunDir::open(&prepared.plan.run_dir).map_err(|error| Failure::of_preparation(error.into()))?;
    let start = resume::find(&prepared, resume, &run_dir, report).map_err(Failure::of_preparation)?;
    let mut session = Session::start(prepared, decoder, run_dir, start, report).map_err(Failure::Work)?;
    match train_steps(&mut session, report) {
        Ok(()) => conclude(session, report).map_err(Failure::Work),
        Err(error) => Err(session.stopped_by(error, report)),
    }
}

/// Trains step by step, evaluates and saves in between, until the last step is done or the run stops early.
fn train_steps(session: &mut Session, report: &mut Report) -> Result<()> {
    let (steps, trained) = (&session.steps, session.progress.trained);
    report.training(&session.run_dir, &steps.report, steps.total(), trained, session.sinks.as_ref())?;
    if session.sinks.is_none() {
        report.measured(&session.progress.before.at("before", 0))?;
    }
    interruption::save_first();
    loop {
        let done = session.trainer.position();
        if session.progress.evaluation_due(done, &session.steps) {
            let trainer = &session.trainer;
            let evaluation = evaluate(trainer.decoder(), trainer.objective(), &session.held_out, &mut |_| {})?;
            report.evaluation(done, &evaluation)?;
            session.progress.note_evaluation(done, &evaluation);
        }
        let is_over = session.progress.is_over(done, &session.steps);
        if session.save_due(done, is_over) {
            session.save(report)?;
        }
        if is_over {
            break;
        }
        let step = match session.trainer.step(&session.dataset.batch_at(done)) {
            Ok(step) => step,
            Err(error) => {
                session.shrink_micro_batches(error, report)?;
                continue;
            }
        };
        report.step(&step, memory_bytes(&session.plan.device))?;
        session.checkpoints.check()?;
        if session.progress.note_step(&step, &session.steps) == Verdict::NotFinite {
            session.checkpoints.finish()?;
            return Err(advice::not_finite(&step, &session.steps, &session.dataset, &session.run_dir));
        }
    }
    report.finish();
    session.last_state_is_saved()
}

/// Measures the trained model, exports it and checks what was written; ends with the summary.
fn conclude(mut session: Session, report: &mut Report) -> Result<()> {
    let step = session.restore_best(report)?;
    let after = session.measure(report)?;
    report.measured(&after.at("after", step))?;
    let identity = session.checkpoints.identity()?;
    let Session { recipe, base, plan, dataset, text, companions, run_dir, trainer, progress, .. } = session;
    let decoder = trainer.into_decoder();
    let best = progress.best();
    let mut summary = Summary::new(progress.before, after, report.trained(), memory_bytes(&plan.device));
    summary.stopped = progress.stopped;
    let (held_out, training) = (summary.held_out_losses(), report.losses());
    summary.look_at.extend(advice::on_rise(&recipe, held_out, training, best));
    let files: Vec<String> = dataset.counts.sources.iter().map(|source| source.path.clone()).collect();
    let (data, held_out) = files.split_at(plan.dataset.sources.len().min(files.len()));
    let (figures, name, written) = (&summary.json(), &base.reference(), &recipe.text);
    let describe = |format: &Format| {
        let prompts = &dataset.prompt_form;
        card(&Card {
            base_model: name,
            data,
            held_out,
            prompts,
            plan: &text,
            summary: figures,
            recipe: written,
            format,
        })
    };
    let probe = Probe::take(&decoder, prepared::probe_rows(&dataset))?;
    let (settings, adapter) = (&plan.export, plan.adaptation.adapter());
    let job = Job { settings, base: &base, adapter, companions: &companions, card: &describe };
    let folders = settings.formats.iter().map(|format| (*format, run_dir.join(format.name))).collect();
    // Read again in the types of training, but quantised only where they were written so.
    let storage = Storage { quantised: None, ..plan.storage.clone() };
    summary.exports = export(folders, decoder, &probe, &storage, &job)?;
    run_dir.write("README.md", describe(settings.formats[0]).as_bytes())?;
    resume::record(&recipe, &run_dir, identity)?;
    let json = serde_json::to_string_pretty(&summary.json()).context("the summary is plain JSON")?;
    // Last: a run with a summary is done.
    run_dir.write(SUMMARY, (json + "\n").as_bytes())?;
    report.say(&summary.text(&dataset.questions, &dataset.prompt_form));
    Ok(())
}
