//! What a person is told of a run that could not learn, or had no room to.

use anyhow::{Error, anyhow};
use datasets::Dataset;

use super::Failure;
use crate::model::DeviceFailure;
use crate::plan::Steps;
use crate::report::Report;
use crate::run_dir::RunDir;
use crate::text;
use crate::train::{StepReport, TrainError};

/// Rows that are named of a batch.
const NAMED: usize = 12;

/// The error of a run whose steps, `last` being the latest of them, were skipped as often as it has patience.
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
    let kept = match run_dir.newest_checkpoint() {
        Some(checkpoint) => format!("{} holds what was learnt before", checkpoint.display()),
        None => "there is no checkpoint".to_owned(),
    };
    anyhow!(
        "step {}: the loss is {} and the gradient norm {}; {} steps in a row were skipped for such figures (loss_watchdog_patience)\nrows of {whose}: {named}{more}\n{kept}\nhint: lower learning_rate, add warmup_steps, or look at the rows with `tune preview --line`",
        last.step,
        last.loss,
        last.gradient_norm,
        steps.watchdog.patience,
    )
}

/// Cuts a step that failed for want of memory into more and smaller micro-batches, if the recipe leaves their size open
/// and they can be smaller.
pub(super) fn step_down(error: &TrainError, steps: &Steps, dataset: &mut Dataset, report: &Report) -> bool {
    let of_memory = matches!(error, TrainError::Device(failure) if failure.shortage().is_some());
    let (true, Some((rows, accumulation))) = (of_memory, steps.smaller(dataset.batching())) else { return false };
    report.say(&format!("out of memory: going on with micro-batches of {rows} rows, {accumulation} a step"));
    dataset.batch_as(rows, accumulation);
    true
}

/// A failure with the plan's count of memory, if it was for want of memory.
pub(super) fn with_memory(failure: Failure, steps: &Steps) -> Failure {
    let Failure::Work(error) = failure else { return failure };
    let shortage = |cause: &'_ (dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(TrainError::Device(failure)) => failure.shortage().map(str::to_owned),
        _ => cause.downcast_ref::<DeviceFailure>().and_then(DeviceFailure::shortage).map(str::to_owned),
    };
    Failure::Work(match error.chain().find_map(shortage).as_deref() {
        Some(shortage) => out_of_memory(shortage, steps),
        None => error,
    })
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
    anyhow!(
        "the device ran out of memory: {shortage}\nthe plan counted about {} at the peak: {}\nhint: {}, or free memory that other programs hold",
        text::bytes(memory.total()),
        memory.parts(),
        advice.join(", "),
    )
}
