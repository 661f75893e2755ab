//! One entry of `datasets` or `test_datasets`.

use std::collections::BTreeMap;

use super::reader::Section;
use super::refused;
use super::scalars::scalar;
use super::values::{ChatTemplate, TrainOnEnd};
use super::yaml::{Node, Value};

/// The data set types that are read, by the names a recipe may use.
pub const DATASET_TYPES: &[&str] = &[
    "alpaca",
    "chat_template",
    "chat_template.default",
    "chat",
    "messages",
    "sharegpt",
    "prompt_completion",
    "completion",
    "text",
    "input_output",
    "pretokenized",
];

/// The chat templates that are known by name, beside `tokenizer_default` and `jinja`.
pub const CHAT_TEMPLATES: &[&str] = &[
    "alpaca",
    "chatml",
    "deepseek",
    "deepseek_v3",
    "gemma",
    "llama3",
    "mistral",
    "mistral_v1",
    "phi-4",
    "phi_4",
    "qwen",
    "qwen_25",
];

/// How the files of a source may be encoded.
const FILE_TYPES: &[&str] = &["json", "jsonl", "csv", "tsv", "text", "txt", "parquet", "arrow"];

/// Types of Axolotl's that are real and not read, so that they are not taken for typos.
const OTHER_TYPES: &[(&str, &str)] = &[
    ("alpaca:", "; with another prompt style, write the prompts into the rows as `prompt_completion`"),
    ("alpaca_", "; with another prompt style, write the prompts into the rows as `prompt_completion`"),
    ("sharegpt", "; use `chat_template` with `field_messages: conversations`"),
    ("pretrain", "; use `completion`"),
];

/// A source of rows, as written.
#[derive(Clone, Debug, Default)]
pub struct DatasetEntry {
    /// A file, a folder of files, a pattern, or `org/name` of a data set of the hub.
    pub path: String,
    /// The key `type`: one of [`DATASET_TYPES`]; `None` to recognise it by the columns.
    pub r#type: Option<String>,
    /// How the files are encoded, where their suffix does not say it.
    pub ds_type: Option<String>,
    /// Files inside the folder or data set `path`.
    pub data_files: Vec<String>,
    /// The configuration of a data set of the hub.
    pub name: Option<String>,
    /// The branch, tag or commit of a data set of the hub.
    pub revision: Option<String>,
    /// Which files of a folder are meant, and which of their rows: `train`, `train[:80%]`.
    pub split: Option<String>,
    /// Of how many parts, drawn by the seed, one is taken.
    pub shards: Option<usize>,
    /// Which of these parts, from 0.
    pub shards_idx: Option<usize>,
    /// Column of the instruction or the prompt.
    pub field_instruction: Option<String>,
    /// Column of the optional input.
    pub field_input: Option<String>,
    /// Column of the output or the completion.
    pub field_output: Option<String>,
    /// Column of the text.
    pub field: Option<String>,
    /// Column of the list of messages.
    pub field_messages: Option<String>,
    /// Column of the tool definitions.
    pub field_tools: Option<String>,
    /// Key of a message's reasoning.
    pub field_thinking: Option<String>,
    /// From a message property (`role`, `content`) to the key that holds it in the rows.
    pub message_property_mappings: BTreeMap<String, String>,
    /// From a role to the names that the rows use for it.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Roles whose turns are trained on.
    pub roles_to_train: Option<Vec<String>>,
    /// Which end-of-sequence tokens are trained on.
    pub train_on_eos: Option<TrainOnEnd>,
    /// Which other end-of-turn tokens are trained on.
    pub train_on_eot: Option<TrainOnEnd>,
    /// Whether a leading system message is left out.
    pub drop_system_message: Option<bool>,
    /// Key of a message's boolean that says whether it is trained on.
    pub message_field_training: Option<String>,
    /// The chat template of this source, where it is not the recipe's.
    pub chat_template: Option<ChatTemplate>,
    /// The template itself, or a file that holds it.
    pub chat_template_jinja: Option<String>,
}

const ENDS: &[(&str, TrainOnEnd)] =
    &[("turn", TrainOnEnd::Turn), ("all", TrainOnEnd::All), ("last", TrainOnEnd::Last), ("none", TrainOnEnd::None)];

/// Reads one entry.
pub(super) fn read(mut section: Section<'_>) -> DatasetEntry {
    let entry = DatasetEntry {
        path: section.text("path").unwrap_or_default(),
        r#type: kind(&mut section),
        ds_type: file_type(&mut section),
        data_files: section.text_or_texts("data_files").unwrap_or_default(),
        name: section.text("name"),
        revision: section.text("revision"),
        split: section.text("split"),
        shards: section.whole("shards", 1),
        shards_idx: section.whole("shards_idx", 0),
        field_instruction: section.text("field_instruction"),
        field_input: section.text("field_input"),
        field_output: section.text("field_output"),
        field: section.text("field"),
        field_messages: section.text("field_messages"),
        field_tools: section.text("field_tools"),
        field_thinking: section.text("field_thinking"),
        message_property_mappings: mappings(&mut section),
        roles: roles(&mut section),
        roles_to_train: section.texts("roles_to_train"),
        train_on_eos: section.choice("train_on_eos", ENDS),
        train_on_eot: section.choice("train_on_eot", ENDS),
        drop_system_message: section.flag("drop_system_message"),
        message_field_training: section.text("message_field_training"),
        chat_template: chat_template(&mut section),
        chat_template_jinja: section.text("chat_template_jinja"),
    };
    if section.lacks("path") {
        let message = format!("`{}` is missing", section.name("path"));
        section.findings.problem(
            section.at,
            message,
            "name a file, a folder or a data set of the hub: `path: data/train.jsonl`",
        );
    }
    section.finish(refused::DATASET);
    entry
}

fn file_type(section: &mut Section<'_>) -> Option<String> {
    let choices: Vec<(&'static str, String)> = FILE_TYPES.iter().map(|name| (*name, (*name).to_owned())).collect();
    section.choice("ds_type", &choices)
}

fn kind(section: &mut Section<'_>) -> Option<String> {
    let node = section.take("type")?;
    let text = scalar(node).map(str::trim);
    if let Some(text) = text.filter(|text| DATASET_TYPES.contains(text)) {
        return Some(text.to_owned());
    }
    let advice = match &node.value {
        Value::Scalar { text, .. } => {
            OTHER_TYPES.iter().find(|(start, _)| text.starts_with(start)).map_or("", |(_, advice)| advice)
        }
        _ => "; prompt formats of one's own are not read, write the prompts into the rows as `prompt_completion`",
    };
    section.unsupported("type", node, DATASET_TYPES, advice);
    None
}

fn mappings(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut mappings = BTreeMap::new();
    for entry in section.free("message_property_mappings") {
        match scalar(&entry.node).filter(|_| !entry.node.is_unset()) {
            Some(text) => {
                mappings.insert(entry.key.clone(), text.to_owned());
            }
            None => {
                let key = format!("message_property_mappings.{}", entry.key);
                section.refuse(&key, &entry.node, "the name of a key in the rows");
            }
        }
    }
    mappings
}

fn roles(section: &mut Section<'_>) -> BTreeMap<String, Vec<String>> {
    let mut roles = BTreeMap::new();
    for entry in section.free("roles") {
        let key = format!("roles.{}", entry.key);
        if let Value::List(items) = &entry.node.value {
            roles.insert(entry.key.clone(), section.items(&key, items));
        } else {
            section.refuse(&key, &entry.node, "a list of the names that the rows use for this role");
        }
    }
    roles
}

/// The key `chat_template`, of the recipe or of a source.
pub(super) fn chat_template(section: &mut Section<'_>) -> Option<ChatTemplate> {
    let node = section.take("chat_template")?;
    let known = |name: &str| CHAT_TEMPLATES.contains(&name);
    match scalar(node).map(str::trim) {
        Some("tokenizer_default") => Some(ChatTemplate::TokenizerDefault),
        Some("jinja") => Some(ChatTemplate::Jinja),
        Some(name) if known(name) => Some(ChatTemplate::Named(name.to_owned())),
        Some(name) => match name.strip_prefix("tokenizer_default_fallback_") {
            Some(fallback) if known(fallback) => Some(ChatTemplate::TokenizerDefaultOr(fallback.to_owned())),
            _ => refuse_template(section, node),
        },
        None => refuse_template(section, node),
    }
}

fn refuse_template(section: &Section<'_>, node: &Node) -> Option<ChatTemplate> {
    let mut names = vec!["tokenizer_default", "jinja"];
    names.extend(CHAT_TEMPLATES);
    let advice = "; the model's own template is `tokenizer_default`, and `jinja` takes one from `chat_template_jinja`";
    section.unsupported("chat_template", node, &names, advice);
    None
}
