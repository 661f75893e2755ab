//! How much memory a run will need, part by part.
//!
//! The activation figures count the tensors that a layer keeps for its backward pass, in f32 values per
//! token. They are counted and not fitted: the program itself, its files and what a step needs for a moment
//! come on top, so that small runs peak higher (the quickstart at 230 MiB where this says 151).

use datasets::Dataset;

use super::{Adaptation, Plan};
use crate::model::inspect::parameter_counts;
use crate::model::spec::{AttentionSpec, FeedForwardSpec, LayerSpec};
use crate::train::{StateBits, tokens_at_a_time};

/// Bytes by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Frozen and trainable weights.
    pub weights: u64,
    /// Gradients and optimizer state.
    pub training: u64,
    /// What the forward pass keeps for the backward pass.
    pub activations: u64,
    /// Logits and the like, in chunks.
    pub head: u64,
}

impl Estimate {
    /// The estimate for the longest micro-batch of `dataset`.
    pub(super) fn of(plan: &Plan, dataset: &Dataset, state: StateBits, recompute: bool) -> Self {
        let spec = &plan.model.spec;
        let batching = &plan.dataset.batching;
        let full_rows = batching.packing || batching.pad_to_sequence_len;
        let width = if full_rows { plan.dataset.sequence_len } else { dataset.counts.longest } as u64;
        let rows = width * batching.micro_batch_size as u64;
        let tokens = tokens_at_a_time(spec, &plan.device.device, rows as usize, width as usize) as u64;
        let trainable = plan.adaptation.trainable();
        let frozen = match &plan.adaptation {
            Adaptation::Adapter { .. } => plan.stored_bytes,
            Adaptation::Full { .. } => {
                let total = parameter_counts(spec).total;
                (plan.stored_bytes as f64 * total.saturating_sub(trainable) as f64 / total.max(1) as f64) as u64
            }
        };
        let bytes = plan.precision.bytes();
        let layer = spec.layers.iter().map(|layer| kept_values(layer, spec.hidden as u64, width)).max().unwrap_or(0);
        let layers = spec.layers.len() as u64;
        let activations = match recompute {
            true => tokens * (layers * spec.hidden as u64 * bytes + layer * 4),
            false => tokens * layers * layer * 4,
        };
        Self {
            weights: frozen + trainable * 4,
            training: trainable * (4 + state.bytes()),
            activations,
            head: (64 << 20).min(4 * 4 * tokens * spec.vocab as u64) + tokens * spec.hidden as u64 * 12,
        }
    }

    /// What it is made of, in words.
    pub fn parts(&self) -> String {
        format!(
            "weights {}, gradients and optimizer {}, activations {}, head {}",
            bytes_text(self.weights),
            bytes_text(self.training),
            bytes_text(self.activations),
            bytes_text(self.head),
        )
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.training + self.activations + self.head
    }
}

/// f32 values per token that one layer keeps under autodiff in rows of `width` tokens.
fn kept_values(layer: &LayerSpec, hidden: u64, width: u64) -> u64 {
    let (heads, queries, keys) = match &layer.attention {
        AttentionSpec::Grouped(grouped) => {
            (grouped.heads, grouped.heads * grouped.head_dim, grouped.kv_heads * grouped.head_dim)
        }
        AttentionSpec::Latent(latent) => {
            let keys = latent.heads * (latent.nope_dim + latent.rope_dim);
            (latent.heads, keys + latent.query_rank.unwrap_or(0), keys + latent.kv_rank)
        }
    };
    // Widths that a token passes, and copies of the residual stream for its experts.
    let (intermediate, copies) = match &layer.feed_forward {
        FeedForwardSpec::Dense(mlp) => (mlp.intermediate, 0),
        FeedForwardSpec::Experts(experts) => {
            let shared = experts.shared.map_or(0, |shared| shared.intermediate);
            let chosen = experts.router.chosen;
            (chosen * experts.expert.intermediate + shared, 4 * chosen)
        }
    };
    // Two norms keep three arrays each; projections their inputs; softmax two score arrays.
    let (queries, keys, copies) = (queries as u64, keys as u64, copies as u64);
    (8 + copies) * hidden + 5 * queries + 6 * keys + 2 * heads as u64 * width + 5 * intermediate as u64
}

/// Memory that the run's device can give, if it is known: the machine's free memory for the CPU.
pub(super) fn available_bytes(plan: &Plan) -> Option<u64> {
    if !plan.device.is_host {
        return None;
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    // A tenth is left to everything else on the machine.
    Some(kibibytes * 1024 / 10 * 9)
}

/// Bytes as people read them.
pub fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
