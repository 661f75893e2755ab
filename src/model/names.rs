//! The name and shape of every parameter in a checkpoint, once.
//!
//! A projection goes by its module path (`model.layers.3.self_attn.q_proj`), from which [`weight`] and
//! [`bias`] make parameter names; everything else goes by its parameter name (`model.norm.weight`).
//! Building, loading, counting, quantising and exporting all take their names from here.

mod check;
mod parts;

use adapters::peft::{ModulePaths, Shapes};

pub use adapters::Role;

use super::spec::DecoderSpec;

pub use check::{WeightsError, check_names, check_weights, is_copy_of_embedding};
pub use parts::{
    AttentionParts, ExpertWeightParts, ExpertsParts, FeedForwardParts, GateUpParts, GroupedParts, LatentParts,
    LatentQueryParts, LayerParts, MlpParts, NormParts, Part, QkvParts, layer,
};

/// The name of a module's weight.
pub fn weight(path: &str) -> String {
    format!("{path}.weight")
}

/// The name of a module's bias.
pub fn bias(path: &str) -> String {
    format!("{path}.bias")
}

/// The name of the bias beside a stack of experts.
pub fn stack_bias(name: &str) -> String {
    format!("{name}_bias")
}

/// Module path of the embedding.
pub fn embedding_path(spec: &DecoderSpec) -> String {
    format!("{}model.embed_tokens", spec.prefix)
}

/// Parameter name of the embedding.
pub fn embedding(spec: &DecoderSpec) -> String {
    weight(&embedding_path(spec))
}

/// Parameter name of the norm before the head.
pub fn final_norm(spec: &DecoderSpec) -> String {
    format!("{}model.norm.weight", spec.prefix)
}

/// Parameter name of the output head.
pub fn head_weight(spec: &DecoderSpec) -> String {
    weight(&head(spec).path)
}

/// True if a parameter is an adapter's and not the checkpoint's.
pub fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// The last part of a path, such as `q_proj`.
pub fn short(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, short)| short)
}

/// The purpose of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// The embedding, `[vocab, hidden]`.
    Embedding,
    /// The weight of a norm.
    Norm,
    /// The matrix of a projection, `[out, in]`, or of all experts, `[experts, in, out]`.
    LinearWeight,
    /// The bias of a projection, `[out]`, or of all experts, `[experts, out]`.
    LinearBias,
    /// Logits of attention sinks, one a head.
    Sinks,
    /// Numbers that help a router to choose, one an expert; no gradient reaches them.
    RouterCorrection,
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
    /// Its purpose.
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
    /// If set, it has a bias.
    pub bias: bool,
    /// The layer it belongs to; `None` for the head.
    pub layer: Option<usize>,
    /// Its role in the layer.
    pub role: Role,
}

impl ProjectionName {
    /// The last part of the path, such as `q_proj`.
    pub fn short(&self) -> &str {
        short(&self.path)
    }

    /// Its parameters: the weight, and the bias if it has one.
    pub fn parameters(&self) -> Vec<Parameter> {
        let parameter = |name, shape, kind| Parameter { name, shape, kind, layer: self.layer };
        let shape = vec![self.out_features, self.in_features];
        let mut parameters = vec![parameter(weight(&self.path), shape, ParameterKind::LinearWeight)];
        if self.bias {
            parameters.push(parameter(bias(&self.path), vec![self.out_features], ParameterKind::LinearBias));
        }
        parameters
    }
}

/// The matrices of all experts of a layer in one tensor, `[experts, in, out]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackName {
    /// Its parameter name, which has no `.weight` at the end.
    pub name: String,
    /// Experts.
    pub experts: usize,
    /// Width of the input.
    pub in_features: usize,
    /// Width of the output.
    pub out_features: usize,
    /// If set, there is a bias, `[experts, out]`.
    pub bias: bool,
    /// If set, PEFT takes inputs for outputs.
    pub swapped: bool,
    /// The layer it belongs to.
    pub layer: usize,
}

impl StackName {
    /// Its parameters: the weights, and the biases if it has them.
    pub fn parameters(&self) -> Vec<Parameter> {
        let parameter = |name, shape, kind| Parameter { name, shape, kind, layer: Some(self.layer) };
        let shape = vec![self.experts, self.in_features, self.out_features];
        let mut parameters = vec![parameter(self.name.clone(), shape, ParameterKind::LinearWeight)];
        if self.bias {
            let shape = vec![self.experts, self.out_features];
            parameters.push(parameter(stack_bias(&self.name), shape, ParameterKind::LinearBias));
        }
        parameters
    }
}

/// The layers' names, from the embedding up.
pub fn layers(spec: &DecoderSpec) -> impl Iterator<Item = LayerParts> {
    (0..spec.layers.len()).map(|index| layer(spec, index))
}

/// The projections of all layers in the checkpoint's order; the head is not among them, see [`head`].
pub fn projections(spec: &DecoderSpec) -> Vec<ProjectionName> {
    let mut projections = Vec::new();
    for layer in layers(spec) {
        layer.visit(&mut |part| {
            if let Part::Projection(projection) = part {
                projections.push(projection.clone());
            }
        });
    }
    projections
}

/// The experts that are stored in one tensor, of all layers.
pub fn stacks(spec: &DecoderSpec) -> Vec<StackName> {
    let mut stacks = Vec::new();
    for layer in layers(spec) {
        layer.visit(&mut |part| {
            if let Part::Stack(stack) = part {
                stacks.push(stack.clone());
            }
        });
    }
    stacks
}

/// The output head as a projection, tied or not.
pub fn head(spec: &DecoderSpec) -> ProjectionName {
    ProjectionName {
        path: format!("{}lm_head", spec.prefix),
        in_features: spec.hidden,
        out_features: spec.vocab,
        bias: false,
        layer: None,
        role: Role::Common,
    }
}

/// Every parameter of the checkpoint from the embedding up.
pub fn parameters(spec: &DecoderSpec) -> Vec<Parameter> {
    let table = |name, kind| Parameter { name, shape: vec![spec.vocab, spec.hidden], kind, layer: None };
    let mut parameters = vec![table(embedding(spec), ParameterKind::Embedding)];
    for layer in layers(spec) {
        layer.visit(&mut |part| match part {
            Part::Projection(projection) => parameters.extend(projection.parameters()),
            Part::Stack(stack) => parameters.extend(stack.parameters()),
            Part::Parameter(parameter) => parameters.push(parameter.clone()),
        });
    }
    parameters.push(final_norm_parameter(spec));
    if !spec.head.tied {
        parameters.push(table(head_weight(spec), ParameterKind::Head));
    }
    parameters
}

/// The norm before the head.
pub fn final_norm_parameter(spec: &DecoderSpec) -> Parameter {
    Parameter { name: final_norm(spec), shape: vec![spec.hidden], kind: ParameterKind::Norm, layer: None }
}

/// Everything that an adapter can be for, by name and size.
pub fn shapes(spec: &DecoderSpec) -> Shapes {
    let projection = |name: ProjectionName| (name.path, name.in_features, name.out_features);
    let stack = |name: StackName| (name.name, [name.experts, name.in_features, name.out_features], name.swapped);
    let table = vec![spec.vocab, spec.hidden];
    let own_head = (!spec.head.tied).then(|| (head(spec).path, table.clone()));
    let is_other = |parameter: &Parameter| {
        let kinds = [ParameterKind::Norm, ParameterKind::Sinks, ParameterKind::RouterCorrection];
        kinds.contains(&parameter.kind)
    };
    let module = |parameter: Parameter| parameter.name.trim_end_matches(".weight").to_owned();
    Shapes {
        projections: projections(spec).into_iter().map(projection).collect(),
        stacks: stacks(spec).into_iter().map(stack).collect(),
        modules: [(embedding_path(spec), table)].into_iter().chain(own_head).collect(),
        tied_head: spec.head.tied.then(|| head(spec).path),
        others: parameters(spec).into_iter().filter(is_other).map(module).collect(),
    }
}

/// The prefixes of module paths for PEFT.
pub fn module_paths(spec: &DecoderSpec) -> ModulePaths {
    ModulePaths { checkpoint: spec.prefix, class: spec.class_path }
}
