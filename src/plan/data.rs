//! The recipe's data keys as settings of the `datasets` package.

use std::path::Path;

use anyhow::{Result, bail};
use datasets::{BatchSettings, DatasetSettings, RowFormat, SourceSettings, TemplateChoice, dataset_types};
use serde_json::Value;

use super::read_text;
use crate::hint::hinted;
use crate::model::spec::DecoderSpec;
use crate::recipe::{ChatTemplate, DatasetEntry, MicroBatchSize, Place, Recipe, Setting};

/// Most positions of a padded micro-batch: beyond what any device holds the activations of.
const MOST_POSITIONS: usize = 1 << 26;

/// Widths of padded rows off the CPU: few distinct shapes, since kernels are compiled and tuned by shape.
const GPU_WIDTH_MULTIPLE: usize = 64;

pub(super) fn settings(recipe: &Recipe, spec: &DecoderSpec, seed: u64, host: bool) -> Result<DatasetSettings> {
    let max_positions = spec.max_positions;
    let sequence_len = recipe.sequence_len.unwrap_or(512.min(max_positions));
    let micro_batch_size = match *recipe.micro_batch_size {
        MicroBatchSize::Rows(rows) => rows,
        // All rows of a step at first; fewer if the memory estimate requires it.
        MicroBatchSize::Auto => recipe.batch_size.unwrap_or(1),
    };
    check_padding(recipe, sequence_len, micro_batch_size)?;
    let packing = *recipe.sample_packing;
    Ok(DatasetSettings {
        sources: sources(recipe, &recipe.datasets),
        test_sources: sources(recipe, &recipe.test_datasets),
        held_out: *recipe.val_set_size,
        shuffle: *recipe.shuffle_merged_datasets,
        seed,
        sequence_len,
        embedding_rows: Some(spec.vocab),
        excess: *recipe.excess_length_strategy,
        train_on_inputs: *recipe.train_on_inputs,
        batching: BatchSettings {
            micro_batch_size,
            accumulation: accumulation(recipe, micro_batch_size),
            packing,
            pad_to_sequence_len: *recipe.pad_to_sequence_len,
            eval_batch_size: recipe.eval_batch_size.unwrap_or(micro_batch_size),
            eval_packing: recipe.eval_sample_packing.unwrap_or(packing),
            width_multiple: if host { 1 } else { GPU_WIDTH_MULTIPLE },
        },
        prepared_path: recipe.dataset_prepared_path.as_deref().map(|folder| recipe.locate(folder)),
        allowed: recipe.preflight.allow.to_vec(),
    })
}

/// Rows that are padded to `sequence_len` whatever their length must fit into what numbers their positions.
fn check_padding(recipe: &Recipe, sequence_len: usize, micro_batch_size: usize) -> Result<()> {
    let positions = sequence_len.saturating_mul(micro_batch_size);
    if *recipe.pad_to_sequence_len && positions > MOST_POSITIONS {
        bail!(hinted(
            format!(
                "{}: {micro_batch_size} rows of `{sequence_len}` tokens, padded, are more than the {MOST_POSITIONS} positions that a micro-batch may have",
                recipe.pad_to_sequence_len.place()
            ),
            "lower sequence_len, or leave pad_to_sequence_len out"
        ));
    }
    Ok(())
}

/// As Axolotl derives it: `batch_size` counts the rows of a step.
fn accumulation(recipe: &Recipe, micro_batch_size: usize) -> usize {
    match (*recipe.gradient_accumulation_steps, *recipe.batch_size) {
        (Some(steps), _) => steps,
        (None, Some(rows)) => (rows / micro_batch_size).max(1),
        (None, None) => 1,
    }
}

/// The chat template of the recipe: that of its data sets, which wins as in Axolotl, else the recipe's own.
pub(super) fn template(recipe: &Recipe, tokenizer: &Path) -> Result<TemplateChoice> {
    let own: Template<'_> = (recipe.chat_template.as_ref(), &recipe.chat_template_jinja);
    let mut chosen: Option<(Template<'_>, &Place)> = None;
    for entry in recipe.datasets.iter().chain(recipe.test_datasets.iter()) {
        let (template, place) = match (&*entry.chat_template, &entry.chat_template_jinja) {
            // The tokenizer's own is the one that the recipe gives it.
            (None | Some(ChatTemplate::TokenizerDefault), jinja) if jinja.is_none() => (own, entry.path.place()),
            (None, jinja) => ((Some(&ChatTemplate::Jinja), jinja), jinja.place()),
            (Some(choice), jinja) => ((Some(choice), jinja), entry.chat_template.place()),
        };
        if !is_other(own, template) && !renders_conversations(entry) {
            continue;
        }
        match chosen {
            Some((other, _)) if is_other(other, template) => bail!(hinted(
                format!("{place}: the conversations of this data set have another chat template than others"),
                "a model is trained on one template; set chat_template once, at the top"
            )),
            _ => chosen = Some((template, place)),
        }
    }
    let (choice, text) = chosen.map_or(own, |(template, _)| template);
    let jinja = match text.as_deref() {
        Some(jinja) if !matches!(choice, Some(ChatTemplate::Named(_))) => {
            Some(template_text(recipe, jinja, text.place())?)
        }
        _ => None,
    };
    Ok(ChatTemplate::resolve(choice, jinja, tokenizer))
}

/// A choice with the text of `jinja`.
type Template<'r> = (Option<&'r ChatTemplate>, &'r Setting<Option<String>>);

/// True if the two render conversations differently.
fn is_other(one: Template<'_>, other: Template<'_>) -> bool {
    let name = |(choice, _): Template<'_>| choice.cloned().unwrap_or(ChatTemplate::TokenizerDefault);
    name(one) != name(other) || (name(one) == ChatTemplate::Jinja && **one.1 != **other.1)
}

/// True if the rows of a data set may be conversations.
fn renders_conversations(entry: &DatasetEntry) -> bool {
    match &entry.source.format {
        None => true,
        Some(RowFormat::Custom(_)) => false,
        Some(RowFormat::Named(name)) => {
            let format = dataset_types().find(|known| known.name == name).map(|known| known.format);
            matches!(format, Some("chat" | "sharegpt" | "prompt_completion") | None)
        }
    }
}

/// The tokenizer's configuration; `null` if there is none. The data package reports one that is broken.
pub(super) fn tokenizer_config(folder: &Path) -> Value {
    let text = std::fs::read(folder.join("tokenizer_config.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The template itself, or the file that a short text names.
fn template_text(recipe: &Recipe, text: &str, place: &Place) -> Result<String> {
    let path = recipe.locate(text);
    if text.contains('{') {
        return Ok(text.to_owned());
    }
    if !path.is_file() {
        bail!(hinted(
            format!("{place}: `{text}` is neither a template nor a file"),
            "write the template itself, or name a file that holds it"
        ));
    }
    read_text(place, &path)
}

/// The sources of a list of data sets, each with its place.
pub(crate) fn sources(recipe: &Recipe, entries: &[DatasetEntry]) -> Vec<SourceSettings> {
    let variables = |entry: &DatasetEntry| {
        let mut variables = (*recipe.chat_template_kwargs).clone();
        variables.extend(entry.source.template_variables.clone());
        variables
    };
    let source = |entry: &DatasetEntry| SourceSettings {
        path: recipe.locate(&entry.path),
        folder: recipe.path.parent().unwrap_or(Path::new("")).to_path_buf(),
        location: entry.path.place().to_string(),
        data_files: entry.data_files.to_vec(),
        split: (*entry.split).clone(),
        template_variables: variables(entry),
        ..entry.source.clone()
    };
    entries.iter().map(source).collect()
}
