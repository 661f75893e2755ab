//! A row that grows token by token: the keys and values of the tokens before are kept.

use adapters::Pass;
use burn::tensor::Tensor;

use super::attend::KeyValues;
use super::decoder::Decoder;
use super::input::DecoderInput;
use super::token_rows::TokenRows;

/// A row of tokens and what every layer keeps of it.
#[derive(Debug, Clone)]
pub struct Continuation {
    tokens: Vec<i32>,
    kept: Vec<Option<KeyValues>>,
}

impl Continuation {
    /// An empty row for `decoder`.
    pub fn new(decoder: &Decoder) -> Self {
        Self { tokens: Vec::new(), kept: vec![None; decoder.layers.len()] }
    }

    /// Appends `tokens`, at least one; logits after the last of them, `[vocab]`, f32.
    pub fn extend(&mut self, decoder: &Decoder, tokens: &[i32]) -> Tensor<1> {
        let before = self.tokens.len();
        self.tokens.extend(tokens);
        let after = self.tokens.len();
        let changes = |beyond: usize| before <= beyond && after > beyond;
        let long = decoder.rules.ropes.iter().filter_map(|rope| rope.long.as_ref());
        if before > 0 && long.into_iter().any(|long| changes(long.beyond)) {
            // Other frequencies hold for all tokens of a row this long: what was kept was turned by the old ones.
            self.kept.fill(None);
            return self.run(decoder, 0);
        }
        self.run(decoder, before)
    }

    /// Runs the tokens from `before` on.
    fn run(&mut self, decoder: &Decoder, before: usize) -> Tensor<1> {
        let tokens = &self.tokens[before..];
        let (width, span) = (tokens.len(), self.tokens.len());
        let positions: Vec<i32> = (before..span).map(|position| position as i32).collect();
        let documents = vec![0; width];
        let rows = TokenRows { rows: 1, width, tokens, positions: &positions, documents: &documents, span };
        let input = DecoderInput::new(rows, before, &decoder.rules, &decoder.device);
        let mut x = decoder.embed(&input);
        for (layer, kept) in decoder.layers.iter().zip(&mut self.kept) {
            x = layer.continued(x, &input, Pass::default(), Some(kept));
        }
        let last = x.slice([width - 1..width, 0..decoder.spec.hidden]);
        decoder.logits(decoder.normalise(last)).reshape([decoder.spec.vocab])
    }
}
