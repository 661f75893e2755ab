//! The formats that a trained model is exported in: a file below this one and a row in [`FORMATS`] each.
//!
//! A row is all that the rest of the program knows of a format: its name, what it needs of a model, how its folder is
//! written and read, and the words that plan, summary and model card have for it.

mod adapter;
mod bnb_4bit;
mod merged;

use std::borrow::Cow;
use std::path::Path;

use adapters::AdapterSpec;
use burn::tensor::{Device, FloatDType};
use thiserror::Error;

use super::{ExportError, Job, Probe, ProbeDivergence};
use crate::hub::BaseModel;
use crate::model::families::ResolvedFamily;
use crate::model::spec::FeedForwardSpec;
use crate::model::{Decoder, Storage};
use crate::run_dir::{Staged, whole};

/// Every export format, in the order in which the folders are written and reported.
pub const FORMATS: &[&Format] = &[&adapter::FORMAT, &merged::FORMAT, &bnb_4bit::FORMAT];

/// The format of `tune merge`, and of full fine-tuning by default.
pub const MERGED: &Format = &merged::FORMAT;

/// A form in which a trained model is written.
#[derive(Debug)]
pub struct Format {
    /// Its name in recipes and of its folder; with `_` for `-` in the keys of `summary.json`.
    pub name: &'static str,
    /// The content of the folder and its readers in a phrase, for plans and documentation.
    pub description: &'static str,
    /// The conditions that a model must meet.
    pub needs: &'static [Need],
    /// Writes the files into a folder that exists.
    pub write_files: fn(&Path, &mut Decoder, &Job) -> Result<(), ExportError>,
    /// Computes the logits that the written folder must have, from those of the trained decoder.
    pub expected: fn(&Probe, &Decoder, &Job) -> Result<Expected, ExportError>,
    /// The folder's content and how it is read back.
    pub content: Content,
    /// The words of the model card.
    pub card: CardWords,
    /// The shell command that tries the model in a folder on a prompt.
    pub command: fn(&Prompt) -> String,
}

/// Reads a whole model from a folder, and returns it with the narrowest type of its numbers.
type ReadModel = fn(&Path, &Storage, &Device) -> Result<(Decoder, FloatDType), ExportError>;

/// The content of a folder and the function that reads it, with the type of the numbers in it: the narrowest one, which
/// decides how far logits may be from the expected ones.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// An adapter, read onto the trained decoder in place of its own updates.
    Adapter(fn(&Path, &mut Decoder, &Job) -> Result<FloatDType, ExportError>),
    /// A whole model with the updates merged, read by itself once the trained decoder is out of memory.
    Model(ReadModel),
}

/// The logits that a written folder must have.
#[derive(Debug)]
pub struct Expected {
    /// The logits, where they are not the trained decoder's.
    pub probe: Option<Probe>,
    /// The model whose logits they are, in words.
    pub model: &'static str,
    /// The distance of each way to merge from the trained decoder, where a choice was made.
    pub divergences: Vec<Divergence>,
}

/// The distance of one way to write a model from the trained decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Its key in `summary.json`.
    pub name: &'static str,
    /// The way in words, such as `quantised again`.
    pub way: &'static str,
    /// The distance.
    pub distance: ProbeDivergence,
}

/// The words of a model card about a format.
#[derive(Debug, Clone, Copy)]
pub struct CardWords {
    /// The `library_name` of model hubs.
    pub library: &'static str,
    /// Python lines that load the folder.
    pub load: &'static str,
}

/// A prompt for a model in a folder, its texts quoted for a shell.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    /// The folder.
    pub folder: &'a str,
    /// The text of the system message.
    pub system: Option<&'a str>,
    /// The text of the user's message.
    pub prompt: &'a str,
    /// If set, the prompt is plain text, without the chat template.
    pub raw: bool,
}

/// A condition of a format on the model and the recipe, known before training.
#[derive(Debug)]
pub struct Need {
    /// True if it is met.
    pub is_met: fn(&Subject) -> bool,
    /// The reason why the format cannot be written otherwise; follows the format's name.
    pub reason: &'static str,
    /// A way out.
    pub hint: &'static str,
}

/// The facts that conditions are about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The base model's files.
    pub base: &'a BaseModel,
    /// Family and architecture of the base model.
    pub model: &'a ResolvedFamily,
    /// The adapter that is trained; `None` for full fine-tuning.
    pub adapter: Option<&'a AdapterSpec>,
}

/// A format whose condition a model does not meet.
#[derive(Debug, Error)]
#[error("export format `{format}` {reason}")]
pub struct UnmetNeed {
    format: &'static str,
    reason: &'static str,
    hint: &'static str,
}

impl UnmetNeed {
    /// The hint: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        Some(self.hint.into())
    }
}

/// The recipe must train an adapter.
const NEEDS_ADAPTER: Need = Need {
    is_met: |subject| subject.adapter.is_some(),
    reason: "needs an adapter, but the recipe is for full fine-tuning",
    hint: "set adapter: lora, or export.formats: [merged]",
};

/// The model must have no layers of experts.
const NEEDS_DENSE_LAYERS: Need = Need {
    is_met: |subject| {
        let layers = &subject.model.spec.layers;
        !layers.iter().any(|layer| matches!(layer.feed_forward, FeedForwardSpec::Experts(_)))
    },
    reason: "is not built for models with experts, whose layout in 4 bits differs from reader to reader",
    hint: "write `merged`",
};

/// The format in which what was trained is written as it is: checkpoints, and exports of a recipe that names none.
pub fn native(has_adapter: bool) -> &'static Format {
    if has_adapter { &adapter::FORMAT } else { MERGED }
}

/// The formats to write: those that were asked for, in the order of [`FORMATS`], or the native one.
///
/// # Errors
/// When the model does not meet a condition of one of them.
pub fn choose(asked: &[&'static Format], subject: &Subject) -> Result<Vec<&'static Format>, UnmetNeed> {
    if asked.is_empty() {
        return Ok(vec![native(subject.adapter.is_some())]);
    }
    let chosen: Vec<&'static Format> = FORMATS.iter().copied().filter(|format| asked.contains(format)).collect();
    for format in &chosen {
        if let Some(need) = format.needs.iter().find(|need| !(need.is_met)(subject)) {
            return Err(UnmetNeed { format: format.name, reason: need.reason, hint: need.hint });
        }
    }
    Ok(chosen)
}

impl Format {
    /// Writes `decoder` to `folder`, which appears, or is replaced, once every file and their manifest are written.
    ///
    /// # Errors
    /// When the base cannot be read or a file cannot be written.
    pub fn write(&self, folder: &Path, decoder: &mut Decoder, job: &Job) -> Result<(), ExportError> {
        let staged = Staged::begin(folder)?;
        (self.write_files)(staged.path(), decoder, job)?;
        whole::write(staged.path())?;
        Ok(staged.finish()?)
    }

    /// The key of its largest difference of a logit in `summary.json`.
    pub fn summary_key(&self) -> String {
        format!("{}_logit_difference", self.name.replace('-', "_"))
    }

    /// True if it holds the whole model, with the updates merged.
    pub fn is_merged(&self) -> bool {
        matches!(self.content, Content::Model(_))
    }
}

/// Two formats are the same if their names are.
impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Format {}

impl Expected {
    /// Exactly the trained decoder's logits.
    fn trained() -> Self {
        Self { probe: None, model: "the trained model", divergences: Vec::new() }
    }
}

/// The command for folders that `tune` itself reads.
fn tune_generate(prompt: &Prompt) -> String {
    let raw = if prompt.raw { " --raw" } else { "" };
    let system = prompt.system.map_or(String::new(), |system| format!(" --system {system}"));
    format!("tune generate {}{raw}{system} --prompt {}", prompt.folder, prompt.prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_summary_keys_are_those_that_recipes_and_programs_know() {
        let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
        assert_eq!(names[..3], ["adapter", "merged", "bnb-4bit"]);
        let keys: Vec<String> = FORMATS.iter().map(|format| format.summary_key()).collect();
        assert_eq!(keys[..3], ["adapter_logit_difference", "merged_logit_difference", "bnb_4bit_logit_difference"]);
        let distinct: std::collections::BTreeSet<&str> = names.into_iter().collect();
        assert_eq!(distinct.len(), FORMATS.len());
    }

    #[test]
    fn a_command_names_the_system_message_only_if_there_is_one() {
        let prompt = Prompt { folder: "out/adapter", system: None, prompt: "'hello'", raw: false };
        assert_eq!(tune_generate(&prompt), "tune generate out/adapter --prompt 'hello'");
        let raw = Prompt { raw: true, ..prompt };
        assert_eq!(tune_generate(&raw), "tune generate out/adapter --raw --prompt 'hello'");
        let prompt = Prompt { system: Some("'be brief'"), ..prompt };
        assert_eq!(tune_generate(&prompt), "tune generate out/adapter --system 'be brief' --prompt 'hello'");
    }
}
