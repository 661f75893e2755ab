//! Cross-entropy of the trained positions, and its gradient, in chunks of rows.
//!
//! The head runs only where a prediction counts, and `[tokens, vocab]` never exists: a chunk's logits
//! become `softmax - onehot`, which goes straight back through the head (the closed form of the
//! gradient of softmax cross-entropy), before the next chunk starts.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};
use datasets::MicroBatch;
use kernels::softmax_loss;

use crate::device;
use crate::model::Decoder;

/// Rows whose logits, `vocab` of them each, exist at a time on `device` in each of the `parts` that are worked on side by
/// side. Every chunk reads the head twice, so that small ones would read a large vocabulary over and over; a GPU needs
/// more rows to be busy with it.
pub fn head_rows(device: &Device, vocab: usize, parts: usize) -> usize {
    /// Bytes of all parts' logits in f32.
    const HOST_BYTES: usize = 56 << 20;
    const GPU_BYTES: usize = 128 << 20;
    /// Rows that a product on the CPU needs to be efficient, whatever the vocabulary.
    const LEAST_ROWS: usize = 48;
    /// Rows of a tile of a product on a GPU.
    const TILE: usize = 128;
    if device::is_host(device) {
        return (HOST_BYTES / parts.max(1) / (4 * vocab)).max(LEAST_ROWS);
    }
    (GPU_BYTES / (4 * vocab)).div_ceil(TILE).max(1) * TILE
}

/// The trained positions of a micro-batch.
pub(crate) struct Trained {
    /// Flat positions whose prediction counts.
    positions: Vec<i32>,
    /// The token to predict at each.
    targets: Vec<i32>,
    /// Positions in all.
    length: usize,
}

impl Trained {
    pub(crate) fn of(batch: &MicroBatch) -> Self {
        let trained =
            || batch.trained.iter().enumerate().filter(|(_, trained)| **trained).map(|(position, _)| position);
        Self {
            positions: trained().map(|position| position as i32).collect(),
            targets: trained().map(|position| batch.targets[position]).collect(),
            length: batch.tokens.len(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.positions.len()
    }

    /// The rows of `hidden: [tokens, hidden]` that count.
    fn rows_of(&self, hidden: Tensor<2>) -> Tensor<2> {
        let device = hidden.device();
        hidden.select(0, ids(&self.positions, &device))
    }

    /// The inverse of [`Trained::rows_of`]: zero rows everywhere else. A gather, so that no backend needs atomics for it.
    fn spread(&self, rows: Tensor<2>) -> Tensor<2> {
        let [count, width] = rows.dims();
        let device = rows.device();
        let mut source = vec![count as i32; self.length];
        for (row, &position) in self.positions.iter().enumerate() {
            source[position as usize] = row as i32;
        }
        let zero = Tensor::<2>::zeros([1, width], (&device, rows.dtype()));
        Tensor::cat(vec![rows, zero], 0).select(0, ids(&source, &device))
    }
}

/// Summed loss (`[1]`, f32) of the trained positions and its gradient times `factor` for `hidden`, the residual
/// stream after the last layer, `[tokens, hidden]`. Gradients of norm and head are added to their parameters. As many
/// `parts` are worked on side by side.
pub(crate) fn with_gradient(
    decoder: &mut Decoder,
    hidden: Tensor<2>,
    trained: &Trained,
    factor: f64,
    parts: usize,
) -> (Tensor<1>, Tensor<2>) {
    let rows = trained.rows_of(hidden);
    let width = decoder.spec.hidden;
    let dtype = decoder.dtype();
    let mut losses = Vec::new();
    let mut gradients = Vec::new();
    for (range, targets) in chunks(trained, decoder, parts) {
        let chunk = rows.clone().slice([range, 0..width]).autodiff().require_grad();
        let normalised = decoder.normalise(chunk.clone());
        let plain = normalised.clone().inner();
        let logits = decoder.head_weight().multiply(plain.clone());
        let (loss, difference) = softmax_loss(logits, &targets, factor as f32)
            .unwrap_or_else(|logits| softmax_difference(logits.cast(FloatDType::F32), &targets, factor)); // [rows, vocab]
        losses.push(loss);
        let head = decoder.head_weight_mut();
        let difference = difference.cast(dtype);
        if head.is_trainable() {
            head.add_gradient_of_product(plain, difference.clone());
        }
        let back = decoder.head_weight().multiply_back(difference);
        let mut graph = (normalised * back).backward();
        decoder.visit_head(&mut |_, parameter| parameter.collect(&mut graph));
        if let Some(gradient) = chunk.grad_remove(&mut graph) {
            gradients.push(gradient);
        }
    }
    (Tensor::cat(losses, 0).sum(), trained.spread(Tensor::cat(gradients, 0)))
}

/// Summed loss (`[1]`, f32) alone, of one of as many `parts`.
pub(crate) fn without_gradient(decoder: &Decoder, hidden: Tensor<2>, trained: &Trained, parts: usize) -> Tensor<1> {
    let rows = trained.rows_of(hidden);
    let width = decoder.spec.hidden;
    let losses = chunks(trained, decoder, parts)
        .map(|(range, targets)| {
            let chunk = rows.clone().slice([range, 0..width]);
            cross_entropy(&decoder.logits(decoder.normalise(chunk)), &targets)
        })
        .collect();
    Tensor::cat(losses, 0).sum()
}

fn chunks<'a>(
    trained: &'a Trained,
    decoder: &Decoder,
    parts: usize,
) -> impl Iterator<Item = (std::ops::Range<usize>, Vec<i32>)> + use<'a> {
    let rows = head_rows(decoder.device(), decoder.spec.vocab, parts);
    trained
        .targets
        .chunks(rows)
        .enumerate()
        .map(move |(index, targets)| (index * rows..index * rows + targets.len(), targets.to_vec()))
}

/// Summed cross-entropy of `logits: [rows, vocab]`, `[1]`.
fn cross_entropy(logits: &Tensor<2>, targets: &[i32]) -> Tensor<1> {
    let largest = logits.clone().max_dim(1); // [rows, 1]
    let log_sum = (logits.clone() - largest.clone()).exp().sum_dim(1).log() + largest;
    let chosen = logits.clone().gather(1, column(targets, &logits.device()));
    (log_sum - chosen).sum()
}

/// Summed cross-entropy, and `factor (softmax - onehot)`, `[rows, vocab]`.
fn softmax_difference(logits: Tensor<2>, targets: &[i32], factor: f64) -> (Tensor<1>, Tensor<2>) {
    let loss = cross_entropy(&logits, targets);
    let device = logits.device();
    let minus_one = Tensor::<2>::full([targets.len(), 1], -1.0, (&device, DType::F32));
    let difference = softmax(logits, 1).scatter(1, column(targets, &device), minus_one, IndexingUpdateOp::Add);
    (loss, difference.mul_scalar(factor))
}

fn column(values: &[i32], device: &Device) -> Tensor<2, Int> {
    ids(values, device).reshape([values.len(), 1])
}

fn ids(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::I32))
}
