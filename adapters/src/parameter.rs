//! A tensor of the model: its value, whether it is trained, and its gradient while a step runs.
//!
//! A frozen parameter lives outside the autodiff graph, in the compute dtype. A trainable one is an
//! f32 leaf of the graph. Which of the two a computation sees is decided by its input: on a plain
//! input everything is plain, so that evaluation and the first pass of layer recompute record nothing.

use burn::tensor::{DType, Device, FloatDType, Gradients, Int, Tensor, TensorData};
use kernels::GradientSum;

use crate::dtype::float_dtype;
use crate::frozen::{self, Side};

/// One weight, bias, norm scale or adapter matrix; kept flat, used in its shape.
#[derive(Debug)]
pub struct Parameter {
    value: Tensor<1>,
    shape: Vec<usize>,
    trainable: bool,
    gradient: GradientSum,
}

impl Clone for Parameter {
    /// The same value, and a gradient of its own that begins with the same sum.
    fn clone(&self) -> Self {
        let gradient = GradientSum::default();
        if let Some(sum) = self.gradient.get() {
            gradient.add(sum);
        }
        Self { value: self.value.clone(), shape: self.shape.clone(), trainable: self.trainable, gradient }
    }
}

impl Parameter {
    /// A frozen parameter from host values (row-major, `shape`'s product of them), kept in `dtype`.
    pub fn from_host(values: Vec<f32>, shape: &[usize], dtype: FloatDType, device: &Device) -> Self {
        let length = values.len();
        assert_eq!(length, shape.iter().product::<usize>(), "values fill the shape");
        let value = Tensor::<1>::from_data(TensorData::new(values, [length]), (device, DType::F32));
        Self { value: value.cast(dtype), shape: shape.to_vec(), trainable: false, gradient: GradientSum::default() }
    }

    /// A frozen parameter from a vector outside the graph.
    pub fn from_tensor(value: Tensor<1>) -> Self {
        let shape = vec![value.dims()[0]];
        Self { value, shape, trainable: false, gradient: GradientSum::default() }
    }

    /// A frozen parameter from its numbers in order, outside the graph.
    pub fn from_flat(value: Tensor<1>, shape: &[usize]) -> Self {
        assert_eq!(value.dims()[0], shape.iter().product::<usize>(), "values fill the shape");
        Self { value, shape: shape.to_vec(), trainable: false, gradient: GradientSum::default() }
    }

    /// A frozen parameter from a matrix outside the graph.
    pub fn from_matrix(value: Tensor<2>) -> Self {
        let shape = value.dims().to_vec();
        Self { value: value.reshape([-1]), shape, trainable: false, gradient: GradientSum::default() }
    }

    /// Some rows of this matrix, frozen; on the CPU no copy of them.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Self {
        let columns = self.shape[1];
        let shape = [rows.len(), columns];
        Self::from_flat(self.plain().slice(rows.start * columns..rows.end * columns), &shape)
    }

    /// Makes it trainable: an f32 leaf from now on.
    pub fn train(&mut self) {
        self.set_value(self.value.clone().inner().cast(FloatDType::F32), true);
    }

    /// True if it is trained.
    pub fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The value as a matrix `[rows, columns]` for a computation on `input`: recorded if `input` is, in its dtype.
    pub fn matrix<const D: usize>(&self, input: &Tensor<D>) -> Tensor<2> {
        self.seen_by(input).reshape([self.shape[0], self.shape[1]])
    }

    /// `x Wᵀ` for the matrix `W: [out, in]` that this is: `x: [tokens, in]` to `[tokens, out]`; recorded if `x` is.
    pub fn multiply(&self, x: Tensor<2>) -> Tensor<2> {
        match self.kept_in_half(&x) {
            Some(weight) => frozen::half_product(x, weight, Side::Inputs),
            None if self.trainable && x.is_autodiff() && kernels::trains_in_place(&x) => {
                kernels::trainable_linear(x, self.value.clone(), [self.shape[0], self.shape[1]], &self.gradient)
            }
            None => {
                let weight = self.matrix(&x);
                kernels::linear(x, weight)
            }
        }
    }

    /// `y W` for the matrix `W: [out, in]` that this is: `y: [tokens, out]` to `[tokens, in]`; recorded if `y` is.
    pub fn multiply_back(&self, y: Tensor<2>) -> Tensor<2> {
        match self.kept_in_half(&y) {
            Some(weight) => frozen::half_product(y, weight, Side::Outputs),
            None => {
                let weight = self.matrix(&y);
                kernels::linear_back(y, weight)
            }
        }
    }

    /// The matrix, if it is kept in fewer bits than `input` has.
    fn kept_in_half(&self, input: &Tensor<2>) -> Option<Tensor<2>> {
        let halved = matches!(self.value.dtype(), DType::BF16 | DType::F16) && input.dtype() == DType::F32;
        halved.then(|| self.plain().reshape([self.shape[0], self.shape[1]]))
    }

    /// The value as a vector for a computation on `input`: recorded if `input` is, in its dtype.
    pub fn vector<const D: usize>(&self, input: &Tensor<D>) -> Tensor<1> {
        self.seen_by(input)
    }

    /// As [`Parameter::vector`], in `dtype` instead of the input's.
    pub fn vector_in<const D: usize>(&self, input: &Tensor<D>, dtype: FloatDType) -> Tensor<1> {
        self.seen_in(input.is_autodiff(), dtype.into())
    }

    /// The value with the three dimensions of its shape for a computation on `input`, as [`Parameter::matrix`].
    pub fn stack<const D: usize>(&self, input: &Tensor<D>) -> Tensor<3> {
        self.seen_by(input).reshape([self.shape[0], self.shape[1], self.shape[2]])
    }

    /// The value as a vector outside the graph, in the dtype in which it is stored.
    pub fn plain(&self) -> Tensor<1> {
        self.value.clone().inner()
    }

    /// Replaces the value, `shape`'s product of numbers, by what `change` makes of it, which may do so in place; it stays
    /// frozen or trainable.
    pub fn change(&mut self, change: impl FnOnce(Tensor<1>) -> Tensor<1>) {
        let nothing = Tensor::empty([0], &self.value.device().inner());
        let value = std::mem::replace(&mut self.value, nothing).inner();
        self.set_value(change(value), self.trainable);
    }

    /// Replaces the value, `shape`'s product of numbers; it stays frozen or trainable.
    pub fn replace(&mut self, value: Tensor<1>) {
        self.change(|_| value);
    }

    /// Gives a copy a leaf and a gradient of its own, so that it is trained apart from the original.
    pub fn renew(&mut self) {
        self.gradient = GradientSum::default();
        self.set_value(self.value.clone(), self.trainable);
    }

    /// Adds to the gradient what `gradients` holds for this parameter; [`Parameter::multiply`] may have added it already.
    pub fn collect(&mut self, gradients: &mut Gradients) {
        if !self.trainable {
            return;
        }
        if let Some(gradient) = self.value.grad_remove(gradients) {
            self.gradient.add(gradient);
        }
    }

    /// Adds a gradient that was computed by hand.
    pub fn add_gradient(&mut self, gradient: Tensor<1>) {
        self.gradient.add(gradient);
    }

    /// Adds the gradient of this matrix `[out, in]` in `x Wᵀ`, which is `x: [tokens, in]`, where the product's is
    /// `y: [tokens, out]`.
    pub fn add_gradient_of_product(&mut self, x: Tensor<2>, y: Tensor<2>) {
        self.gradient.add_product(y, x);
    }

    /// Adds the gradient of the rows of this matrix that were looked up as `rows`, `[rows, columns]`.
    pub fn add_gradient_of_rows(&mut self, rows: Tensor<1, Int>, gradient: Tensor<2>) {
        self.gradient.add_rows(self.shape[0], rows, gradient);
    }

    /// The gradient so far, if any.
    pub fn gradient(&self) -> Option<Tensor<1>> {
        self.gradient.get()
    }

    /// Takes the gradient, leaving none.
    pub fn take_gradient(&mut self) -> Option<Tensor<1>> {
        self.gradient.take()
    }

    fn seen_by<const D: usize>(&self, input: &Tensor<D>) -> Tensor<1> {
        self.seen_in(input.is_autodiff(), input.dtype())
    }

    fn seen_in(&self, recorded: bool, dtype: DType) -> Tensor<1> {
        let value = if recorded { self.value.clone() } else { self.value.clone().inner() };
        if value.dtype() == dtype { value } else { value.cast(float_dtype(dtype)) }
    }

    fn set_value(&mut self, value: Tensor<1>, trainable: bool) {
        let plain = value.inner();
        self.value = if trainable { plain.autodiff().require_grad() } else { plain };
        self.trainable = trainable;
    }
}
