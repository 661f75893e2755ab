//! The Jinja environment of chat templates: plain Jinja with the additions of transformers.
//!
//! Follows `_compile_jinja_template` of transformers: trimmed blocks, loop controls,
//! `raise_exception`, `strftime_now`, an unescaped `tojson`; Python's string methods by minijinja.

use std::error::Error as _;
use std::fmt;

use minijinja::formatting::FormatStyle;
use minijinja::functions::namespace;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::counted::{counted, counted_sum, printable};
use super::filters;
use super::methods::{formatted, python_method};

/// The surroundings of a template, beside its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    /// The time of `strftime_now`.
    pub(crate) clock: Clock,
    /// Instructions, items and characters that one rendering may process.
    pub(crate) fuel: u64,
}

impl Default for Surroundings {
    /// The machine's time, and fuel for conversations of a few million characters. A unit is an instruction or 64 bytes
    /// that are made or written out, and as many items of lists and maps may be read, so that no rendering takes more than
    /// a second, or makes more than 64 MB.
    fn default() -> Self {
        Surroundings { clock: Clock::System, fuel: 1_000_000 }
    }
}

/// The time of `strftime_now`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    /// The machine's local time.
    System,
    /// This moment.
    #[cfg(test)]
    Fixed(jiff::civil::DateTime),
}

impl Clock {
    fn format(self, pattern: &str) -> Result<String, jiff::Error> {
        match self {
            Clock::System => jiff::fmt::strtime::format(pattern, &jiff::ZonedDateTime::now()),
            #[cfg(test)]
            Clock::Fixed(moment) => jiff::fmt::strtime::format(pattern, moment),
        }
    }
}

/// The machine's local time in a pattern of `strftime`.
pub(super) fn now(pattern: &str) -> Option<String> {
    Clock::System.format(pattern).ok()
}

/// Jinja's own delimiters, blocks trimmed.
pub(super) fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect("the delimiters are Jinja's own")
}

/// An environment without templates, set up as transformers does.
pub(super) fn chat_environment(surroundings: Surroundings) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_fuel(Some(surroundings.fuel));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(python_method);
    environment.set_formatter(|out, state, value| minijinja::escape_formatter(out, state, &printable(value.clone())));
    environment.add_filter("counted", counted);
    environment.add_filter("counted_sum", counted_sum);
    filters::add_to(&mut environment);
    environment.add_filter("format", |state: &State, text: &str, arguments: Rest<ValueOrKwargs>| {
        let arguments: Vec<Value> = arguments.0.into_iter().map(Value::from).collect();
        formatted(state, FormatStyle::Printf, text, &arguments)
    });
    // Jinja has no such function; this one would write out the whole context.
    environment.add_global("debug", Value::UNDEFINED);
    environment.add_function("namespace", |values: Option<ValueOrKwargs>| {
        namespace(values.map(|values| counted(values.into()).into()))
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception was called").with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |pattern: String| {
        surroundings.clock.format(&pattern).map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
    environment
}

/// The message of `raise_exception`, if that ended the rendering.
pub(super) fn raised_message(error: &Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref::<Raised>() {
            return Some(message.clone());
        }
        cause = current.source();
    }
    None
}

/// The cause that `raise_exception` leaves behind.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}
