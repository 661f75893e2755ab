//! The model card: what was trained on what, how well it does, and how to load it.

use serde_json::Value;

use crate::export::Format;

/// The content of a model card.
#[derive(Debug, Clone, Copy)]
pub struct Card<'a> {
    /// The base model as the recipe names it.
    pub base_model: &'a str,
    /// The data files.
    pub data: &'a [String],
    /// The plan as printed.
    pub plan: &'a str,
    /// Loss and answers before and after.
    pub summary: &'a Value,
    /// The recipe as written.
    pub recipe: &'a str,
    /// The format of the folder.
    pub format: &'a Format,
}

/// The card as Markdown with the metadata block that model hubs read.
pub fn card(card: &Card) -> String {
    let library = card.format.card.library;
    let mut text = format!(
        "---\nbase_model: {}\nlibrary_name: {library}\npipeline_tag: text-generation\ntags:\n- fine-tuned\n---\n\n# Fine-tuned from {}\n\n",
        card.base_model, card.base_model
    );
    text += "Trained with `tune run` on:\n\n";
    for path in card.data {
        text += &format!("- `{path}`\n");
    }
    text += "\n| held-out rows | before | after |\n|---|---|---|\n";
    for (name, before, after) in
        [("loss", "loss_before", "loss_after"), ("exact match", "exact_match_before", "exact_match_after")]
    {
        let figure =
            |key: &str| card.summary[key].as_f64().map_or("not measured".to_owned(), |value| format!("{value:.4}"));
        text += &format!("| {name} | {} | {} |\n", figure(before), figure(after));
    }
    text += "\n## Load it\n\n```python\n";
    text += card.format.card.load;
    text += "```\n\nThe tokenizer and the chat template lie beside the weights; serve with that template, since it is the one trained on.\n";
    text +=
        &format!("\n## Recipe\n\n```yaml\n{}```\n\n## Plan\n\n```text\n{}```\n", ended(card.recipe), ended(card.plan));
    text
}

fn ended(text: &str) -> String {
    if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}
