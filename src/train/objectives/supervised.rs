//! Supervised training: the mean cross-entropy of all trained tokens, each of which counts the same.

use crate::train::objective::{Document, Grouping, Mean, Objective};

/// Supervised training.
#[derive(Debug, Clone, Copy)]
pub struct Supervised;

impl Objective for Supervised {
    fn name(&self) -> &'static str {
        "supervised"
    }

    fn grouping(&self) -> Grouping {
        Grouping::Single
    }

    fn mean(&self) -> Mean {
        Mean::Tokens
    }

    fn known_weights(&self, documents: &[Document]) -> Option<Vec<f32>> {
        Some(vec![1.0; documents.iter().map(|document| document.tokens.len()).sum()])
    }
}
