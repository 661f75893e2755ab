//! `tune run` from the recipe to the exported files. Read this first.
//!
//! Everything that can be wrong with a recipe, a model folder or data is found in [`prepare`] and
//! [`load_decoder`], before any work; what fails later is not the input's fault.

mod calibrate;
mod checkpoint;
mod exports;
mod failure;
mod fetch;
mod outcome;
mod prepare;
mod trouble;

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result};

pub use calibrate::calibrate;
use exports::Exports;
pub use failure::Failure;
pub use fetch::base_model;
pub use outcome::{Measured, Outcome};
pub use prepare::{Prepared, decoder as load_decoder, prepare};

use crate::export::Probe;
use crate::hub::Hub;
use crate::recipe::Recipe;
use crate::report::{Card, Report, card, memory_bytes};
use crate::run_dir::RunDir;
use crate::train::{Trainer, Verdict, Watchdog, evaluate};

/// Fine-tunes what `recipe` says and writes the result into its run folder.
///
/// # Errors
/// [`Failure::Input`] before any work, [`Failure::Work`] after.
pub fn run(recipe: Recipe, hub: &Hub, report: &mut Report) -> Result<(), Failure> {
    let mut prepared = prepare(recipe, hub, report).map_err(Failure::of_preparation)?;
    report.say(&prepared.text);
    prepare::check_room(&prepared).map_err(Failure::Input)?;
    fetch::weights(&mut prepared.base, &prepared.plan, hub, report).map_err(Failure::of_preparation)?;
    let steps = prepared.steps.clone();
    let work = || {
        let decoder = load_decoder(&prepared.plan, &prepared.base, report).map_err(Failure::Input)?;
        train(prepared, decoder, report).map_err(|error| Failure::Work(trouble::with_memory(error, &steps)))
    };
    // The library of a GPU may panic where it has no memory left.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::Work(trouble::of_panic(panic, &steps))))
}

fn train(prepared: Prepared, decoder: crate::model::Decoder, report: &mut Report) -> Result<()> {
    let Prepared { recipe, base, plan, tokenizer, mut dataset, steps, text } = prepared;
    let run_dir = RunDir::create(&plan.run_dir, &recipe.text, &text)?;
    let special_tokens = prepare::special_tokens(&plan);
    let golden = prepare::golden(&tokenizer)?;
    let companions = prepare::companions(&plan, &tokenizer, &special_tokens, &golden);
    let held_out = dataset.held_out_batches();
    let before = Measured::of(&decoder, &tokenizer, &dataset.questions, &held_out, steps.answers, report)?;

    let mut trainer = Trainer::start(decoder, steps.train.clone());
    let (mut watchdog, mut verdict) = (Watchdog::new(steps.watchdog), Verdict::GoOn);
    report.training(&run_dir, steps.total(), steps.log.steps().unwrap_or(1))?;
    while trainer.position() < steps.total() && verdict == Verdict::GoOn {
        let step = match trainer.step(&dataset.batch_at(trainer.position())) {
            Err(error) if trouble::is_out_of_memory(&error) && trouble::step_down(&steps, &mut dataset, report) => {
                trainer.discard_gradients();
                continue;
            }
            step => step?,
        };
        report.step(&step, memory_bytes(&plan.device))?;
        verdict = watchdog.judge(&step);
        if verdict == Verdict::NotFinite {
            return Err(trouble::not_finite(&step, &steps, &dataset, &run_dir));
        }
        if steps.evaluate.due(step.step) && step.step < steps.total() {
            report.evaluation(step.step, &evaluate(trainer.decoder(), &held_out, &mut |_| {})?)?;
        }
        if steps.save.due(step.step) && step.step < steps.total() && !step.skipped {
            checkpoint::save(&mut trainer, &plan, &base, &run_dir, &companions, &text)?;
            run_dir.prune(steps.save_limit.unwrap_or(usize::MAX), step.step)?;
        }
    }
    report.finish();

    let decoder = trainer.into_decoder();
    let after = Measured::of(&decoder, &tokenizer, &dataset.questions, &held_out, steps.answers, report)?;
    let mut outcome = Outcome::new(before, after, report.trained(), memory_bytes(&plan.device));
    outcome.stopped = verdict == Verdict::TooHigh;
    let probe = Probe::take(&decoder, prepare::probe_rows(&dataset), run_dir.path())?;
    let data: Vec<String> = dataset.counts.sources.iter().map(|source| source.path.clone()).collect();
    let (summary, reference) = (outcome.json(), base.reference());
    let describe = |adapter: bool| {
        card(&Card {
            base_model: &reference,
            data: &data,
            plan: &text,
            summary: &summary,
            recipe: &recipe.text,
            adapter,
        })
    };
    let exports = Exports { plan: &plan, base: &base, run_dir: &run_dir, companions: &companions, card: &describe };
    exports.write(decoder, &probe, &mut outcome)?;
    let summary = serde_json::to_string_pretty(&outcome.json()).context("the summary is plain JSON")?;
    run_dir.write("summary.json", (summary + "\n").as_bytes())?;
    run_dir.write("README.md", describe(plan.export.adapter).as_bytes())?;
    report.say(&outcome.text(&dataset.questions, &plan, &run_dir));
    Ok(())
}
