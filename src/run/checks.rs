//! Checks before a run starts: settings of the recipe against its model, its data and its machine.

use anyhow::{Result, bail};
use datasets::Tokenizer;

use crate::hint::hinted;
use crate::plan::Steps;
use crate::recipe::Recipe;
use crate::text;

/// What people should know of a tokenizer with more ids than the embedding has rows, once every row of the data is known
/// to do without those beyond.
pub(super) fn beyond_embedding(tokenizer: &Tokenizer, rows: usize) -> Option<String> {
    /// Tokens that are shown.
    const SHOWN: usize = 3;
    if tokenizer.vocab_size() <= rows {
        return None;
    }
    let beyond = tokenizer.tokens_from(rows);
    let shown: Vec<String> = beyond.iter().take(SHOWN).map(|token| format!("`{token}`")).collect();
    let more = if beyond.len() > SHOWN { " ..." } else { "" };
    Some(format!(
        "the tokenizer has {} beyond the {} rows of the model's embedding ({}{more}); no row of the data has one",
        text::counted(beyond.len(), "id"),
        text::grouped(rows),
        shown.join(", ")
    ))
}

/// Refuses steps that train nothing, cannot tell their best checkpoint, or need more memory than the recipe allows.
///
/// # Errors
/// When a check fails.
pub(super) fn steps(steps: &Steps, recipe: &Recipe) -> Result<()> {
    schedule(steps, recipe)?;
    best_checkpoint(steps, recipe)?;
    allowed_memory(steps, recipe)
}

/// The best checkpoint is known only if every checkpoint was evaluated, as transformers requires.
fn best_checkpoint(steps: &Steps, recipe: &Recipe) -> Result<()> {
    match (*recipe.load_best_model_at_end, steps.save.steps(), steps.evaluate.steps()) {
        (Some(true), Some(save), Some(evaluate)) if save % evaluate != 0 => bail!(hinted(
            format!(
                "{}: `load_best_model_at_end` needs an evaluation at every checkpoint, but checkpoints are every {save} steps and evaluations every {evaluate}",
                recipe.load_best_model_at_end.place()
            ),
            "make save_steps a multiple of eval_steps"
        )),
        _ => Ok(()),
    }
}

/// Some step must have a learning rate above 0; that of the first warm-up step is 0.
fn schedule(steps: &Steps, recipe: &Recipe) -> Result<()> {
    let (schedule, total) = (&steps.train.schedule, steps.total());
    if (0..total).all(|step| schedule.learning_rate(step) == 0.0) {
        let place =
            if recipe.warmup_steps.is_some() { recipe.warmup_steps.place() } else { recipe.warmup_ratio.place() };
        bail!(hinted(
            format!(
                "{place}: with {} warm-up steps the learning rate is 0 throughout the run's {}",
                schedule.warmup_steps,
                text::counted(total, "step")
            ),
            "set warmup_steps: 0, or train for more steps"
        ));
    }
    Ok(())
}

/// The plan must not need more memory than the recipe allows.
fn allowed_memory(steps: &Steps, recipe: &Recipe) -> Result<()> {
    let memory = &steps.memory;
    match *recipe.preflight.max_memory {
        Some(allowed) if memory.total() > allowed => bail!(hinted(
            format!(
                "{}: the run needs about {}, but only {} is allowed: {}",
                recipe.preflight.max_memory.place(),
                text::bytes(memory.total()),
                text::bytes(allowed),
                memory.parts()
            ),
            "lower micro_batch_size or sequence_len, set gradient_checkpointing: true, or allow more"
        )),
        _ => Ok(()),
    }
}

/// Refuses a run that needs more memory than the device has free, unless the recipe sets a limit of its own.
///
/// # Errors
/// When too little memory is free.
pub(super) fn free_memory(steps: &Steps, recipe: &Recipe) -> Result<()> {
    let memory = &steps.memory;
    match steps.available {
        Some(available) if memory.total() > available && recipe.preflight.max_memory.is_none() => bail!(hinted(
            format!(
                "{}: the run needs about {}, but only {} is free: {}",
                recipe.micro_batch_size.place(),
                text::bytes(memory.total()),
                text::bytes(available),
                memory.parts()
            ),
            "lower micro_batch_size or sequence_len (`micro_batch_size: auto` finds what fits), set gradient_checkpointing: true, or set preflight.max_memory to try anyway"
        )),
        _ => Ok(()),
    }
}
