//! From a recipe to everything that a run needs but the weights; `tune check` and `tune preview` end here.

use std::path::Path;

use adapters::attach;
use anyhow::{Context, Result};
use datasets::{Dataset, Example, MicroBatch, TemplateChoice, Tokenizer, golden_prompts};

use super::fetch;
use crate::export::Companions;
use crate::hub::{BaseModel, Hub, Parts};
use crate::model::Decoder;
use crate::open;
use crate::plan::{Adaptation, Plan, Steps, plan_text};
use crate::recipe::Recipe;
use crate::report::{Report, printable};
use crate::run_dir::RunDir;
use crate::text;

/// Tokens on which an export is compared with the trained model.
const PROBE_TOKENS: usize = 64;

/// A run that is ready to begin.
#[derive(Debug)]
pub struct Prepared {
    /// The recipe as written.
    pub recipe: Recipe,
    /// The base model's files.
    pub base: BaseModel,
    /// Every decision that needs no data.
    pub plan: Plan,
    /// The tokenizer with its chat template.
    pub tokenizer: Tokenizer,
    /// Examples, tokenised and masked.
    pub dataset: Dataset,
    /// Every decision that needs the number of rows.
    pub steps: Steps,
    /// The plan as printed.
    pub text: String,
}

/// Decides everything and reads the data, from the hub where the recipe says so; no weight is touched.
///
/// # Errors
/// When the recipe, the model's files, the data or the run folder are not as they must be.
pub fn prepare(recipe: Recipe, hub: &Hub, report: &mut Report) -> Result<Prepared> {
    let root = recipe.path.parent().unwrap_or(Path::new("")).to_owned();
    let (roots, revision) = ([&root, Path::new("")], recipe.revision_of_model.as_deref());
    let mut listener = |progress| report.download(progress);
    let base = open::locate(&recipe.base_model, &roots, revision, Parts::Plan, hub, &mut listener)
        .with_context(|| recipe.at("base_model"))?;
    let mut plan = Plan::resolve(&recipe, &base)?;
    RunDir::check(&plan.run_dir).with_context(|| recipe.at("output_dir"))?;
    let eos = base.eos_token_ids()?;
    let tokenizer = Tokenizer::open(&plan.tokenizer, &plan.template, &plan.special_tokens, &plan.eot_tokens, &eos)
        .map_err(|error| error.locate(|key| recipe.at(key)))?;
    check_vocabulary(&tokenizer, &plan, &recipe)?;
    fetch::data_sets(&recipe, &mut plan.dataset, hub, report)?;
    let mut dataset = Dataset::load(&plan.dataset, &tokenizer, &mut |progress| report.loading(&progress))
        .map_err(|error| error.locate(|key| recipe.at(key)))?;
    report.finish();
    let steps = Steps::resolve(&recipe, &plan, &mut dataset);
    plan.dataset.batching = dataset.batching().clone();
    check_schedule(&steps, &recipe)?;
    check_best(&steps, &recipe)?;
    check_memory(&steps, &recipe)?;
    let text = printable(&plan_text(&recipe, &base, &plan, &steps, &dataset.counts)).into_owned();
    Ok(Prepared { recipe, base, plan, tokenizer, dataset, steps, text })
}

/// Every id that the tokenizer can give must have a row in the embedding.
fn check_vocabulary(tokenizer: &Tokenizer, plan: &Plan, recipe: &Recipe) -> Result<()> {
    let rows = plan.model.spec.vocab;
    if tokenizer.vocab_size() > rows {
        anyhow::bail!(
            "{}: the tokenizer in {} has ids up to {}, the model's embedding has {rows} rows\nhint: use the tokenizer that came with the base model; adding tokens to a model is not supported",
            recipe.at(if recipe.tokenizer_config.is_some() { "tokenizer_config" } else { "base_model" }),
            plan.tokenizer.display(),
            tokenizer.vocab_size() - 1,
        );
    }
    Ok(())
}

/// The plan must not need more memory than the recipe allows.
fn check_memory(steps: &Steps, recipe: &Recipe) -> Result<()> {
    let memory = &steps.memory;
    match recipe.max_memory {
        Some(allowed) if memory.total() > allowed => anyhow::bail!(
            "{}: the run would need about {} where {} are allowed: {}\nhint: lower micro_batch_size or sequence_len, set gradient_checkpointing: true, or allow more",
            recipe.at("preflight.max_memory"),
            text::bytes(memory.total()),
            text::bytes(allowed),
            memory.parts(),
        ),
        _ => Ok(()),
    }
}

/// A run is not begun that would end for want of memory, unless the recipe itself says how much it may take.
pub(super) fn check_room(prepared: &Prepared) -> Result<()> {
    let Prepared { steps, recipe, .. } = prepared;
    let memory = &steps.memory;
    match steps.available {
        Some(available) if memory.total() > available && recipe.max_memory.is_none() => anyhow::bail!(
            "{}: the run would need about {} where {} are free: {}\nhint: lower micro_batch_size or sequence_len (`micro_batch_size: auto` finds what fits), set gradient_checkpointing: true, or set preflight.max_memory to try it all the same",
            recipe.at("micro_batch_size"),
            text::bytes(memory.total()),
            text::bytes(available),
            memory.parts(),
        ),
        _ => Ok(()),
    }
}

/// A state can be the best saved one only if it was evaluated, as transformers asks for.
fn check_best(steps: &Steps, recipe: &Recipe) -> Result<()> {
    match (recipe.load_best_model_at_end, steps.save.steps(), steps.evaluate.steps()) {
        (Some(true), Some(save), Some(evaluate)) if save % evaluate != 0 => anyhow::bail!(
            "{}: `load_best_model_at_end` needs an evaluation at every checkpoint, and there is a checkpoint every {save} steps and an evaluation every {evaluate}\nhint: make save_steps a multiple of eval_steps",
            recipe.at("load_best_model_at_end"),
        ),
        _ => Ok(()),
    }
}

/// A run must have a step whose learning rate is not 0, which that of the first step of a warm-up is.
fn check_schedule(steps: &Steps, recipe: &Recipe) -> Result<()> {
    let (schedule, total) = (&steps.train.schedule, steps.total());
    if (0..total).all(|step| schedule.learning_rate(step) == 0.0) {
        let key = if recipe.warmup_steps.is_some() { "warmup_steps" } else { "warmup_ratio" };
        anyhow::bail!(
            "{}: with {} steps of warm-up the learning rate is 0 at each of the run's {total} steps\nhint: set warmup_steps: 0, or train for more steps",
            recipe.at(key),
            schedule.warmup_steps,
        );
    }
    Ok(())
}

/// The base model's weights on the plan's device, with what learns marked.
///
/// # Errors
/// When a file is damaged, or an adapter to continue from does not fit.
pub fn decoder(plan: &Plan, base: &BaseModel, report: &mut Report) -> Result<Decoder> {
    let device = &plan.device.device;
    let mut progress = |done, total| report.weights(done, total);
    let mut decoder = open::load(base, &plan.model, Some(plan.seed), device, &plan.storage, &mut progress)?;
    match &plan.adaptation {
        Adaptation::Adapter { spec, continued: Some(folder), .. } => {
            open::attach(&mut decoder, folder, Some(spec.method))?;
        }
        Adaptation::Adapter { spec, .. } => attach(spec, decoder.adaptable(), device)?,
        Adaptation::Full { parameters, .. } => {
            let chosen: std::collections::HashSet<&str> = parameters.iter().map(String::as_str).collect();
            decoder.visit(&mut |name, parameter| {
                if chosen.contains(name) {
                    parameter.train();
                }
            });
        }
    }
    Ok(decoder)
}

/// A few tokens of the data, to compare an export on.
pub(super) fn probe_rows(dataset: &Dataset) -> MicroBatch {
    let cut = |example: &Example| {
        let mut example = example.clone();
        example.tokens.truncate(PROBE_TOKENS);
        example.trained.truncate(PROBE_TOKENS);
        example
    };
    let example = dataset.held_out.first().or(dataset.train.first()).as_ref().map(cut);
    let rows: Vec<Vec<&Example>> = example.iter().map(|example| vec![example]).collect();
    MicroBatch::from_examples(&rows, 0)
}

/// What travels with the exported weights: serving must use the tokenizer and the template that were trained with.
pub(super) fn companions(plan: &Plan, tokenizer: &Tokenizer) -> Result<Companions> {
    let template = match plan.template {
        TemplateChoice::TokenizerDefault => None,
        _ => tokenizer.template_source().map(str::to_owned),
    };
    let golden = serde_json::to_string_pretty(&golden_prompts(tokenizer)?).context("prompts are plain JSON")?;
    Ok(Companions {
        tokenizer: plan.tokenizer.clone(),
        special_tokens: plan.special_tokens.set().map(|(key, token)| (key, token.to_owned())).collect(),
        template,
        golden: Some(golden + "\n"),
    })
}
