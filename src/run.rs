//! `tune run` from the recipe to the exported files. Read this first.
//!
//! Everything that can be wrong with a recipe, a model folder or data is found in [`prepare`] and
//! [`load_decoder`], before any work; what fails later is not the input's fault.

mod advice;
mod calibrate;
mod checkpoints;
mod exports;
mod failure;
mod fetch;
mod prepare;
mod progress;
mod resume;
mod same_run;
mod session;
mod summary;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::Result;

pub use calibrate::calibrate;
pub use failure::Failure;
pub use prepare::{Prepared, decoder as load_decoder, prepare};
pub use resume::{Resume, recall};
use session::Run;
pub use summary::{Measured, Outcome};

use crate::hub::Hub;
use crate::interruption::{self, Interrupted};
use crate::model::DeviceFailure;
use crate::recipe::Recipe;
use crate::report::{Report, memory_bytes};
use crate::train::{Verdict, evaluate};

/// Fine-tunes what `recipe` says and writes the result into its run folder, from the first step or, as `resume` and the
/// recipe say, from a checkpoint.
///
/// # Errors
/// [`Failure::Input`] before any work, [`Failure::Work`] after; [`Failure::Interrupted`] when a signal came.
pub fn run(recipe: Recipe, resume: &Resume, hub: &Hub, report: &mut Report) -> Result<(), Failure> {
    resume::check_folder(&recipe, resume).map_err(Failure::Input)?;
    let mut prepared = prepare(recipe, hub, report).map_err(Failure::of_preparation)?;
    report.say(&prepared.text);
    prepare::check_room(&prepared).map_err(Failure::Input)?;
    fetch::weights(&mut prepared.base, hub, report).map_err(Failure::of_preparation)?;
    let steps = prepared.steps.clone();
    // The library of a GPU may panic where it has no memory left.
    catch_unwind(AssertUnwindSafe(|| train(prepared, resume, report)))
        .unwrap_or_else(|panic| Err(Failure::Work(DeviceFailure::of_panic(panic).into())))
        .map_err(|failure| advice::with_memory(failure, &steps))
}

fn train(prepared: Prepared, resume: &Resume, report: &mut Report) -> Result<(), Failure> {
    prepared.plan.device.begin_pages(prepared.steps.memory.page_bytes());
    let decoder = load_decoder(&prepared.plan, &prepared.base, report).map_err(Failure::Input)?;
    let mut run = Run::begin(prepared, decoder, resume, report)?;
    let after = match run.learn(report) {
        Err(error) if error.chain().any(|cause| cause.is::<Interrupted>()) => return Err(run.interrupted(report)),
        ended => ended.map_err(Failure::Work)?,
    };
    run.conclude(after, report).map_err(Failure::Work)
}

impl Run {
    /// Trains step by step, evaluates and saves in between, and measures what came out.
    fn learn(&mut self, report: &mut Report) -> Result<Measured> {
        let steps = Arc::clone(&self.steps);
        let trained = self.progress.trained;
        report.training(&self.run_dir, &steps.report, steps.total(), trained, self.sinks.as_ref())?;
        interruption::save_first();
        loop {
            let done = self.trainer.position();
            if self.progress.evaluation_due(done, &steps) {
                let evaluation = evaluate(self.trainer.decoder(), &self.held_out, &mut |_| {})?;
                report.evaluation(done, &evaluation)?;
                self.progress.note(done, &evaluation);
            }
            let over = self.progress.is_over(done, &steps);
            let saves = (steps.save.due(done) && !self.progress.skipped) || (over && steps.save.happens());
            if saves && !self.checkpoints.has(done) {
                self.save(report)?;
            }
            if over {
                break;
            }
            let step = match self.trainer.step(&self.dataset.batch_at(done)) {
                Err(error) if advice::step_down(&error, &steps, &mut self.dataset, report) => {
                    self.trainer.discard_gradients();
                    continue;
                }
                step => step?,
            };
            report.step(&step, memory_bytes(&self.plan.device))?;
            self.checkpoints.check()?;
            if self.progress.note_step(&step, &steps) == Verdict::NotFinite {
                self.checkpoints.finish()?;
                return Err(advice::not_finite(&step, &steps, &self.dataset, &self.run_dir));
            }
        }
        report.finish();
        self.last_state_is_saved()?;
        self.take_best(report)?;
        self.measure(report)
    }
}
