//! The architecture of a decoder as plain data.
//!
//! A family turns a `config.json` into a [`DecoderSpec`]; building, loading, counting and the forward
//! pass read nothing else. Patterns over layers are expanded here, once: a layer knows its own reach
//! and its own rotary frequencies, and no later code computes with a layer index.

pub use kernels::{Activation, RopePairs};

/// A decoder-only language model: embedding, layers, final norm, head.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderSpec {
    /// Rows of the embedding and of the head; may exceed the tokenizer's vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Factor on the embedding's output (1.0 where a family has none).
    pub embed_scale: f32,
    /// The layers from the embedding up.
    pub layers: Vec<LayerSpec>,
    /// Final norm and output head.
    pub head: HeadSpec,
    /// Longest sequence the model was made for, in tokens.
    pub max_positions: usize,
    /// Standard deviation of a random initialisation.
    pub initializer_range: f64,
    /// The beginning of every name in the checkpoint: empty, or the decoder's place in a larger model.
    pub prefix: &'static str,
    /// The beginning of module paths in transformers' class for text generation, instead of the prefix and `model.`.
    pub class_path: &'static str,
}

/// One layer: attention, then feed-forward, each behind a norm and around a residual.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Attention between tokens.
    pub attention: AttentionSpec,
    /// The feed-forward of each token.
    pub feed_forward: FeedForwardSpec,
    /// The name of the feed-forward's module in the checkpoint, such as `mlp`.
    pub feed_forward_name: &'static str,
    /// The places of the norms.
    pub norms: NormPlacement,
}

/// The places of a layer's norms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormPlacement {
    /// Before attention and before the feed-forward.
    Before(NormSpec),
    /// Before and after each, the later ones ahead of the residual sum.
    Around(NormSpec),
}

impl NormPlacement {
    /// The norms, which are all alike.
    pub fn norm(self) -> NormSpec {
        match self {
            Self::Before(norm) | Self::Around(norm) => norm,
        }
    }
}

/// The kinds of attention.
#[derive(Debug, Clone, PartialEq)]
pub enum AttentionSpec {
    /// Query heads in groups that share a key and value head (multi-head and multi-query included).
    Grouped(GroupedSpec),
    /// Keys and values from a narrow latent vector (multi-head latent attention).
    Latent(LatentSpec),
}

impl AttentionSpec {
    /// Query heads.
    pub fn heads(&self) -> usize {
        match self {
            Self::Grouped(grouped) => grouped.heads,
            Self::Latent(latent) => latent.heads,
        }
    }

    /// Its reach.
    pub fn reach(&self) -> Reach {
        match self {
            Self::Grouped(grouped) => grouped.reach,
            Self::Latent(_) => Reach::Full,
        }
    }

    /// Its rotary embedding, if it has one.
    pub fn rope(&self) -> Option<&RopeSpec> {
        match self {
            Self::Grouped(grouped) => grouped.rope.as_ref(),
            Self::Latent(latent) => Some(&latent.rope),
        }
    }
}

/// Grouped-query attention.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupedSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// If set, queries, keys and values are one projection, stacked in this order.
    pub fused_qkv: bool,
    /// If set, the projections to queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// If set, the projection out has a bias.
    pub output_bias: bool,
    /// Factor on the scores before the softmax.
    pub scale: f32,
    /// The reach of a token.
    pub reach: Reach,
    /// Norm on queries and keys.
    pub qk_norm: QkNorm,
    /// Rotary position embedding; none where a layer has no positions.
    pub rope: Option<RopeSpec>,
    /// Growth of the queries with their position.
    pub temperature: Option<TemperatureSpec>,
    /// If set, each head has a trained logit that takes part in the softmax and has no value.
    pub sinks: bool,
}

/// Attention whose keys and values come from a shared latent vector (DeepSeek-AI 2024, arXiv:2405.04434).
#[derive(Debug, Clone, PartialEq)]
pub struct LatentSpec {
    /// Heads, of queries as of keys and values.
    pub heads: usize,
    /// Width of the latent vector of queries; none where they are projected in one step.
    pub query_rank: Option<usize>,
    /// Width of the latent vector of keys and values.
    pub kv_rank: usize,
    /// Width of the part of a head without positions.
    pub nope_dim: usize,
    /// Width of the part of a head that the rotary embedding turns; one key is shared by all heads.
    pub rope_dim: usize,
    /// Width of a head's value.
    pub value_dim: usize,
    /// If set, the projections to latent vectors and out of attention have a bias.
    pub bias: bool,
    /// Factor on the scores before the softmax.
    pub scale: f32,
    /// The norms on the latent vectors.
    pub norm: NormSpec,
    /// Rotary position embedding.
    pub rope: RopeSpec,
}

/// The distance that a token may look back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reach {
    /// To the beginning of its document.
    Full,
    /// To the `n` last tokens, itself included.
    Window(usize),
    /// To the beginning of its chunk: documents are cut into chunks of `n` positions.
    Chunk(usize),
}

/// Norm on queries and keys; the order relative to the rotary embedding is part of the fact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum QkNorm {
    /// None.
    None,
    /// RMSNorm with a weight of `head_dim`, per head, before the rotary embedding.
    BeforeRope(NormSpec),
    /// RMSNorm without a weight, per head, after the rotary embedding.
    AfterRope {
        /// Added to the mean square.
        epsilon: f64,
    },
}

/// Rotary position embedding of the first `2 * inv_freq.len()` values of a head.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Frequencies after every scaling, in radians per token.
    pub inv_freq: Vec<f32>,
    /// Factor on cosine and sine.
    pub attention_scaling: f32,
    /// The two values that turn together.
    pub pairs: RopePairs,
    /// Other frequencies for long rows.
    pub long: Option<LongRope>,
}

/// Frequencies for micro-batches in which a position exceeds what the model was first trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Frequencies, in radians per token.
    pub inv_freq: Vec<f32>,
    /// Tokens of the longest row for which the others hold.
    pub beyond: usize,
}

/// Queries times `1 + scale * ln(1 + floor((position + 1) / floor))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TemperatureSpec {
    /// Factor on the logarithm.
    pub scale: f64,
    /// Positions per step.
    pub floor: f64,
}

/// The kinds of feed-forward.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedForwardSpec {
    /// One gated perceptron.
    Dense(MlpSpec),
    /// Many, of which a router chooses some for each token.
    Experts(ExpertsSpec),
}

/// `down(gated(gate x, up x))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlpSpec {
    /// Width between up and down.
    pub intermediate: usize,
    /// If set, the projections have a bias.
    pub bias: bool,
    /// If set, gate and up are one projection, stacked in this order.
    pub fused_gate_up: bool,
    /// The activation that makes one of gate and up.
    pub activation: Activation,
}

/// A router and its experts (Shazeer et al. 2017, arXiv:1701.06538).
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsSpec {
    /// Experts.
    pub count: usize,
    /// The router.
    pub router: RouterSpec,
    /// One expert.
    pub expert: MlpSpec,
    /// Their layout in the checkpoint.
    pub storage: ExpertStorage,
    /// A perceptron that every token goes through.
    pub shared: Option<MlpSpec>,
    /// The names of the parts in the checkpoint.
    pub names: ExpertNames,
}

/// The choice of experts and their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouterSpec {
    /// Experts per token.
    pub chosen: usize,
    /// From logits to weights.
    pub scoring: Scoring,
    /// If set, the chosen weights are divided by their sum.
    pub normalise: bool,
    /// Factor on the weights.
    pub scale: f64,
    /// Restricts the choice to some groups of experts.
    pub groups: Option<RouterGroups>,
    /// If set, a stored number per expert is added to the scores for the choice alone.
    pub correction: bool,
    /// If set, the logits have a bias.
    pub bias: bool,
    /// The side that the weights multiply.
    pub weighs: Weighs,
}

/// From router logits to weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Softmax over the chosen experts.
    SoftmaxOfChosen,
    /// The logistic function of each logit.
    Sigmoid,
}

/// The side of the experts that a router's weights multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighs {
    /// The input of the experts.
    Input,
    /// The output of the experts.
    Output,
}

/// Groups of experts, of which the best are kept by the sum of their two best scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterGroups {
    /// Groups; divides the number of experts.
    pub count: usize,
    /// Groups to choose from.
    pub kept: usize,
}

/// The layout of experts in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertStorage {
    /// One module each, with matrices `[out, in]`.
    Separate,
    /// All in one tensor per matrix, `[experts, in, out]`; gate and up are one.
    Stacked {
        /// If set, the columns of gate and up alternate; else all of the gate's come first.
        interleaved: bool,
        /// If set, PEFT takes the tensors for `[experts, out, in]`.
        swapped_in_peft: bool,
    },
}

/// The names of the parts of a router with experts in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertNames {
    /// The router.
    pub router: &'static str,
    /// An expert's gate.
    pub gate: &'static str,
    /// An expert's projection up.
    pub up: &'static str,
    /// An expert's projection down.
    pub down: &'static str,
    /// The shared perceptron.
    pub shared: &'static str,
}

/// RMSNorm: `x / sqrt(mean(x²) + epsilon) * (weight + offset)`, the mean in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// Added to the mean square.
    pub epsilon: f64,
    /// Added to the weight (0.0 where a family has none).
    pub offset: f32,
    /// If set, the product with the weight is in f32 too, before the cast to the compute type.
    pub scale_in_f32: bool,
}

impl NormSpec {
    /// The usual norm: cast, then scaled by the weight.
    pub const fn plain(epsilon: f64) -> Self {
        Self { epsilon, offset: 0.0, scale_in_f32: false }
    }
}

/// Final norm and output head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSpec {
    /// The norm before the head.
    pub norm: NormSpec,
    /// If set, the head is the embedding's own matrix.
    pub tied: bool,
}
