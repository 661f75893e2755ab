//! A run that is ready to start: everything but the decoder, and how that is loaded.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use adapters::attach;
use anyhow::{Context, Result};
use datasets::{Dataset, Example, MicroBatch, TemplateChoice, Tokenizer, golden_prompts};

use super::data_sets;
use crate::errors::{kept, together};
use crate::export::{Companions, Ends};
use crate::hub::{BaseModel, Hub, ModelFiles};
use crate::model::Decoder;
use crate::open;
use crate::plan::{Adaptation, Plan, Steps};
use crate::recipe::Recipe;
use crate::report::Report;

/// Tokens on which an export is compared with the trained model.
const PROBE_TOKENS: usize = 64;

/// Rows that are searched for the tokens that end trained turns.
const ROWS_WITH_ENDS: usize = 100_000;

/// A run that is ready to start.
#[derive(Debug)]
pub struct Prepared {
    /// The recipe as written.
    pub recipe: Recipe,
    /// The base model's files.
    pub base: Arc<BaseModel>,
    /// Every decision that needs no data.
    pub plan: Arc<Plan>,
    /// The tokenizer with its chat template.
    pub tokenizer: Tokenizer,
    /// Examples, tokenised and masked.
    pub dataset: Dataset,
    /// Every decision that needs the number of rows.
    pub steps: Steps,
    /// The plan as printed.
    pub text: String,
}

impl Prepared {
    /// Downloads the base model's weights unless they are there.
    ///
    /// # Errors
    /// When they are not available.
    pub fn download_weights(&mut self, hub: &Hub, report: &mut Report) -> Result<()> {
        if let (Some(commit), Some(_)) = (&self.base.revision, &self.base.missing) {
            let mut listener = |progress| report.download(progress);
            self.base =
                open::locate(&self.base.name, &[], Some(commit), ModelFiles::Weights, hub, &mut listener)?.into();
        }
        Ok(())
    }

    /// Loads the base model onto the plan's device and makes trainable what the plan trains: an adapter, new or saved, or
    /// parameters of the model.
    ///
    /// # Errors
    /// When a file is damaged, or the saved adapter does not fit.
    pub fn load(&self, report: &mut Report) -> Result<Decoder> {
        let plan = &self.plan;
        plan.device.begin_pages(self.steps.memory.page_bytes());
        let device = &plan.device.device;
        let mut progress = |done, total| report.weights(done, total);
        let mut decoder = open::load(&self.base, &plan.model, Some(plan.seed), device, &plan.storage, &mut progress)?;
        match &plan.adaptation {
            Adaptation::Adapter { spec, continued: Some(continued), .. } => {
                open::attach(&mut decoder, &continued.folder, Some(spec.method.low_rank().dropout))?;
            }
            Adaptation::Adapter { spec, .. } => attach(spec, decoder.adaptable(), device)?,
            Adaptation::Full { parameters, .. } => {
                let trainable: HashSet<&str> = parameters.iter().map(String::as_str).collect();
                decoder.visit(&mut |name, parameter| {
                    if trainable.contains(name) {
                        parameter.train();
                    }
                });
            }
        }
        Ok(decoder)
    }

    /// The files that travel with exported weights: serving must use the tokenizer and the template of the training.
    ///
    /// # Errors
    /// When the template cannot render the golden prompts.
    pub(super) fn companions(&self) -> Result<Companions> {
        let (plan, tokenizer) = (&self.plan, &self.tokenizer);
        let template = match plan.template {
            TemplateChoice::TokenizerDefault => None,
            _ => tokenizer.template_source().map(str::to_owned),
        };
        let variables = &self.recipe.chat_template_kwargs;
        let golden = golden_prompts(tokenizer, &self.dataset.prompt_form, variables)?;
        let golden = serde_json::to_string_pretty(&golden).context("prompts are plain JSON")?;
        let mut special_ids = Vec::new();
        for (key, token) in plan.special_tokens.set() {
            let id_key = [("bos_token", "bos_token_id"), ("pad_token", "pad_token_id")];
            let id_key = id_key.iter().find(|(name, _)| *name == key).map(|(_, id_key)| *id_key);
            if let (Some(id_key), [id]) = (id_key, tokenizer.encode(token, false)?.as_slice()) {
                special_ids.push((id_key, *id));
            }
        }
        Ok(Companions {
            tokenizer: plan.tokenizer.clone(),
            special_tokens: plan.special_tokens.set().map(|(key, token)| (key, token.to_owned())).collect(),
            template,
            golden: Some(golden + "\n"),
            ends: Ends { tokenizer: tokenizer.eos_id(), trained: self.trained_ends() },
            special_ids,
            generation: None,
        })
    }

    /// The end-of-turn tokens that any of the first rows trains.
    fn trained_ends(&self) -> Vec<u32> {
        let all = self.tokenizer.end_of_turn_ids();
        let mut trained = HashSet::new();
        for example in self.dataset.train.iter().take(ROWS_WITH_ENDS) {
            let marked = example.tokens.iter().zip(&example.trained).filter(|(_, is_trained)| **is_trained);
            trained.extend(marked.map(|(token, _)| *token).filter(|token| all.contains(token)));
            if trained.len() == all.len() {
                break;
            }
        }
        all.iter().copied().filter(|id| trained.contains(id)).collect()
    }
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

/// Opens the base model and makes every decision that needs no data. What is wrong with either, and data that are missing,
/// are reported together.
///
/// # Errors
/// When the recipe or the model's files are not as they must be.
pub(super) fn planned(recipe: &Recipe, hub: &Hub, report: &mut Report) -> Result<(BaseModel, Plan)> {
    let roots = [recipe.path.parent().unwrap_or(Path::new("")), Path::new("")];
    let revision = recipe.revision_of_model.as_deref();
    let mut listener = |progress| report.download(progress);
    let base = open::locate(&recipe.base_model, &roots, revision, ModelFiles::Plan, hub, &mut listener)
        .with_context(|| recipe.base_model.place().to_string());
    let mut problems = Vec::new();
    let planned = kept(base.and_then(|base| Plan::resolve(recipe, &base).map(|plan| (base, plan))), &mut problems);
    problems.extend(data_sets::missing(recipe));
    planned.filter(|_| problems.is_empty()).ok_or_else(|| together(problems))
}
