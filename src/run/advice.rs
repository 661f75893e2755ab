//! Errors of runs that diverged or ran out of memory, with advice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Error;
use datasets::Dataset;

use super::failure::Failure;
use crate::hint::hinted;
use crate::model::DeviceFailure;
use crate::plan::Steps;
use crate::recipe::Recipe;
use crate::run_dir::RunDir;
use crate::text;
use crate::train::{StepReport, TrainError};

/// Rows of a batch that are named.
const NAMED: usize = 12;

/// The error of a run whose last steps, up to `last`, were skipped as often as its patience allows.
pub(super) fn not_finite(last: &StepReport, steps: &Steps, dataset: &Dataset, run_dir: &RunDir) -> Error {
    let places = dataset.locations_at(last.step - 1);
    let (whose, rows) = match last.suspect.and_then(|index| places.get(index)) {
        Some(rows) if places.len() > 1 => ("the micro-batch with that loss", rows.clone()),
        _ => ("the step", places.concat()),
    };
    let more = match rows.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = rows.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let checkpoint = match run_dir.newest_checkpoint() {
        Some(checkpoint) => format!("the last checkpoint is {}", checkpoint.display()),
        None => "there is no checkpoint".to_owned(),
    };
    hinted(
        format!(
            "step {}: the loss is {} and the gradient norm {}; {} consecutive steps were skipped because they were not finite (loss_watchdog_patience)\nrows of {whose}: {named}{more}\n{checkpoint}",
            last.step, last.loss, last.gradient_norm, steps.watchdog.patience
        ),
        "lower learning_rate, add warmup_steps, or look at the rows with `tune preview --line`",
    )
    .into()
}

/// The line of a summary about a loss that rose, with what decides it. Without held-out rows the training losses at the
/// begin and the end tell, unless they are close.
pub(super) fn on_rise(
    recipe: &Recipe,
    held_out: Option<(f64, f64)>,
    training: Option<(f64, f64)>,
    best: Option<(usize, f64)>,
) -> Option<String> {
    const MUCH: f64 = 1.25;
    let rises = |(before, after): &(f64, f64), factor: f64| after.is_nan() || *after > factor * before;
    let (what, (before, after), best) = match (held_out, training) {
        (Some(losses), _) if rises(&losses, 1.0) => ("held-out", losses, best),
        (None, Some(losses)) if rises(&losses, MUCH) => ("training", losses, None),
        _ => return None,
    };
    let alpha = if recipe.adapter.is_some() { format!(" or lora_alpha {}", *recipe.lora_alpha) } else { String::new() };
    let lowest = match best {
        Some((step, loss)) if loss < before => format!(
            "; it was lowest, {loss:.4}, after {}: load_best_model_at_end: true exports that state if it is saved",
            text::counted(step, "step")
        ),
        _ => String::new(),
    };
    Some(format!(
        "the {what} loss rose from {before:.4} to {after:.4}: lower learning_rate {}{alpha}, or train for fewer steps{lowest}",
        *recipe.learning_rate
    ))
}

/// Runs `train`. A device that runs out of memory, whose library may panic then, is reported with the plan's estimate.
pub(super) fn on_shortage(steps: &Steps, train: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let ended = catch_unwind(AssertUnwindSafe(train))
        .unwrap_or_else(|panic| Err(Failure::Work(DeviceFailure::of_panic(panic).into())));
    let Err(Failure::Work(error)) = ended else { return ended };
    let shortage = error.chain().find_map(shortage).map(|shortage| out_of_memory(shortage, steps));
    Err(Failure::Work(shortage.unwrap_or(error)))
}

/// The device's message, if `cause` is a shortage of its memory.
fn shortage<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a str> {
    let failure = match cause.downcast_ref() {
        Some(TrainError::Device(failure)) => failure,
        _ => cause.downcast_ref::<DeviceFailure>()?,
    };
    failure.shortage()
}

fn out_of_memory(shortage: &str, steps: &Steps) -> Error {
    let memory = &steps.memory;
    let mut advice = Vec::new();
    if !steps.adapts {
        advice.push("write `micro_batch_size: auto` with `batch_size`");
    }
    advice.push("lower sequence_len");
    if !steps.train.recompute {
        advice.push("set gradient_checkpointing: true");
    }
    hinted(
        format!(
            "the device ran out of memory: {shortage}\nthe plan estimated a peak of {}: {}",
            text::bytes(memory.total()),
            memory.parts()
        ),
        format!("{}, or close other programs that use the device's memory", advice.join(", ")),
    )
    .into()
}
