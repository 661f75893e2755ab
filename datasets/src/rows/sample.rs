//! A sample, the content of a row whatever its format: a conversation, plain text, or tokens.

use crate::text::Conversation;

/// The content of a row, as its format reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Turns that the chat template renders.
    Chat(Conversation),
    /// A prompt and the text that follows it; no template.
    Answer {
        /// Text that is read, not trained on.
        prompt: String,
        /// Text that is trained on, together with the end-of-sequence token.
        completion: String,
        /// The question as a person would put it.
        shown: String,
        /// If set, the two are tokenised apart.
        apart: bool,
    },
    /// Text that is trained on as a whole, with the end-of-sequence token.
    Text(String),
    /// Pieces of one text to which nothing is added.
    Segments(Vec<Segment>),
    /// Two answers to one prompt.
    Preference {
        /// The answer to prefer.
        chosen: Box<Sample>,
        /// The answer to avoid.
        rejected: Box<Sample>,
    },
    /// An answer and whether it is wanted.
    Judged {
        /// The answer.
        answer: Box<Sample>,
        /// True if it is wanted.
        desirable: bool,
    },
    /// A row that is tokens already.
    Tokens {
        /// The ids.
        tokens: Vec<u32>,
        /// The mask: true for the ids that are trained on.
        trained: Vec<bool>,
    },
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The piece.
    pub text: String,
    /// True if it is trained on.
    pub trained: bool,
}
