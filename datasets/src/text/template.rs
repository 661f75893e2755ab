//! Chat templates: Jinja as transformers sets it up, from messages to one text.
//!
//! Blocks are trimmed, `raise_exception`, `strftime_now`, `tojson` and Python's string methods are
//! available, and rendering has a fuel limit, since templates come with downloaded models.
//! `{% generation %}` tags are kept as byte ranges of the rendered text.

mod counted;
mod deep;
mod environment;
mod filters;
mod generation;
mod json;
mod marks;
mod methods;
mod named;
mod python;

use std::ops::Range;

use minijinja::{Environment, Value};
use serde_json::Map;

use crate::foundation::Location;

pub(crate) use counted::from_json as to_jinja;
use counted::{counted, reading_at_most};
pub(crate) use deep::{MORE_THREADS, deep_pool};
#[cfg(test)]
pub(crate) use environment::Clock;
pub(crate) use environment::Surroundings;
pub(crate) use json::python_json;
pub(crate) use named::named_source;
pub use named::named_templates;

/// Most bytes of a template: twice those of the longest published one, and few enough for the stack that nesting without
/// brackets (`- - - 1`) takes, up to 1350 bytes a level, and for the time of folding it, which grows with their square.
const MOST_BYTES: usize = 1 << 16;

/// Most `~` in a template: five times those of any published one; the time of folding a chain of them grows with the cube
/// of its length.
const MOST_JOINS: usize = 1000;

/// A parsed chat template.
#[derive(Debug)]
pub(crate) struct ParsedTemplate {
    environment: Environment<'static>,
    /// Its place, for errors.
    pub(crate) location: Location,
    /// The Jinja text as written.
    pub(crate) source: String,
    /// True if the template has `{% generation %}` tags.
    pub(crate) marks_generation: bool,
}

/// A rendered conversation.
#[derive(Debug, PartialEq)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    /// Byte ranges of `text` inside `{% generation %}` tags.
    pub(crate) generated: Vec<Range<usize>>,
}

/// The reason why a template cannot be parsed or rendered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TemplateProblem {
    /// The template called `raise_exception` with this message.
    Raised(String),
    /// The template is wrong, or uses something that this environment lacks.
    Failed(String),
    /// The template ran for too long.
    OutOfFuel,
    /// The system refuses a thread to run it on.
    NoThread(String),
}

/// Names that are the input of every template, and those that transformers gives another meaning: no variables.
pub const TEMPLATE_INPUT: [&str; 8] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "tokenize",
    "return_dict",
];

/// The input of a template.
pub(crate) struct TemplateInput<'a> {
    pub(crate) messages: &'a [Value],
    pub(crate) tools: Option<&'a serde_json::Value>,
    pub(crate) add_generation_prompt: bool,
    /// `bos_token`, `eos_token` ...
    pub(crate) special_tokens: &'a Map<String, serde_json::Value>,
    /// `enable_thinking`, `date_string` ...; they win over everything above.
    pub(crate) variables: &'a Map<String, serde_json::Value>,
}

impl ParsedTemplate {
    /// Parses `source`; `location` names it in errors.
    pub(crate) fn parse(
        source: &str,
        location: Location,
        surroundings: Surroundings,
    ) -> Result<ParsedTemplate, TemplateProblem> {
        if source.len() > MOST_BYTES {
            return Err(TemplateProblem::Failed(format!("it has {} bytes, accepted are {MOST_BYTES}", source.len())));
        }
        let joins = source.bytes().filter(|byte| *byte == b'~').count();
        if joins > MOST_JOINS {
            return Err(TemplateProblem::Failed(format!("it has {joins} `~` operators, accepted are {MOST_JOINS}")));
        }
        if source.contains("\\N{") {
            return Err(TemplateProblem::Failed("`\\N{...}` in a string is not supported".to_owned()));
        }
        let (marked, marks_generation) = generation::replace_tags(source);
        let parse = || {
            let mut environment = environment::chat_environment(surroundings);
            marks::mark(&marked, environment::syntax())
                .and_then(|counting| environment.add_template_owned("chat", counting))
                .map_err(|error| TemplateProblem::from_jinja(&error))?;
            Ok(environment)
        };
        let environment = deep::on_deep_stack(parse).map_err(TemplateProblem::no_thread)??;
        Ok(ParsedTemplate { environment, location, source: source.to_owned(), marks_generation })
    }

    /// The time, to the day or to the microsecond, as the template may show it; `None` if it shows none.
    pub(crate) fn now(&self) -> Option<String> {
        if !self.source.contains("strftime_now") {
            return None;
        }
        let within_a_day = ["%H", "%I", "%M", "%S", "%c", "%X", "%T", "%R", "%s", "%f", "%p"];
        let pattern = if within_a_day.iter().any(|code| self.source.contains(code)) {
            "%Y-%m-%d %H:%M:%S.%f"
        } else {
            "%Y-%m-%d"
        };
        environment::now(pattern)
    }

    /// Renders messages to text.
    pub(crate) fn render(&self, input: &TemplateInput<'_>) -> Result<Rendered, TemplateProblem> {
        let mut context: Vec<(String, Value)> = vec![
            ("messages".to_owned(), counted(input.messages.iter().cloned().collect())),
            ("tools".to_owned(), input.tools.map_or(Value::from(()), to_jinja)),
            ("documents".to_owned(), Value::from(())),
            ("add_generation_prompt".to_owned(), Value::from(input.add_generation_prompt)),
        ];
        for (name, value) in input.special_tokens.iter().chain(input.variables) {
            context.push((name.clone(), to_jinja(value)));
        }
        let template = self.environment.get_template("chat").map_err(|error| TemplateProblem::from_jinja(&error))?;
        let most = self.environment.fuel().unwrap_or(u64::MAX);
        let render = || {
            reading_at_most(most, || {
                template.render(Value::from_pairs(context)).map_err(|error| TemplateProblem::from_jinja(&error))
            })
        };
        let marked = deep::on_deep_stack(render).map_err(TemplateProblem::no_thread)??;
        Ok(generation::take_marks(marked))
    }
}

impl TemplateProblem {
    fn no_thread(error: std::io::Error) -> TemplateProblem {
        TemplateProblem::NoThread(error.to_string())
    }

    fn from_jinja(error: &minijinja::Error) -> TemplateProblem {
        if let Some(message) = environment::raised_message(error) {
            return TemplateProblem::Raised(message);
        }
        if error.kind() == minijinja::ErrorKind::OutOfFuel {
            return TemplateProblem::OutOfFuel;
        }
        let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        TemplateProblem::Failed(match error.line() {
            Some(line) => format!("line {line} of the template: {what}"),
            None => what,
        })
    }

    /// The problem and what to try, for a row that this template met.
    pub(crate) fn described(&self) -> (String, &'static str) {
        match self {
            TemplateProblem::Raised(message) => (
                format!("the chat template refuses it: `{message}`"),
                "change the row to what the template accepts, or choose another `chat_template`",
            ),
            TemplateProblem::Failed(message) => (
                format!("the chat template fails: {message}"),
                "check the row's messages against the template, or choose another `chat_template`",
            ),
            TemplateProblem::OutOfFuel => {
                ("the chat template does not end, or takes too long".to_owned(), "choose another `chat_template`")
            }
            TemplateProblem::NoThread(error) => {
                (format!("the system refuses a thread for the chat template: {error}"), MORE_THREADS)
            }
        }
    }
}

#[cfg(test)]
mod tests;
