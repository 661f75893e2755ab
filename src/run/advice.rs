//! Errors of runs that diverged or ran out of memory, with advice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Error;
use datasets::Dataset;

use super::failure::Failure;
use crate::hint::hinted;
use crate::model::DeviceFailure;
use crate::plan::Steps;
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
