//! The chat template that a recipe asks for, and the Jinja text that this means for a tokenizer.

use std::path::{Path, PathBuf};

use super::template::{named_source, named_templates};
use super::templates::TemplateSources;
use super::tokenizer_files::TokenizerFiles;
use crate::foundation::{Choice, Error, Location, nearest, quoted_list};

/// The value of the recipe key `chat_template`, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatTemplate {
    /// `tokenizer_default`: the tokenizer's own.
    TokenizerDefault,
    /// `tokenizer_default_fallback_NAME`: the tokenizer's own, or the named one where it has none.
    TokenizerDefaultOr(String),
    /// `jinja`: the text of `chat_template_jinja`.
    Jinja,
    /// One of [`named_templates`].
    Named(String),
}

impl ChatTemplate {
    /// The prefix of values that name a template for tokenizers without one.
    pub const FALLBACK: &str = "tokenizer_default_fallback_";

    /// The values that are accepted, but for those with a fallback.
    pub fn choices() -> impl Iterator<Item = Choice> {
        let own = [
            Choice { name: "tokenizer_default", description: "the tokenizer's own" },
            Choice { name: "jinja", description: "the text of `chat_template_jinja`, or the file that it names" },
        ];
        own.into_iter().chain(named_templates())
    }

    /// The template that a value names; `None` for one that names none.
    pub fn parse(value: &str) -> Option<ChatTemplate> {
        let known = |name: &str| named_source(name).map(|_| name.to_owned());
        match value {
            "tokenizer_default" => Some(ChatTemplate::TokenizerDefault),
            "jinja" => Some(ChatTemplate::Jinja),
            _ => match value.strip_prefix(ChatTemplate::FALLBACK) {
                Some(fallback) => known(fallback).map(ChatTemplate::TokenizerDefaultOr),
                None => known(value).map(ChatTemplate::Named),
            },
        }
    }

    /// The template to open the tokenizer in `folder` with; `jinja` is the text of `chat_template_jinja`.
    pub fn resolve(chosen: Option<&ChatTemplate>, jinja: Option<String>, folder: &Path) -> TemplateChoice {
        match (chosen, jinja) {
            (Some(ChatTemplate::Named(name)), _) => TemplateChoice::Named(name.clone()),
            (_, Some(text)) => TemplateChoice::Jinja(text),
            (Some(ChatTemplate::TokenizerDefaultOr(name)), None) if !has_template(folder) => {
                TemplateChoice::Named(name.clone())
            }
            _ => TemplateChoice::TokenizerDefault,
        }
    }
}

/// True if the tokenizer in `folder` has a chat template; broken files are reported when it is opened.
fn has_template(folder: &Path) -> bool {
    TokenizerFiles::read(folder).is_ok_and(|files| files.template.is_some() || files.tool_template.is_some())
}

/// The source of the chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateChoice {
    /// Those beside the tokenizer: `chat_template.jinja` and the files in `additional_chat_templates`, or
    /// `chat_template` in `tokenizer_config.json`.
    TokenizerDefault,
    /// This Jinja text.
    Jinja(String),
    /// One of [`named_templates`].
    Named(String),
}

impl TemplateChoice {
    /// The templates' texts; none where the tokenizer has no template.
    pub(crate) fn sources(&self, files: &TokenizerFiles) -> Result<TemplateSources, Error> {
        let one = |text: &str, location: Location| TemplateSources {
            usual: Some((text.to_owned(), location)),
            with_tools: None,
        };
        match self {
            TemplateChoice::TokenizerDefault => {
                let located =
                    |(text, path): &(String, PathBuf)| (text.clone(), Location::Place(path.display().to_string()));
                Ok(TemplateSources {
                    usual: files.template.as_ref().map(located),
                    with_tools: files.tool_template.as_ref().map(located),
                })
            }
            TemplateChoice::Jinja(text) => Ok(one(text, Location::Key("chat_template_jinja"))),
            TemplateChoice::Named(name) => match named_source(name) {
                Some(source) => Ok(one(source, Location::Place(format!("chat template `{name}`")))),
                None => Err(unknown_template(name)),
            },
        }
    }
}

fn unknown_template(name: &str) -> Error {
    let names: Vec<&str> = ChatTemplate::choices().map(|known| known.name).collect();
    let hint = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`tokenizer_default` takes the model's own, `jinja` that of `chat_template_jinja`".to_owned(),
    };
    Error::Setting {
        location: Location::Key("chat_template"),
        problem: format!("unknown chat template `{name}`, accepted are {}", quoted_list(names)),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizer::{Folder, byte_tokenizer_folder};

    #[test]
    fn a_misspelt_template_name_gets_a_suggestion() {
        let choice = TemplateChoice::Named("chatmel".to_owned());
        let error = choice.sources(&TokenizerFiles::default()).unwrap_err().shown();
        assert!(error.contains("`chatmel`") && error.contains("hint: did you mean `chatml`?"), "{error}");
    }

    #[test]
    fn every_accepted_value_is_read() {
        for known in ChatTemplate::choices() {
            assert!(ChatTemplate::parse(known.name).is_some(), "{}", known.name);
        }
        let or_chatml = ChatTemplate::parse("tokenizer_default_fallback_chatml");
        assert_eq!(or_chatml, Some(ChatTemplate::TokenizerDefaultOr("chatml".to_owned())));
        assert_eq!(ChatTemplate::parse("tokenizer_default_fallback_x").or(ChatTemplate::parse("x")), None);
    }

    #[test]
    fn a_fallback_is_taken_where_the_tokenizer_has_no_template() {
        let folder: Folder = byte_tokenizer_folder();
        let chosen = ChatTemplate::TokenizerDefaultOr("chatml".to_owned());
        let resolved =
            |jinja: Option<&str>| ChatTemplate::resolve(Some(&chosen), jinja.map(str::to_owned), folder.path());
        assert_eq!(resolved(None), TemplateChoice::Named("chatml".to_owned()));
        assert_eq!(resolved(Some("{{ x }}")), TemplateChoice::Jinja("{{ x }}".to_owned()));
        folder.write("chat_template.jinja", "{{ messages }}");
        assert_eq!(resolved(None), TemplateChoice::TokenizerDefault);
    }
}
