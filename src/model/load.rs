//! A checkpoint, tensor by tensor, into a decoder; or a seeded random initialisation where there is none.

use adapters::{Parameter, Projection, normal, seed_of};
use burn::tensor::{Device, FloatDType};

use super::attention::GroupedAttention;
use super::decoder::{Decoder, Head};
use super::feed_forward::Mlp;
use super::layer::Layer;
use super::names::{self, LayerNames};
use super::norm::Norm;
use super::spec::{
    AttentionSpec, DecoderSpec, FeedForwardSpec, GroupedSpec, LayerSpec, MlpSpec, NormSpec, QkNorm, Reach, RopeSpec,
};
use crate::hub::{HubError, Weights};

/// Where the values of parameters come from.
pub enum Source<'a> {
    /// A checkpoint, whose names and shapes were checked against the spec.
    Checkpoint(&'a Weights),
    /// Draws from the spec's initializer range: normal for matrices, ones for norms, zeros for biases.
    Random {
        /// Seed of the draws.
        seed: u64,
    },
}

/// The decoder of `spec` with frozen parameters in `dtype` on `device`; `progress` hears of every tensor.
///
/// # Errors
/// When a tensor cannot be read or is not finite.
pub fn load(
    spec: &DecoderSpec,
    source: &Source,
    device: &Device,
    dtype: FloatDType,
    progress: &mut dyn FnMut(usize),
) -> Result<Decoder, HubError> {
    let mut loader = Loader { spec, source, device, dtype, progress };
    let embedding = loader.parameter(names::EMBEDDING, &[spec.vocab, spec.hidden])?;
    let (mut ropes, mut reaches) = (Vec::new(), Vec::new());
    let mut layers = Vec::with_capacity(spec.layers.len());
    for (index, layer) in spec.layers.iter().enumerate() {
        layers.push(loader.layer(&names::layer(index), layer, &mut ropes, &mut reaches)?);
    }
    let norm =
        Norm::new(names::FINAL_NORM.to_owned(), loader.parameter(names::FINAL_NORM, &[spec.hidden])?, spec.head.norm);
    let weight = if spec.head.tied { None } else { Some(loader.parameter(names::HEAD, &[spec.vocab, spec.hidden])?) };
    Ok(Decoder {
        spec: spec.clone(),
        layers,
        embedding,
        head: Head { norm, weight },
        ropes,
        reaches,
        device: device.clone(),
        dtype,
    })
}

struct Loader<'a> {
    spec: &'a DecoderSpec,
    source: &'a Source<'a>,
    device: &'a Device,
    dtype: FloatDType,
    progress: &'a mut dyn FnMut(usize),
}

impl Loader<'_> {
    fn layer(
        &mut self,
        names: &LayerNames,
        spec: &LayerSpec,
        ropes: &mut Vec<RopeSpec>,
        reaches: &mut Vec<Reach>,
    ) -> Result<Layer, HubError> {
        let AttentionSpec::Grouped(attention) = &spec.attention;
        let FeedForwardSpec::Dense(mlp) = &spec.feed_forward;
        let rotary = position_of(ropes, &attention.rope);
        let mask = position_of(reaches, &attention.reach);
        let hidden = self.spec.hidden;
        Ok(Layer {
            attention_norm: self.norm(&names.attention_norm, hidden, spec.norm)?,
            attention: self.attention(names, attention, rotary, mask)?,
            feed_forward_norm: self.norm(&names.feed_forward_norm, hidden, spec.norm)?,
            feed_forward: self.mlp(names, *mlp)?,
        })
    }

    fn norm(&mut self, name: &str, width: usize, spec: NormSpec) -> Result<Norm, HubError> {
        Ok(Norm::new(name.to_owned(), self.parameter(name, &[width])?, spec))
    }

    fn attention(
        &mut self,
        names: &LayerNames,
        spec: &GroupedSpec,
        rotary: usize,
        mask: usize,
    ) -> Result<GroupedAttention, HubError> {
        let hidden = self.spec.hidden;
        let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let qk_norm = match spec.qk_norm {
            QkNorm::None => None,
            QkNorm::BeforeRope(norm) => {
                let query = self.norm(&names.query_norm, spec.head_dim, norm)?;
                Some((query, self.norm(&names.key_norm, spec.head_dim, norm)?))
            }
        };
        Ok(GroupedAttention {
            query: self.projection(&names.query, hidden, queries, spec.qkv_bias)?,
            key: self.projection(&names.key, hidden, keys, spec.qkv_bias)?,
            value: self.projection(&names.value, hidden, keys, spec.qkv_bias)?,
            output: self.projection(&names.output, queries, hidden, spec.output_bias)?,
            qk_norm,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            scale: spec.scale,
            rotary,
            mask,
        })
    }

    fn mlp(&mut self, names: &LayerNames, spec: MlpSpec) -> Result<Mlp, HubError> {
        let hidden = self.spec.hidden;
        Ok(Mlp {
            gate: self.projection(&names.gate, hidden, spec.intermediate, spec.bias)?,
            up: self.projection(&names.up, hidden, spec.intermediate, spec.bias)?,
            down: self.projection(&names.down, spec.intermediate, hidden, spec.bias)?,
            activation: spec.activation,
        })
    }

    fn projection(&mut self, path: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Projection, HubError> {
        let weight = self.parameter(&names::weight(path), &[outputs, inputs])?;
        let bias = if bias { Some(self.parameter(&names::bias(path), &[outputs])?) } else { None };
        Ok(Projection::new(path.to_owned(), weight, bias))
    }

    fn parameter(&mut self, name: &str, shape: &[usize]) -> Result<Parameter, HubError> {
        let count = shape.iter().product();
        let values = match self.source {
            Source::Checkpoint(weights) => {
                let values = weights.to_finite_f32(name)?;
                weights.release(name);
                values
            }
            Source::Random { seed } if shape.len() == 2 => {
                normal(seed_of(*seed, name), count, self.spec.initializer_range)
            }
            Source::Random { .. } if name.ends_with(".bias") => vec![0.0; count],
            Source::Random { .. } => vec![1.0; count],
        };
        (self.progress)(count);
        Ok(Parameter::from_host(values, shape, self.dtype, self.device))
    }
}

/// Where `item` stands in `list`, appending it if it does not.
fn position_of<T: PartialEq + Clone>(list: &mut Vec<T>, item: &T) -> usize {
    list.iter().position(|known| known == item).unwrap_or_else(|| {
        list.push(item.clone());
        list.len() - 1
    })
}
