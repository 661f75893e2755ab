//! The names of one layer, in the shape of its specification: what is loaded into which part.

use super::{Parameter, ParameterKind, ProjectionName, Role, StackName};
use crate::model::spec::{
    AttentionSpec, DecoderSpec, ExpertStorage, ExpertsSpec, FeedForwardSpec, GroupedSpec, LatentSpec, MlpSpec,
    NormPlacement, QkNorm,
};

/// The names in one layer.
#[derive(Debug, Clone)]
pub struct LayerParts {
    /// Attention.
    pub attention: AttentionParts,
    /// Feed-forward.
    pub feed_forward: FeedForwardParts,
    /// Norms around both.
    pub norms: NormParts,
}

/// The norms of a layer.
#[derive(Debug, Clone)]
pub struct NormParts {
    /// Before attention.
    pub before_attention: Parameter,
    /// After attention.
    pub after_attention: Option<Parameter>,
    /// Before the feed-forward.
    pub before_feed_forward: Parameter,
    /// After the feed-forward.
    pub after_feed_forward: Option<Parameter>,
}

/// The names in an attention.
#[derive(Debug, Clone)]
pub enum AttentionParts {
    /// Grouped-query attention.
    Grouped(GroupedParts),
    /// Latent attention.
    Latent(LatentParts),
}

/// The names in a grouped-query attention.
#[derive(Debug, Clone)]
pub struct GroupedParts {
    /// Projections in.
    pub input: QkvParts,
    /// Projection out.
    pub output: ProjectionName,
    /// Norms on queries and keys.
    pub qk_norm: Option<[Parameter; 2]>,
    /// Sinks.
    pub sinks: Option<Parameter>,
}

/// Projections to queries, keys and values.
#[derive(Debug, Clone)]
pub enum QkvParts {
    /// Three of them.
    Separate([ProjectionName; 3]),
    /// One.
    Fused(ProjectionName),
}

/// The names in a latent attention.
#[derive(Debug, Clone)]
pub struct LatentParts {
    /// Projections to queries.
    pub query: LatentQueryParts,
    /// Projection to the latent vector and the shared rotary key.
    pub kv_down: ProjectionName,
    /// Norm on the latent vector.
    pub kv_norm: Parameter,
    /// Projection from the latent vector to keys and values.
    pub kv_up: ProjectionName,
    /// Projection out.
    pub output: ProjectionName,
}

/// Projections to the queries of a latent attention.
#[derive(Debug, Clone)]
pub enum LatentQueryParts {
    /// In one step.
    Direct(ProjectionName),
    /// Through a latent vector and its norm.
    LowRank(ProjectionName, Parameter, ProjectionName),
}

/// The names in a feed-forward.
#[derive(Debug, Clone)]
pub enum FeedForwardParts {
    /// One perceptron.
    Dense(MlpParts),
    /// Experts.
    Experts(Box<ExpertsParts>),
}

/// The names in a perceptron.
#[derive(Debug, Clone)]
pub struct MlpParts {
    /// Projections in.
    pub input: GateUpParts,
    /// Projection out.
    pub down: ProjectionName,
}

/// Projections to gate and up.
#[derive(Debug, Clone)]
pub enum GateUpParts {
    /// Two of them.
    Separate([ProjectionName; 2]),
    /// One.
    Fused(ProjectionName),
}

/// The names in a router with experts.
#[derive(Debug, Clone)]
pub struct ExpertsParts {
    /// The router.
    pub router: ProjectionName,
    /// The numbers that are added to its scores for the choice.
    pub correction: Option<Parameter>,
    /// The experts.
    pub experts: ExpertWeightParts,
    /// The shared perceptron.
    pub shared: Option<MlpParts>,
}

/// The names of experts.
#[derive(Debug, Clone)]
pub enum ExpertWeightParts {
    /// One module each.
    Separate(Vec<MlpParts>),
    /// Gate and up of all in one tensor, and down of all in another.
    Stacked(StackName, StackName),
}

/// One name in a layer.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// A linear map.
    Projection(&'a ProjectionName),
    /// Linear maps of all experts.
    Stack(&'a StackName),
    /// Anything else.
    Parameter(&'a Parameter),
}

/// The names in the layer `index` of `spec`, from 0 above the embedding.
pub fn layer(spec: &DecoderSpec, index: usize) -> LayerParts {
    let layer = &spec.layers[index];
    let names = Names { path: format!("{}model.layers.{index}", spec.prefix), hidden: spec.hidden, index };
    let norm = |name: &str| names.parameter(&format!("{name}.weight"), vec![spec.hidden], ParameterKind::Norm);
    LayerParts {
        attention: match &layer.attention {
            AttentionSpec::Grouped(grouped) => AttentionParts::Grouped(names.grouped(grouped)),
            AttentionSpec::Latent(latent) => AttentionParts::Latent(names.latent(latent)),
        },
        feed_forward: match &layer.feed_forward {
            FeedForwardSpec::Dense(mlp) => {
                FeedForwardParts::Dense(names.mlp(layer.feed_forward_name, PERCEPTRON, mlp, Role::Common))
            }
            FeedForwardSpec::Experts(experts) => {
                FeedForwardParts::Experts(Box::new(names.experts(layer.feed_forward_name, experts)))
            }
        },
        norms: match layer.norms {
            NormPlacement::Before(_) => NormParts {
                before_attention: norm("input_layernorm"),
                after_attention: None,
                before_feed_forward: norm("post_attention_layernorm"),
                after_feed_forward: None,
            },
            NormPlacement::Around(_) => NormParts {
                before_attention: norm("input_layernorm"),
                after_attention: Some(norm("post_attention_layernorm")),
                before_feed_forward: norm("pre_feedforward_layernorm"),
                after_feed_forward: Some(norm("post_feedforward_layernorm")),
            },
        },
    }
}

/// Gate, up and down of a perceptron that is not an expert.
const PERCEPTRON: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

struct Names {
    path: String,
    hidden: usize,
    index: usize,
}

impl Names {
    fn projection(&self, module: &str, from: usize, to: usize, bias: bool, role: Role) -> ProjectionName {
        let path = format!("{}.{module}", self.path);
        ProjectionName { path, in_features: from, out_features: to, bias, layer: Some(self.index), role }
    }

    fn parameter(&self, name: &str, shape: Vec<usize>, kind: ParameterKind) -> Parameter {
        Parameter { name: format!("{}.{name}", self.path), shape, kind, layer: Some(self.index) }
    }

    fn grouped(&self, spec: &GroupedSpec) -> GroupedParts {
        let projection =
            |name: &str, from, to, bias| self.projection(&format!("self_attn.{name}"), from, to, bias, Role::Common);
        let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let input = |name, to| projection(name, self.hidden, to, spec.qkv_bias);
        let norm = |name| self.parameter(name, vec![spec.head_dim], ParameterKind::Norm);
        GroupedParts {
            input: if spec.fused_qkv {
                QkvParts::Fused(input("qkv_proj", queries + 2 * keys))
            } else {
                QkvParts::Separate([input("q_proj", queries), input("k_proj", keys), input("v_proj", keys)])
            },
            output: projection("o_proj", queries, self.hidden, spec.output_bias),
            qk_norm: match spec.qk_norm {
                QkNorm::BeforeRope(_) => Some([norm("self_attn.q_norm.weight"), norm("self_attn.k_norm.weight")]),
                QkNorm::None | QkNorm::AfterRope { .. } => None,
            },
            sinks: spec.sinks.then(|| self.parameter("self_attn.sinks", vec![spec.heads], ParameterKind::Sinks)),
        }
    }

    fn latent(&self, spec: &LatentSpec) -> LatentParts {
        let projection =
            |name: &str, from, to, bias| self.projection(&format!("self_attn.{name}"), from, to, bias, Role::Common);
        let norm = |name, width| self.parameter(name, vec![width], ParameterKind::Norm);
        let queries = spec.heads * (spec.nope_dim + spec.rope_dim);
        LatentParts {
            query: match spec.query_rank {
                None => LatentQueryParts::Direct(projection("q_proj", self.hidden, queries, false)),
                Some(rank) => LatentQueryParts::LowRank(
                    projection("q_a_proj", self.hidden, rank, spec.bias),
                    norm("self_attn.q_a_layernorm.weight", rank),
                    projection("q_b_proj", rank, queries, false),
                ),
            },
            kv_down: projection("kv_a_proj_with_mqa", self.hidden, spec.kv_rank + spec.rope_dim, spec.bias),
            kv_norm: norm("self_attn.kv_a_layernorm.weight", spec.kv_rank),
            kv_up: projection("kv_b_proj", spec.kv_rank, spec.heads * (spec.nope_dim + spec.value_dim), false),
            output: projection("o_proj", spec.heads * spec.value_dim, self.hidden, spec.bias),
        }
    }

    fn mlp(&self, module: &str, [gate, up, down]: [&str; 3], spec: &MlpSpec, role: Role) -> MlpParts {
        let projection = |name: &str, from, to| self.projection(&format!("{module}.{name}"), from, to, spec.bias, role);
        let input = |name, to| projection(name, self.hidden, to);
        MlpParts {
            input: if spec.fused_gate_up {
                GateUpParts::Fused(input("gate_up_proj", 2 * spec.intermediate))
            } else {
                GateUpParts::Separate([input(gate, spec.intermediate), input(up, spec.intermediate)])
            },
            down: projection(down, spec.intermediate, self.hidden),
        }
    }

    fn experts(&self, module: &str, spec: &ExpertsSpec) -> ExpertsParts {
        let names = spec.names;
        let router = format!("{module}.{}", names.router);
        let stack = |name: &str, in_features, out_features| StackName {
            name: format!("{}.{module}.experts.{name}", self.path),
            experts: spec.count,
            in_features,
            out_features,
            bias: spec.expert.bias,
            swapped: matches!(spec.storage, ExpertStorage::Stacked { swapped_in_peft: true, .. }),
            layer: self.index,
        };
        let width = spec.expert.intermediate;
        let one = |expert| {
            let module = format!("{module}.experts.{expert}");
            self.mlp(&module, [names.gate, names.up, names.down], &spec.expert, Role::Expert)
        };
        let correction = format!("{router}.e_score_correction_bias");
        ExpertsParts {
            router: self.projection(&router, self.hidden, spec.count, spec.router.bias, Role::Router),
            correction: spec
                .router
                .correction
                .then(|| self.parameter(&correction, vec![spec.count], ParameterKind::RouterCorrection)),
            experts: match spec.storage {
                ExpertStorage::Separate => ExpertWeightParts::Separate((0..spec.count).map(one).collect()),
                ExpertStorage::Stacked { .. } => ExpertWeightParts::Stacked(
                    stack("gate_up_proj", self.hidden, 2 * width),
                    stack("down_proj", width, self.hidden),
                ),
            },
            shared: spec
                .shared
                .map(|shared| self.mlp(&format!("{module}.{}", names.shared), PERCEPTRON, &shared, Role::Common)),
        }
    }
}

impl LayerParts {
    /// Calls `visit` with every name: attention, feed-forward, norms.
    pub fn visit(&self, visit: &mut dyn FnMut(Part)) {
        match &self.attention {
            AttentionParts::Grouped(grouped) => grouped.visit(visit),
            AttentionParts::Latent(latent) => latent.visit(visit),
        }
        match &self.feed_forward {
            FeedForwardParts::Dense(mlp) => mlp.visit(visit),
            FeedForwardParts::Experts(experts) => experts.visit(visit),
        }
        let norms = &self.norms;
        visit(Part::Parameter(&norms.before_attention));
        norms.after_attention.iter().for_each(|norm| visit(Part::Parameter(norm)));
        visit(Part::Parameter(&norms.before_feed_forward));
        norms.after_feed_forward.iter().for_each(|norm| visit(Part::Parameter(norm)));
    }
}

impl GroupedParts {
    fn visit(&self, visit: &mut dyn FnMut(Part)) {
        match &self.input {
            QkvParts::Separate(three) => three.iter().for_each(|projection| visit(Part::Projection(projection))),
            QkvParts::Fused(one) => visit(Part::Projection(one)),
        }
        visit(Part::Projection(&self.output));
        self.qk_norm.iter().flatten().chain(&self.sinks).for_each(|parameter| visit(Part::Parameter(parameter)));
    }
}

impl LatentParts {
    fn visit(&self, visit: &mut dyn FnMut(Part)) {
        match &self.query {
            LatentQueryParts::Direct(query) => visit(Part::Projection(query)),
            LatentQueryParts::LowRank(down, norm, up) => {
                visit(Part::Projection(down));
                visit(Part::Parameter(norm));
                visit(Part::Projection(up));
            }
        }
        visit(Part::Projection(&self.kv_down));
        visit(Part::Parameter(&self.kv_norm));
        visit(Part::Projection(&self.kv_up));
        visit(Part::Projection(&self.output));
    }
}

impl MlpParts {
    fn visit(&self, visit: &mut dyn FnMut(Part)) {
        match &self.input {
            GateUpParts::Separate(two) => two.iter().for_each(|projection| visit(Part::Projection(projection))),
            GateUpParts::Fused(one) => visit(Part::Projection(one)),
        }
        visit(Part::Projection(&self.down));
    }
}

impl ExpertsParts {
    fn visit(&self, visit: &mut dyn FnMut(Part)) {
        visit(Part::Projection(&self.router));
        self.correction.iter().for_each(|parameter| visit(Part::Parameter(parameter)));
        match &self.experts {
            ExpertWeightParts::Separate(experts) => experts.iter().for_each(|expert| expert.visit(visit)),
            ExpertWeightParts::Stacked(gate_up, down) => {
                visit(Part::Stack(gate_up));
                visit(Part::Stack(down));
            }
        }
        self.shared.iter().for_each(|shared| shared.visit(visit));
    }
}
