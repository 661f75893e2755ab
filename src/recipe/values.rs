//! The values that recipe keys take where a number or a text is not enough.
//!
//! Each type is what was written, not what follows from it: the plan turns it into decisions.

pub use crate::device::DeviceChoice;
use crate::export::Format;
pub use crate::export::MergeBase;

/// The adapter method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// Low-rank updates on frozen projections (Hu et al. 2021).
    Lora,
    /// The same on a base in 4 bits (Dettmers et al. 2023).
    Qlora,
}

/// The section `bnb_config_kwargs`: how the base of QLoRA is quantised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BnbConfig {
    /// Whether the scales of blocks are quantised too.
    pub double_quant: Option<bool>,
    /// Linear maps that stay as they are.
    pub skip_modules: Vec<String>,
}

/// How many rows go through the model at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicroBatchSize {
    /// So many, at least 1.
    Rows(usize),
    /// As many as memory allows, of the `batch_size` rows of a step.
    Auto,
}

/// Which projections a low-rank update is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every linear projection but the head.
    AllLinear,
    /// Projections whose name is, or ends in a dot and, one of these.
    List(Vec<String>),
    /// Projections whose whole name matches this regular expression, as PEFT reads it.
    Regex(String),
}

/// Special tokens that replace the tokenizer's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of a sequence.
    pub bos_token: Option<String>,
    /// End of a sequence.
    pub eos_token: Option<String>,
    /// Filler of shorter rows.
    pub pad_token: Option<String>,
    /// Stand-in for what the vocabulary lacks.
    pub unk_token: Option<String>,
}

/// How many of the training rows are held out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValSetSize {
    /// A share of the rows, above 0 and below 1.
    Fraction(f64),
    /// A number of rows, at least 2 (Axolotl reads 1 as all of them).
    Count(usize),
}

/// Where the chat template comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatTemplate {
    /// The tokenizer's own.
    TokenizerDefault,
    /// The tokenizer's own, or this one where it has none.
    TokenizerDefaultOr(String),
    /// The one in `chat_template_jinja`.
    Jinja,
    /// A template known by name.
    Named(String),
}

/// Which end-of-turn tokens are trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainOnEnd {
    /// Every one.
    All,
    /// Those that close a trained turn.
    Turn,
    /// Only the last.
    Last,
    /// None.
    None,
}

/// What happens to examples longer than `sequence_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// They are left out.
    Drop,
    /// Their end is cut off.
    Truncate,
    /// The run is refused.
    Raise,
}

/// When something periodic happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// Never.
    No,
    /// Every so many steps.
    Steps,
    /// At the end of each epoch.
    Epoch,
}

/// A distance between steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Steps {
    /// A number of steps, at least 1.
    Every(usize),
    /// A share of all steps, above 0 and below 1.
    Fraction(f64),
}

/// A switch that can also be left to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toggle {
    /// On.
    True,
    /// Off.
    False,
    /// Whatever the device and the model make best.
    Auto,
}

/// The section `export`: what is written at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// The formats to write; empty when none was named.
    pub formats: Vec<&'static Format>,
    /// Element type of a merged checkpoint.
    pub dtype: Option<DtypeName>,
    /// Into which weights an adapter on a 4-bit base is merged.
    pub merge_base: Option<MergeBase>,
}

/// An element type by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtypeName {
    /// 32-bit float.
    F32,
    /// 16-bit float with the range of 32 bits.
    Bf16,
    /// IEEE 16-bit float.
    F16,
}
