//! The settings that determine examples and batches, as plain structs that the plan fills.
//!
//! Nothing is parsed here; every field has one meaning and most have a neutral default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::choice::Choice;
use super::defect::Defect;
use super::prompt_format::PromptFormat;

/// The settings of a data set.
#[derive(Clone, Debug)]
pub struct DatasetSettings {
    /// Sources of the rows to train on, in the recipe's order.
    pub sources: Vec<SourceSettings>,
    /// Sources of rows that are only evaluated.
    pub test_sources: Vec<SourceSettings>,
    /// The number or share of training rows that are held out for evaluation; `None` for none.
    pub held_out: Option<HeldOut>,
    /// If set, the order of rows is drawn from the seed in every epoch.
    pub shuffle: bool,
    /// Seed of the held-out split, of the order of rows and of packing.
    pub seed: u64,
    /// Longest example, in tokens; with packing also the length of a row.
    pub sequence_len: usize,
    /// Rows of the model's embedding: a row of the data with a token id from there on is refused. `None` for no limit.
    pub embedding_rows: Option<usize>,
    /// The fate of an example that is longer than `sequence_len`.
    pub excess: Excess,
    /// If set, prompts are trained on too: every turn of conversations and its end, every token of other rows (a leading
    /// BOS token aside).
    pub train_on_inputs: bool,
    /// The shape of batches.
    pub batching: BatchSettings,
    /// Folder for prepared examples, which later runs reuse; `None` for no cache.
    pub prepared_path: Option<PathBuf>,
    /// Defects that do not end the loading, even if most rows share them.
    pub allowed: Vec<Defect>,
}

impl Default for DatasetSettings {
    /// No sources, and the defaults of recipes.
    fn default() -> Self {
        DatasetSettings {
            sources: Vec::new(),
            test_sources: Vec::new(),
            held_out: None,
            shuffle: true,
            seed: 42,
            sequence_len: 512,
            embedding_rows: None,
            excess: Excess::Drop,
            train_on_inputs: false,
            batching: BatchSettings::default(),
            prepared_path: None,
            allowed: Vec::new(),
        }
    }
}

/// The shape of batches.
#[derive(Clone, Debug)]
pub struct BatchSettings {
    /// Rows per micro-batch.
    pub micro_batch_size: usize,
    /// Micro-batches per step.
    pub accumulation: usize,
    /// If set, several documents share a row of at most `sequence_len` tokens.
    pub packing: bool,
    /// If set, every row is padded to `sequence_len`.
    pub pad_to_sequence_len: bool,
    /// Rows per evaluation micro-batch.
    pub eval_batch_size: usize,
    /// If set, held-out rows are packed too.
    pub eval_packing: bool,
    /// Widths are rounded up to a multiple of this (length buckets); 1 for exact widths.
    pub width_multiple: usize,
}

impl BatchSettings {
    /// Rows of a step, at least 1.
    pub fn rows_per_step(&self) -> usize {
        (self.micro_batch_size * self.accumulation).max(1)
    }

    /// The width of rows of which the longest has `longest` tokens.
    pub(crate) fn width(&self, longest: usize, sequence_len: usize) -> usize {
        if self.pad_to_sequence_len {
            return sequence_len;
        }
        let bucket = longest.next_multiple_of(self.width_multiple.max(1));
        bucket.min(sequence_len.max(longest))
    }
}

impl Default for BatchSettings {
    fn default() -> Self {
        BatchSettings {
            micro_batch_size: 1,
            accumulation: 1,
            packing: false,
            pad_to_sequence_len: false,
            eval_batch_size: 1,
            eval_packing: false,
            width_multiple: 1,
        }
    }
}

/// The number or share of training rows that are held out: the recipe key `val_set_size`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HeldOut {
    /// This share of the rows, above 0 and below 1, rounded up to whole rows.
    Fraction(f64),
    /// This many rows.
    Count(usize),
}

/// The fate of an example longer than `sequence_len`: the recipe key `excess_length_strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Excess {
    /// It is left out and counted.
    #[default]
    Drop,
    /// Its end is cut off and it is counted.
    Truncate,
    /// Loading fails and names the row.
    Raise,
}

impl Excess {
    /// Every strategy.
    pub const ALL: [Excess; 3] = [Excess::Drop, Excess::Truncate, Excess::Raise];

    /// Its name in a recipe, with its meaning.
    pub fn choice(self) -> Choice {
        let (name, description) = match self {
            Excess::Drop => ("drop", "longer examples are left out and counted"),
            Excess::Truncate => ("truncate", "longer examples lose their end and are counted"),
            Excess::Raise => ("raise", "a longer example is an error that names its row"),
        };
        Choice { name, description }
    }
}

/// The end-of-turn tokens that are trained on: the recipe keys `train_on_eos` and `train_on_eot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TrainOnEnd {
    /// Those that close a trained turn.
    Turn,
    /// Every one, also after turns that are not trained.
    All,
    /// Only the one that closes the last trained turn.
    Last,
    /// None.
    None,
}

impl TrainOnEnd {
    /// Every rule.
    pub const ALL: [TrainOnEnd; 4] = [TrainOnEnd::Turn, TrainOnEnd::All, TrainOnEnd::Last, TrainOnEnd::None];

    /// Its name in a recipe, with its meaning.
    pub fn choice(self) -> Choice {
        let (name, description) = match self {
            TrainOnEnd::Turn => ("turn", "those that close a trained turn"),
            TrainOnEnd::All => ("all", "every one, after turns that are not trained too"),
            TrainOnEnd::Last => ("last", "only the one that closes the last trained turn"),
            TrainOnEnd::None => ("none", "none of them"),
        };
        Choice { name, description }
    }
}

/// One entry of `datasets:` or `test_datasets:`.
///
/// A field name of `None` means the name that the format uses by itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceSettings {
    /// A file, a pattern such as `data/*.parquet`, or a folder of files. With `data_files`, also one of
    /// the loaders of Hugging Face (`json`, `csv`, `text`, `parquet`, `arrow`).
    #[serde(skip)]
    pub path: PathBuf,
    /// The recipe's folder, where a path that does not exist may have been meant.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Files inside the folder `path`, by name or pattern; empty for all that fit `split`.
    #[serde(skip)]
    pub data_files: Vec<String>,
    /// Files by split, if the splits of a data set are known already; else empty.
    #[serde(skip)]
    pub splits: Vec<(String, Vec<PathBuf>)>,
    /// The name that people are shown, if it is not the path.
    #[serde(skip)]
    pub known_as: Option<String>,
    /// The type of the files, one of [`file_types`](crate::file_types); `None` to go by their suffix.
    pub ds_type: Option<String>,
    /// The format as the recipe writes it; `None` to recognise it by the columns.
    pub format: Option<RowFormat>,
    /// The split (`train`, `test` ...) that selects files of a folder, and a slice of its rows (`train[:80%]`).
    pub split: Option<String>,
    /// The number of shards, drawn by the seed, of which one is taken; `None` for all rows.
    pub shards: Option<usize>,
    /// The shard to take, from 0.
    pub shard: usize,
    /// The place in the recipe that names this source, e.g. `recipe.yaml:12:5`.
    #[serde(skip)]
    pub location: String,
    /// Column of the instruction (alpaca), the prompt (prompt and completion) or the user's turn (chat).
    pub field_instruction: Option<String>,
    /// Column of the optional input (alpaca, chat).
    pub field_input: Option<String>,
    /// Column of the output (alpaca), the completion (prompt and completion) or the assistant's turn (chat).
    pub field_output: Option<String>,
    /// Column of the system text (chat); `system` by default.
    pub field_system: Option<String>,
    /// Column of the text (completion).
    pub field: Option<String>,
    /// Column of the list of messages (chat, sharegpt).
    pub field_messages: Option<String>,
    /// Column of the tool definitions (chat, sharegpt); `tools` by default.
    pub field_tools: Option<String>,
    /// From a message property (`role`, `content` ...) to the key that holds it in the rows.
    pub message_property_mappings: BTreeMap<String, String>,
    /// From a role to the names that the rows use for it; the usual ones if empty.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Roles whose turns are trained on; `None` for `assistant`.
    pub roles_to_train: Option<Vec<String>>,
    /// The end-of-sequence tokens that are trained on; `None` for [`TrainOnEnd::Turn`].
    pub train_on_eos: Option<TrainOnEnd>,
    /// The other end-of-turn tokens that are trained on; `None` for the same as `train_on_eos`.
    pub train_on_eot: Option<TrainOnEnd>,
    /// If set, a leading system message is left out.
    pub drop_system_message: bool,
    /// Key of a message's boolean that is true if the message is trained on.
    pub message_field_training: Option<String>,
    /// Key of a message's list of the stretches of its content that are, or are not, trained on.
    pub message_field_training_detail: Option<String>,
    /// Key of a message's reasoning, which templates see as `reasoning_content`.
    pub field_thinking: Option<String>,
    /// Further variables of the chat template (`enable_thinking` ...).
    pub template_variables: Map<String, Value>,
}

/// The value of `type:`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum RowFormat {
    /// A format by its name.
    Named(String),
    /// A prompt that the recipe writes itself.
    Custom(PromptFormat),
}

impl RowFormat {
    /// True if this is the format of a name.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, RowFormat::Named(own) if own == name)
    }
}

impl From<&str> for RowFormat {
    /// A format by its name.
    fn from(name: &str) -> RowFormat {
        RowFormat::Named(name.to_owned())
    }
}

impl SourceSettings {
    /// A source with defaults everywhere but its path and the place that names it.
    pub fn new(path: impl Into<PathBuf>, location: impl Into<String>) -> Self {
        SourceSettings { path: path.into(), location: location.into(), ..SourceSettings::default() }
    }
}
