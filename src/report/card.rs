//! The model card: what was trained on what, how well it does, and how to load it.

use datasets::PromptForm;
use serde_json::Value;

use crate::export::Format;

/// The content of a model card.
#[derive(Debug, Clone, Copy)]
pub struct Card<'a> {
    /// The base model as the recipe names it.
    pub base_model: &'a str,
    /// The data files that were trained on.
    pub data: &'a [String],
    /// Those that were only measured on.
    pub held_out: &'a [String],
    /// The form of the prompts in training.
    pub prompts: &'a PromptForm,
    /// The plan as printed.
    pub plan: &'a str,
    /// Loss and answers before and after.
    pub summary: &'a Value,
    /// The recipe as written.
    pub recipe: &'a str,
    /// The format of the folder.
    pub format: &'a Format,
}

/// Beginnings of the lines of a plan that depend on the machine or on where the run is.
const PLAN_OF_PLACE: [&str; 5] = ["files ", "memory ", "resumes ", "continues ", "device "];

/// The keys of a recipe that only say where files go.
const KEYS_OF_PLACE: [&str; 2] = ["output_dir:", "dataset_prepared_path:"];

/// The card as Markdown with the metadata block that model hubs read. It is meant for other people: paths from the root of
/// this machine are cut to their last part, and equal recipes have equal cards wherever they run.
pub fn card(card: &Card) -> String {
    let library = card.format.card.library;
    let mut text = format!(
        "---\nbase_model: {}\nlibrary_name: {library}\npipeline_tag: text-generation\ntags:\n- fine-tuned\n---\n\n# Fine-tuned from {}\n\n",
        portable(card.base_model),
        portable(card.base_model)
    );
    for (what, files) in [("Trained with `tune run` on", card.data), ("Measured on", card.held_out)] {
        if !files.is_empty() {
            let files: Vec<String> = files.iter().map(|path| format!("- `{}`\n", portable(path))).collect();
            text += &format!("{what}:\n\n{}\n", files.concat());
        }
    }
    text.truncate(text.trim_end_matches('\n').len() + 1);
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
    text += "```\n\n";
    text += &prompts(card.prompts);
    let recipe = without(card.recipe, |line| KEYS_OF_PLACE.iter().any(|key| line.starts_with(key)));
    let plan = plan_for_others(card.plan);
    text += &format!("\n## Recipe\n\n```yaml\n{recipe}```\n\n## Plan\n\n```text\n{plan}```\n");
    text
}

/// How to give the model prompts: as training did.
fn prompts(form: &PromptForm) -> String {
    let PromptForm::Text(form) = form else {
        return "The tokenizer and the chat template lie beside the weights; serve with that template, since it is the one trained on.\n"
            .to_owned();
    };
    let special =
        if form.special_tokens { "which adds its special tokens" } else { "without the special tokens that it adds" };
    let mut text =
        format!("Trained on plain text, without a chat template; the tokenizer lies beside the weights, {special}. ");
    if form.before.is_empty() && form.after.is_empty() {
        text += "Give it prompts as they are: do not apply the chat template.\n";
    } else {
        let prompt = form.prompt("{question}");
        text += &format!("Give it prompts in this form:\n\n```text\n{}\n```\n", prompt.trim_end_matches('\n'));
    }
    text
}

/// The plan without what depends on the machine or on where the run is.
pub fn plan_for_others(plan: &str) -> String {
    without(plan, |line| {
        PLAN_OF_PLACE.iter().any(|label| line.starts_with(label)) || line.trim_end().ends_with("is free")
    })
}

/// The lines of a text but those that are `left_out`, with portable paths.
fn without(text: &str, left_out: impl Fn(&str) -> bool) -> String {
    text.lines().filter(|line| !left_out(line)).map(|line| portable(line) + "\n").collect()
}

/// The text with every path from a root or from the home folder cut to its last part.
fn portable(text: &str) -> String {
    let ends_path = |found: char| found.is_whitespace() || "'\"`,;)]}".contains(found);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(['/', '~']) {
        let before = rest[..start].chars().next_back().or(out.chars().next_back());
        let begins = before.is_none_or(|before| before.is_whitespace() || "'\"`([{=".contains(before));
        let length = rest[start..].find(ends_path).unwrap_or(rest.len() - start);
        let path = &rest[start..start + length];
        let is_path = begins && (path.starts_with("~/") || path[1..].contains('/')) && !path.starts_with("//");
        out += &rest[..start];
        out += if is_path { path.trim_end_matches('/').rsplit('/').next().unwrap_or(path) } else { path };
        rest = &rest[start + length..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_this_machine_are_cut_to_their_last_part() {
        for (text, expected) in [
            ("base_model: /home/me/models/llama", "base_model: llama"),
            ("data            /data/a/train.jsonl: 24 rows", "data            train.jsonl: 24 rows"),
            ("path: '~/rows/train.jsonl'", "path: 'train.jsonl'"),
            ("data/train.jsonl and org/name", "data/train.jsonl and org/name"),
            ("https://huggingface.co/org/name", "https://huggingface.co/org/name"),
            ("// 1/2 and </think> or /no_think", "// 1/2 and </think> or /no_think"),
            ("`/a/b`, (/c/d/e)", "`b`, (e)"),
        ] {
            assert_eq!(portable(text), expected);
        }
    }
}
