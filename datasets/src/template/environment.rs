//! The Jinja environment of chat templates: what transformers adds to plain Jinja.
//!
//! Follows `_compile_jinja_template` of transformers: trimmed blocks, loop controls,
//! `raise_exception`, `strftime_now`, an unescaped `tojson`; Python's string methods by minijinja.

use std::error::Error as _;
use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::json::{JsonStyle, to_json};

/// What a template is given beside its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    /// What `strftime_now` calls now.
    pub(crate) clock: Clock,
    /// Instructions, items and characters that one rendering may process.
    pub(crate) fuel: u64,
}

impl Default for Surroundings {
    /// The machine's time, and fuel for conversations of a few million characters. A unit is an instruction or 64 bytes
    /// that are made, written out too, so that no rendering takes more than a second, or makes more than 64 MB.
    fn default() -> Self {
        Surroundings { clock: Clock::System, fuel: 1_000_000 }
    }
}

/// What `strftime_now` calls now.
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

/// An environment without templates, set up as transformers does.
pub(super) fn chat_environment(surroundings: Surroundings) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect("the delimiters are Jinja's own"),
    );
    environment.set_fuel(Some(surroundings.fuel));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(python_method);
    environment.set_formatter(|out, state, value| {
        charge(state, value, 0)?;
        minijinja::escape_formatter(out, state, value)
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |state: &State, value: &Value| -> Result<String, Error> {
        charge(state, value, 0)?;
        Ok(value.to_string())
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception was called").with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |pattern: String| {
        surroundings.clock.format(&pattern).map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
    environment
}

/// The message of `raise_exception`, if that is what ended the rendering.
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

/// Python's methods of strings, lists and maps.
fn python_method(state: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), method) {
        (Some(text), "removeprefix") => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        (Some(text), "removesuffix") => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// Deepest nesting that is written out, as of rows.
const DEEPEST: usize = 128;

/// Takes the fuel for writing a value out: one that holds another many times is small and writes much. What Jinja's
/// operators write out (`~`, `==`) is beyond this.
fn charge(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > 0 {
        state.consume_fuel(1 + value.as_str().map_or(0, str::len) as u64 / 64)?;
    }
    if depth > DEEPEST {
        return Err(Error::new(ErrorKind::InvalidOperation, "the value is nested too deeply to be written out"));
    }
    if matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable) {
        for item in value.try_iter()? {
            charge(state, &item, depth + 1)?;
            if value.kind() == ValueKind::Map {
                charge(state, &value.get_item(&item)?, depth + 1)?;
            }
        }
    }
    Ok(())
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    charge(state, value, 0)?;
    let json =
        serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let style = JsonStyle {
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: options.get::<Option<usize>>("indent")?,
        separators: options.get::<Option<Vec<String>>>("separators")?,
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    Ok(to_json(&json, &style))
}
