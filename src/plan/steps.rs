//! Decisions that follow from the number of rows: steps, warm-up, cadences, and the settings of training.

use std::sync::Arc;

use datasets::{BatchSettings, Dataset};

use super::estimate::{self, Estimate, available_bytes};
use super::{Adaptation, Plan};
use crate::answers::AnswerSettings;
use crate::model::inspect::parameter_counts;
use crate::recipe::{self, Cadence, MicroBatchSize, Recipe, Toggle};
use crate::report::ReportSettings;
use crate::train::{
    Cut, Objective, ObjectiveError, OptimizerSettings, Schedule, TrainSettings, WatchdogSettings, check_format,
    default_objective,
};

/// The length of a run and its schedule.
#[derive(Debug, Clone)]
pub struct Steps {
    /// Optimizer steps of one pass over the rows.
    pub per_epoch: usize,
    /// Optimizer steps that `num_epochs` comes to; `max_steps` overrides it in both directions.
    pub of_epochs: usize,
    /// Optimizer steps that Axolotl takes for `num_epochs`; an estimate with packing, whose rows depend on the program.
    pub of_axolotl: usize,
    /// Optimizer steps of which the share `warmup_ratio` is taken.
    pub warmed: usize,
    /// Steps between evaluations; none if there is nothing to evaluate on or it is turned off.
    pub evaluate: Every,
    /// Steps between checkpoints.
    pub save: Every,
    /// Checkpoints that are kept.
    pub save_limit: usize,
    /// If set, the saved state with the lowest held-out loss is exported instead of the last.
    pub load_best: bool,
    /// Consecutive evaluations without a lower held-out loss after which training ends.
    pub patience: Option<usize>,
    /// The sinks that steps are reported to, and how often.
    pub report: ReportSettings,
    /// Everything the trainer needs.
    pub train: TrainSettings,
    /// The limits that end the run early.
    pub watchdog: WatchdogSettings,
    /// Bytes that the run's device can give, if it is known.
    pub available: Option<u64>,
    /// If set, a step may be cut into more micro-batches than planned when memory is short.
    pub adapts: bool,
    /// Memory that the run will need.
    pub memory: Estimate,
    /// The held-out questions that are answered before and after training; none if the answers are too long.
    pub answers: Option<AnswerSettings>,
}

/// Something that happens every so many steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every(Option<usize>);

impl Every {
    /// True if it happens after `step` steps; never before the first.
    pub fn due(&self, step: usize) -> bool {
        step > 0 && self.0.is_some_and(|steps| step.is_multiple_of(steps))
    }

    /// True if it ever happens.
    pub fn happens(&self) -> bool {
        self.0.is_some()
    }

    /// The distance, if it happens at all.
    pub fn steps(&self) -> Option<usize> {
        self.0
    }
}

/// Reference answers of more tokens than this are not generated and compared during a run.
const LONGEST_ANSWER: usize = 128;

/// Held-out questions that are answered at most, and at least where any are.
const QUESTIONS: std::ops::RangeInclusive<usize> = 3..=100;

/// Parameters times generated tokens that answering may take on the CPU: ten times what the quickstart's 100 prompts take.
const HOST_ANSWER_WORK: u64 = 100_000_000_000;

/// As [`HOST_ANSWER_WORK`], on a GPU.
const GPU_ANSWER_WORK: u64 = 20 * HOST_ANSWER_WORK;

/// The questions that `plan`'s device can answer in a short time.
fn answers(plan: &Plan, dataset: &Dataset) -> Option<AnswerSettings> {
    let longest = dataset.questions.iter().map(|question| question.answer_tokens).max()?;
    if longest > LONGEST_ANSWER {
        return None;
    }
    let max_tokens = longest + longest / 2;
    let work = if plan.device.is_host { HOST_ANSWER_WORK } else { GPU_ANSWER_WORK };
    let affordable = work / (parameter_counts(&plan.model.spec).total * max_tokens as u64).max(1);
    let questions = (affordable as usize).clamp(*QUESTIONS.start(), *QUESTIONS.end()).min(dataset.questions.len());
    Some(AnswerSettings { questions, max_tokens })
}

impl Steps {
    /// The steps of `recipe` on `dataset`, which is batched as memory allows if the recipe leaves that open.
    ///
    /// # Errors
    /// When the objective takes rows that no data set has.
    pub fn resolve(recipe: &Recipe, plan: &Plan, dataset: &mut Dataset) -> Result<Self, ObjectiveError> {
        let per_epoch = dataset.steps_per_epoch();
        let epochs = *recipe.num_epochs;
        let of_epochs = (per_epoch as f64 * epochs).ceil() as usize;
        // As Axolotl and transformers: max_steps overrides the epochs, also where that means more of them.
        let total = recipe.max_steps.unwrap_or(of_epochs);
        // As Axolotl: a share of the warm-up counts the steps of the epochs, and of max_steps only where they are fewer.
        let warmed = total.min(of_epochs);
        let cadence = |strategy: Option<Cadence>, distance: Option<recipe::Steps>| {
            Every(match (distance, strategy) {
                (Some(recipe::Steps::Every(steps)), _) => Some(steps),
                (Some(recipe::Steps::Fraction(share)), _) => Some(share_of(total, share)),
                (None, Some(Cadence::No)) => None,
                (None, _) => Some(per_epoch),
            })
        };
        let evaluations = distance(*recipe.eval_steps, *recipe.evals_per_epoch, epochs);
        let checkpoints = distance(*recipe.save_steps, *recipe.saves_per_epoch, epochs);
        let evaluate =
            if dataset.held_out.is_empty() { Every(None) } else { cadence(*recipe.eval_strategy, evaluations) };
        let save = cadence(*recipe.save_strategy, checkpoints);
        let state_bytes = (recipe.optimizer.state_bytes)(plan.adaptation.tensors(), &plan.model.spec);
        let as_rows = recipe.neftune_noise_alpha.is_some();
        let objective = default_objective();
        check_format(objective.as_ref())?;
        let cut = Cut::new(
            as_rows,
            objective.grouping(),
            plan.adaptation.trainable(),
            parameter_counts(&plan.model.spec).total,
        );
        let free = available_bytes(plan);
        let available = free.into_iter().chain(*recipe.preflight.max_memory).min();
        let estimate = |dataset: &Dataset, recompute| {
            let saves = save.steps().is_some_and(|steps| steps < total);
            Estimate::of(plan, dataset, estimate::Run { steps: total, recompute, cut, saves, state_bytes })
        };
        let recomputes = |dataset: &Dataset| match *recipe.gradient_checkpointing {
            Toggle::True => true,
            Toggle::False => false,
            Toggle::Auto => available.is_none_or(|available| estimate(dataset, false).total() > available),
        };
        let adapts = *recipe.micro_batch_size == MicroBatchSize::Auto;
        let fits = |dataset: &Dataset| {
            let needed = || estimate(dataset, recomputes(dataset)).total();
            available.is_none_or(|available| needed() <= available)
        };
        while adapts && !fits(dataset) {
            let Some((rows, accumulation)) = smaller(dataset.batching()) else { break };
            dataset.batch_as(rows, accumulation);
        }
        let recompute = recomputes(dataset);
        Ok(Self {
            per_epoch,
            of_epochs,
            of_axolotl: of_axolotl(dataset, epochs),
            warmed,
            evaluate,
            load_best: evaluate.happens() && save.happens() && loads_best(recipe, evaluations, checkpoints),
            patience: *recipe.early_stopping_patience,
            save,
            save_limit: *recipe.save_total_limit,
            report: ReportSettings {
                log_every: *recipe.logging_steps,
                show_every: recipe.logging_steps.set().copied(),
            },
            train: train_settings(recipe, objective, plan.seed, total, warmed, recompute),
            memory: estimate(dataset, recompute),
            answers: answers(plan, dataset),
            watchdog: WatchdogSettings {
                threshold: *recipe.loss_watchdog_threshold,
                patience: *recipe.loss_watchdog_patience,
            },
            available: free,
            adapts,
        })
    }

    /// Rows of a micro-batch and micro-batches of a step to use when `batching` needs too much memory: at most half the
    /// rows of a micro-batch, and the same rows a step. None if that is impossible or the recipe fixes them.
    pub fn smaller(&self, batching: &BatchSettings) -> Option<(usize, usize)> {
        if self.adapts { smaller(batching) } else { None }
    }

    /// Optimizer steps of the whole run.
    pub fn total(&self) -> usize {
        self.train.schedule.total_steps
    }
}

/// The largest micro-batch of at most half the size that keeps the rows per step unchanged, and the micro-batches of a
/// step.
fn smaller(batching: &BatchSettings) -> Option<(usize, usize)> {
    let rows = batching.micro_batch_size * batching.accumulation;
    let divisor = (1..=batching.micro_batch_size / 2).rev().find(|size| rows.is_multiple_of(*size))?;
    Some((divisor, rows / divisor))
}

/// The distance in steps that a recipe asks for, if it does. As in Axolotl, so many times an epoch is a share of all steps,
/// and where that is all of them it is no distance: `*_strategy` holds, or else once per epoch.
fn distance(steps: Option<recipe::Steps>, per_epoch: Option<usize>, epochs: f64) -> Option<recipe::Steps> {
    let share = per_epoch.map(|times| 1.0 / (times as f64 * epochs)).filter(|share| *share < 1.0);
    steps.or(share.map(recipe::Steps::Fraction))
}

/// True if the best state is exported: if the recipe says so, or by Axolotl's default, which is yes if both cadences are
/// in steps and every saved state is an evaluated one.
fn loads_best(recipe: &Recipe, evaluations: Option<recipe::Steps>, checkpoints: Option<recipe::Steps>) -> bool {
    if *recipe.load_best_model_at_end == Some(true) {
        return true;
    }
    let number = |steps: recipe::Steps| match steps {
        recipe::Steps::Every(steps) => steps as f64,
        recipe::Steps::Fraction(share) => share,
    };
    let wanted = recipe.load_best_model_at_end.is_none() || recipe.early_stopping_patience.is_some();
    let (checkpoints, evaluations) = (checkpoints.map(number), evaluations.map(number));
    wanted && matches!((checkpoints, evaluations), (Some(saves), Some(evaluations)) if saves % evaluations == 0.0)
}

/// The steps that Axolotl 0.19 takes on the rows of `dataset`: it counts them over the whole run, and with packing, where
/// incomplete batches are dropped, per epoch.
fn of_axolotl(dataset: &Dataset, epochs: f64) -> usize {
    let batching = dataset.batching();
    if batching.packing {
        let batches = dataset.counts.packed_rows / batching.micro_batch_size;
        return ((batches / batching.accumulation).max(1) as f64 * epochs) as usize;
    }
    (dataset.counts.train_rows as f64 * epochs / batching.rows_per_step() as f64).ceil() as usize
}

fn share_of(total: usize, share: f64) -> usize {
    ((total as f64 * share).ceil() as usize).max(1)
}

fn train_settings(
    recipe: &Recipe,
    objective: Arc<dyn Objective>,
    seed: u64,
    total_steps: usize,
    warmed: usize,
    recompute: bool,
) -> TrainSettings {
    let kind = *recipe.lr_scheduler;
    let warmup_steps =
        if kind.no_warmup.is_some() { 0 } else { warmup(*recipe.warmup_steps, *recipe.warmup_ratio, warmed) };
    let floor = *recipe.cosine_min_lr_ratio;
    TrainSettings {
        objective,
        schedule: Schedule { kind, peak: *recipe.learning_rate, warmup_steps, total_steps, floor },
        optimizer: OptimizerSettings {
            kind: *recipe.optimizer,
            beta1: *recipe.adam_beta1,
            beta2: *recipe.adam_beta2,
            epsilon: *recipe.adam_epsilon,
            weight_decay: *recipe.weight_decay,
        },
        max_gradient_norm: Some(*recipe.max_grad_norm).filter(|norm| *norm > 0.0),
        recompute,
        embedding_noise: *recipe.neftune_noise_alpha,
        seed,
    }
}

/// The steps of a warm-up, as Axolotl 0.19 has it: a share of `total` is rounded down, and a warm-up of one step, which
/// would be a step with learning rate 0, becomes two.
fn warmup(steps: Option<usize>, ratio: Option<f64>, total: usize) -> usize {
    let share = |ratio: f64| (ratio * total as f64) as usize;
    match steps.unwrap_or_else(|| ratio.map_or_else(|| share(0.03).min(100), share)) {
        1 => 2,
        steps => steps,
    }
}

impl Plan {
    /// The number of projections or parameters that are trained.
    pub fn targets(&self) -> usize {
        match &self.adaptation {
            Adaptation::Adapter { targets, stacks, .. } => targets.len() + stacks.len(),
            Adaptation::Full { parameters, .. } => parameters.len(),
        }
    }
}
