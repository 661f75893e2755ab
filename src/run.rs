//! `tune run`, from the recipe to the summary. Read this first: the modules of `run/` hold what its lines call.
//!
//! Whatever is wrong with a recipe, a model folder or data is found by [`prepare`] and [`Prepared::load`], before any
//! work; what fails later is not the input's fault.

mod advice;
mod cards;
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

use anyhow::{Context, Result};
use datasets::{Dataset, Tokenizer};

pub use failure::Failure;
pub use prepared::Prepared;
pub use resume::{Resume, recall};

use crate::export::{Format, Job, Probe, export};
use crate::hub::Hub;
use crate::interruption;
use crate::model::Storage;
use crate::plan::{Steps, plan_text};
use crate::recipe::Recipe;
use crate::report::{Report, memory_bytes, printable};
use crate::run_dir::{RunDir, SUMMARY};
use crate::train::{Verdict, evaluate};
use cards::CardParts;
use session::Session;

/// Fine-tunes the model of `recipe` and writes the result into its run folder, from the first step or, as `resume` and
/// the recipe say, from a checkpoint.
///
/// # Errors
/// [`Failure::Input`] before any work, [`Failure::Work`] after; [`Failure::Interrupted`] when a signal came.
pub fn run(recipe: Recipe, resume: &Resume, hub: &Hub, report: &mut Report) -> Result<(), Failure> {
    resume::check_folder(&recipe, resume).map_err(Failure::Input)?;
    let mut prepared = prepare(recipe, hub, report).map_err(Failure::of_preparation)?;
    resume::check_results(&prepared).map_err(Failure::of_preparation)?;
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
    let (base, mut plan) = prepared::planned(&recipe, hub, report)?;
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
    let mut summary = session.results(report)?;
    let identity = session.checkpoints.identity()?;
    let Session { recipe, base, plan, dataset, text, companions, run_dir, trainer, .. } = session;
    let (decoder, figures, base_model) = (trainer.into_decoder(), summary.json(), base.reference());
    let parts = CardParts { recipe: &recipe, base_model: &base_model, plan: &plan, text: &text, dataset: &dataset };
    let describe = |format: &Format| parts.card(&figures, format);
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
