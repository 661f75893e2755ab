//! How much of a micro-batch is worked on at a time: on the CPU it is cut into parts of a few hundred tokens, as many
//! of them side by side as there are cores, so that what a later part keeps for its backward pass does not exist yet.

use burn::tensor::Device;
use datasets::{Dataset, MicroBatch};

use super::split::{shares, split};
use crate::device;
use crate::model::spec::{DecoderSpec, FeedForwardSpec, LayerSpec};

/// Tokens of a part of a micro-batch on the CPU, about: enough to keep matrix products efficient.
const PART_TOKENS: usize = 448;
/// Experts among which a token's own are chosen up to which such a part is enough, for each chosen one.
const EXPERTS_PER_CHOICE: usize = 4;
/// Rows among which the largest round of a run is looked for.
const SEARCHED_ROWS: usize = 200_000;

/// Tokens of a part for a decoder of `spec`: more where they are shared out among many experts, each of whose
/// matrices is read once for a part.
fn part_tokens(spec: &DecoderSpec) -> usize {
    let choices = |layer: &LayerSpec| match &layer.feed_forward {
        FeedForwardSpec::Dense(_) => 1,
        FeedForwardSpec::Experts(experts) => experts.count / (EXPERTS_PER_CHOICE * experts.router.chosen),
    };
    PART_TOKENS * spec.layers.iter().map(choices).max().unwrap_or(1).clamp(1, 8)
}

/// Parts to cut a micro-batch of `tokens` into for `workers` at a time.
fn count_of_parts(spec: &DecoderSpec, workers: usize, tokens: usize) -> usize {
    workers * tokens.div_ceil(workers * part_tokens(spec))
}

/// `batch` in parts, those of a round to be worked on side by side: what a later round would keep for its backward pass
/// does not exist yet. One part of one round where the device takes all at once.
pub(super) fn rounds(spec: &DecoderSpec, device: &Device, batch: &MicroBatch, as_rows: bool) -> Vec<Vec<MicroBatch>> {
    let workers = device::workers(device);
    if workers == 1 {
        return vec![vec![batch.clone()]];
    }
    let parts = split(batch, count_of_parts(spec, workers, batch.real_tokens), as_rows);
    parts.chunks(workers).map(<[MicroBatch]>::to_vec).collect()
}

/// The most that a run has in work at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Largest {
    /// The parts of a micro-batch that are worked on side by side: tokens, padding included, and those trained.
    pub parts: Vec<(usize, usize)>,
    /// Whether a step has several such rounds, whose gradients are summed.
    pub sums: bool,
}

/// The largest round of the first `steps` steps on `dataset`, or of a good many of them; `as_rows` where rows of a
/// part stay apart.
pub fn largest(spec: &DecoderSpec, device: &Device, dataset: &Dataset, steps: usize, as_rows: bool) -> Largest {
    let workers = device::workers(device);
    let size = |lengths: &[usize]| -> usize {
        if workers == 1 {
            return lengths.len() * lengths.iter().max().unwrap_or(&0);
        }
        let parts = count_of_parts(spec, workers, lengths.iter().sum());
        let tokens = |rows: &Vec<usize>| rows.iter().map(|row| lengths[*row]).sum::<usize>();
        let rounds = shares(lengths, parts);
        rounds.chunks(workers).map(|parts| parts.iter().map(tokens).sum()).max().unwrap_or(0)
    };
    let mut best = (0, 0, 0); // tokens, step, micro-batch
    let mut searched = 0;
    for step in 0..steps.max(1) {
        for (index, lengths) in dataset.row_lengths_at(step).iter().enumerate() {
            searched += lengths.len();
            let tokens = size(lengths);
            if tokens > best.0 {
                best = (tokens, step, index);
            }
        }
        if searched > SEARCHED_ROWS {
            break;
        }
    }
    let batch = dataset.batch_at(best.1);
    let mut sums = batch.micro_batches.len() > 1;
    let Some(micro_batch) = batch.micro_batches.get(best.2) else {
        return Largest { parts: Vec::new(), sums };
    };
    let rounds = rounds(spec, device, micro_batch, as_rows);
    sums |= rounds.len() > 1;
    let sizes = |parts: Vec<MicroBatch>| -> Vec<(usize, usize)> {
        parts.iter().map(|part| (part.tokens.len(), part.trained_tokens())).collect()
    };
    let parts = rounds.into_iter().map(sizes).max_by_key(|parts| parts.iter().map(|part| part.0).sum::<usize>());
    Largest { parts: parts.unwrap_or_default(), sums }
}
