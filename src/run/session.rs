//! A run under way: all that its steps, evaluations and checkpoints need, and how it saves and stops.

use std::sync::Arc;

use anyhow::{Error, Result};
use datasets::{Dataset, MicroBatch, Tokenizer};

use super::advice;
use super::checkpoints::{Checkpoint, Checkpoints, Contents};
use super::failure::Failure;
use super::prepared::Prepared;
use super::progress::{Decided, Progress};
use super::resume::Start;
use super::summary::{Measured, Summary};
use crate::export::Companions;
use crate::hint::hinted;
use crate::hub::BaseModel;
use crate::interruption::{self, Interrupted};
use crate::model::Decoder;
use crate::plan::{Plan, Steps};
use crate::recipe::{Recipe, Toggle};
use crate::report::{Report, ResumePoint, memory_bytes};
use crate::run_dir::RunDir;
use crate::text::shell_word;
use crate::train::{TrainError, Trainer};

/// A run under way.
pub(super) struct Session {
    pub(super) recipe: Recipe,
    pub(super) base: Arc<BaseModel>,
    pub(super) plan: Arc<Plan>,
    pub(super) tokenizer: Tokenizer,
    pub(super) dataset: Dataset,
    pub(super) held_out: Vec<MicroBatch>,
    pub(super) steps: Steps,
    /// The plan as printed.
    pub(super) text: String,
    pub(super) companions: Arc<Companions>,
    pub(super) run_dir: RunDir,
    pub(super) trainer: Trainer,
    pub(super) progress: Progress,
    pub(super) checkpoints: Checkpoints,
    /// The point to which the run's sinks go back, if it resumes.
    pub(super) sinks: Option<ResumePoint>,
}

impl Session {
    /// Starts at the checkpoint of `start`, or at the first step, before which the base model is measured.
    ///
    /// # Errors
    /// When the checkpoint is of another model, a file cannot be written, or the device fails.
    pub(super) fn start(
        prepared: Prepared,
        decoder: Decoder,
        run_dir: RunDir,
        start: Start,
        report: &mut Report,
    ) -> Result<Self> {
        run_dir.write("plan.txt", prepared.text.as_bytes())?;
        let companions = Arc::new(prepared.companions()?);
        let Prepared { recipe, base, plan, tokenizer, mut dataset, mut steps, text } = prepared;
        let held_out = dataset.held_out_batches();
        let (state, progress) = match start.checkpoint {
            Some(Checkpoint { state, progress, .. }) => {
                // The memory that was free at the first step decided these, not what is free now.
                let decided = progress.decided;
                if steps.adapts {
                    dataset.batch_as(decided.micro_batch_size, decided.accumulation);
                }
                if *recipe.gradient_checkpointing == Toggle::Auto {
                    steps.train.recompute = decided.recompute;
                }
                (Some(state), progress)
            }
            None => {
                let before = Measured::of(&decoder, &tokenizer, &dataset.questions, &held_out, &steps, report)?;
                (None, Progress::new(before))
            }
        };
        let trainer = Trainer::start_or_resume(decoder, steps.train.clone(), state.as_ref())?;
        let contents = Contents {
            plan: Arc::clone(&plan),
            base: Arc::clone(&base),
            companions: Arc::clone(&companions),
            plan_text: text.clone(),
            identity: start.identity,
        };
        let checkpoints = Checkpoints::new(contents, &run_dir, steps.save_limit, start.last);
        checkpoints.prune(&progress)?;
        Ok(Self {
            recipe,
            base,
            plan,
            tokenizer,
            dataset,
            held_out,
            steps,
            text,
            companions,
            run_dir,
            trainer,
            progress,
            checkpoints,
            sinks: start.sinks,
        })
    }

    /// True if the state after `done` steps is to be saved now. One after a skipped step is not, unless it is the last.
    pub(super) fn save_due(&self, done: usize, is_over: bool) -> bool {
        let save = &self.steps.save;
        let due = (save.due(done) && !self.progress.skipped) || (is_over && save.happens());
        due && !self.checkpoints.has(done)
    }

    /// Begins to save the state of the run.
    ///
    /// # Errors
    /// When the checkpoint before could not be written.
    pub(super) fn save(&mut self, report: &mut Report) -> Result<()> {
        let batching = self.dataset.batching();
        self.progress.decided = Decided {
            micro_batch_size: batching.micro_batch_size,
            accumulation: batching.accumulation,
            recompute: self.steps.train.recompute,
        };
        self.checkpoints.save(&self.trainer, &mut self.progress, report)
    }

    /// After a step that ran out of memory, cuts the steps into more and smaller micro-batches, so that it can be tried
    /// again.
    ///
    /// # Errors
    /// Returns `error` if it is another one, or if the recipe sets the size of micro-batches, or they cannot be smaller.
    pub(super) fn shrink_micro_batches(&mut self, error: TrainError, report: &mut Report) -> Result<()> {
        let is_shortage = matches!(&error, TrainError::Device(failure) if failure.shortage().is_some());
        let smaller = if is_shortage { self.steps.smaller(self.dataset.batching()) } else { None };
        let Some((rows, accumulation)) = smaller else { return Err(error.into()) };
        let text = format!("out of memory: continuing with micro-batches of {rows} rows, {accumulation} per step");
        report.event(self.trainer.position(), &text)?;
        self.dataset.batch_as(rows, accumulation);
        self.trainer.discard_gradients();
        Ok(())
    }

    /// The failure of a run that `error` stopped. If that is a signal, the state is saved first.
    pub(super) fn stopped_by(mut self, error: Error, report: &mut Report) -> Failure {
        if !error.chain().any(|cause| cause.is::<Interrupted>()) {
            return Failure::Work(error);
        }
        report.finish();
        let step = self.trainer.position();
        if step == 0 {
            return Failure::Interrupted("interrupted before the end of the first step: nothing is lost".to_owned());
        }
        let saved = if self.checkpoints.has(step) { Ok(()) } else { self.save(report) };
        match saved.and_then(|()| self.checkpoints.finish()) {
            Ok(()) => Failure::Interrupted(format!(
                "interrupted after {step} steps, which are saved: {}",
                self.how_to_resume()
            )),
            Err(error) => Failure::Work(error),
        }
    }

    fn how_to_resume(&self) -> String {
        format!("resume with `tune resume {}`", shell_word(&self.run_dir.path().display().to_string()))
    }

    /// Waits until the last checkpoint is written. If it holds the last step, a signal ends the program at once from now on.
    ///
    /// # Errors
    /// When the checkpoint could not be written, or a signal came meanwhile.
    pub(super) fn last_state_is_saved(&mut self) -> Result<()> {
        self.checkpoints.finish()?;
        if self.checkpoints.has(self.trainer.position()) {
            interruption::check()?;
            interruption::end_at_once(format!("interrupted; every step is saved: {}", self.how_to_resume()));
        }
        Ok(())
    }

    /// Restores the parameters of the best checkpoint, if the plan asks for it; returns the steps that the model was trained
    /// for.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub(super) fn restore_best(&mut self, report: &Report) -> Result<usize> {
        let last = self.trainer.position();
        let (true, Some(step)) = (self.steps.load_best, self.progress.best_saved) else { return Ok(last) };
        let loss = self.progress.best().map_or(String::new(), |(_, loss)| format!(", held-out loss {loss:.4}"));
        if step == last {
            report.say(&format!("the last state is the best one{loss}"));
            return Ok(last);
        }
        let folder = self.run_dir.checkpoint(step);
        let best = Checkpoint::read(&folder).map_err(|error| {
            hinted(
                format!("{}: the best checkpoint cannot be read", folder.display()),
                "with load_best_model_at_end: false the last state is exported",
            )
            .caused_by(error)
        })?;
        best.state.restore_parameters(self.trainer.decoder_mut())?;
        report.say(&format!("exporting the best checkpoint, which was saved after {step} steps{loss}"));
        Ok(step)
    }

    /// Goes back to the best state, if the recipe says so, and measures it: the summary, but for what is exported.
    ///
    /// # Errors
    /// When a checkpoint or a sink fails, or the device.
    pub(super) fn results(&mut self, report: &mut Report) -> Result<Summary> {
        let step = self.restore_best(report)?;
        let after = self.measure(report)?;
        report.measured(&after.at("after", step))?;
        let before = self.progress.before.clone();
        let mut summary = Summary::new(before, after, report.trained(), memory_bytes(&self.plan.device));
        summary.stopped = self.progress.stopped;
        let (held_out, training) = (summary.held_out_losses(), report.losses());
        summary.look_at.extend(advice::on_rise(&self.recipe, held_out, training, self.progress.best()));
        Ok(summary)
    }

    /// Measures the model as it is now on the held-out rows.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn measure(&self, report: &mut Report) -> Result<Measured> {
        let (decoder, questions) = (self.trainer.decoder(), &self.dataset.questions);
        Measured::of(decoder, &self.tokenizer, questions, &self.held_out, &self.steps, report)
    }
}
