//! Rows of a matrix in another order, each as often as another, with a gradient that is gathered too. On GPUs that of
//! burn's `select` adds rows to where they came from one after the other.

#[cfg(feature = "cube")]
mod kernel;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Int, Shape, Tensor};

use crate::cube::on_cube;

/// The rows `sources` of `x: [rows, width]`, each as often as the others; `places` says where they went, those of the
/// first row of `x` first. Both are `[rows * copies]`.
pub fn gather_rows(x: Tensor<2>, sources: Tensor<1, Int>, places: Tensor<1, Int>) -> Tensor<2> {
    match on_cube(&x.device()) {
        true => gathered(x, sources, places),
        // On the CPU burn's takes less memory.
        false => x.select(0, sources),
    }
}

fn gathered(x: Tensor<2>, sources: Tensor<1, Int>, places: Tensor<1, Int>) -> Tensor<2> {
    let rows = sources.dims()[0];
    let (sources, places) = (sources.into_dispatch(), places.into_dispatch());
    Tensor::from_dispatch(Dispatch::sums_of_rows(x.into_dispatch(), sources, places, rows))
}

/// Backends with [`gather_rows`] as one operation.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff, Fusion: cfg(feature = "cube"))]
pub(crate) trait GatherBackend: Backend {
    /// `[rows, width]`, each the sum of as many rows of `x: [all, width]` as the others: `ids` says of which, one result
    /// after the other; `places`, `[all * copies]`, says the same from the other side: where the rows of `x` are in `ids`.
    #[fusion(meta = |x, _ids, _places, rows| TensorSpec::new([*rows, x.shape[1]].into(), x.dtype))]
    fn sums_of_rows(
        x: FloatTensor<Self>,
        ids: IntTensor<Self>,
        places: IntTensor<Self>,
        rows: usize,
    ) -> FloatTensor<Self>;
}

impl GatherBackend for Flex {
    fn sums_of_rows(x: FloatTensor<Self>, ids: IntTensor<Self>, _: IntTensor<Self>, rows: usize) -> FloatTensor<Self> {
        let taken = Self::float_select(x, 0, ids);
        let [count, width] = taken.shape().dims();
        let copies = Self::float_reshape(taken, Shape::new([rows, count / rows, width]));
        Self::float_reshape(Self::float_sum_dim(copies, 1), Shape::new([rows, width]))
    }
}

impl<B: GatherBackend, C: CheckpointStrategy> GatherBackend for Autodiff<B, C> {
    fn sums_of_rows(
        x: FloatTensor<Self>,
        ids: IntTensor<Self>,
        places: IntTensor<Self>,
        rows: usize,
    ) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let [all, _] = x.shape().dims();
        let sums = B::sums_of_rows(x, ids.clone(), places.clone(), rows);
        match GatherRows.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((ids, places, all), sums),
            OpsKind::UnTracked(prepared) => prepared.finish(sums),
        }
    }
}

#[derive(Debug)]
struct GatherRows;

impl<B: GatherBackend> Backward<B, 1> for GatherRows {
    type State = (IntTensor<B>, IntTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (ids, places, all) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| B::sums_of_rows(gradient, places, ids, all));
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, FloatDType, TensorData};

    use super::*;
    use crate::testing::{assert_close, device, draw, gradients, half};

    /// Seven rows twice each, in an order without a pattern, and where each copy went.
    fn order(device: &Device) -> [Tensor<1, Int>; 2] {
        let sources: [i32; 14] = [6, 0, 3, 3, 1, 5, 2, 0, 4, 6, 5, 1, 2, 4];
        let mut places: Vec<i32> = (0..14).collect();
        places.sort_by_key(|&place| sources[place as usize]);
        [sources.to_vec(), places].map(|ids| Tensor::from_data(TensorData::new(ids, [14]), (device, DType::I32)))
    }

    fn run(device: &Device, dtype: FloatDType, gather: bool) -> [Tensor<2>; 2] {
        let [sources, places] = order(device);
        let (x, weights) = (draw(1, [7, 12], 1.0), draw(2, [14, 12], 1.0));
        let (x, weights) = (x.to_device(device).cast(dtype), weights.to_device(device).cast(dtype));
        let (taken, gradient) = gradients([x], weights, |[x]| match gather {
            true => gathered(x, sources.clone(), places.clone()),
            false => x.select(0, sources.clone()),
        });
        [taken, gradient[0].clone()].map(|result| result.cast(FloatDType::F32).to_device(&Device::flex()))
    }

    #[test]
    fn rows_and_their_gradient_equal_those_of_select() {
        let expected = run(&Device::flex(), FloatDType::F32, false);
        for device in [device(), Device::flex()] {
            let got = run(&device, FloatDType::F32, true);
            assert_close(&got[0], &expected[0], 0.0);
            assert_close(&got[1], &expected[1], 1e-6);
        }
        if let Some((device, dtype, step)) = half() {
            let got = run(&device, dtype, true);
            assert_close(&got[0], &expected[0], step);
            assert_close(&got[1], &expected[1], 2.0 * step);
        }
    }
}
