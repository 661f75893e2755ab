//! Messages to text by chat templates, text to token ids by the tokenizer, and which bytes are trained on.

mod conversation;
mod forms;
mod golden_prompts;
mod normalizer_growth;
mod template;
mod template_choice;
mod templates;
mod tokenizer;
mod tokenizer_files;
mod trained_spans;
mod turns;
mod word_cache;

pub(crate) use self::conversation::REASONING;
pub use self::conversation::{Conversation, Message, TrainingDetail};
pub use self::golden_prompts::{GoldenPrompt, PromptForm, TextForm, golden_prompts};
pub(crate) use self::template::{MORE_THREADS, deep_pool};
pub use self::template::{TEMPLATE_INPUT, named_templates};
pub use self::template_choice::{ChatTemplate, TemplateChoice};
pub(crate) use self::tokenizer::NO_TEMPLATE;
pub use self::tokenizer::Tokenizer;
pub use self::tokenizer_files::SpecialTokenOverrides;
pub(crate) use self::trained_spans::{DetailedText, LocatedTurn, TurnEnd, located_text, unused_word};
pub(crate) use self::word_cache::Encoded;
