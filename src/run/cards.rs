//! The model cards of a run: one for its folder, and one for each export.

use datasets::Dataset;
use serde_json::Value;

use crate::export::Format;
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::report::{Card, card};

/// The parts of a run that its cards describe.
#[derive(Debug, Clone, Copy)]
pub(super) struct CardParts<'a> {
    pub(super) recipe: &'a Recipe,
    /// The base model as other people can name it.
    pub(super) base_model: &'a str,
    pub(super) plan: &'a Plan,
    /// The plan as printed.
    pub(super) text: &'a str,
    pub(super) dataset: &'a Dataset,
}

impl CardParts<'_> {
    /// The card of a folder of `format`; `figures` are those of the summary.
    pub(super) fn card(&self, figures: &Value, format: &Format) -> String {
        let files: Vec<String> = self.dataset.counts.sources.iter().map(|source| source.path.clone()).collect();
        let (data, held_out) = files.split_at(self.plan.dataset.sources.len().min(files.len()));
        card(&Card {
            base_model: self.base_model,
            data,
            held_out,
            prompts: &self.dataset.prompt_form,
            plan: self.text,
            summary: figures,
            recipe: &self.recipe.text,
            format,
        })
    }
}
