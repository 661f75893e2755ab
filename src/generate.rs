//! Text from a decoder, token by token, with the keys and values of what came before kept.

use burn::tensor::Tensor;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::model::{Continuation, Decoder, DeviceFailure};

/// The settings of sampling, and the length of the text.
#[derive(Debug, Clone)]
pub struct GenerateSettings {
    /// Maximum number of tokens to generate.
    pub max_tokens: usize,
    /// Divides the logits before the softmax; 0 always takes the most likely token.
    pub temperature: f32,
    /// Samples among the most likely tokens that together have this probability.
    pub top_p: f32,
    /// Seed of the sampling.
    pub seed: u64,
}

impl GenerateSettings {
    /// Greedy decoding: always the most likely token.
    pub fn greedy(max_tokens: usize) -> Self {
        Self { max_tokens, temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

/// Continues `prompt` until one of `stop`, which is not returned, or `max_tokens`. `listener` gets every token.
///
/// # Errors
/// When the device fails.
pub fn generate(
    decoder: &Decoder,
    prompt: &[u32],
    stop: &[u32],
    settings: &GenerateSettings,
    listener: &mut dyn FnMut(u32),
) -> Result<Vec<u32>, DeviceFailure> {
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut row = Continuation::new(decoder);
    let mut next: Vec<i32> = prompt.iter().map(|&token| token as i32).collect();
    let mut answer = Vec::new();
    while answer.len() < settings.max_tokens && !next.is_empty() {
        let logits = row.extend(decoder, &next);
        let token = choose(logits, settings, &mut random)?;
        if stop.contains(&token) {
            break;
        }
        listener(token);
        answer.push(token);
        next = vec![token as i32];
    }
    Ok(answer)
}

fn choose(logits: Tensor<1>, settings: &GenerateSettings, random: &mut ChaCha8Rng) -> Result<u32, DeviceFailure> {
    let logits = logits.try_into_data().map_err(DeviceFailure::new)?;
    let logits = logits.try_to_vec::<f32>().map_err(DeviceFailure::new)?;
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let likeliest = order.iter().copied().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
    if settings.temperature <= 0.0 {
        return Ok(likeliest as u32);
    }
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let weight = |token: usize| f64::from((logits[token] - logits[likeliest]) / settings.temperature).exp();
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let mut kept = 0.0;
    let mut count = 0;
    while count < order.len() && (count == 0 || kept < f64::from(settings.top_p) * total) {
        kept += weight(order[count]);
        count += 1;
    }
    let mut left = kept * (f64::from(random.next_u32()) / 4_294_967_296.0);
    for &token in &order[..count] {
        left -= weight(token);
        if left < 0.0 {
            return Ok(token as u32);
        }
    }
    Ok(order[count - 1] as u32)
}
