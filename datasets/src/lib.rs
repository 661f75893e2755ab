//! Rows in, batches of token ids out: sources, formats, chat templates, training masks, packing.
//!
//! [`Dataset::load`] reads the files that [`DatasetSettings`] names, turns every row into an
//! [`Example`] by way of a [`Conversation`] and the [`Tokenizer`]'s chat template, and hands out
//! [`Batch`]es by step number. Everything here is host integers and text: no tensor, no device.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod cache;
mod conversation;
mod counts;
mod dataset;
mod error;
mod example;
mod examples;
mod files;
mod formats;
mod golden;
mod growth;
mod guard;
mod judge;
mod learnt;
mod listing;
mod load;
mod order;
mod packing;
mod prepare;
mod preview;
#[cfg(test)]
mod properties;
mod question;
mod reading;
mod row;
mod settings;
mod source;
mod split;
mod stamp;
mod store;
mod template;
#[cfg(test)]
mod test_tokenizer;
mod tokenizer;
mod tokenizer_files;
mod words;

pub use batch::{Batch, MicroBatch};
pub use conversation::{Conversation, Message, Sample, Segment};
pub use counts::{Counts, SourceCounts};
pub use dataset::Dataset;
pub use error::Error;
pub use example::Example;
pub use examples::Examples;
pub use files::SUFFIXES;
pub use formats::format_names;
pub use golden::{GoldenPrompt, golden_prompts};
pub use judge::Defect;
pub use listing::{SplitFiles, find_split, is_data_file, matching_paths, split_names, splits_of};
pub use load::LoadProgress;
pub use preview::{Piece, Preview, preview, preview_of};
pub use question::Question;
pub use settings::{BatchSettings, DatasetSettings, Excess, HeldOut, SourceSettings, TrainOnEnd};
pub use template::{TemplateChoice, named_templates};
pub use tokenizer::Tokenizer;
pub use tokenizer_files::SpecialTokenOverrides;
