//! The memory estimate: bytes that a run will need at its peak, by purpose.
//!
//! Counted from the architecture, the types of the checkpoint's tensors and the rows' lengths: nothing is loaded. What
//! exists together is counted for each moment at which memory can be at its peak, and the largest moment is the
//! estimate. `benches/memory.sh` compares it with measured peaks on the CPU, in whose light a few terms were corrected;
//! elsewhere it is counted alone.

mod activations;

use std::path::Path;

use adapters::UNPACKED_VALUES;
use datasets::Dataset;
use kernels::block_scores_bytes;

use super::{Adaptation, Plan};
use crate::device;
use crate::model::inspect::parameter_counts;
use crate::model::names;
use crate::text;
use crate::train::{Cut, HeadCut, Largest, largest};
use activations::LayerActivations;

/// Bytes of the program itself, its tokenizer apart, and of what its heap cannot use, which varies little with the run.
const PROGRAM_BYTES: u64 = 74 << 20;
/// Bytes of gaps in the heap for each layer where parts are worked on side by side: what one part gives back lies between
/// what the other keeps. Found by measuring.
const GAP_BYTES: u64 = 5 << 18;
/// Bytes in memory for each byte of the tokenizer's file.
const TOKENIZER_FACTOR: u64 = 8;
/// Bytes of a thread's buffers for pieces of matrices, packed as the matrix units take them.
const PACKED_BYTES: u64 = 3 << 19;
/// Pages of a GPU's memory pools for what comes and goes, about.
const PAGES: u64 = 32;
/// Bytes of a page of such pools at most.
const LARGEST_PAGE: u64 = 1 << 30;
/// Bytes of one f32.
const F32: u64 = 4;

/// Bytes at the peak by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// The model's own weights; trained ones are in f32.
    pub weights: u64,
    /// The adapter's matrices.
    pub adapters: u64,
    /// Gradients of trainable parameters: of each core's part, and their sum.
    pub gradients: u64,
    /// The optimizer's state.
    pub optimizer: u64,
    /// Activations that layers keep for the backward pass, attention apart.
    pub activations: u64,
    /// Activations that attention keeps for the backward pass.
    pub attention: u64,
    /// Hidden states of trained positions, logits, and their gradients.
    pub head: u64,
    /// The copy of the trainable state while a checkpoint is written and training continues.
    pub checkpoint: u64,
    /// Temporaries of an operation, and the program itself.
    pub temporary: u64,
    /// True if such estimates were compared with measured peaks on this kind of device.
    pub is_measured: bool,
}

impl Estimate {
    /// The estimate for the largest round of `steps` steps on `dataset`.
    pub(super) fn of(plan: &Plan, dataset: &Dataset, run: Run) -> Self {
        let rows = largest(&plan.model.spec, &plan.device.device, dataset, run.steps, run.cut);
        let moments = Moments::new(plan, &rows, run);
        let candidates = if plan.device.is_host {
            vec![moments.loading(), moments.at_the_head(), moments.in_the_last_layer(), moments.in_the_first_layer()]
        } else {
            vec![moments.on_gpu_at_the_head(), moments.on_gpu_in_a_layer()]
        };
        candidates.into_iter().max_by_key(Self::total).unwrap_or_default()
    }

    /// Its non-zero parts in words.
    pub fn parts(&self) -> String {
        let parts = [
            ("weights", self.weights),
            ("adapters", self.adapters),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("attention", self.attention),
            ("head", self.head),
            ("checkpoint", self.checkpoint),
            ("temporary", self.temporary),
        ];
        let present = parts.iter().filter(|(_, bytes)| *bytes > 0);
        present.map(|(name, bytes)| format!("{name} {}", text::bytes(*bytes))).collect::<Vec<_>>().join(", ")
    }

    /// A size for the pages of a GPU's memory pools: several for what comes and goes, each for one of the largest tensors,
    /// of which a moment has two.
    pub fn page_bytes(&self) -> u64 {
        let passing = self.activations + self.attention + self.head + self.temporary;
        (passing / PAGES).max(self.temporary / 2).min(LARGEST_PAGE)
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights
            + self.adapters
            + self.gradients
            + self.optimizer
            + self.activations
            + self.attention
            + self.head
            + self.checkpoint
            + self.temporary
    }
}

/// The settings of a run that determine its peak memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Optimizer steps.
    pub(super) steps: usize,
    /// If set, layers run again in the backward pass.
    pub(super) recompute: bool,
    /// The cut of micro-batches.
    pub(super) cut: Cut,
    /// If set, checkpoints are written while it trains.
    pub(super) saves: bool,
    /// Bytes of the optimizer's state.
    pub(super) state_bytes: u64,
}

/// The moments of a step at which memory can be at its peak.
struct Moments<'a> {
    plan: &'a Plan,
    rows: &'a Largest,
    recompute: bool,
    /// The bytes that are in use at every moment.
    always: Estimate,
    /// Number of trainable values.
    trainable: u64,
    /// Values that each layer keeps for one token.
    layers: Vec<LayerActivations>,
}

impl<'a> Moments<'a> {
    fn new(plan: &'a Plan, rows: &'a Largest, run: Run) -> Self {
        let spec = &plan.model.spec;
        let trainable = plan.adaptation.trainable();
        let (weights, adapters) = match &plan.adaptation {
            Adaptation::Adapter { .. } => (plan.stored.bytes, trainable * F32),
            Adaptation::Full { .. } => {
                let total = parameter_counts(spec).total.max(1);
                let frozen = u128::from(plan.stored.bytes) * u128::from(total.saturating_sub(trainable));
                ((frozen / u128::from(total)) as u64 + trainable * F32, 0)
            }
        };
        let tokenizer = std::fs::metadata(plan.tokenizer.join("tokenizer.json")).map_or(0, |file| file.len());
        let unpacked = F32 * plan.stored.largest_packed.min(UNPACKED_VALUES as u64);
        let threads = device::workers(&plan.device.device) as u64 * (PACKED_BYTES + unpacked);
        let gaps = if rows.parts.len() > 1 { spec.layers.len() as u64 * GAP_BYTES } else { 0 };
        let always = Estimate {
            weights,
            adapters,
            optimizer: run.state_bytes,
            // In the memory of the host, which is not counted for a GPU.
            checkpoint: if run.saves && plan.device.is_host { trainable * F32 + run.state_bytes } else { 0 },
            temporary: PROGRAM_BYTES + TOKENIZER_FACTOR * tokenizer + threads + gaps,
            is_measured: plan.device.is_host,
            ..Estimate::default()
        };
        let in_one = plan.device.is_host && plan.precision.bytes() == F32;
        let layers = activations::by_layer(spec, &plan.adaptation, in_one);
        Self { plan, rows, recompute: run.recompute, always, trainable, layers }
    }

    /// The last weight of the checkpoint is read.
    fn loading(&self) -> Estimate {
        let largest = names::parameters(&self.plan.model.spec).iter().map(names::Parameter::elements).max();
        let Estimate { weights, temporary, is_measured, .. } = self.always;
        // As it is in the file beside what becomes of it.
        let total = parameter_counts(&self.plan.model.spec).total.max(1);
        let each = (self.plan.stored.bytes / total).max(1);
        Estimate { weights, temporary: temporary + largest.unwrap_or(0) * each, is_measured, ..Estimate::default() }
    }

    /// The forward pass is done, and the head and the loss run.
    fn at_the_head(&self) -> Estimate {
        let head: u64 =
            self.rows.parts.iter().map(|(tokens, trained)| self.head(*tokens as u64, *trained as u64)).sum();
        let moment = Estimate { head, gradients: self.begun_gradients(), ..self.always };
        if self.recompute { self.with_inputs(moment) } else { self.with(moment, &self.layers) }
    }

    /// The backward pass begins, in the last layer, with what all layers keep. The layer that keeps most stands for it.
    fn in_the_last_layer(&self) -> Estimate {
        let moment = self.in_a_layer(self.begun_gradients());
        if self.recompute {
            self.with(self.with_inputs(moment), self.largest_layer())
        } else {
            self.with(moment, &self.layers)
        }
    }

    /// The backward pass ends, in the first layer: what the others kept is gone, and every part has its gradients.
    fn in_the_first_layer(&self) -> Estimate {
        // The first part's become the sum where there is none yet; a part alone adds to the sum.
        let gradients = match self.rows.parts.len() as u64 {
            1 => self.trainable * F32,
            parts => parts * self.trainable * F32 + self.summed(),
        };
        self.with(self.in_a_layer(gradients), self.largest_layer())
    }

    /// The backward pass is in a layer, with `gradients` there already; without what layers keep.
    fn in_a_layer(&self, gradients: u64) -> Estimate {
        let tokens = self.tokens();
        let backward = self.largest_layer().first().map_or(0, |layer| layer.backward);
        // The layer's result, its gradient, their product and its gradient.
        let head = 4 * tokens * self.hidden() * F32;
        let temporary = self.always.temporary + tokens * backward * F32;
        Estimate { gradients, head, temporary, ..self.always }
    }

    /// The layer that keeps most, or none.
    fn largest_layer(&self) -> &[LayerActivations] {
        self.layers.iter().max_by_key(|layer| layer.total() + layer.backward).map_or(&[], std::slice::from_ref)
    }

    /// Elsewhere than on the CPU, where the whole micro-batch is worked on at a time and the program's own memory is not
    /// the device's: the head and the loss run.
    fn on_gpu_at_the_head(&self) -> Estimate {
        let hidden = self.hidden();
        let trained: u64 = self.rows.parts.iter().map(|(_, trained)| *trained as u64).sum();
        // The hidden states of all rows, of trained ones, and the gradients of both.
        let states = self.bytes() * hidden * 2 * (self.tokens() + trained);
        // Logits, and their gradient.
        let logits = self.chunk_rows(trained) * self.plan.model.spec.vocab as u64 * 2 * self.bytes();
        let gradients = self.trainable * F32 + self.head_gradient();
        let moment = Estimate { head: states + logits, gradients, temporary: 0, ..self.always };
        if self.recompute { self.with_inputs(moment) } else { self.with(moment, &self.layers) }
    }

    /// As [`Moments::on_gpu_at_the_head`], with the backward pass in the layer that keeps most.
    fn on_gpu_in_a_layer(&self) -> Estimate {
        let backward = self.largest_layer().first().map_or(0, |layer| layer.backward);
        // The layer's result, its gradient, their product and its gradient; a packed matrix is unpacked for a moment.
        let ends = 4 * self.tokens() * self.hidden() * self.bytes();
        let unpacked = self.plan.stored.largest_packed * self.bytes();
        let gradients = self.trainable * F32 + self.head_gradient();
        let temporary = (self.tokens() * backward * self.bytes() + unpacked).max(self.scores());
        let moment = Estimate { head: ends, gradients, temporary, ..self.always };
        if self.recompute {
            self.with(self.with_inputs(moment), self.largest_layer())
        } else {
            self.with(moment, &self.layers)
        }
    }

    /// Scores of attention for a moment on a device with matrix units for the type that it computes in.
    fn scores(&self) -> u64 {
        if self.bytes() == F32 && !self.plan.precision.tf32 {
            return 0;
        }
        let heads = self.plan.model.spec.layers.iter().map(|layer| layer.attention.heads()).max().unwrap_or(0) as u64;
        scores_bytes(heads, self.tokens(), self.bytes())
    }

    /// `moment` and what `layers` keep.
    fn with(&self, moment: Estimate, layers: &[LayerActivations]) -> Estimate {
        let sum = |of: fn(&LayerActivations) -> u64| self.tokens() * layers.iter().map(of).sum::<u64>() * self.bytes();
        Estimate {
            activations: moment.activations + sum(|layer| layer.other),
            attention: moment.attention + sum(|layer| layer.attention),
            ..moment
        }
    }

    /// `moment` and the input of each layer.
    fn with_inputs(&self, moment: Estimate) -> Estimate {
        let inputs = self.tokens() * self.layers.len() as u64 * self.hidden() * self.bytes();
        Estimate { activations: moment.activations + inputs, ..moment }
    }

    /// Bytes of the head's rows for a part of `tokens` of which `trained` count.
    fn head(&self, tokens: u64, trained: u64) -> u64 {
        let hidden = self.hidden();
        // A chunk's rows, normalised, their gradients and products on the way.
        let chunk = 6 * self.chunk_rows(trained) * hidden;
        // The hidden states of trained rows and their gradients; then those in the places of all rows.
        let during = tokens * hidden + 2 * trained * hidden + chunk;
        let after = 2 * tokens * hidden + 4 * trained * hidden;
        (during * F32 + self.logits(trained)).max(after * F32)
    }

    /// Bytes of the logits of a chunk of `trained` rows.
    fn logits(&self, trained: u64) -> u64 {
        self.chunk_rows(trained) * self.head_cut(trained).columns as u64 * F32
    }

    /// Rows of a chunk of the head, of `trained` rows in all.
    fn chunk_rows(&self, trained: u64) -> u64 {
        (self.head_cut(trained).rows as u64).min(trained)
    }

    fn head_cut(&self, trained: u64) -> HeadCut {
        let whole = self.head_gradient() > 0 || self.plan.precision.bytes() < F32;
        let vocab = self.plan.model.spec.vocab;
        HeadCut::of(&self.plan.device.device, trained as usize, vocab, self.rows.parts.len(), whole)
    }

    /// Bytes of the gradient of the head's matrix for one part; 0 if it is not trained.
    fn head_gradient(&self) -> u64 {
        let spec = &self.plan.model.spec;
        let name = if spec.head.tied { names::embedding(spec) } else { names::head_weight(spec) };
        match &self.plan.adaptation {
            Adaptation::Full { parameters, .. } if parameters.contains(&name) => {
                (spec.vocab * spec.hidden) as u64 * F32
            }
            _ => 0,
        }
    }

    /// Bytes of the sum of gradients of what was worked on before.
    fn summed(&self) -> u64 {
        if self.rows.sums { self.trainable * F32 } else { 0 }
    }

    /// Bytes of gradients when the backward pass begins: the sum of those before, and the head's.
    fn begun_gradients(&self) -> u64 {
        match self.rows.parts.len() as u64 {
            1 if self.rows.sums => self.summed(),
            parts => self.summed() + parts * self.head_gradient(),
        }
    }

    fn tokens(&self) -> u64 {
        self.rows.parts.iter().map(|(tokens, _)| *tokens as u64).sum()
    }

    fn hidden(&self) -> u64 {
        self.plan.model.spec.hidden as u64
    }

    /// Bytes of an activation. On the CPU, what is not f32 is converted for most operations.
    fn bytes(&self) -> u64 {
        if self.plan.device.is_host { F32 } else { self.plan.precision.bytes() }
    }
}

/// Bytes of a block's scores and their gradients, once in f32 and once as values of `bytes` bytes.
fn scores_bytes(heads: u64, tokens: u64, bytes: u64) -> u64 {
    let block = (block_scores_bytes(tokens as usize) as u64).min(heads * tokens.pow(2) * F32);
    2 * (block + block / F32 * bytes)
}

/// Memory that the run's device can give, if it is known: the machine's free memory for the CPU.
pub(super) fn available_bytes(plan: &Plan) -> Option<u64> {
    if !plan.device.is_host {
        return None;
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let free = kibibytes * 1024;
    // A tenth is left to everything else on the machine.
    Some(group_room().map_or(free, |room| room.min(free)) / 10 * 9)
}

/// Memory that the control group of this process may still take, where one limits it, as for containers.
fn group_room() -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (limit, used) = (number(&read("memory.max")?)?, number(&read("memory.current")?)?);
    // Pages of files that are idle count as used, and are given up when memory is asked for.
    let stat = read("memory.stat").unwrap_or_default();
    let idle = stat.lines().find_map(|line| number(line.strip_prefix("inactive_file ")?)).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(idle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn scores_of_attention_take_as_much_as_blocks_of_queries_allow() {
        // 32 heads of 4096 tokens: 128 MiB of scores in f32 and as many of their gradients, and both again in bf16.
        assert_eq!(scores_bytes(32, 4096, 2), 384 * MIB);
        assert_eq!(scores_bytes(32, 4096, 4), 512 * MIB);
        // A short row has fewer scores than a block may.
        assert_eq!(scores_bytes(32, 128, 2), 3 * 32 * 128 * 128 * 4);
    }

    #[test]
    fn pages_of_memory_pools_suit_what_comes_and_goes() {
        let passing = |activations, temporary| Estimate {
            weights: 15_000 * MIB,
            optimizer: 2_000 * MIB,
            activations: activations * MIB,
            temporary: temporary * MIB,
            ..Estimate::default()
        };
        assert_eq!(passing(3200, 64).page_bytes(), 102 * MIB, "a share of all");
        assert_eq!(passing(320, 448).page_bytes(), 224 * MIB, "one of the two largest tensors");
        assert_eq!(passing(1_000_000, 4096).page_bytes(), LARGEST_PAGE, "no more than that");
    }
}
