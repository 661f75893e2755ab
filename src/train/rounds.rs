//! The parts of a micro-batch that are worked on at a time: on the CPU it is cut into parts of a few hundred tokens, as many
//! of them side by side as there are cores, so that what a later part keeps for its backward pass does not exist yet.

use burn::tensor::Device;
use datasets::{Dataset, MicroBatch};

use super::objective::Grouping;
use super::split::{shares, split};
use crate::device;
use crate::model::spec::{DecoderSpec, FeedForwardSpec, LayerSpec};

/// Tokens of a part of a micro-batch on the CPU, about: enough to keep matrix products efficient.
const PART_TOKENS: usize = 448;
/// Experts among which a token's own are chosen up to which such a part is enough, for each chosen one.
const EXPERTS_PER_CHOICE: usize = 4;
/// The share of a model's values from which on the trained ones are many: a gradient of it for each core would weigh
/// more than what is saved by working side by side.
const LARGE_SHARE: f64 = 0.25;
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

/// The rules for cutting a micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Rows of a part stay rows, padded.
    pub as_rows: bool,
    /// All cores work on the same part, so that its gradients exist once.
    pub together: bool,
    /// Consecutive documents that stay in one part, at least 1.
    pub group: usize,
}

impl Cut {
    /// For training `trainable` of a model's `total` values on documents of that `grouping`.
    pub fn new(as_rows: bool, grouping: Grouping, trainable: u64, total: u64) -> Self {
        Self { as_rows, together: trainable as f64 > LARGE_SHARE * total as f64, group: grouping.group() }
    }

    /// Parts of a micro-batch of `tokens` for `workers`, and how many of them are worked on at a time.
    fn parts(self, spec: &DecoderSpec, workers: usize, tokens: usize) -> (usize, usize) {
        let rounds = tokens.div_ceil(workers * part_tokens(spec));
        if self.together { (rounds, 1) } else { (rounds * workers, workers) }
    }
}

/// `batch` in parts, those of a round to be worked on side by side: what a later round would keep for its backward pass
/// does not exist yet. One part of one round where the device takes all at once.
pub(super) fn rounds(spec: &DecoderSpec, device: &Device, batch: &MicroBatch, cut: Cut) -> Vec<Vec<MicroBatch>> {
    let workers = device::workers(device);
    if workers == 1 {
        return vec![vec![batch.clone()]];
    }
    let (count, at_a_time) = cut.parts(spec, workers, batch.real_tokens);
    split(batch, count, cut.as_rows, cut.group).chunks(at_a_time).map(<[MicroBatch]>::to_vec).collect()
}

/// The most that a run has in work at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Largest {
    /// The parts of a micro-batch that are worked on side by side: tokens, padding included, and those trained.
    pub parts: Vec<(usize, usize)>,
    /// True if a step has several such rounds, whose gradients are summed.
    pub sums: bool,
}

/// The largest round of the first `steps` steps on `dataset`, or of a good many of them.
pub fn largest(spec: &DecoderSpec, device: &Device, dataset: &Dataset, steps: usize, cut: Cut) -> Largest {
    let workers = device::workers(device);
    let size = |lengths: &[usize]| -> usize {
        if workers == 1 {
            return lengths.len() * lengths.iter().max().unwrap_or(&0);
        }
        let (count, at_a_time) = cut.parts(spec, workers, lengths.iter().sum());
        let tokens = |rows: &Vec<usize>| rows.iter().map(|row| lengths[*row]).sum::<usize>();
        let rounds = shares(lengths, count);
        rounds.chunks(at_a_time).map(|parts| parts.iter().map(tokens).sum()).max().unwrap_or(0)
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
    let rounds = rounds(spec, device, micro_batch, cut);
    sums |= rounds.len() > 1;
    let sizes = |parts: Vec<MicroBatch>| -> Vec<(usize, usize)> {
        parts.iter().map(|part| (part.tokens.len(), part.trained_tokens())).collect()
    };
    let parts = rounds.into_iter().map(sizes).max_by_key(|parts| parts.iter().map(|part| part.0).sum::<usize>());
    Largest { parts: parts.unwrap_or_default(), sums }
}
