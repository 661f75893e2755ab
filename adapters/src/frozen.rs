//! Products with a frozen matrix that is kept in fewer bits than it is multiplied in: NF4 or 16-bit numbers.
//!
//! The backward pass needs the packed matrix alone: the gradient of `x Wᵀ` is the other product, `y W`,
//! which unpacks it again. On the CPU some rows are unpacked at a time, elsewhere one matrix for a moment.

mod backward;
#[cfg(feature = "cube")]
mod kernel;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod tiles;

pub use tiles::UNPACKED_VALUES;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "cube")]
use burn::tensor::Shape;
use burn::tensor::{FloatDType, Int, Tensor};

/// The side of a matrix `[out, in]` that a product comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// `x Wᵀ`, `[tokens, in]` to `[tokens, out]`.
    Inputs,
    /// `y W`, `[tokens, out]` to `[tokens, in]`.
    Outputs,
}

impl Side {
    /// The side from which the gradient comes.
    fn other(self) -> Self {
        match self {
            Self::Inputs => Self::Outputs,
            Self::Outputs => Self::Inputs,
        }
    }

    /// Columns of the result for a matrix `[outputs, inputs]`.
    fn columns(self, outputs: usize, inputs: usize) -> usize {
        match self {
            Self::Inputs => outputs,
            Self::Outputs => inputs,
        }
    }
}

/// The layout of a packed matrix in its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Nf4Form {
    /// Rows of the matrix.
    pub(crate) outputs: usize,
    /// Columns of the matrix.
    pub(crate) inputs: usize,
    /// If set, scales are codes themselves.
    pub(crate) double: bool,
    /// The type that decoded numbers are rounded to.
    pub(crate) dtype: FloatDType,
}

/// A packed matrix.
#[derive(Debug, Clone)]
pub(crate) struct Nf4Tensors {
    /// Eight codes a word: bytes from the lowest, in each the upper half first.
    pub(crate) codes: Tensor<1, Int>,
    /// Four places in the dynamic map a word, or one word without meaning.
    pub(crate) scale_codes: Tensor<1, Int>,
    /// The 16 codes' values; then the scales of blocks, or the dynamic map, the offset and the scales of scales.
    pub(crate) scale_values: Tensor<1>,
}

/// The beginning of the scales of scales in [`Nf4Tensors::scale_values`]: after 16 codes, the map, and the offset.
const NESTED: usize = 16 + 256 + 1;

/// The operations as every backend has them.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff, Fusion: cfg(feature = "cube"))]
pub(crate) trait FrozenProducts: Backend {
    /// The product of `x` with an NF4 matrix.
    #[fusion(dtype = x, shape = with_columns(x, side.columns(form.outputs, form.inputs)))]
    fn nf4_product(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scale_values: FloatTensor<Self>,
        form: Nf4Form,
        side: Side,
    ) -> FloatTensor<Self>;

    /// The product of `x` with a matrix `[out, in]` of 16-bit numbers.
    #[fusion(dtype = x, shape = with_columns(x, side.columns(weight[0], weight[1])))]
    fn half_product(x: FloatTensor<Self>, weight: FloatTensor<Self>, side: Side) -> FloatTensor<Self>;
}

#[cfg(feature = "cube")]
fn with_columns(x: &Shape, columns: usize) -> Shape {
    Shape::new([x[0], columns])
}

/// The product of `x` with an NF4 matrix, in the dtype of `x`; recorded if `x` is.
pub(crate) fn nf4_product(x: Tensor<2>, matrix: &Nf4Tensors, form: Nf4Form, side: Side) -> Tensor<2> {
    let Nf4Tensors { codes, scale_codes, scale_values } = matrix.clone();
    Tensor::from_dispatch(Dispatch::nf4_product(
        x.into_dispatch(),
        codes.into_dispatch(),
        scale_codes.into_dispatch(),
        scale_values.into_dispatch(),
        form,
        side,
    ))
}

/// The product of `x` with a matrix `[out, in]` of 16-bit numbers, in the dtype of `x`; recorded if `x` is.
pub(crate) fn half_product(x: Tensor<2>, weight: Tensor<2>, side: Side) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::half_product(x.into_dispatch(), weight.into_dispatch(), side))
}
