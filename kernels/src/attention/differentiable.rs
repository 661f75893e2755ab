//! Attention under autodiff: kept are the inputs, the mix and the logarithms of the denominators.

use burn::backend::Autodiff;
use burn::backend::TensorMetadata;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients as Graph;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Shape;

use super::{AttentionBackend, Form, Gradients};

impl<B: AttentionBackend, C: CheckpointStrategy> AttentionBackend for Autodiff<B, C> {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        first: IntTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let ((query, query_node), (key, key_node)) = (query.into_parts(), key.into_parts());
        let ((value, value_node), (sinks, sinks_node)) = (value.into_parts(), sinks.into_parts());
        let nodes = [query_node, key_node, value_node, sinks_node];
        match Attend.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (mixed, log_sums) =
                    B::attend(query.clone(), key.clone(), value.clone(), sinks.clone(), first.clone(), form.clone());
                let saved =
                    Saved { query, key, value, sinks, first, form, mixed: mixed.clone(), log_sums: log_sums.clone() };
                (prepared.finish(saved, mixed), FloatTensor::<Self>::new(log_sums))
            }
            OpsKind::UnTracked(prepared) => {
                let (mixed, log_sums) = B::attend(query, key, value, sinks, first, form);
                (prepared.finish(mixed), FloatTensor::<Self>::new(log_sums))
            }
        }
    }

    /// The gradients themselves are not recorded.
    fn attend_back(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mixed: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: IntTensor<Self>,
        form: Form,
    ) -> Gradients<Self> {
        let [query, key, value] = [query, key, value].map(FloatTensor::<Self>::into_primitive);
        let [mixed, log_sums, gradient] = [mixed, log_sums, gradient].map(FloatTensor::<Self>::into_primitive);
        let found = B::attend_back(query, key, value, mixed, log_sums, gradient, first, form);
        let plain = FloatTensor::<Self>::new;
        (plain(found.0), plain(found.1), plain(found.2), plain(found.3))
    }
}

/// The state that is kept for the backward pass.
#[derive(Debug, Clone)]
struct Saved<B: AttentionBackend> {
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    sinks: FloatTensor<B>,
    first: IntTensor<B>,
    form: Form,
    mixed: FloatTensor<B>,
    log_sums: FloatTensor<B>,
}

#[derive(Debug)]
struct Attend;

impl<B: AttentionBackend> Backward<B, 4> for Attend {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Saved<B>, 4>, graph: &mut Graph, _: &mut Checkpointer) {
        let gradient = graph.consume::<B>(&ops.node);
        let Saved { query, key, value, sinks, first, form, mixed, log_sums } = ops.state;
        let [query_node, key_node, value_node, sinks_node] = ops.parents;
        let (to_query, to_key, to_value, row_sums) =
            B::attend_back(query, key, value, mixed, log_sums.clone(), gradient, first, form);
        for (node, gradient) in [(query_node, to_query), (key_node, to_key), (value_node, to_value)] {
            if let Some(node) = node {
                graph.register::<B>(node.id, gradient);
            }
        }
        if let Some(node) = sinks_node {
            graph.register::<B>(node.id, to_sinks::<B>(sinks, log_sums, row_sums));
        }
    }
}

/// The gradient of `sinks: [heads]`: what they weigh times less the row's sum, over all rows `[tokens, heads]`.
fn to_sinks<B: AttentionBackend>(
    sinks: FloatTensor<B>,
    log_sums: FloatTensor<B>,
    row_sums: FloatTensor<B>,
) -> FloatTensor<B> {
    let shape = log_sums.shape();
    let heads = shape[1];
    let sinks = B::float_expand(B::float_reshape(sinks, Shape::new([1, heads])), shape);
    let weights = B::float_exp(B::float_sub(sinks, log_sums));
    let sums = B::float_sum_dim(B::float_mul(weights, row_sums), 0);
    B::float_neg(B::float_reshape(sums, Shape::new([heads])))
}
