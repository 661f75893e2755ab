//! The name and shape of every parameter in a checkpoint, once.
//!
//! A projection goes by its module path (`model.layers.3.self_attn.q_proj`), from which [`weight`] and
//! [`bias`] make parameter names; everything else goes by its parameter name (`model.norm.weight`).
//! Building, loading, counting, quantising and exporting all take their names from here.

mod check;

use super::spec::{AttentionSpec, DecoderSpec, FeedForwardSpec, LayerSpec, QkNorm};

pub use check::{WeightsError, check_weights};

/// Parameter name of the embedding.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Parameter name of the norm before the head.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Parameter name of the output head.
pub const HEAD: &str = "lm_head.weight";
/// Module path of the output head.
pub const HEAD_PATH: &str = "lm_head";

/// Short name of the projection to queries.
pub const QUERY: &str = "q_proj";
/// Short name of the projection to keys.
pub const KEY: &str = "k_proj";
/// Short name of the projection to values.
pub const VALUE: &str = "v_proj";
/// Short name of the projection out of attention.
pub const OUTPUT: &str = "o_proj";
/// Short name of the perceptron's gate.
pub const GATE: &str = "gate_proj";
/// Short name of the perceptron's projection up.
pub const UP: &str = "up_proj";
/// Short name of the perceptron's projection down.
pub const DOWN: &str = "down_proj";

/// The name of a module's weight.
pub fn weight(path: &str) -> String {
    format!("{path}.weight")
}

/// The name of a module's bias.
pub fn bias(path: &str) -> String {
    format!("{path}.bias")
}

/// Whether a parameter is an adapter's and not the checkpoint's.
pub fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// The last part of a path, such as `q_proj`.
pub fn short(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, short)| short)
}

/// The names in one layer: module paths of projections, parameter names of norms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerNames {
    /// The layer itself, a module path.
    pub path: String,
    /// Weight of the norm before attention.
    pub attention_norm: String,
    /// Projection to queries.
    pub query: String,
    /// Projection to keys.
    pub key: String,
    /// Projection to values.
    pub value: String,
    /// Projection out of attention.
    pub output: String,
    /// Weight of the norm on queries.
    pub query_norm: String,
    /// Weight of the norm on keys.
    pub key_norm: String,
    /// Weight of the norm before the feed-forward.
    pub feed_forward_norm: String,
    /// The perceptron's gate.
    pub gate: String,
    /// The perceptron's projection up.
    pub up: String,
    /// The perceptron's projection down.
    pub down: String,
}

/// The names in the layer `index`, from 0 above the embedding.
pub fn layer(index: usize) -> LayerNames {
    let path = format!("model.layers.{index}");
    let attention = |part: &str| format!("{path}.self_attn.{part}");
    let feed_forward = |part: &str| format!("{path}.mlp.{part}");
    LayerNames {
        attention_norm: format!("{path}.input_layernorm.weight"),
        query: attention(QUERY),
        key: attention(KEY),
        value: attention(VALUE),
        output: attention(OUTPUT),
        query_norm: attention("q_norm.weight"),
        key_norm: attention("k_norm.weight"),
        feed_forward_norm: format!("{path}.post_attention_layernorm.weight"),
        gate: feed_forward(GATE),
        up: feed_forward(UP),
        down: feed_forward(DOWN),
        path,
    }
}

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// The embedding, `[vocab, hidden]`.
    Embedding,
    /// The weight of a norm.
    Norm,
    /// The matrix of a projection, `[out, in]`.
    LinearWeight,
    /// The bias of a projection, `[out]`.
    LinearBias,
    /// The output head, `[vocab, hidden]`; there is none where it is tied to the embedding.
    Head,
}

/// One parameter of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape in the checkpoint.
    pub shape: Vec<usize>,
    /// What it is for.
    pub kind: ParameterKind,
    /// The layer it belongs to, if any.
    pub layer: Option<usize>,
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|size| *size as u64).product()
    }
}

/// One linear map that an adapter can change or that can be quantised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectionName {
    /// Its module path, such as `model.layers.3.self_attn.q_proj`.
    pub path: String,
    /// Width of its input.
    pub in_features: usize,
    /// Width of its output.
    pub out_features: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// The layer it belongs to; `None` for the head.
    pub layer: Option<usize>,
}

impl ProjectionName {
    /// The last part of the path, such as `q_proj`.
    pub fn short(&self) -> &str {
        short(&self.path)
    }
}

/// The projections of all layers from the embedding up: queries, keys, values, output, gate, up, down.
/// The head is not among them, see [`head`].
pub fn projections(spec: &DecoderSpec) -> Vec<ProjectionName> {
    let of_layer = |(index, layer)| layer_projections(spec.hidden, index, layer);
    spec.layers.iter().enumerate().flat_map(of_layer).collect()
}

/// The output head as a projection, tied or not.
pub fn head(spec: &DecoderSpec) -> ProjectionName {
    ProjectionName {
        path: HEAD_PATH.to_owned(),
        in_features: spec.hidden,
        out_features: spec.vocab,
        bias: false,
        layer: None,
    }
}

fn layer_projections(hidden: usize, index: usize, layer_spec: &LayerSpec) -> Vec<ProjectionName> {
    let names = layer(index);
    let projection = |path, in_features, out_features, bias| ProjectionName {
        path,
        in_features,
        out_features,
        bias,
        layer: Some(index),
    };
    let AttentionSpec::Grouped(attention) = &layer_spec.attention;
    let FeedForwardSpec::Dense(mlp) = &layer_spec.feed_forward;
    let query_width = attention.heads * attention.head_dim;
    let key_width = attention.kv_heads * attention.head_dim;
    vec![
        projection(names.query, hidden, query_width, attention.qkv_bias),
        projection(names.key, hidden, key_width, attention.qkv_bias),
        projection(names.value, hidden, key_width, attention.qkv_bias),
        projection(names.output, query_width, hidden, attention.output_bias),
        projection(names.gate, hidden, mlp.intermediate, mlp.bias),
        projection(names.up, hidden, mlp.intermediate, mlp.bias),
        projection(names.down, mlp.intermediate, hidden, mlp.bias),
    ]
}

/// Every parameter of the checkpoint from the embedding up; in a layer the projections, then the norms.
pub fn parameters(spec: &DecoderSpec) -> Vec<Parameter> {
    let norm = |name: &str, width, layer| Parameter {
        name: name.to_owned(),
        shape: vec![width],
        kind: ParameterKind::Norm,
        layer,
    };
    let table =
        |name: &str, kind| Parameter { name: name.to_owned(), shape: vec![spec.vocab, spec.hidden], kind, layer: None };
    let mut parameters = vec![table(EMBEDDING, ParameterKind::Embedding)];
    for (index, layer_spec) in spec.layers.iter().enumerate() {
        for projection in layer_projections(spec.hidden, index, layer_spec) {
            let parameter = |name, shape, kind| Parameter { name, shape, kind, layer: projection.layer };
            let shape = vec![projection.out_features, projection.in_features];
            parameters.push(parameter(weight(&projection.path), shape, ParameterKind::LinearWeight));
            if projection.bias {
                let shape = vec![projection.out_features];
                parameters.push(parameter(bias(&projection.path), shape, ParameterKind::LinearBias));
            }
        }
        let names = layer(index);
        let AttentionSpec::Grouped(attention) = &layer_spec.attention;
        if let QkNorm::BeforeRope(_) = attention.qk_norm {
            parameters.push(norm(&names.query_norm, attention.head_dim, Some(index)));
            parameters.push(norm(&names.key_norm, attention.head_dim, Some(index)));
        }
        parameters.push(norm(&names.attention_norm, spec.hidden, Some(index)));
        parameters.push(norm(&names.feed_forward_norm, spec.hidden, Some(index)));
    }
    parameters.push(norm(FINAL_NORM, spec.hidden, None));
    if !spec.head.tied {
        parameters.push(table(HEAD, ParameterKind::Head));
    }
    parameters
}
