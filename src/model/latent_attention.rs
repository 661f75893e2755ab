//! Multi-head latent attention (DeepSeek-AI 2024, arXiv:2405.04434): keys and values of all heads come
//! from one narrow vector per token, and the rotary part of the key is shared by all heads.

use adapters::{Parameter, Pass, Projection};
use burn::tensor::Tensor;
use kernels::rotate;

use super::attend::{Attend, KeyValues};
use super::input::DecoderInput;
use super::norm::Norm;
use super::spec::LatentSpec;

/// Attention through latent vectors.
#[derive(Debug, Clone)]
pub(crate) struct LatentAttention {
    pub(crate) query: LatentQuery,
    /// To the latent vector and the shared rotary key, in this order.
    pub(crate) kv_down: Projection,
    pub(crate) kv_norm: Norm,
    /// To the part of the key without positions and the value, in this order within each head.
    pub(crate) kv_up: Projection,
    pub(crate) output: Projection,
    pub(crate) spec: LatentSpec,
    /// Index into the input's rotary tables.
    pub(crate) rotary: usize,
    /// Index into the input's masks.
    pub(crate) mask: usize,
}

/// Projections to queries.
#[derive(Debug, Clone)]
pub(crate) enum LatentQuery {
    Direct(Box<Projection>),
    LowRank(Box<(Projection, Norm, Projection)>),
}

impl LatentAttention {
    /// `x: [rows * width, hidden]`, same shape out; with `past`, continues that row and extends it.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        input: &DecoderInput,
        pass: Pass,
        past: Option<&mut Option<KeyValues>>,
    ) -> Tensor<2> {
        let spec = &self.spec;
        let (rows, width, heads) = (input.rows, input.width, spec.heads);
        let (nope_dim, rope_dim) = (spec.nope_dim, spec.rope_dim);
        let columns = |x: &Tensor<4>, from: usize, to: usize| {
            let [rows, width, heads, _] = x.dims();
            x.clone().slice([0..rows, 0..width, 0..heads, from..to])
        };
        let rotary = &input.rotary[self.rotary];

        let query = match &self.query {
            LatentQuery::Direct(projection) => projection.forward(x.clone(), pass),
            LatentQuery::LowRank(steps) => {
                let (down, norm, up) = steps.as_ref();
                up.forward(norm.forward(down.forward(x.clone(), pass)), pass)
            }
        };
        let query = query.reshape([rows, width, heads, nope_dim + rope_dim]);
        let turned = rotate(columns(&query, nope_dim, nope_dim + rope_dim), rotary);
        let query = Tensor::cat(vec![columns(&query, 0, nope_dim), turned], 3);

        let down = self.kv_down.forward(x, pass);
        let down = down.reshape([rows, width, 1, spec.kv_rank + rope_dim]);
        let latent = columns(&down, 0, spec.kv_rank).reshape([rows * width, spec.kv_rank]);
        let shared_key = rotate(columns(&down, spec.kv_rank, spec.kv_rank + rope_dim), rotary);
        let up = self.kv_up.forward(self.kv_norm.forward(latent), pass);
        let up = up.reshape([rows, width, heads, nope_dim + spec.value_dim]);
        let shared_key = shared_key.expand([rows, width, heads, rope_dim]);
        let key = Tensor::cat(vec![columns(&up, 0, nope_dim), shared_key], 3);
        let value = columns(&up, nope_dim, nope_dim + spec.value_dim);

        let attend = Attend { scale: spec.scale, mask: &input.masks[self.mask], sinks: None };
        self.output.forward(attend.forward(query, key, value, past), pass)
    }

    /// The projections, in the checkpoint's order.
    pub(crate) fn projections(&mut self) -> Vec<&mut Projection> {
        let mut all: Vec<&mut Projection> = match &mut self.query {
            LatentQuery::Direct(projection) => vec![projection],
            LatentQuery::LowRank(steps) => {
                let (down, _, up) = steps.as_mut();
                vec![down, up]
            }
        };
        all.extend([&mut self.kv_down, &mut self.kv_up, &mut self.output]);
        all
    }

    /// Calls `visit` with every parameter.
    pub(crate) fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        for projection in self.projections() {
            projection.visit(visit);
        }
        if let LatentQuery::LowRank(steps) = &mut self.query {
            steps.1.visit(visit);
        }
        self.kv_norm.visit(visit);
    }
}
