//! The recipe's data keys as settings of the `datasets` package.

use std::path::Path;

use anyhow::{Result, bail};
use datasets::{
    BatchSettings, DatasetSettings, Excess, HeldOut, SourceSettings, SpecialTokenOverrides, TemplateChoice, TrainOnEnd,
};
use serde_json::Value;

use super::read_text;
use crate::recipe::{self, ChatTemplate, DatasetEntry, MicroBatchSize, Recipe, ValSetSize};

/// Most positions of a padded micro-batch: beyond what any device holds the activations of.
const MOST_POSITIONS: usize = 1 << 26;

/// Widths of padded rows off the CPU: few distinct shapes, since kernels are compiled and tuned by shape.
const GPU_WIDTH_MULTIPLE: usize = 64;

pub(super) fn settings(recipe: &Recipe, max_positions: usize, seed: u64, host: bool) -> Result<DatasetSettings> {
    let sequence_len = recipe.sequence_len.unwrap_or(512.min(max_positions));
    if sequence_len > max_positions {
        bail!(
            "{}: sequence_len `{sequence_len}` is longer than the {max_positions} positions of the base model\nhint: lower it, or use a model with a longer context",
            recipe.at("sequence_len"),
        );
    }
    let micro_batch_size = match recipe.micro_batch_size {
        Some(MicroBatchSize::Rows(rows)) => rows,
        // All rows of a step at first; less where the memory's estimate says so.
        Some(MicroBatchSize::Auto) => recipe.batch_size.unwrap_or(1),
        None => 1,
    };
    check_padding(recipe, sequence_len, micro_batch_size)?;
    let packing = recipe.sample_packing.unwrap_or(false);
    Ok(DatasetSettings {
        sources: sources(recipe, "datasets", &recipe.datasets),
        test_sources: sources(recipe, "test_datasets", &recipe.test_datasets),
        held_out: recipe.val_set_size.map(|size| match size {
            ValSetSize::Fraction(share) => HeldOut::Fraction(share),
            ValSetSize::Count(rows) => HeldOut::Count(rows),
        }),
        shuffle: recipe.shuffle_merged_datasets.unwrap_or(true),
        seed,
        sequence_len,
        excess: match recipe.excess_length_strategy {
            None | Some(recipe::Excess::Drop) => Excess::Drop,
            Some(recipe::Excess::Truncate) => Excess::Truncate,
            Some(recipe::Excess::Raise) => Excess::Raise,
        },
        train_on_inputs: recipe.train_on_inputs.unwrap_or(false),
        batching: BatchSettings {
            micro_batch_size,
            accumulation: accumulation(recipe, micro_batch_size),
            packing,
            pad_to_sequence_len: recipe.pad_to_sequence_len.unwrap_or(false),
            eval_batch_size: recipe.eval_batch_size.unwrap_or(micro_batch_size),
            eval_packing: recipe.eval_sample_packing.unwrap_or(packing),
            width_multiple: if host { 1 } else { GPU_WIDTH_MULTIPLE },
        },
        prepared_path: recipe.dataset_prepared_path.as_deref().map(|folder| recipe.locate(folder)),
        allowed: recipe.allow_defects.clone(),
    })
}

/// Rows that are padded to `sequence_len` whatever their length must fit into what numbers their positions.
fn check_padding(recipe: &Recipe, sequence_len: usize, micro_batch_size: usize) -> Result<()> {
    let positions = sequence_len.saturating_mul(micro_batch_size);
    if recipe.pad_to_sequence_len == Some(true) && positions > MOST_POSITIONS {
        bail!(
            "{}: {micro_batch_size} rows of `{sequence_len}` tokens, padded, are more than the {MOST_POSITIONS} positions that a micro-batch may have\nhint: lower sequence_len, or leave pad_to_sequence_len out",
            recipe.at("pad_to_sequence_len"),
        );
    }
    Ok(())
}

/// As Axolotl derives it: `batch_size` counts the rows of a step.
fn accumulation(recipe: &Recipe, micro_batch_size: usize) -> usize {
    match (recipe.gradient_accumulation_steps, recipe.batch_size) {
        (Some(steps), _) => steps,
        (None, Some(rows)) => (rows / micro_batch_size).max(1),
        (None, None) => 1,
    }
}

/// The chat template of the recipe, and its special tokens.
pub(super) fn template(recipe: &Recipe, tokenizer: &Path) -> Result<(TemplateChoice, SpecialTokenOverrides)> {
    let mut chosen = None;
    let entries = recipe.datasets.iter().chain(&recipe.test_datasets);
    for entry in entries.filter(|entry| entry.chat_template.is_some()) {
        if chosen.is_some_and(|other: &DatasetEntry| other.chat_template != entry.chat_template) {
            bail!(
                "{}: the data sets name different chat templates\nhint: a model learns one template; set chat_template once, at the top",
                recipe.at("datasets"),
            );
        }
        chosen = Some(entry);
    }
    let (choice, text) = match (&recipe.chat_template, chosen) {
        (Some(choice), _) => (Some(choice), &recipe.chat_template_jinja),
        (None, Some(entry)) => (entry.chat_template.as_ref(), &entry.chat_template_jinja),
        (None, None) => (None, &recipe.chat_template_jinja),
    };
    let template = match (choice, text) {
        (Some(ChatTemplate::Named(name)), _) => TemplateChoice::Named(name.clone()),
        (_, Some(text)) => TemplateChoice::Jinja(jinja(recipe, text)?),
        (Some(ChatTemplate::TokenizerDefaultOr(name)), None) if !has_template(tokenizer) => {
            TemplateChoice::Named(name.clone())
        }
        _ => TemplateChoice::TokenizerDefault,
    };
    let special = &recipe.special_tokens;
    let overrides = SpecialTokenOverrides {
        bos_token: special.bos_token.clone(),
        eos_token: special.eos_token.clone(),
        pad_token: special.pad_token.clone(),
        unk_token: special.unk_token.clone(),
    };
    Ok((template, overrides))
}

/// Whether the tokenizer in `folder` brings a chat template of its own.
fn has_template(folder: &Path) -> bool {
    folder.join("chat_template.jinja").is_file() || !tokenizer_config(folder)["chat_template"].is_null()
}

/// The tokenizer's configuration; `null` if there is none. The data package reports one that is broken.
pub(super) fn tokenizer_config(folder: &Path) -> Value {
    let text = std::fs::read(folder.join("tokenizer_config.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The template itself, or the file that a short text names.
fn jinja(recipe: &Recipe, text: &str) -> Result<String> {
    let path = recipe.locate(text);
    if text.contains('{') {
        return Ok(text.to_owned());
    }
    if !path.is_file() {
        bail!(
            "{}: `{text}` is neither a template nor a file\nhint: write the template itself, or name a file that holds it",
            recipe.at("chat_template_jinja"),
        );
    }
    read_text(recipe, "chat_template_jinja", &path)
}

fn sources(recipe: &Recipe, key: &str, entries: &[DatasetEntry]) -> Vec<SourceSettings> {
    let one = |(index, entry): (usize, &DatasetEntry)| SourceSettings {
        data_files: entry.data_files.clone(),
        format: entry.r#type.clone(),
        ds_type: entry.ds_type.clone(),
        split: entry.split.clone(),
        shards: entry.shards,
        shard: entry.shards_idx.unwrap_or(0),
        field_tools: entry.field_tools.clone(),
        field_thinking: entry.field_thinking.clone(),
        field_instruction: entry.field_instruction.clone(),
        field_input: entry.field_input.clone(),
        field_output: entry.field_output.clone(),
        field: entry.field.clone(),
        field_messages: entry.field_messages.clone(),
        message_property_mappings: entry.message_property_mappings.clone(),
        roles: entry.roles.clone(),
        roles_to_train: entry.roles_to_train.clone(),
        train_on_eos: entry.train_on_eos.map(end),
        train_on_eot: entry.train_on_eot.map(end),
        drop_system_message: entry.drop_system_message.unwrap_or(false),
        message_field_training: entry.message_field_training.clone(),
        ..SourceSettings::new(recipe.locate(&entry.path), recipe.at(&format!("{key}.{index}.path")))
    };
    entries.iter().enumerate().map(one).collect()
}

fn end(which: recipe::TrainOnEnd) -> TrainOnEnd {
    match which {
        recipe::TrainOnEnd::All => TrainOnEnd::All,
        recipe::TrainOnEnd::Turn => TrainOnEnd::Turn,
        recipe::TrainOnEnd::Last => TrainOnEnd::Last,
        recipe::TrainOnEnd::None => TrainOnEnd::None,
    }
}
