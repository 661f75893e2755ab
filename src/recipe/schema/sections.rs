//! The sections of a recipe, one row per key.

use std::collections::BTreeMap;

use datasets::{Defect, PromptFormat, RowFormat, SourceSettings, SpecialTokenOverrides, TrainOnEnd};
use serde_json::{Map, Value as Json};

use super::{Key, Keys, NoEffect, PLAIN, Refused, Row, keys};
use crate::device::FloatDType;
use crate::export::{Format, MergeBase};
use crate::recipe::kinds::{
    Kind, chat_template, choice, defects, export_formats, file_type, flag, mappings, prompt_format, roles, row_format,
    size, template_variables, text, text_or_texts, texts, train_on_end, whole,
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
        /// The chat template of this source, in place of the recipe's.
        chat_template: Option<ChatTemplate> = chat_template(), {
            otherwise: "the recipe's",
            axolotl: "A model is trained on one template, so that conversations cannot have different ones.",
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
    format as "type": Option<RowFormat> = row_format(), {
        otherwise: "recognised by the columns",
        known_as: "format",
    };
    /// The type of the files.
    ds_type: Option<String> = file_type(), { otherwise: "by the files' suffix" };
    /// Number of parts, drawn by the seed, of which one is taken.
    shards: Option<usize> = whole(1), { otherwise: "all rows" };
    /// The part that is taken, from 0.
    shard as "shards_idx": usize = whole(0), { default: Some("0") };
    /// Column of the instruction or the prompt. With a chat template, the column that becomes the user's turn.
    field_instruction: Option<String> = text(), {
        otherwise: "`instruction`, or `prompt`",
        axolotl: "In Axolotl it stands below `type`; there it means the same here.",
        known_as: "prompt_field field_question field_query prompt_column",
    };
    /// Column of the optional input.
    field_input: Option<String> = text(), { otherwise: "`input`" };
    /// Column of the output or the completion. With a chat template, the column that becomes the assistant's turn.
    field_output: Option<String> = text(), {
        otherwise: "`output`, or `completion`",
        known_as: "completion_field field_answer field_response field_target response_column",
    };
    /// Column of the system text, with a chat template: it comes first where the messages begin with none.
    field_system: Option<String> = text(), { otherwise: "`system`" };
    /// Column of the text.
    field: Option<String> = text(), {
        otherwise: "`text`",
        known_as: "field_text text_field text_column dataset_text_field",
    };
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
    /// From a role to the names that the rows use for it, in place of the usual ones.
    roles: BTreeMap<String, Vec<String>> = roles(), {
        otherwise: "`human` and `gpt` for user and assistant; `type: sharegpt` knows more",
    };
    /// Roles whose turns are trained on.
    roles_to_train: Option<Vec<String>> = texts(), { otherwise: "`[assistant]`" };
    /// The end-of-sequence tokens that are trained on.
    train_on_eos: Option<TrainOnEnd> = train_on_end(), { otherwise: "`turn`" };
    /// The other end-of-turn tokens that are trained on.
    train_on_eot: Option<TrainOnEnd> = train_on_end(), { otherwise: "as `train_on_eos`" };
    /// Leaves a leading system message out.
    drop_system_message: bool = flag(), { default: Some("false") };
    /// Key of a message's boolean that tells if it is trained on.
    message_field_training: Option<String> = text(), {
        otherwise: "`train`, or `weight`",
        axolotl: "Axolotl has no such key by default.",
    };
    /// Key of a message's list of stretches of its content, each with `begin_offset`, `end_offset` (the last character)
    /// and `train`; nothing else of the content is trained on.
    message_field_training_detail: Option<String> = text(), { otherwise: "none" };
    /// Further variables of the chat template, on top of the recipe's; a row's own are in its column of this name.
    template_variables as "chat_template_kwargs": Map<String, Json> = template_variables(), {
        otherwise: "none",
        axolotl: "Axolotl has it at the top alone; the column is TRL's.",
    };
}

keys! {
    for PromptFormat;
    no_effect &[];
    refused &[];

    /// The system text of rows without a column of one.
    system_prompt: String = text(), { otherwise: "none" };
    /// The text that stands in front where there is a system text, with `{system}`.
    system_format: String = prompt_format(&["system"]), { default: Some("{system}") };
    /// Column of the system text.
    field_system: String = text(), { default: Some("system") };
    /// Column of the instruction.
    field_instruction: String = text(), { default: Some("instruction") };
    /// Column of the optional input.
    field_input: String = text(), { default: Some("input") };
    /// Column of the output, which is trained.
    field_output: String = text(), { default: Some("output") };
    /// The prompt of a row with an input, with `{instruction}` and `{input}`.
    format: String = prompt_format(&["instruction", "input"]), { default: Some("{instruction} {input} ") };
    /// The prompt of a row without one, with `{instruction}`.
    no_input_format: String = prompt_format(&["instruction"]), { default: Some("{instruction} ") };
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
