//! Rows in, batches of token ids out: sources, formats, chat templates, training masks, packing.
//!
//! [`Dataset::load`] reads the files that [`DatasetSettings`] names, turns every row into an
//! [`Example`] by way of a [`Conversation`] and the [`Tokenizer`]'s chat template, and hands out
//! [`Batch`]es by step number. Everything here is host integers and text: no tensor, no device.
//!
//! The folders are floors, each importing only from those below it: `loading` stands on `batches`
//! and `store`, these on `rows`, that on `text` and `reading`, and these on `foundation`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batches;
mod foundation;
mod loading;
#[cfg(test)]
mod properties;
mod reading;
mod rows;
mod store;
#[cfg(test)]
mod test_tokenizer;
mod text;

pub use batches::{Batch, MicroBatch};
pub use foundation::{
    BatchSettings, Choice, DatasetSettings, Defect, Error, Excess, HeldOut, Location, PromptFormat, RowFormat,
    SourceSettings, TrainOnEnd, check_format, nearest,
};
pub use loading::{Counts, Dataset, LoadProgress, Piece, Preview, SourceCounts, preview, preview_of};
pub use reading::{
    SUFFIXES, SplitFiles, check_files, file_types, find_split, is_data_file, matching_paths, nearest_path, split_names,
    splits_of,
};
pub use rows::{DatasetType, Example, Question, Sample, Segment, dataset_types};
pub use store::Examples;
pub use text::{
    ChatTemplate, Conversation, GoldenPrompt, Message, PromptForm, SpecialTokenOverrides, TEMPLATE_INPUT,
    TemplateChoice, TextForm, Tokenizer, TrainingDetail, golden_prompts, named_templates,
};
