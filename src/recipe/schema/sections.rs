//! The sections of a recipe, one row per key.

use std::collections::BTreeMap;

use datasets::{Defect, SourceSettings, SpecialTokenOverrides, TrainOnEnd};

use super::{Key, Keys, NoEffect, PLAIN, Refused, Row, keys};
use crate::device::FloatDType;
use crate::export::{Format, MergeBase};
use crate::recipe::kinds::{
    Kind, chat_template, choice, defects, export_formats, file_type, flag, mappings, roles, row_format, size, text,
    text_or_texts, texts, train_on_end, whole,
};
use crate::recipe::reader::Section;
use crate::recipe::values::ChatTemplate;
use crate::recipe::{Setting, no_effect, refused};

keys! {
    for SpecialTokenOverrides;
    no_effect &[];
    refused refused::SPECIAL_TOKENS;

    /// Beginning of a sequence.
    bos_token: Option<String> = text(), { otherwise: "the tokenizer's" };
    /// End of a sequence.
    eos_token: Option<String> = text(), { otherwise: "the tokenizer's" };
    /// Filler of shorter rows.
    pad_token: Option<String> = text(), { otherwise: "the tokenizer's" };
    /// Stand-in for what the vocabulary lacks.
    unk_token: Option<String> = text(), { otherwise: "the tokenizer's" };
}

keys! {
    /// The section `bnb_config_kwargs`: the form of a base in 4 bits.
    pub struct BnbConfig {}
    no_effect no_effect::BNB;
    refused refused::BNB;

    "" {
        /// The type of the codes.
        bnb_4bit_quant_type: () = choice([("nf4", ())]), { default: Some("nf4") };
        /// Quantises the scales of blocks too.
        bnb_4bit_use_double_quant: Option<bool> = flag(), { otherwise: "`true`, or as the checkpoint stores them" };
        /// Linear maps that are not quantised.
        llm_int8_skip_modules: Vec<String> = texts(), { otherwise: "none but the head" };
    }
}

keys! {
    /// A source of rows, as written.
    pub struct DatasetEntry {}
    flatten
    /// The settings that only reading its rows depends on; its path and place are not among them.
    source: SourceSettings;
    no_effect &[];
    refused refused::DATASET;

    "" {
        /// A file, a folder of files, a pattern, or `org/name` of a data set of the hub.
        path: String = text(), {
            is_required: true,
            known_as: "file data_path dataset_path",
            hint: "name a file, a folder or a data set of the hub: `path: data/train.jsonl`",
        };
        /// Files inside the folder or data set `path`, by name or pattern.
        data_files: Vec<String> = text_or_texts(), { otherwise: "all that fit `split`" };
        /// The configuration of a data set of the hub.
        name: Option<String> = text(), { otherwise: "the default one" };
        /// The branch, tag or commit of a data set of the hub.
        revision: Option<String> = text(), { otherwise: "the branch `main`" };
        /// The files of a folder that are meant, and which of their rows: `train`, `train[:80%]`.
        split: Option<String> = text(), { otherwise: "`train`" };
        /// The chat template of this source, if it is not the recipe's.
        chat_template: Option<ChatTemplate> = chat_template(), {
            otherwise: "the recipe's",
            axolotl: "A model is trained on one template, so that sources cannot name different ones.",
        };
        /// The template itself, or a file that holds it.
        chat_template_jinja: Option<String> = text(), { otherwise: "none" };
    }
}

keys! {
    for SourceSettings;
    no_effect &[];
    refused &[];

    /// The format of the rows.
    format as "type": Option<String> = row_format(), {
        otherwise: "recognised by the columns",
        axolotl: "Custom prompt formats are not supported.",
        known_as: "format",
    };
    /// The type of the files.
    ds_type: Option<String> = file_type(), { otherwise: "by the files' suffix" };
    /// Number of parts, drawn by the seed, of which one is taken.
    shards: Option<usize> = whole(1), { otherwise: "all rows" };
    /// The part that is taken, from 0.
    shard as "shards_idx": usize = whole(0), { default: Some("0") };
    /// Column of the instruction or the prompt.
    field_instruction: Option<String> = text(), { otherwise: "`instruction`, or `prompt`" };
    /// Column of the optional input.
    field_input: Option<String> = text(), { otherwise: "`input`" };
    /// Column of the output or the completion.
    field_output: Option<String> = text(), { otherwise: "`output`, or `completion`" };
    /// Column of the text.
    field: Option<String> = text(), { otherwise: "`text`" };
    /// Column of the list of messages.
    field_messages: Option<String> = text(), { otherwise: "`messages`, or `conversations`" };
    /// Column of the tool definitions.
    field_tools: Option<String> = text(), { otherwise: "`tools`" };
    /// Key of a message's reasoning, which templates see as `reasoning_content`.
    field_thinking: Option<String> = text(), { otherwise: "`reasoning_content`" };
    /// From a message property (`role`, `content`) to the key that holds it in the rows.
    message_property_mappings: BTreeMap<String, String> = mappings(), {
        otherwise: "as the rows name them",
    };
    /// From a role to the names that the rows use for it, on top of the usual ones.
    roles: BTreeMap<String, Vec<String>> = roles(), { otherwise: "the usual names" };
    /// Roles whose turns are trained on.
    roles_to_train: Option<Vec<String>> = texts(), { otherwise: "`[assistant]`" };
    /// The end-of-sequence tokens that are trained on.
    train_on_eos: Option<TrainOnEnd> = train_on_end(), { otherwise: "`turn`" };
    /// The other end-of-turn tokens that are trained on.
    train_on_eot: Option<TrainOnEnd> = train_on_end(), { otherwise: "as `train_on_eos`" };
    /// Leaves a leading system message out.
    drop_system_message: bool = flag(), { default: Some("false") };
    /// Key of a message's boolean that tells if it is trained on.
    message_field_training: Option<String> = text(), { otherwise: "none" };
    /// Key of a message's list of stretches of its content, each with `begin_offset`, `end_offset` (the last character)
    /// and `train`; nothing else of the content is trained on.
    message_field_training_detail: Option<String> = text(), { otherwise: "none" };
}

keys! {
    /// The section `export`: the files that are written at the end.
    pub struct Export {}
    no_effect &[];
    refused refused::EXPORT;

    "" {
        /// The formats to write, each into the folder of its name.
        formats: Vec<&'static Format> = export_formats(), {
            otherwise: "`[adapter]`, or `[merged]` for full fine-tuning",
        };
        /// Element type of a merged checkpoint.
        dtype: Option<FloatDType> = dtype(), { otherwise: "the base model's" };
        /// Weights that an adapter on a base in 4 bits is merged into: the checkpoint's own, or what the codes stand for.
        merge_base: Option<MergeBase> = choice([("16bit", MergeBase::Original), ("4bit", MergeBase::Quantised)]), {
            otherwise: "`4bit`: the weights that training saw",
        };
    }
}

fn dtype() -> Kind<FloatDType> {
    choice([
        ("f32", FloatDType::F32),
        ("bf16", FloatDType::BF16),
        ("f16", FloatDType::F16),
        ("|float32", FloatDType::F32),
        ("|bfloat16", FloatDType::BF16),
        ("|float16", FloatDType::F16),
    ])
}

keys! {
    /// The section `preflight`: limits that are checked before training.
    pub struct Preflight {}
    no_effect &[];
    refused &[];

    "" {
        /// Defects of rows that do not end a run, even if most rows share them.
        allow: Vec<Defect> = defects(), { otherwise: "none" };
        /// Memory that the run may need, as the plan estimates it.
        max_memory: Option<u64> = size(), { otherwise: "what is free" };
    }
}
