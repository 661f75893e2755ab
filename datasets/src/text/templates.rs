//! The chat templates of a tokenizer: the usual one, and one for conversations with tools where the model has it.
//!
//! As in transformers, a model may come with several templates by name; `tool_use` renders conversations that define
//! tools, `default` all others.

use minijinja::Value;
use serde_json::{Map, Value as Json};

use super::template::{ParsedTemplate, Rendered, Surroundings, TemplateInput, TemplateProblem};
use super::turns::Turns;
use crate::foundation::{Error, Location};

/// Templates as text, each with its location for errors.
#[derive(Debug, Default)]
pub(crate) struct TemplateSources {
    /// The one for all conversations, or for those without tools.
    pub(crate) usual: Option<(String, Location)>,
    /// The one for conversations with tools.
    pub(crate) with_tools: Option<(String, Location)>,
}

/// The templates, parsed and probed.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    usual: Option<Template>,
    with_tools: Option<Template>,
    /// What is known of the turns of no template.
    no_turns: Turns,
}

/// A template with what is known about it before any row is read.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) parsed: ParsedTemplate,
    pub(crate) turns: Turns,
}

impl Templates {
    /// Parses and probes the templates.
    pub(crate) fn read(sources: TemplateSources, special_tokens: &Map<String, Json>) -> Result<Templates, Error> {
        let read = |source: Option<(String, Location)>| {
            source.map(|(text, location)| Template::read(&text, location, special_tokens)).transpose()
        };
        Ok(Templates { usual: read(sources.usual)?, with_tools: read(sources.with_tools)?, no_turns: Turns::default() })
    }

    /// The template for a conversation with these tools.
    pub(crate) fn of(&self, tools: Option<&Json>) -> Option<&Template> {
        match tools {
            Some(_) => self.with_tools.as_ref().or(self.usual.as_ref()),
            None => self.usual.as_ref(),
        }
    }

    /// The turns of the template for a conversation with these tools.
    pub(crate) fn turns(&self, tools: Option<&Json>) -> &Turns {
        self.of(tools).map_or(&self.no_turns, |template| &template.turns)
    }

    /// Every template.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Template> {
        self.usual.iter().chain(&self.with_tools)
    }
}

impl Template {
    fn read(source: &str, location: Location, special_tokens: &Map<String, Json>) -> Result<Template, Error> {
        let parsed = parse(source, location)?;
        let turns = Turns::probe(source.contains("tool"), |messages, tools| {
            let variables = &Map::new();
            let input = TemplateInput { messages, tools, add_generation_prompt: false, special_tokens, variables };
            parsed.render(&input).map(|rendered| rendered.text)
        });
        Ok(Template { parsed, turns })
    }

    /// Renders messages that are already the template's values, with tools as the row has them.
    pub(crate) fn render(
        &self,
        messages: &[Value],
        tools: Option<&Json>,
        add_generation_prompt: bool,
        special_tokens: &Map<String, Json>,
        variables: &Map<String, Json>,
    ) -> Result<Rendered, TemplateProblem> {
        let tools = tools.map(|tools| self.turns.forms.tools(tools));
        let tools = tools.as_ref();
        self.parsed.render(&TemplateInput { messages, tools, add_generation_prompt, special_tokens, variables })
    }
}

fn parse(source: &str, location: Location) -> Result<ParsedTemplate, Error> {
    ParsedTemplate::parse(source, location.clone(), Surroundings::default()).map_err(|problem| {
        let (problem, hint) = match problem.described() {
            (text, hint) if matches!(problem, TemplateProblem::NoThread(_)) => (text, hint),
            (text, _) => (text, "correct the template, or choose another `chat_template`"),
        };
        Error::Template { location, problem, hint: hint.to_owned() }
    })
}
