//! How long a run will take, from one of its micro-batches; `tune check --measure` ends here.

use std::time::Instant;

use anyhow::anyhow;

use super::{Failure, Prepared, fetch, load_decoder};
use crate::hub::Hub;
use crate::report::Report;
use crate::train::Trainer;

/// Loads the model and runs the run's first micro-batch forward and backward, twice: what the first time sets up (memory,
/// on a GPU its kernels) does not count. Nothing learns, and nothing of the run is written; weights of the hub that are
/// not there yet are downloaded. Returns a line for the plan.
///
/// # Errors
/// As a run's, as far as it goes.
pub fn calibrate(mut prepared: Prepared, hub: &Hub, report: &mut Report) -> Result<String, Failure> {
    fetch::weights(&mut prepared.base, &prepared.plan, hub, report).map_err(Failure::of_preparation)?;
    let decoder = load_decoder(&prepared.plan, &prepared.base, report).map_err(Failure::Input)?;
    let Prepared { dataset, steps, .. } = prepared;
    let mut trainer = Trainer::start(decoder, steps.train.clone());
    let batch = dataset.batch_at(0);
    let Some(micro_batch) = batch.micro_batches.iter().find(|micro_batch| micro_batch.trained_tokens() > 0) else {
        return Err(Failure::Input(anyhow!("nothing is trained in the first step: there is nothing to measure")));
    };
    let mut seconds = 0.0;
    for _ in 0..2 {
        let started = Instant::now();
        trainer.discard_gradients();
        let loss = trainer.forward_backward(micro_batch, 0, 1.0 / batch.trained_tokens as f64);
        // Reading the loss waits for the device.
        let read = loss.map(|loss| loss.try_into_data()).transpose();
        read.map_err(|error| Failure::Work(anyhow!("the device failed: {error:?}")))?;
        seconds = started.elapsed().as_secs_f64();
    }
    let tokens = micro_batch.real_tokens.max(1) as f64;
    let tokens_of_a_step = dataset.counts.tokens as f64 / dataset.steps_per_epoch() as f64;
    let step = seconds / tokens * tokens_of_a_step;
    Ok(format!(
        "time           about {} a step, {} for {} steps (a micro-batch of {tokens} tokens took {}; the optimizer, evaluation and saving come on top)\n",
        duration(step),
        duration(step * steps.total() as f64),
        steps.total(),
        duration(seconds),
    ))
}

/// Seconds as people read them.
fn duration(seconds: f64) -> String {
    match seconds {
        ..60.0 => format!("{seconds:.2} s"),
        ..3600.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
