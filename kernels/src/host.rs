//! Between burn's CPU tensors and slices of f32.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// True if everything here is one operation for tensors of `dtype` on `device`: on the CPU, in f32.
pub fn on_host(device: &Device, dtype: DType) -> bool {
    dtype == DType::F32 && *device == Device::flex()
}

/// True if the operations for host memory can take `x`.
pub(crate) fn is_host<const D: usize>(x: &Tensor<D>) -> bool {
    on_host(&x.device(), x.dtype())
}

/// A tensor whose values lie in order, without gaps.
pub(crate) fn contiguous(tensor: FloatTensor<Flex>) -> FloatTensor<Flex> {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

/// The values of a tensor that [`contiguous`] returned.
pub(crate) fn values(tensor: &FloatTensor<Flex>) -> &[f32] {
    tensor.as_slice().expect("the tensor was made contiguous, and its dtype checked")
}

/// A tensor of `values` in `shape`.
pub(crate) fn tensor(values: Vec<f32>, shape: &[usize]) -> FloatTensor<Flex> {
    Flex::float_from_data(TensorData::new(values, shape.to_vec()), &Default::default())
}

/// The sizes of a tensor.
pub(crate) fn sizes<const D: usize>(tensor: &FloatTensor<Flex>) -> [usize; D] {
    tensor.shape().dims()
}

/// The values of a tensor that [`contiguous`] returned, to write to; a copy of them if something else holds them too.
pub(crate) fn values_mut(tensor: &mut FloatTensor<Flex>) -> &mut [f32] {
    let (begin, end) = tensor.layout().contiguous_offsets().expect("the tensor was made contiguous");
    &mut tensor.storage_mut()[begin..end]
}
