//! Activations that a layer keeps of one token for its backward pass, in values of the compute type.
//!
//! Every larger operation is one of the package `kernels`, and what each keeps is known: a norm its input,
//! attention its inputs, its output and one number a head, the gated product its two inputs, and a projection its
//! input only if it is trained. Projections of the same input share it, and on the CPU in f32 one with a low-rank update makes
//! its input again if that is a gated product.

use std::collections::HashSet;

use adapters::Method;

use crate::model::names::{
    self, AttentionParts, ExpertWeightParts, FeedForwardParts, GateUpParts, LatentQueryParts, LayerParts, MlpParts,
    ProjectionName, QkvParts, StackName,
};
use crate::model::spec::{
    AttentionSpec, DecoderSpec, ExpertsSpec, FeedForwardSpec, GroupedSpec, LatentSpec, LayerSpec, NormPlacement, QkNorm,
};
use crate::plan::Adaptation;

/// Values of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LayerActivations {
    /// Kept by attention itself.
    pub(super) attention: u64,
    /// Kept by everything else.
    pub(super) other: u64,
    /// Needed for a moment of the layer's backward pass beside what is kept.
    pub(super) backward: u64,
}

impl LayerActivations {
    /// All that is kept.
    pub(super) fn total(&self) -> u64 {
        self.attention + self.other
    }
}

/// The values that each layer of `spec` keeps; `in_one` says that a low-rank update and its map are one operation (CPU, f32).
pub(super) fn by_layer(spec: &DecoderSpec, adaptation: &Adaptation, in_one: bool) -> Vec<LayerActivations> {
    let trainable = Trainable::of(adaptation, in_one);
    let hidden = spec.hidden as u64;
    spec.layers.iter().zip(names::layers(spec)).map(|(layer, parts)| trainable.layer(layer, &parts, hidden)).collect()
}

/// The trainable parts, as far as they decide what is kept.
struct Trainable<'a> {
    /// Module paths and parameter names.
    names: HashSet<&'a str>,
    /// Values of a token that a trainable projection keeps beside its input.
    rank: u64,
    /// If set, each such projection keeps its own input and mask.
    drops_out: bool,
    /// If set, it keeps its output too.
    scales: bool,
    /// If set, a gated product is made again instead of kept as the input of one.
    remakes: bool,
}

impl<'a> Trainable<'a> {
    fn of(adaptation: &'a Adaptation, in_one: bool) -> Self {
        match adaptation {
            Adaptation::Adapter { spec, targets, stacks, .. } => {
                let low_rank = spec.method.low_rank();
                Self {
                    names: targets.iter().chain(stacks).map(String::as_str).collect(),
                    rank: low_rank.rank as u64,
                    drops_out: low_rank.dropout > 0.0,
                    scales: matches!(spec.method, Method::Dora(_)),
                    remakes: in_one && low_rank.dropout == 0.0 && matches!(spec.method, Method::LowRank(_)),
                }
            }
            Adaptation::Full { parameters, .. } => {
                let names = parameters.iter().map(|name| name.strip_suffix(".weight").unwrap_or(name)).collect();
                Self { names, rank: 0, drops_out: false, scales: false, remakes: false }
            }
        }
    }

    /// Values that `projections` of one input keep: the input once, unless something else keeps it, and what each adds.
    fn projections(&self, projections: &[&ProjectionName], input_is_kept: bool) -> u64 {
        let trainable = projections.iter().filter(|name| self.names.contains(name.path.as_str()));
        let (mut kept, mut shares) = (0, false);
        for name in trainable {
            let input = name.in_features as u64;
            kept += self.rank + if self.scales { name.out_features as u64 } else { 0 };
            if self.drops_out { kept += 2 * input } else { shares = true }
        }
        let shared = projections.first().map_or(0, |name| name.in_features as u64);
        kept + if shares && !input_is_kept { shared } else { 0 }
    }

    fn layer(&self, layer: &LayerSpec, parts: &LayerParts, hidden: u64) -> LayerActivations {
        let (attention, projections) = match (&layer.attention, &parts.attention) {
            (AttentionSpec::Grouped(spec), AttentionParts::Grouped(parts)) => {
                let input: Vec<&ProjectionName> = match &parts.input {
                    QkvParts::Separate(separate) => separate.iter().collect(),
                    QkvParts::Fused(one) => vec![one],
                };
                (grouped(spec), self.projections(&input, false) + self.projections(&[&parts.output], true))
            }
            (AttentionSpec::Latent(spec), AttentionParts::Latent(parts)) => {
                let projections = match &parts.query {
                    LatentQueryParts::Direct(query) => self.projections(&[query, &parts.kv_down], false),
                    LatentQueryParts::LowRank(down, _, up) => {
                        self.projections(&[down, &parts.kv_down], false) + self.projections(&[up], false)
                    }
                };
                let up = self.projections(&[&parts.kv_up], false) + self.projections(&[&parts.output], true);
                (latent(spec), projections + up)
            }
            _ => unreachable!("names are made from the specification"),
        };
        let (feed_forward, widest) = match (&layer.feed_forward, &parts.feed_forward) {
            (FeedForwardSpec::Dense(mlp), FeedForwardParts::Dense(parts)) => {
                let intermediate = mlp.intermediate as u64;
                (self.perceptron(parts, intermediate), intermediate)
            }
            (FeedForwardSpec::Experts(spec), FeedForwardParts::Experts(parts)) => {
                let chosen = (spec.router.chosen * spec.expert.intermediate) as u64;
                let shared = spec.shared.as_ref().map_or(0, |shared| shared.intermediate as u64);
                let shared_kept = parts.shared.as_ref().map_or(0, |parts| self.perceptron(parts, shared));
                (shared_kept + self.experts(spec, &parts.experts, hidden), chosen.max(shared))
            }
            _ => unreachable!("names are made from the specification"),
        };
        let norms = match layer.norms {
            NormPlacement::Before(_) => 2,
            NormPlacement::Around(_) => 4,
        };
        // Gradients of the gated product and of its two inputs, less the product itself; the residual stream's.
        LayerActivations {
            attention,
            other: norms * hidden + projections + feed_forward,
            backward: 2 * widest + 3 * hidden,
        }
    }

    fn perceptron(&self, parts: &MlpParts, intermediate: u64) -> u64 {
        let input: Vec<&ProjectionName> = match &parts.input {
            GateUpParts::Separate(separate) => separate.iter().collect(),
            GateUpParts::Fused(one) => vec![one],
        };
        2 * intermediate + self.projections(&input, false) + self.projections(&[&parts.down], self.remakes)
    }

    /// A token's own experts, with its row for each on the way in and, weighed, on the way out.
    fn experts(&self, spec: &ExpertsSpec, parts: &ExpertWeightParts, hidden: u64) -> u64 {
        let (chosen, intermediate) = (spec.router.chosen as u64, spec.expert.intermediate as u64);
        let one = match parts {
            ExpertWeightParts::Separate(experts) => {
                experts.first().map_or(0, |parts| self.perceptron(parts, intermediate))
            }
            ExpertWeightParts::Stacked(gate_up, down) => {
                let stack = |stack: &StackName, input: u64| {
                    if self.names.contains(stack.name.as_str()) { input + self.rank } else { 0 }
                };
                2 * intermediate + stack(gate_up, hidden) + stack(down, intermediate)
            }
        };
        2 * spec.count as u64 + hidden + chosen * (one + 2 * hidden)
    }
}

/// Queries, keys, values, their mix and a number a head; with a norm on queries and keys also those before it.
fn grouped(spec: &GroupedSpec) -> u64 {
    let (queries, keys) = ((spec.heads * spec.head_dim) as u64, (spec.kv_heads * spec.head_dim) as u64);
    let before_norm = match spec.qk_norm {
        QkNorm::None => 0,
        QkNorm::BeforeRope(_) | QkNorm::AfterRope { .. } => queries + keys,
    };
    2 * queries + 2 * keys + spec.heads as u64 + before_norm
}

/// Values of latent attention, with keys as wide as queries; the latent vectors before their norms.
fn latent(spec: &LatentSpec) -> u64 {
    let heads = spec.heads as u64;
    let query = heads * (spec.nope_dim + spec.rope_dim) as u64;
    let latents = spec.kv_rank + spec.query_rank.unwrap_or(0);
    2 * query + 2 * heads * spec.value_dim as u64 + heads + latents as u64
}

#[cfg(test)]
mod tests {
    use adapters::{AdapterSpec, LowRankSpec, Targets};
    use serde_json::json;

    use super::*;
    use crate::model::families;

    /// One layer: hidden 64, 4 query and 2 key heads of 16, intermediate 96.
    fn spec() -> DecoderSpec {
        let config = json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96,
            "vocab_size": 128, "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "rope_theta": 1e4,
            "hidden_act": "silu", "tie_word_embeddings": true,
        });
        families::resolve(&config, std::path::Path::new("config.json")).expect("a supported model").spec
    }

    fn lora(targets: &[&str], method: fn(LowRankSpec) -> Method, dropout: f64) -> Adaptation {
        let spec = LowRankSpec { rank: 8, alpha: 8.0, dropout, rank_stabilised: false };
        Adaptation::Adapter {
            spec: AdapterSpec {
                method: method(spec),
                targets: Targets::AllLinear,
                parameters: Vec::new(),
                saved_modules: Vec::new(),
                layers: None,
                seed: 0,
            },
            targets: targets.iter().map(|name| format!("model.layers.0.{name}")).collect(),
            stacks: Vec::new(),
            continued: None,
            tensors: Vec::new(),
        }
    }

    const ATTENTION: u64 = 2 * 64 + 2 * 32 + 4;
    /// Inputs of two norms; gate and up.
    const ALWAYS: u64 = 2 * 64 + 2 * 96;

    fn other(adaptation: &Adaptation) -> u64 {
        other_with(adaptation, false)
    }

    fn other_with(adaptation: &Adaptation, in_one: bool) -> u64 {
        let kept = by_layer(&spec(), adaptation, in_one);
        assert_eq!((kept.len(), kept[0].attention), (1, ATTENTION));
        kept[0].other - ALWAYS
    }

    #[test]
    fn projections_of_one_input_keep_it_once() {
        let of = |targets: &[&str]| other(&lora(targets, Method::LowRank, 0.0));
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&["self_attn.q_proj"]), 64 + 8);
        assert_eq!(of(&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]), 64 + 3 * 8);
        assert_eq!(of(&["self_attn.o_proj"]), 8, "attention keeps what it gives");
        assert_eq!(of(&["mlp.down_proj"]), 96 + 8);
    }

    #[test]
    fn in_one_operation_a_gated_product_is_made_again_unless_dropout_or_dora_needs_it() {
        let of = |method, dropout| other_with(&lora(&["mlp.down_proj"], method, dropout), true);
        assert_eq!(of(Method::LowRank, 0.0), 8);
        assert_eq!(of(Method::LowRank, 0.1), 2 * 96 + 8);
        assert_eq!(of(Method::Dora, 0.0), 96 + 64 + 8);
    }

    #[test]
    fn dropout_keeps_an_input_and_a_mask_for_each_projection_and_dora_its_output() {
        let both = ["mlp.gate_proj", "mlp.up_proj"];
        assert_eq!(other(&lora(&both, Method::LowRank, 0.1)), 2 * (2 * 64 + 8));
        assert_eq!(other(&lora(&both, Method::Dora, 0.0)), 64 + 2 * (96 + 8));
    }

    #[test]
    fn a_weight_that_learns_keeps_its_input_alone() {
        let full = |name: &str| Adaptation::Full { parameters: vec![name.to_owned()], tensors: Vec::new() };
        assert_eq!(other(&full("model.layers.0.mlp.down_proj.weight")), 96);
        assert_eq!(other(&full("model.norm.weight")), 0);
    }
}
