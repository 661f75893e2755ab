//! Values that a recipe chooses from by name, described for its schema and its documentation.

/// A value that a recipe may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The name as a recipe writes it.
    pub name: &'static str,
    /// Its meaning: a phrase that can follow the name and a colon.
    pub description: &'static str,
}
