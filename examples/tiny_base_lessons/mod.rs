//! What the tiny base model learns from: plain text to read, and small tasks done in conversations.
//!
//! In: a seeded random source. Out: [`reading`], a piece of text, and [`chat`], a conversation.

mod about_tickets;
mod general;
mod stories;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::ticket_world::wording::pick;
use crate::ticket_world::{Combinations, any_ticket};

/// A conversation of one task and its answer.
pub(crate) struct Chat {
    /// The instruction, if it stands apart from the request.
    pub(crate) system: Option<String>,
    /// What is asked.
    pub(crate) user: String,
    /// The right answer.
    pub(crate) assistant: String,
}

impl Chat {
    /// The conversation as a row of a data set.
    pub(crate) fn row(&self) -> Value {
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.push(json!({"role": "user", "content": self.user}));
        messages.push(json!({"role": "assistant", "content": self.assistant}));
        json!({"messages": messages})
    }

    /// A task whose instruction comes as system message, or in front of the material, or behind it.
    fn about(random: &mut ChaCha8Rng, instruction: &str, material: &str, assistant: String) -> Self {
        let (system, user) = match random.random_range(0..10) {
            0..=6 => (Some(instruction.to_owned()), material.to_owned()),
            7 | 8 => (None, format!("{instruction}\n{material}")),
            _ => (None, format!("{material}\n{instruction}")),
        };
        Self { system, user, assistant }
    }

    /// A question that stands alone, now and then with a general instruction before it.
    fn question(random: &mut ChaCha8Rng, user: String, assistant: String) -> Self {
        const MANNERS: &[&str] =
            &["You are a helpful assistant.", "Answer briefly.", "You help people at work.", "Be kind and short."];
        let system = random.random_bool(0.3).then(|| pick(random, MANNERS).to_owned());
        Self { system, user, assistant }
    }
}

/// A piece of plain text.
pub(crate) fn reading(random: &mut ChaCha8Rng) -> String {
    match random.random_range(0..10) {
        0..=4 => any_ticket(random, Combinations::Training).text,
        5 | 6 => about_tickets::description(random),
        _ => stories::story(random),
    }
}

/// A conversation: two thirds are about tickets.
pub(crate) fn chat(random: &mut ChaCha8Rng) -> Chat {
    if random.random_bool(0.66) { about_tickets::task(random) } else { general::task(random) }
}
