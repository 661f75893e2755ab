//! The gradient of one parameter, added up over a step in one place.
//!
//! On the CPU every part of a step adds to the numbers that are there, so that a gradient exists once, however many
//! parts it is the sum of; elsewhere it is a sum of tensors. Copies of a [`GradientSum`] are the same sum.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{DType, FloatDType, IndexingUpdateOp, Int, Shape, Tensor, TensorData};
use rayon::prelude::*;

use crate::host::{contiguous, is_host, sizes, tensor, values, values_mut};
use crate::linear::{LinearBackend, linear_back};
use crate::product::{Accumulate, Matrix, MatrixMut, new_product, product};
use crate::threads::{PIECE, for_each};
use crate::vector::{add_scaled, dot, vectorised};

/// The sum of what was added, flat and in f32; nothing at first.
#[derive(Debug, Clone, Default)]
pub struct GradientSum(Arc<Mutex<Option<Tensor<1>>>>);

impl GradientSum {
    /// The sum so far, if anything was added.
    pub fn get(&self) -> Option<Tensor<1>> {
        self.lock().clone()
    }

    /// Takes the sum, leaving none.
    pub fn take(&self) -> Option<Tensor<1>> {
        self.lock().take()
    }

    /// Adds `gradient`.
    pub fn add(&self, gradient: Tensor<1>) {
        let mut sum = self.lock();
        *sum = Some(match sum.take() {
            None => gradient,
            Some(before) if is_host(&before) && is_host(&gradient) => {
                let gradient = primitive(gradient);
                on_host(before, |sum| {
                    let pieces = sum.par_chunks_mut(PIECE).zip(values(&gradient).par_chunks(PIECE));
                    for_each(pieces, |(sum, gradient)| {
                        vectorised(
                            #[inline(always)]
                            || add_scaled(sum, gradient, 1.0),
                        );
                    });
                })
            }
            Some(before) => before + gradient,
        });
    }

    /// Adds `yᵀ x`, the gradient of a matrix `[out, in]`: `y: [tokens, out]`, `x: [tokens, in]`.
    pub fn add_product(&self, y: Tensor<2>, x: Tensor<2>) {
        if !(is_host(&y) && is_host(&x)) {
            return self.add(y.transpose().matmul(x).cast(FloatDType::F32).reshape([-1]));
        }
        self.add_host_product(&primitive(y), &primitive(x));
    }

    fn add_host_product(&self, y: &FloatTensor<Flex>, x: &FloatTensor<Flex>) {
        let ([tokens, outputs], [_, inputs]) = (sizes(y), sizes(x));
        let (y, x) = (Matrix::new(values(y), tokens, outputs), Matrix::new(values(x), tokens, inputs));
        let mut sum = self.lock();
        *sum = Some(match sum.take() {
            None => numbers(new_product(1.0, y.transposed(), x)),
            Some(before) => on_host(before, |sum| {
                product(MatrixMut::new(sum, outputs, inputs), Accumulate::Add, 1.0, y.transposed(), x);
            }),
        });
    }

    /// Adds row `i` of `gradient: [tokens, width]` to row `rows[i]` of the gradient of a matrix `[count, width]`.
    pub fn add_rows(&self, count: usize, rows: Tensor<1, Int>, gradient: Tensor<2>) {
        let width = gradient.dims()[1];
        if !is_host(&gradient) {
            let zeros = Tensor::<2>::zeros([count, width], (&gradient.device(), DType::F32));
            let gradient = gradient.cast(FloatDType::F32);
            return self.add(zeros.select_assign(0, rows, gradient, IndexingUpdateOp::Add).reshape([-1]));
        }
        let rows: Vec<i64> = rows.into_data().iter::<i64>().collect();
        let gradient = primitive(gradient);
        let mut sum = self.lock();
        let before = sum.take().unwrap_or_else(|| numbers(vec![0.0; count * width]));
        *sum = Some(on_host(before, |sum| {
            for (&row, gradient) in rows.iter().zip(values(&gradient).chunks_exact(width)) {
                add_scaled(&mut sum[row as usize * width..][..width], gradient, 1.0);
            }
        }));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Tensor<1>>> {
        // A sum is put back whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `change` with the numbers of a tensor on the CPU, in place where nothing else holds them.
fn on_host(numbers: Tensor<1>, change: impl FnOnce(&mut [f32])) -> Tensor<1> {
    let mut numbers = primitive(numbers);
    change(values_mut(&mut numbers));
    Tensor::from_primitive::<Flex>(numbers)
}

fn primitive<const D: usize>(tensor: Tensor<D>) -> FloatTensor<Flex> {
    contiguous(tensor.try_into_primitive::<Flex>().expect("the tensor is on this backend"))
}

fn numbers(values: Vec<f32>) -> Tensor<1> {
    let count = values.len();
    Tensor::from_primitive::<Flex>(tensor(values, &[count]))
}

/// The sum of the squares of `values`, `[1]`.
pub(crate) fn square_sum(values: Tensor<1>) -> Tensor<1> {
    if !is_host(&values) {
        return values.square().sum();
    }
    let (device, values) = (values.device(), primitive(values));
    let pieces = crate::host::values(&values).par_chunks(PIECE);
    let mut sums = vec![0.0_f64; pieces.len()];
    for_each(pieces.zip(sums.par_iter_mut()), |(values, sum)| {
        let of_piece = vectorised(
            #[inline(always)]
            || dot(values, values),
        );
        *sum = f64::from(of_piece);
    });
    // In the order of the pieces, whoever added them up.
    let sum = sums.into_iter().sum::<f64>() as f32;
    Tensor::from_data(TensorData::new(vec![sum], [1]), (&device, DType::F32))
}

/// `x Wᵀ` for a matrix `W` of `sizes` `[out, in]` that is trained: `x: [tokens, in]` to `[tokens, out]`.
///
/// `weight` is its flat leaf, both f32 on the CPU. The backward pass adds the leaf's gradient to `gradient`, and the
/// graph has none of it.
pub fn trainable_linear(x: Tensor<2>, weight: Tensor<1>, sizes: [usize; 2], gradient: &GradientSum) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::trainable_linear(x, weight, sizes, gradient.clone()))
}

/// True if [`trainable_linear`] can take `x`.
pub fn trains_in_place(x: &Tensor<2>) -> bool {
    is_host(x)
}

/// Backends with [`trainable_linear`] as one operation.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait TrainableLinearBackend: Backend {
    fn trainable_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        sizes: [usize; 2],
        gradient: GradientSum,
    ) -> FloatTensor<Self>;
}

impl TrainableLinearBackend for Flex {
    fn trainable_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        sizes: [usize; 2],
        _: GradientSum,
    ) -> FloatTensor<Self> {
        Flex::linear(x, Flex::float_reshape(weight, Shape::new(sizes)))
    }
}

impl<C: CheckpointStrategy> TrainableLinearBackend for Autodiff<Flex, C> {
    fn trainable_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        sizes: [usize; 2],
        gradient: GradientSum,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (x, weight) = (contiguous(x), Flex::float_reshape(weight, Shape::new(sizes)));
        let y = Flex::linear(x.clone(), weight.clone());
        match TrainableLinear.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(Saved { x, weight, gradient }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

/// The state that is kept for the backward pass.
#[derive(Debug, Clone)]
struct Saved {
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    gradient: GradientSum,
}

#[derive(Debug)]
struct TrainableLinear;

impl Backward<Flex, 2> for TrainableLinear {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let Saved { x, weight, gradient } = ops.state;
        let y = contiguous(grads.consume::<Flex>(&ops.node));
        if let Some(node) = x_node {
            let [y, weight] = [y.clone(), weight].map(Tensor::<2>::from_primitive::<Flex>);
            let to_x = linear_back(y, weight).try_into_primitive::<Flex>();
            grads.register::<Flex>(node.id, to_x.expect("the tensor is on this backend"));
        }
        // A leaf has nothing below it that would wait for this gradient.
        if weight_node.is_some() {
            gradient.add_host_product(&y, &x);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{assert_close, draw};

    fn ids(rows: &[i32]) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len()]), (&Device::flex(), DType::I32))
    }

    #[test]
    fn a_trainable_map_adds_the_gradient_of_a_matrix_product_and_leaves_none_in_the_graph() {
        let sizes @ [outputs, inputs] = [70, 96];
        let (x, weight) = (draw(1, [9, inputs], 1.0), draw(2, [outputs, inputs], 1.0));
        let weights = draw(3, [9, outputs], 1.0);
        let (expected, gradients) =
            crate::testing::gradients([x.clone()], weights.clone(), |[x]| x.matmul(weight.clone().transpose()));
        let to_weight = weights.clone().transpose().matmul(x.clone()).reshape([-1]);
        let sum = GradientSum::default();
        for rounds in 1..=2 {
            let leaf = weight.clone().reshape([-1]).autodiff().require_grad();
            let x = x.clone().autodiff().require_grad();
            let y = trainable_linear(x.clone(), leaf.clone(), sizes, &sum);
            assert_close(&y.clone().inner(), &expected, 1e-5);
            let mut graph = (y * weights.clone()).backward();
            assert_close(&x.grad_remove(&mut graph).unwrap(), &gradients[0], 1e-5);
            assert!(leaf.grad_remove(&mut graph).is_none());
            assert_close(&sum.get().unwrap(), &to_weight.clone().mul_scalar(rounds as f32), 1e-5);
        }
        assert!(sum.take().is_some() && sum.get().is_none());
    }

    #[test]
    fn what_is_added_on_the_cpu_equals_sums_of_tensors() {
        let (y, x) = (draw(1, [9, 50], 1.0), draw(2, [9, 64], 1.0));
        let rows = ids(&[3, 49, 3, 0]);
        let gradient = draw(3, [4, 64], 1.0);
        let flat = draw(4, [50 * 64], 1.0);
        let zeros = Tensor::<2>::zeros([50, 64], &Device::flex());
        let expected = y.clone().transpose().matmul(x.clone())
            + zeros.select_assign(0, rows.clone(), gradient.clone(), IndexingUpdateOp::Add);
        let expected = expected.reshape([-1]) + flat.clone();
        for order in 0..3 {
            let sum = GradientSum::default();
            for turn in 0..3 {
                match (order + turn) % 3 {
                    0 => sum.add_product(y.clone(), x.clone()),
                    1 => sum.add_rows(50, rows.clone(), gradient.clone()),
                    _ => sum.add(flat.clone()),
                }
            }
            assert_close(&sum.get().unwrap(), &expected, 1e-5);
        }
        assert_close(&flat, &draw(4, [50 * 64], 1.0), 0.0);
    }

    #[test]
    fn sums_of_squares_equal_the_composed_operation() {
        let numbers = draw(1, [100_003], 1.0);
        assert_close(&square_sum(numbers.clone()), &numbers.square().sum(), 1e-5);
    }
}
