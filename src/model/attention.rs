//! Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245).

use adapters::{Parameter, Pass, Projection};
use burn::tensor::{FloatDType, Tensor};
use kernels::rotate;

use super::attend::{Attend, KeyValues};
use super::input::DecoderInput;
use super::norm::{Norm, compute, weightless};

/// Attention whose query heads share key and value heads.
#[derive(Debug, Clone)]
pub(crate) struct GroupedAttention {
    pub(crate) input: Qkv,
    pub(crate) output: Projection,
    pub(crate) qk_norm: HeadNorm,
    /// Name and value of the sinks' logits.
    pub(crate) sinks: Option<(String, Parameter)>,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) scale: f32,
    /// Index into the input's rotary tables.
    pub(crate) rotary: Option<usize>,
    /// Index into the input's temperatures.
    pub(crate) temperature: Option<usize>,
    /// Index into the input's masks.
    pub(crate) mask: usize,
}

/// Projections to queries, keys and values.
#[derive(Debug, Clone)]
pub(crate) enum Qkv {
    Separate(Box<[Projection; 3]>),
    /// One, its outputs in this order.
    Fused(Box<Projection>),
}

/// Norm on queries and keys.
#[derive(Debug, Clone)]
pub(crate) enum HeadNorm {
    None,
    BeforeRope(Box<[Norm; 2]>),
    /// Without a weight; added to the mean square.
    AfterRope(f64),
}

impl GroupedAttention {
    /// `x: [rows * width, hidden]`, same shape out; with `past`, continues that row and extends it.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        input: &DecoderInput,
        pass: Pass,
        past: Option<&mut Option<KeyValues>>,
    ) -> Tensor<2> {
        let split = |y: Tensor<2>, heads: usize| y.reshape([input.rows, input.width, heads, self.head_dim]);
        let [query, key, value] = self.project(x, pass);
        let (query, key) = (split(query, self.heads), split(key, self.kv_heads));
        let (query, key) = match &self.qk_norm {
            HeadNorm::BeforeRope(norms) => (norms[0].forward(query), norms[1].forward(key)),
            HeadNorm::None | HeadNorm::AfterRope(_) => (query, key),
        };
        let (query, key) = match self.rotary.map(|index| &input.rotary[index]) {
            Some(rotary) => (rotate(query, rotary), rotate(key, rotary)),
            None => (query, key),
        };
        let (query, key) = match self.qk_norm {
            HeadNorm::AfterRope(epsilon) => (weightless(query, epsilon), weightless(key, epsilon)),
            HeadNorm::None | HeadNorm::BeforeRope(_) => (query, key),
        };
        let query = match self.temperature.map(|index| &input.temperatures[index]) {
            Some(factor) => match compute(query.dtype()) {
                FloatDType::F32 => query * factor.clone(),
                dtype => (query.cast(FloatDType::F32) * factor.clone()).cast(dtype),
            },
            None => query,
        };
        let attend = Attend {
            scale: self.scale,
            mask: &input.masks[self.mask],
            sinks: self.sinks.as_ref().map(|(_, sinks)| sinks),
        };
        let mixed = attend.forward(query, key, split(value, self.kv_heads), past);
        self.output.forward(mixed, pass)
    }

    /// Queries, keys and values of `x: [tokens, hidden]`.
    fn project(&self, x: Tensor<2>, pass: Pass) -> [Tensor<2>; 3] {
        match &self.input {
            Qkv::Separate(projections) => {
                let [query, key, value] = projections.as_ref();
                let query = query.forward(x.clone(), pass);
                [query, key.forward(x.clone(), pass), value.forward(x, pass)]
            }
            Qkv::Fused(projection) => {
                let all = projection.forward(x, pass);
                let tokens = all.dims()[0];
                let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
                let part = |from: usize, width: usize| all.clone().slice([0..tokens, from..from + width]);
                [part(0, queries), part(queries, keys), part(queries + keys, keys)]
            }
        }
    }

    /// The projections, in the checkpoint's order.
    pub(crate) fn projections(&mut self) -> Vec<&mut Projection> {
        let mut all: Vec<&mut Projection> = match &mut self.input {
            Qkv::Separate(projections) => projections.iter_mut().collect(),
            Qkv::Fused(projection) => vec![projection],
        };
        all.push(&mut self.output);
        all
    }

    /// Calls `visit` with every parameter.
    pub(crate) fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        for projection in self.projections() {
            projection.visit(visit);
        }
        if let HeadNorm::BeforeRope(norms) = &mut self.qk_norm {
            norms.iter_mut().for_each(|norm| norm.visit(visit));
        }
        if let Some((name, sinks)) = &mut self.sinks {
            visit(name, sinks);
        }
    }
}
