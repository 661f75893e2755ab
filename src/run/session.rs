//! The two ends of a run: what it begins with, and what is measured, exported and told when training is over.

use std::sync::Arc;

use anyhow::{Context, Result};
use datasets::{Dataset, MicroBatch, Tokenizer};

use super::checkpoints::{Checkpoints, Contents, Saved};
use super::exports::Exports;
use super::progress::{Decided, Progress};
use super::{Failure, Measured, Outcome, Prepared, Resume, prepare, resume};
use crate::export::{Companions, Probe};
use crate::hub::BaseModel;
use crate::interruption;
use crate::model::Decoder;
use crate::plan::{Plan, Steps};
use crate::recipe::{Recipe, Toggle};
use crate::report::{Card, Report, ResumePoint, card, memory_bytes};
use crate::run_dir::{RunDir, SUMMARY};
use crate::train::Trainer;

/// A run that has begun.
pub(super) struct Run {
    pub(super) recipe: Recipe,
    pub(super) base: Arc<BaseModel>,
    pub(super) plan: Arc<Plan>,
    pub(super) tokenizer: Tokenizer,
    pub(super) dataset: Dataset,
    pub(super) held_out: Vec<MicroBatch>,
    pub(super) steps: Arc<Steps>,
    pub(super) text: String,
    pub(super) companions: Arc<Companions>,
    pub(super) run_dir: RunDir,
    pub(super) trainer: Trainer,
    pub(super) progress: Progress,
    pub(super) checkpoints: Checkpoints,
    /// The point to which the run's sinks go back, if it resumes.
    pub(super) sinks: Option<ResumePoint>,
}

impl Run {
    /// Opens the run's folder and begins where `resume` and the recipe say.
    pub(super) fn begin(
        prepared: Prepared,
        decoder: Decoder,
        resume: &Resume,
        report: &mut Report,
    ) -> Result<Self, Failure> {
        let Prepared { recipe, base, plan, tokenizer, mut dataset, mut steps, text } = prepared;
        let (base, plan) = (Arc::new(base), Arc::new(plan));
        let run_dir = RunDir::open(&plan.run_dir).map_err(|error| Failure::Input(error.into()))?;
        let (traced_recipe, traced_base, data) = (recipe.clone(), Arc::clone(&base), dataset.fingerprint());
        let trace = move || super::same_run::Origin::of(&traced_recipe, data, &traced_base);
        let start = resume::find(&recipe, resume, &run_dir, trace, report).map_err(Failure::Input)?;
        let begin = move || -> Result<Self> {
            run_dir.write("plan.txt", text.as_bytes())?;
            let companions = Arc::new(prepare::companions(&plan, &tokenizer)?);
            let held_out = dataset.held_out_batches();
            let (state, progress) = match start.saved {
                Some(Saved { state, progress, .. }) => {
                    // What was decided by the memory that was free then, and not by what is free now.
                    let decided = progress.decided;
                    if steps.adapts {
                        dataset.batch_as(decided.micro_batch_size, decided.accumulation);
                    }
                    if recipe.gradient_checkpointing == Some(Toggle::Auto) {
                        steps.train.recompute = decided.recompute;
                    }
                    (Some(state), progress)
                }
                None => {
                    let asked = steps.answers;
                    let before = Measured::of(&decoder, &tokenizer, &dataset.questions, &held_out, asked, report)?;
                    (None, Progress::new(before))
                }
            };
            let trainer = Trainer::start_or_resume(decoder, steps.train.clone(), state.as_ref())?;
            let contents = Contents {
                plan: Arc::clone(&plan),
                base: Arc::clone(&base),
                companions: Arc::clone(&companions),
                plan_text: text.clone(),
                origin: start.origin,
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
                steps: Arc::new(steps),
                text,
                companions,
                run_dir,
                trainer,
                progress,
                checkpoints,
                sinks: start.sinks,
            })
        };
        begin().map_err(Failure::Work)
    }

    /// Begins to save everything that has been learnt so far.
    pub(super) fn save(&mut self, report: &mut Report) -> Result<()> {
        let batching = self.dataset.batching();
        self.progress.decided = Decided {
            micro_batch_size: batching.micro_batch_size,
            accumulation: batching.accumulation,
            recompute: self.steps.train.recompute,
        };
        self.checkpoints.save(&self.trainer, &mut self.progress, report)
    }

    /// Saves what was learnt when a signal came, and says how to go on.
    pub(super) fn interrupted(mut self, report: &mut Report) -> Failure {
        report.finish();
        if self.trainer.position() == 0 {
            return Failure::Interrupted("interrupted before the first step was done: nothing is lost".to_owned());
        }
        let saved = match self.checkpoints.has(self.trainer.position()) {
            true => Ok(()),
            false => self.save(report),
        };
        match saved.and_then(|()| self.checkpoints.finish()) {
            Ok(()) => Failure::Interrupted(format!(
                "interrupted after {} steps, which are saved: {}",
                self.trainer.position(),
                self.how_to_go_on()
            )),
            Err(error) => Failure::Work(error),
        }
    }

    fn how_to_go_on(&self) -> String {
        format!("`tune resume {}` goes on", self.run_dir.path().display())
    }

    /// Waits until the last checkpoint is written; once everything learnt is in one, a signal has nothing to wait for.
    pub(super) fn last_state_is_saved(&mut self) -> Result<()> {
        self.checkpoints.finish()?;
        if self.checkpoints.has(self.trainer.position()) {
            interruption::check()?;
            interruption::end_at_once(format!("interrupted; everything learnt is saved: {}", self.how_to_go_on()));
        }
        Ok(())
    }

    /// Puts the parameters of the best saved state in place of the last ones, where the plan says so.
    pub(super) fn take_best(&mut self, report: &Report) -> Result<()> {
        let (true, Some(step)) = (self.steps.load_best, self.progress.best_saved) else { return Ok(()) };
        let loss = self.progress.best().map_or(String::new(), |(_, loss)| format!(", held-out loss {loss:.4}"));
        if step == self.trainer.position() {
            report.say(&format!("the last state is the best one{loss}"));
            return Ok(());
        }
        let folder = self.run_dir.checkpoint(step);
        let best = Saved::open(&folder).with_context(|| {
            format!(
                "{}: the best state cannot be read\nhint: with load_best_model_at_end: false the last state is exported",
                folder.display()
            )
        })?;
        best.state.restore_parameters(self.trainer.decoder_mut())?;
        report.say(&format!("the best saved state is that after {step} steps{loss}: it is exported"));
        Ok(())
    }

    /// The model as it is now on the held-out rows.
    pub(super) fn measure(&self, report: &mut Report) -> Result<Measured> {
        let (decoder, questions) = (self.trainer.decoder(), &self.dataset.questions);
        Measured::of(decoder, &self.tokenizer, questions, &self.held_out, self.steps.answers, report)
    }

    /// Exports the trained model, checks what was written, and tells what came out.
    pub(super) fn conclude(self, after: Measured, report: &mut Report) -> Result<()> {
        let Self { recipe, base, plan, dataset, text, companions, run_dir, trainer, progress, .. } = self;
        let decoder = trainer.into_decoder();
        let mut outcome = Outcome::new(progress.before, after, report.trained(), memory_bytes(&plan.device));
        outcome.stopped = progress.stopped;
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
        run_dir.write("README.md", describe(plan.export.adapter).as_bytes())?;
        // Last: a run with a summary is done.
        run_dir.write(SUMMARY, (summary + "\n").as_bytes())?;
        report.say(&outcome.text(&dataset.questions, &plan, &run_dir));
        Ok(())
    }
}
