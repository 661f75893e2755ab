//! The architecture of a decoder as plain data.
//!
//! A family turns a `config.json` into a [`DecoderSpec`]; building, loading, counting and the forward
//! pass read nothing else. Patterns over layers are expanded here, once: a layer knows its own reach
//! and its own rotary frequencies, and no later code computes with a layer index.

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
}

/// One layer: attention, then feed-forward, each behind a norm and around a residual.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// How tokens look at each other.
    pub attention: AttentionSpec,
    /// What happens to each token by itself.
    pub feed_forward: FeedForwardSpec,
    /// Norms before attention and before the feed-forward.
    pub norm: NormSpec,
}

/// The kinds of attention.
#[derive(Debug, Clone, PartialEq)]
pub enum AttentionSpec {
    /// Query heads in groups that share a key and value head (multi-head and multi-query included).
    Grouped(GroupedSpec),
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
    /// Whether `q_proj`, `k_proj`, `v_proj` have a bias.
    pub qkv_bias: bool,
    /// Whether `o_proj` has a bias.
    pub output_bias: bool,
    /// Factor on the scores before the softmax.
    pub scale: f32,
    /// How far back a token may look.
    pub reach: Reach,
    /// Norm on queries and keys.
    pub qk_norm: QkNorm,
    /// Rotary position embedding.
    pub rope: RopeSpec,
}

/// How far back a token may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reach {
    /// To the beginning of its document.
    Full,
    /// To the `n` last tokens, itself included.
    Window(usize),
}

/// Norm on queries and keys; the order relative to the rotary embedding is part of the fact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum QkNorm {
    /// None.
    None,
    /// RMSNorm with a weight of `head_dim`, per head, before the rotary embedding.
    BeforeRope(NormSpec),
}

/// Rotary position embedding, half-rotation order (first half of a head with its second half).
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Frequencies after every scaling, `head_dim / 2` of them, in radians per token.
    pub inv_freq: Vec<f32>,
    /// Factor on cosine and sine.
    pub attention_scaling: f32,
}

/// The kinds of feed-forward.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedForwardSpec {
    /// One gated perceptron.
    Dense(MlpSpec),
}

/// `down(activation(gate x) * up x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpSpec {
    /// Width between up and down.
    pub intermediate: usize,
    /// Whether the three projections have a bias.
    pub bias: bool,
    /// Activation on the gate.
    pub activation: Activation,
}

/// Activations on a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
}

/// RMSNorm: `x / sqrt(mean(x²) + epsilon) * weight`, the mean in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// Added to the mean square.
    pub epsilon: f64,
}

/// Final norm and output head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSpec {
    /// The norm before the head.
    pub norm: NormSpec,
    /// Whether the head is the embedding's own matrix.
    pub tied: bool,
}
