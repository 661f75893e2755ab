//! Weighted cross-entropy of the trained positions, and its gradient, in chunks of rows.
//!
//! The head runs only where a prediction counts, and `[tokens, vocab]` never exists: a chunk's logits
//! become `softmax - onehot`, which goes straight back through the head (the closed form of the
//! gradient of softmax cross-entropy), before the next chunk starts. Where few rows of a large vocabulary fit, the vocabulary
//! is cut as well, and every logit is computed twice (as in Wijmans et al. 2024, arXiv:2411.09009).

use std::ops::Range;

use adapters::Parameter;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};
use datasets::MicroBatch;
use kernels::{SoftmaxInPieces, softmax_loss};

use super::objective::{Document, Objective, ObjectiveLoss};
use super::split::documents_of;
use crate::device;
use crate::model::{Decoder, DeviceFailure};

/// The cut of the logits `[rows, vocab]` of a part's trained positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadCut {
    /// Rows at a time.
    pub rows: usize,
    /// Columns at a time, that is tokens of the vocabulary. Fewer than all of them: every logit is computed twice, once for
    /// the sums of the softmax and once for the gradient.
    pub columns: usize,
}

impl HeadCut {
    /// The cut for `rows` trained positions in each of the `parts` that are worked on side by side on `device`.
    /// Each piece reads the whole head, or its columns of it, twice: with few rows that takes longer than their products.
    /// `whole` keeps the vocabulary in one piece, as a trained head needs.
    pub fn of(device: &Device, rows: usize, vocab: usize, parts: usize, whole: bool) -> Self {
        /// Bytes of all parts' logits in f32: of whole rows, and of pieces of rows.
        const HOST_BYTES: usize = 56 << 20;
        const PIECE_BYTES: usize = 16 << 20;
        const GPU_BYTES: usize = 128 << 20;
        /// Whole rows that make products on the CPU efficient, and those that they need to be worth it at all.
        const ENOUGH_ROWS: usize = 128;
        const LEAST_ROWS: usize = 48;
        /// Rows of a piece: as many as the products on the CPU take at a time.
        const PIECE_ROWS: usize = 448;
        /// Columns of a piece that make its products efficient, however many parts there are.
        const LEAST_COLUMNS: usize = 512;
        /// Rows of a tile of a product on a GPU.
        const TILE: usize = 128;
        if !device::is_host(device) {
            return Self { rows: (GPU_BYTES / (4 * vocab)).div_ceil(TILE).max(1) * TILE, columns: vocab };
        }
        let affordable = HOST_BYTES / parts.max(1) / (4 * vocab);
        if whole || affordable >= rows.min(ENOUGH_ROWS) {
            return Self { rows: affordable.max(LEAST_ROWS), columns: vocab };
        }
        let rows = rows.div_ceil(rows.div_ceil(PIECE_ROWS));
        Self { rows, columns: (PIECE_BYTES / parts.max(1) / (4 * rows)).max(LEAST_COLUMNS).min(vocab) }
    }
}

/// The trained positions of a micro-batch.
pub(crate) struct Trained {
    /// Flat positions whose prediction counts.
    positions: Vec<i32>,
    /// The token to predict at each.
    targets: Vec<i32>,
    /// The weight of each in the loss.
    weights: Vec<f32>,
    /// The number of them in each document.
    documents: Vec<usize>,
    /// Positions in all.
    length: usize,
}

impl Trained {
    /// Those of `batch`, each of weight 1.
    pub(crate) fn of(batch: &MicroBatch) -> Self {
        let trained =
            || batch.trained.iter().enumerate().filter(|(_, trained)| **trained).map(|(position, _)| position);
        let positions: Vec<i32> = trained().map(|position| position as i32).collect();
        let of_document = |document: Range<usize>| batch.trained[document].iter().filter(|trained| **trained).count();
        Self {
            targets: trained().map(|position| batch.targets[position]).collect(),
            weights: vec![1.0; positions.len()],
            documents: documents_of(batch).into_iter().map(of_document).collect(),
            positions,
            length: batch.tokens.len(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.positions.len()
    }

    /// Gives every position its weight.
    pub(crate) fn set_weights(&mut self, weights: Vec<f32>) {
        assert_eq!(weights.len(), self.count(), "an objective gives a weight to every trained token");
        self.weights = weights;
    }

    /// The positions by document, with what is known of each: as many numbers as positions, or none.
    pub(crate) fn documents<'a>(&'a self, log_probabilities: &'a [f32], reference: &'a [f32]) -> Vec<Document<'a>> {
        let mut first = 0;
        let document = |count: &usize| {
            let range = first..first + count;
            first += count;
            Document {
                tokens: &self.targets[range.clone()],
                log_probabilities: log_probabilities.get(range.clone()).unwrap_or_default(),
                reference: reference.get(range).unwrap_or_default(),
            }
        };
        self.documents.iter().map(document).collect()
    }

    fn wanted(&self, range: Range<usize>) -> Wanted<'_> {
        Wanted { targets: &self.targets[range.clone()], weights: &self.weights[range] }
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

/// Targets and weights of some trained positions.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    targets: &'a [i32],
    weights: &'a [f32],
}

/// Weighted sum of the cross-entropies (`[1]`, f32) of the trained positions, and its gradient times `factor` for `hidden`,
/// the residual stream after the last layer, `[tokens, hidden]`. Gradients of norm and head are added to their parameters. As many
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
    let mut losses = Vec::new();
    let mut gradients = Vec::new();
    let cut = cut(decoder, trained, parts);
    for range in chunks(trained, cut) {
        let wanted = trained.wanted(range.clone());
        let chunk = rows.clone().slice([range, 0..width]).autodiff().require_grad();
        let normalised = decoder.normalise(chunk.clone());
        let plain = normalised.clone().inner();
        let (loss, back) = match cut.columns < decoder.spec.vocab {
            true => pieces_with_gradient(decoder.head_weight(), &plain, wanted, factor as f32, cut.columns),
            false => whole_with_gradient(decoder, plain, wanted, factor as f32),
        };
        losses.push(loss);
        let mut graph = (normalised * back).backward();
        decoder.visit_head(&mut |_, parameter| parameter.collect(&mut graph));
        if let Some(gradient) = chunk.grad_remove(&mut graph) {
            gradients.push(gradient);
        }
    }
    (Tensor::cat(losses, 0).sum(), trained.spread(Tensor::cat(gradients, 0)))
}

/// Summed loss of normalised rows `x: [rows, hidden]`, and its gradient times `factor` for them; the head's gradient is
/// added to it if it is trained.
fn whole_with_gradient(decoder: &mut Decoder, x: Tensor<2>, wanted: Wanted, factor: f32) -> (Tensor<1>, Tensor<2>) {
    let logits = decoder.head_weight().multiply(x.clone());
    let (loss, difference) = softmax_loss(logits, wanted.targets, wanted.weights, factor)
        .unwrap_or_else(|logits| softmax_difference(logits.cast(FloatDType::F32), wanted, factor)); // [rows, vocab]
    let difference = difference.cast(decoder.dtype());
    let head = decoder.head_weight_mut();
    if head.is_trainable() {
        head.add_gradient_of_product(x, difference.clone());
    }
    (loss, head.multiply_back(difference))
}

/// As [`whole_with_gradient`] of a frozen `head`, with logits `[rows, columns]` at a time.
fn pieces_with_gradient(
    head: &Parameter,
    x: &Tensor<2>,
    wanted: Wanted,
    factor: f32,
    columns: usize,
) -> (Tensor<1>, Tensor<2>) {
    let (softmax, mut logits) = seen_in_pieces(head, x, wanted, columns);
    let mut back = None;
    // The last piece's logits are still there.
    for columns in pieces(head, columns).rev() {
        let piece = head.rows(columns.clone());
        let logits = logits.take().unwrap_or_else(|| piece.multiply(x.clone()));
        let share = piece.multiply_back(softmax.gradient(logits, columns.start, factor));
        back = Some(match back {
            Some(sum) => share + sum,
            None => share,
        });
    }
    (softmax.loss(), back.expect("a vocabulary has tokens"))
}

/// The softmax of the logits of normalised rows `x: [rows, hidden]` once all were seen, `columns` at a time, and the last of
/// them.
fn seen_in_pieces(
    head: &Parameter,
    x: &Tensor<2>,
    wanted: Wanted,
    columns: usize,
) -> (SoftmaxInPieces, Option<Tensor<2>>) {
    let mut softmax = SoftmaxInPieces::new(wanted.targets, wanted.weights);
    let mut last = None;
    for columns in pieces(head, columns) {
        // What was the last one is not needed while the next is made.
        drop(last.take());
        let logits = head.rows(columns.clone()).multiply(x.clone());
        softmax.see(logits.clone(), columns.start);
        last = Some(logits);
    }
    (softmax, last)
}

/// Ranges of the vocabulary of at most `columns` tokens.
fn pieces(head: &Parameter, columns: usize) -> impl DoubleEndedIterator<Item = Range<usize>> + use<> {
    let vocab = head.shape()[0];
    (0..vocab.div_ceil(columns)).map(move |piece| piece * columns..((piece + 1) * columns).min(vocab))
}

/// Weighted sum of the cross-entropies (`[1]`, f32) alone, of one of as many `parts`.
pub(crate) fn without_gradient(decoder: &Decoder, hidden: Tensor<2>, trained: &Trained, parts: usize) -> Tensor<1> {
    let rows = trained.rows_of(hidden);
    let width = decoder.spec.hidden;
    let cut = cut(decoder, trained, parts);
    let losses = chunks(trained, cut)
        .map(|range| {
            let wanted = trained.wanted(range.clone());
            let normalised = decoder.normalise(rows.clone().slice([range, 0..width]));
            if cut.columns < decoder.spec.vocab {
                seen_in_pieces(decoder.head_weight(), &normalised, wanted, cut.columns).0.loss()
            } else {
                weighted_sum(cross_entropies(&decoder.logits(normalised), wanted.targets), wanted)
            }
        })
        .collect();
    Tensor::cat(losses, 0).sum()
}

/// The log-probability of each trained position, `[positions]`, f32, without gradients; of one of as many `parts`.
pub(crate) fn log_probabilities(decoder: &Decoder, hidden: Tensor<2>, trained: &Trained, parts: usize) -> Tensor<1> {
    let rows = trained.rows_of(hidden);
    let width = decoder.spec.hidden;
    let cut = cut(decoder, trained, parts);
    let losses = chunks(trained, cut)
        .map(|range| {
            let wanted = trained.wanted(range.clone());
            let normalised = decoder.normalise(rows.clone().slice([range.clone(), 0..width]));
            if cut.columns < decoder.spec.vocab {
                seen_in_pieces(decoder.head_weight(), &normalised, wanted, cut.columns).0.losses()
            } else {
                cross_entropies(&decoder.logits(normalised), wanted.targets).reshape([range.len()])
            }
        })
        .collect();
    Tensor::cat(losses, 0).neg()
}

/// The loss by `objective` of positions with these log-probabilities, which are read from the device, and those without the
/// adapter.
pub(crate) fn by_objective(
    objective: &dyn Objective,
    trained: &Trained,
    log_probabilities: Tensor<1>,
    reference: Option<Tensor<1>>,
) -> Result<ObjectiveLoss, DeviceFailure> {
    let all = Tensor::cat([Some(log_probabilities), reference].into_iter().flatten().collect(), 0);
    let values = all.try_into_data().map_err(DeviceFailure::new)?.try_to_vec::<f32>().map_err(DeviceFailure::new)?;
    let (own, reference) = values.split_at(trained.count());
    Ok(objective.loss(&trained.documents(own, reference)))
}

/// `value` on `device`, `[1]`, f32.
pub(crate) fn scalar(value: f64, device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(vec![value as f32], [1]), (device, DType::F32))
}

/// The cut of the head's work for one of as many `parts`.
fn cut(decoder: &Decoder, trained: &Trained, parts: usize) -> HeadCut {
    let whole = decoder.head_weight().is_trainable() || decoder.dtype() != FloatDType::F32;
    HeadCut::of(decoder.device(), trained.count(), decoder.spec.vocab, parts, whole)
}

/// Ranges of the trained positions whose logits are there at a time.
fn chunks(trained: &Trained, cut: HeadCut) -> impl Iterator<Item = Range<usize>> + use<> {
    let count = trained.count();
    (0..count).step_by(cut.rows).map(move |first| first..(first + cut.rows).min(count))
}

/// The cross-entropy of each row of `logits: [rows, vocab]`, `[rows, 1]`.
fn cross_entropies(logits: &Tensor<2>, targets: &[i32]) -> Tensor<2> {
    let largest = logits.clone().max_dim(1); // [rows, 1]
    let log_sum = (logits.clone() - largest.clone()).exp().sum_dim(1).log() + largest;
    let chosen = logits.clone().gather(1, column(targets, &logits.device()));
    log_sum - chosen
}

/// The weighted sum of the rows' cross-entropies, `[1]`.
fn weighted_sum(losses: Tensor<2>, wanted: Wanted) -> Tensor<1> {
    let weights = factors(wanted.weights, 1.0, &losses.device());
    (losses * weights).sum()
}

/// Weighted sum of the cross-entropies, and `factor weight (softmax - onehot)`, `[rows, vocab]`.
fn softmax_difference(logits: Tensor<2>, wanted: Wanted, factor: f32) -> (Tensor<1>, Tensor<2>) {
    let loss = weighted_sum(cross_entropies(&logits, wanted.targets), wanted);
    let device = logits.device();
    let minus_one = Tensor::<2>::full([wanted.targets.len(), 1], -1.0, (&device, DType::F32));
    let targets = column(wanted.targets, &device);
    let difference = softmax(logits, 1).scatter(1, targets, minus_one, IndexingUpdateOp::Add);
    (loss, difference * factors(wanted.weights, factor, &device))
}

/// `factor` times each of `weights`, `[rows, 1]`.
fn factors(weights: &[f32], factor: f32, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = weights.iter().map(|weight| factor * weight).collect();
    Tensor::from_data(TensorData::new(values, [weights.len(), 1]), (device, DType::F32))
}

fn column(values: &[i32], device: &Device) -> Tensor<2, Int> {
    ids(values, device).reshape([values.len(), 1])
}

fn ids(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::I32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: usize, count: usize) -> Vec<f32> {
        (0..count).map(|place| ((place + seed) * 7919 % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    #[test]
    fn a_vocabulary_in_pieces_gives_the_loss_and_the_gradient_of_a_whole_one() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats(draw(5, 60 * 64).as_slice(), &device).reshape([60, 64]);
        let targets: Vec<i32> = (0..60).map(|row| row * 3 % 200).collect();
        let weights = draw(9, 60);
        let wanted = Wanted { targets: &targets, weights: &weights };
        for dtype in [FloatDType::F32, FloatDType::BF16] {
            let head = Parameter::from_host(draw(1, 200 * 64), &[200, 64], dtype, &device);
            let (whole, difference) =
                softmax_loss(head.multiply(x.clone()), &targets, &weights, 0.5).expect("the CPU in f32");
            let whole_back = head.multiply_back(difference);
            for columns in [200, 70, 7] {
                let (loss, back) = pieces_with_gradient(&head, &x, wanted, 0.5, columns);
                let seen = seen_in_pieces(&head, &x, wanted, columns).0.loss();
                for found in [loss, seen] {
                    let off = (found - whole.clone()).abs().into_scalar::<f32>();
                    assert!(off < 1e-6 * whole.clone().into_scalar::<f32>(), "{columns} columns: {off}");
                }
                let off = (back - whole_back.clone()).abs().max().into_scalar::<f32>();
                assert!(off < 1e-5, "{columns} columns: {off}");
            }
        }
    }

    #[test]
    fn only_a_vocabulary_that_leaves_few_rows_is_cut() {
        let cut = |rows, vocab, parts, whole| HeadCut::of(&Device::flex(), rows, vocab, parts, whole);
        assert_eq!(cut(250, 49_152, 2, false), HeadCut { rows: 149, columns: 49_152 });
        assert_eq!(cut(20, 151_936, 2, false).columns, 151_936);
        assert_eq!(cut(250, 151_936, 2, true), HeadCut { rows: 48, columns: 151_936 });
        for (rows, parts) in [(250, 2), (4096, 1), (60, 2), (1_000_000, 16)] {
            let HeadCut { rows: some, columns } = cut(rows, 151_936, parts, false);
            assert!(some <= rows && columns < 151_936, "{rows} rows: {some} x {columns}");
            assert!(parts * some * columns * 4 <= 16 << 20, "{rows} rows: {some} x {columns}");
        }
    }
}
