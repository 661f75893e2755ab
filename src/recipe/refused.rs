//! Real keys that are not implemented, with advice for each, and the values at which they are off.
//!
//! A value that means "off" describes what is done here anyway, so it passes; any other is refused.
//! Pinned to Axolotl 0.19 and to what older recipes in circulation carry.

pub(super) mod axolotl;

use super::scalars::{boolean, number, scalar};
use super::yaml::Node;

/// The standing of a key of Axolotl's, for messages.
pub(super) const NOT_IMPLEMENTED: &str = "an Axolotl key that is not implemented here";
/// The standing of a key of the trainer of transformers, for messages.
pub(super) const OF_TRANSFORMERS: &str = "a key of transformers that is not implemented here";
/// The standing of a key that is not supported yet.
pub(super) const PLANNED: &str = "a key of recipes that is not supported yet";

/// Keys that are refused for the same reason.
pub(super) struct Refused {
    /// The end of a sentence that starts with the key.
    pub(super) standing: &'static str,
    /// Advice: the alternative.
    pub(super) advice: &'static str,
    /// The values that pass; blank and empty ones always do.
    pub(super) off: Off,
    /// The keys, with white space between them.
    pub(super) keys: &'static str,
}

/// The values at which a key that is not implemented has nothing to do.
pub(super) enum Off {
    /// Only blank.
    Never,
    /// `false`.
    False,
    /// `false` and zero.
    FalseOrZero,
    /// `true`: this is what is done here.
    True,
    /// Either boolean: neither changes what is done.
    Boolean,
    /// This word, or `false`.
    Word(&'static str),
}

impl Refused {
    /// True if the key, at this value, asks for nothing.
    pub(super) fn is_off(&self, node: &Node) -> bool {
        let text = scalar(node).unwrap_or("");
        let flag = boolean(text);
        node.is_empty()
            || match self.off {
                Off::Never => false,
                Off::False => flag == Some(false),
                Off::FalseOrZero => flag == Some(false) || number(text) == Some(0.0),
                Off::True => flag == Some(true),
                Off::Boolean => flag.is_some(),
                Off::Word(word) => flag == Some(false) || text == word,
            }
    }
}

/// The group that a key is in.
pub(super) fn find<'t>(known: &'t [Refused], key: &str) -> Option<&'t Refused> {
    known.iter().find(|group| group.keys.split_whitespace().any(|name| name == key))
}

/// Every key of a table.
pub(super) fn names(known: &[Refused]) -> impl Iterator<Item = &'static str> + '_ {
    known.iter().flat_map(|group| group.keys.split_whitespace())
}

/// Keys of Axolotl's.
pub(super) const fn axolotl(off: Off, advice: &'static str, keys: &'static str) -> Refused {
    Refused { standing: NOT_IMPLEMENTED, advice, off, keys }
}

/// Keys of the trainer of transformers.
pub(super) const fn transformers(off: Off, advice: &'static str, keys: &'static str) -> Refused {
    Refused { standing: OF_TRANSFORMERS, advice, off, keys }
}

/// Keys of this program alone.
pub(super) const fn planned(off: Off, advice: &'static str, keys: &'static str) -> Refused {
    Refused { standing: PLANNED, advice, off, keys }
}

/// The section `special_tokens`.
pub(super) const SPECIAL_TOKENS: &[Refused] = &[axolotl(
    Off::False,
    "new tokens need new rows in the embedding; use tokens that the vocabulary has",
    "additional_special_tokens sep_token cls_token mask_token",
)];

/// The section `export`.
pub(super) const EXPORT: &[Refused] =
    &[planned(Off::Never, "remove it; `formats` and `dtype` are what `export` has so far", "for max_shard_size")];

/// The section `bnb_config_kwargs`.
pub(super) const BNB: &[Refused] = &[
    axolotl(Off::Never, "remove it; what is computed in follows from `bf16`", "bnb_4bit_compute_dtype"),
    axolotl(
        Off::False,
        "remove it; 8-bit bases are not supported yet",
        "load_in_8bit llm_int8_enable_fp32_cpu_offload",
    ),
    axolotl(Off::True, "remove it; it follows from `load_in_4bit`", "load_in_4bit"),
];

/// An entry of `datasets` or `test_datasets`.
pub(super) const DATASET: &[Refused] = &[
    axolotl(Off::FalseOrZero, "remove it; `shards` takes a part of the rows", "preprocess_shards"),
    axolotl(
        Off::Never,
        "write `message_property_mappings: {role: ..., content: ...}` instead",
        "message_field_role message_field_content",
    ),
    axolotl(
        Off::False,
        "name the key of the reasoning in `field_thinking`; templates see it as `reasoning_content`",
        "template_thinking_key split_thinking",
    ),
    axolotl(
        Off::Never,
        "name the template with `chat_template`, and the columns with `field_messages` and `message_property_mappings`",
        "conversation field_human field_model input_format input_transform",
    ),
    axolotl(
        Off::Never,
        "write it below `type`, beside `format`; with a chat template the column `field_system` holds the system text",
        "system_prompt system_format no_input_format",
    ),
    axolotl(Off::False, "no code is run from data sets; convert them to jsonl first", "trust_remote_code"),
    axolotl(
        Off::Never,
        "use `type: prompt_completion`, whose columns are named by `field_instruction` and `field_output`",
        "field_prompt field_completion",
    ),
    axolotl(
        Off::Never,
        "only supervised fine-tuning is implemented; remove it",
        "logprobs_field temperature field_chosen field_rejected prompt_format \
         chosen_format rejected_format field_label completion_format \
         step_separator max_completion_length train_on_last_step_only",
    ),
    axolotl(
        Off::Never,
        "write the rows to a file and use `type: completion` with `field`",
        "text_column skip length sequence_length min_input_id max_input_id seed",
    ),
];
