//! The duration of a run, from one of its micro-batches: `tune check --measure`.

#[cfg(feature = "cube")]
use std::time::Duration;
use std::time::Instant;

use anyhow::anyhow;
#[cfg(feature = "cube")]
use datasets::Batch;
use datasets::MicroBatch;
#[cfg(feature = "cube")]
use kernels::profile::{Profile, Profiled};

use crate::hub::Hub;
use crate::report::Report;
use crate::run::{Failure, Prepared};
use crate::text::{counted, duration, line};
use crate::train::{TrainError, Trainer};

/// Loads the model and runs the run's first micro-batch forward and backward, twice: the first time, which sets up memory
/// and on a GPU kernels, does not count. On a GPU a whole step of that micro-batch follows, twice, and the second one is
/// reported kernel by kernel. Nothing of the run is written; weights of the hub that are missing are downloaded. Returns
/// lines for the plan.
///
/// # Errors
/// When the model cannot be loaded, the first step trains no token, or the device fails.
pub(super) fn calibrate(mut prepared: Prepared, hub: &Hub, report: &mut Report) -> Result<String, Failure> {
    prepared.download_weights(hub, report).map_err(Failure::of_preparation)?;
    let decoder = prepared.load(report).map_err(Failure::Input)?;
    let Prepared { dataset, steps, plan, .. } = prepared;
    let mut trainer = Trainer::start(decoder, steps.train.clone());
    let batch = dataset.batch_at(0);
    let Some(micro_batch) = batch.micro_batches.iter().find(|micro_batch| micro_batch.trained_tokens() > 0) else {
        return Err(Failure::Input(anyhow!("the first step has no trained tokens: there is nothing to measure")));
    };
    let mut seconds = 0.0;
    for _ in 0..2 {
        let started = Instant::now();
        trainer.discard_gradients();
        let loss = trainer.forward_backward(micro_batch, 0, 1.0 / batch.trained_tokens as f64);
        let loss = loss.map_err(|error| Failure::Work(error.into()))?;
        // Reading the loss waits for the device.
        let read = loss.map(|loss| loss.sum.try_into_data()).transpose();
        read.map_err(|error| Failure::Work(anyhow!("the device failed: {error:?}")))?;
        seconds = started.elapsed().as_secs_f64();
    }
    let tokens = micro_batch.real_tokens.max(1) as f64;
    let tokens_of_a_step = dataset.counts.tokens as f64 / dataset.steps_per_epoch() as f64;
    let step = seconds / tokens * tokens_of_a_step;
    let profile = if plan.device.is_host {
        String::new()
    } else {
        profile(&mut trainer, micro_batch).map_err(|error| Failure::Work(error.into()))?
    };
    let mut text = String::new();
    line(
        &mut text,
        "time",
        &format!(
            "about {} per step, {} for {} (a micro-batch of {tokens} tokens took {}; the optimizer, evaluation and checkpoints are extra)",
            duration(step),
            duration(step * steps.total() as f64),
            counted(steps.total(), "step"),
            duration(seconds),
        ),
    );
    Ok(text + &profile)
}

/// The time of a step on `micro_batch` by parts and kernels, in lines for the plan.
#[cfg(feature = "cube")]
fn profile(trainer: &mut Trainer, micro_batch: &MicroBatch) -> Result<String, TrainError> {
    let batch = Batch {
        micro_batches: vec![micro_batch.clone()],
        trained_tokens: micro_batch.trained_tokens(),
        tokens: micro_batch.real_tokens,
        epoch: 0.0,
    };
    // The optimizer's kernels are compiled in the first one.
    trainer.discard_gradients();
    trainer.step(&batch)?;
    let started = Instant::now();
    let profile = Profile::start(started);
    trainer.step(&batch)?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(profile_text(&profile.finish(), seconds))
}

#[cfg(not(feature = "cube"))]
fn profile(_: &mut Trainer, _: &MicroBatch) -> Result<String, TrainError> {
    Ok(String::new())
}

/// Parts of a step of `seconds`, and the kernels that took longest.
#[cfg(feature = "cube")]
fn profile_text(profiled: &Profiled, seconds: f64) -> String {
    /// Kernels that are named.
    const SHOWN: usize = 12;
    let share = |time: Duration| 100.0 * time.as_secs_f64() / seconds.max(1e-9);
    let milliseconds = |time: Duration| 1e3 * time.as_secs_f64();
    let launches: usize = profiled.kernels.iter().map(|kernel| kernel.launches).sum();
    let mut text = String::new();
    line(&mut text, "step", &format!("{} with every kernel timed, {launches} launches", duration(seconds)));
    let mut row = |name: &str, time: Duration, launches: usize, of: &str| {
        let value = format!("{:>9.2} ms {:>5.1} % {launches:>6} {of}", milliseconds(time), share(time));
        line(&mut text, name, &value);
    };
    for (part, time, launches) in profiled.parts() {
        row(part.name(), time, launches, "launches");
    }
    if let Some(idle) = profiled.idle {
        row("idle gaps", idle, launches, "gaps at most");
    }
    for kernel in profiled.kernels.iter().take(SHOWN) {
        row("kernel", kernel.time, kernel.launches, &format!("x {} ({})", kernel.name, kernel.part.name()));
    }
    text
}
