//! A checkpoint, tensor by tensor, into a decoder; or a seeded random initialisation where there is none.

use adapters::nf4::Nf4;
use adapters::{ExpertStack, Nf4Weight, Parameter, Projection, Weight, normal, seed_of};
use burn::tensor::{Device, Element, FloatDType, Tensor, TensorData};
use half::{bf16, f16};

use super::attention::{GroupedAttention, HeadNorm, Qkv};
use super::decoder::{Decoder, Head};
use super::experts::{ExpertWeights, Experts, StackedExperts};
use super::feed_forward::{GateUp, Mlp};
use super::latent_attention::{LatentAttention, LatentQuery};
use super::layer::{Attention, FeedForward, Layer, LayerNorms};
use super::names::{
    self, AttentionParts, ExpertWeightParts, ExpertsParts, FeedForwardParts, GateUpParts, GroupedParts, LatentParts,
    LatentQueryParts, LayerParts, MlpParts, ParameterKind, ProjectionName, QkvParts, StackName,
};
use super::norm::Norm;
use super::positions::PositionRules;
use super::spec::{
    Activation, AttentionSpec, DecoderSpec, ExpertStorage, ExpertsSpec, FeedForwardSpec, GroupedSpec, LatentSpec,
    LayerSpec, NormSpec, QkNorm, Reach,
};
use super::storage::{Storage, stored_dtype, stored_nf4};
use crate::hub::{Dtype, HubError, Weights};

/// The origin of the values of parameters.
pub enum Source<'a> {
    /// A checkpoint, whose names and shapes were checked against the spec.
    Checkpoint(&'a Weights),
    /// Draws from the spec's initializer range: normal for matrices, norms that scale by one, zeros for the rest.
    Random {
        /// Seed of the draws.
        seed: u64,
    },
}

/// The decoder of `spec` on `device` with frozen parameters as `storage` says; `progress` hears of every tensor.
///
/// # Errors
/// When a tensor cannot be read or is not finite, or a file changed meanwhile.
pub fn load(
    spec: &DecoderSpec,
    source: &Source,
    device: &Device,
    storage: &Storage,
    progress: &mut dyn FnMut(usize),
) -> Result<Decoder, HubError> {
    let rules = PositionRules::of(spec);
    let mut loader = Loader { spec, rules: &rules, source, device, storage, progress };
    let table = |name: String| names::Parameter {
        name,
        shape: vec![spec.vocab, spec.hidden],
        kind: ParameterKind::Embedding,
        layer: None,
    };
    let embedding = loader.parameter(&table(names::embedding(spec)))?;
    let mut layers = Vec::with_capacity(spec.layers.len());
    for (layer, parts) in spec.layers.iter().zip(names::layers(spec)) {
        layers.push(loader.layer(layer, &parts)?);
    }
    let norm = loader.norm(&names::final_norm_parameter(spec), spec.head.norm)?;
    let weight = if spec.head.tied { None } else { Some(loader.parameter(&table(names::head_weight(spec)))?) };
    let head = Head { norm, weight };
    if let Source::Checkpoint(weights) = source {
        weights.unchanged()?;
    }
    Ok(Decoder { spec: spec.clone(), layers, embedding, head, rules, device: device.clone(), dtype: storage.compute })
}

struct Loader<'a> {
    spec: &'a DecoderSpec,
    rules: &'a PositionRules,
    source: &'a Source<'a>,
    device: &'a Device,
    storage: &'a Storage,
    progress: &'a mut dyn FnMut(usize),
}

impl Loader<'_> {
    fn layer(&mut self, spec: &LayerSpec, parts: &LayerParts) -> Result<Layer, HubError> {
        let attention = match (&spec.attention, &parts.attention) {
            (AttentionSpec::Grouped(spec), AttentionParts::Grouped(parts)) => {
                Attention::Grouped(Box::new(self.grouped(spec, parts)?))
            }
            (AttentionSpec::Latent(spec), AttentionParts::Latent(parts)) => {
                Attention::Latent(Box::new(self.latent(spec, parts)?))
            }
            _ => unreachable!("names are made from the specification"),
        };
        let feed_forward = match (&spec.feed_forward, &parts.feed_forward) {
            (FeedForwardSpec::Dense(spec), FeedForwardParts::Dense(parts)) => {
                FeedForward::Dense(Box::new(self.mlp(spec.activation, parts)?))
            }
            (FeedForwardSpec::Experts(spec), FeedForwardParts::Experts(parts)) => {
                FeedForward::Experts(Box::new(self.experts(spec, parts)?))
            }
            _ => unreachable!("names are made from the specification"),
        };
        let norm = spec.norms.norm();
        let norms = LayerNorms {
            before_attention: self.norm(&parts.norms.before_attention, norm)?,
            after_attention: self.optional_norm(parts.norms.after_attention.as_ref(), norm)?,
            before_feed_forward: self.norm(&parts.norms.before_feed_forward, norm)?,
            after_feed_forward: self.optional_norm(parts.norms.after_feed_forward.as_ref(), norm)?,
        };
        Ok(Layer { attention, feed_forward, norms })
    }

    fn grouped(&mut self, spec: &GroupedSpec, parts: &GroupedParts) -> Result<GroupedAttention, HubError> {
        let input = match &parts.input {
            QkvParts::Separate([query, key, value]) => {
                let query = self.projection(query)?;
                Qkv::Separate(Box::new([query, self.projection(key)?, self.projection(value)?]))
            }
            QkvParts::Fused(one) => Qkv::Fused(Box::new(self.projection(one)?)),
        };
        let output = self.projection(&parts.output)?;
        let qk_norm = match (spec.qk_norm, &parts.qk_norm) {
            (QkNorm::BeforeRope(norm), Some([query, key])) => {
                let query = self.norm(query, norm)?;
                HeadNorm::BeforeRope(Box::new([query, self.norm(key, norm)?]))
            }
            (QkNorm::AfterRope { epsilon }, _) => HeadNorm::AfterRope(epsilon),
            (QkNorm::None | QkNorm::BeforeRope(_), _) => HeadNorm::None,
        };
        let sinks = match &parts.sinks {
            Some(sinks) => Some((sinks.name.clone(), self.parameter(sinks)?)),
            None => None,
        };
        Ok(GroupedAttention {
            input,
            output,
            qk_norm,
            sinks,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            scale: spec.scale,
            rotary: spec.rope.as_ref().map(|rope| self.rules.rope(rope)),
            temperature: spec.temperature.as_ref().map(|temperature| self.rules.temperature(temperature)),
            mask: self.rules.reach(spec.reach),
        })
    }

    fn latent(&mut self, spec: &LatentSpec, parts: &LatentParts) -> Result<LatentAttention, HubError> {
        let query = match &parts.query {
            LatentQueryParts::Direct(query) => LatentQuery::Direct(Box::new(self.projection(query)?)),
            LatentQueryParts::LowRank(down, norm, up) => {
                let down = self.projection(down)?;
                let norm = self.norm(norm, spec.norm)?;
                LatentQuery::LowRank(Box::new((down, norm, self.projection(up)?)))
            }
        };
        Ok(LatentAttention {
            query,
            kv_down: self.projection(&parts.kv_down)?,
            kv_norm: self.norm(&parts.kv_norm, spec.norm)?,
            kv_up: self.projection(&parts.kv_up)?,
            output: self.projection(&parts.output)?,
            rotary: self.rules.rope(&spec.rope),
            mask: self.rules.reach(Reach::Full),
            spec: spec.clone(),
        })
    }

    fn mlp(&mut self, activation: Activation, parts: &MlpParts) -> Result<Mlp, HubError> {
        let input = match &parts.input {
            GateUpParts::Separate([gate, up]) => {
                let gate = self.projection(gate)?;
                GateUp::Separate(Box::new([gate, self.projection(up)?]))
            }
            GateUpParts::Fused(one) => GateUp::Fused(Box::new(self.projection(one)?)),
        };
        Ok(Mlp { input, down: self.projection(&parts.down)?, activation })
    }

    fn experts(&mut self, spec: &ExpertsSpec, parts: &ExpertsParts) -> Result<Experts, HubError> {
        let router = self.projection(&parts.router)?;
        let correction = match &parts.correction {
            Some(correction) => Some((correction.name.clone(), self.parameter(correction)?)),
            None => None,
        };
        let activation = spec.expert.activation;
        let experts = match &parts.experts {
            ExpertWeightParts::Separate(experts) => {
                let experts: Result<Vec<Mlp>, HubError> =
                    experts.iter().map(|parts| self.mlp(activation, parts)).collect();
                ExpertWeights::Separate(experts?)
            }
            ExpertWeightParts::Stacked(gate_up, down) => ExpertWeights::Stacked(Box::new(StackedExperts {
                gate_up: self.stack(gate_up)?,
                down: self.stack(down)?,
                interleaved: matches!(spec.storage, ExpertStorage::Stacked { interleaved: true, .. }),
                activation,
            })),
        };
        let shared = match (&spec.shared, &parts.shared) {
            (Some(spec), Some(parts)) => Some(self.mlp(spec.activation, parts)?),
            _ => None,
        };
        Ok(Experts { router, correction, routing: spec.router, experts, shared })
    }

    fn projection(&mut self, name: &ProjectionName) -> Result<Projection, HubError> {
        let parameters = name.parameters();
        let weight = match self.packed(name, &parameters[0])? {
            Some(packed) => Weight::Nf4(packed),
            None => Weight::Dense(self.parameter(&parameters[0])?),
        };
        let bias = parameters.get(1).map(|bias| self.parameter(bias)).transpose()?;
        Ok(Projection::new(name.path.clone(), name.role, weight, bias))
    }

    /// The matrix of a projection in 4 bits, if it is stored or to be kept so.
    fn packed(&mut self, name: &ProjectionName, weight: &names::Parameter) -> Result<Option<Nf4Weight>, HubError> {
        let stored = match self.source {
            Source::Checkpoint(weights) => stored_nf4(weights, &weight.name)?,
            Source::Random { .. } => None,
        };
        let packed = match (stored, &self.storage.quantised) {
            (Some(stored), _) => stored,
            (None, Some(quantised)) if quantised.takes(&name.path, name.role) => {
                let dtype = match self.source {
                    Source::Checkpoint(weights) => stored_dtype(weights, &weight.name),
                    Source::Random { .. } => FloatDType::F32,
                };
                Nf4::quantise(&self.values(weight)?, quantised.spec.double, dtype)
            }
            _ => return Ok(None),
        };
        if let Source::Checkpoint(weights) = self.source {
            weights.release(&weight.name);
        }
        (self.progress)(packed.count);
        let sizes = [name.out_features, name.in_features];
        Ok(Some(for_good(self.device, packed, |packed| Nf4Weight::new(&packed, sizes, self.device))))
    }

    fn stack(&mut self, name: &StackName) -> Result<ExpertStack, HubError> {
        let [weight, bias] = self.weight_and_bias(&name.parameters())?;
        let weight = weight.expect("a stack has weights");
        Ok(ExpertStack::new(name.name.clone(), name.swapped, weight, bias))
    }

    fn weight_and_bias(&mut self, parameters: &[names::Parameter]) -> Result<[Option<Parameter>; 2], HubError> {
        let mut loaded = [None, None];
        for (slot, parameter) in loaded.iter_mut().zip(parameters) {
            *slot = Some(self.parameter(parameter)?);
        }
        Ok(loaded)
    }

    fn optional_norm(&mut self, name: Option<&names::Parameter>, spec: NormSpec) -> Result<Option<Norm>, HubError> {
        name.map(|name| self.norm(name, spec)).transpose()
    }

    fn norm(&mut self, name: &names::Parameter, spec: NormSpec) -> Result<Norm, HubError> {
        let weight = match self.source {
            Source::Checkpoint(_) => self.parameter(name)?,
            Source::Random { .. } => {
                let scale = 1.0 - spec.offset;
                self.place(name, vec![scale; name.elements() as usize])
            }
        };
        Ok(Norm::new(name.name.clone(), weight, spec))
    }

    fn parameter(&mut self, parameter: &names::Parameter) -> Result<Parameter, HubError> {
        if let Source::Checkpoint(weights) = self.source
            && self.storage.keeps_stored(parameter, stored_dtype(weights, &parameter.name))
            && let Some((dtype, bytes)) = weights.finite_half(&parameter.name)?
        {
            let pairs = bytes.as_chunks::<2>().0.iter().copied();
            let data = match dtype {
                Dtype::BF16 => flat(pairs.map(bf16::from_le_bytes).collect::<Vec<_>>()),
                _ => flat(pairs.map(f16::from_le_bytes).collect::<Vec<_>>()),
            };
            weights.release(&parameter.name);
            return Ok(self.keep(parameter, data));
        }
        let values = self.values(parameter)?;
        Ok(self.place(parameter, values))
    }

    fn values(&self, parameter: &names::Parameter) -> Result<Vec<f32>, HubError> {
        let name = parameter.name.as_str();
        let count = parameter.elements() as usize;
        Ok(match (self.source, parameter.kind) {
            (Source::Checkpoint(weights), _) => {
                let values = weights.to_finite_f32(name)?;
                weights.release(name);
                values
            }
            (
                Source::Random { seed },
                ParameterKind::Embedding | ParameterKind::Head | ParameterKind::LinearWeight | ParameterKind::Sinks,
            ) => normal(seed_of(*seed, name), count, self.spec.initializer_range),
            (Source::Random { .. }, _) => vec![0.0; count],
        })
    }

    /// `values` in the type that is computed in.
    fn place(&mut self, parameter: &names::Parameter, values: Vec<f32>) -> Parameter {
        let data = match self.storage.compute {
            FloatDType::BF16 => flat(values.into_iter().map(bf16::from_f32).collect::<Vec<_>>()),
            FloatDType::F16 => flat(values.into_iter().map(f16::from_f32).collect::<Vec<_>>()),
            _ => flat(values),
        };
        self.keep(parameter, data)
    }

    fn keep(&mut self, parameter: &names::Parameter, data: TensorData) -> Parameter {
        (self.progress)(parameter.elements() as usize);
        let dtype = data.dtype();
        let value = for_good(self.device, data, |data| Tensor::<1>::from_data(data, (self.device, dtype)));
        Parameter::from_flat(value, &parameter.shape)
    }
}

/// Consecutive numbers.
fn flat<E: Element>(values: Vec<E>) -> TensorData {
    let count = values.len();
    TensorData::new(values, [count])
}

/// Allocates persistently what `make` puts on the device, without the room that pools leave around temporaries.
fn for_good<I: Send, O: Send>(device: &Device, input: I, make: impl Fn(I) -> O + Send) -> O {
    device.memory_persistent_allocations(input, make)
}
