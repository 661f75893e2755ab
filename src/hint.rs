//! Hints of errors: what to try, apart from the message, until both are shown.
//!
//! Types of errors have a method `hint`; an error without a type of its own is a [`Hinted`].

use std::error::Error;
use std::fmt;

/// An error with a hint, for a place that has no type of error.
#[derive(Debug)]
pub struct Hinted {
    message: String,
    hint: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Returns an error that shows `message`, and below it `hint`.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Hinted {
    Hinted { message: message.into(), hint: hint.into(), source: None }
}

impl Hinted {
    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The hint: what to try.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source: &(dyn Error + 'static) = self.source.as_deref()?;
        Some(source)
    }
}

/// The text that shows a message with its hint.
pub fn with_hint(message: &str, hint: &str) -> String {
    format!("{message}\nhint: {hint}")
}
