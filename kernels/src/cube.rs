//! Between burn's tensors on CubeCL devices (GPUs, and the CPU through LLVM) and the launches of kernels.

use burn::tensor::Device;

/// True if `device` runs CubeCL kernels: every device of this build but the CPU of burn's flex.
pub(crate) fn on_cube(device: &Device) -> bool {
    cfg!(feature = "cube") && *device != Device::flex()
}

#[cfg(feature = "cube")]
pub(crate) use tensors::*;

#[cfg(feature = "cube")]
mod tensors {
    use burn::tensor::{DType, Shape};
    use burn_cubecl::kernel::into_contiguous;
    use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
    use burn_cubecl::tensor::CubeTensor;

    /// A tensor whose values lie in order, without gaps.
    pub(crate) fn gapless(tensor: CubeTensor) -> CubeTensor {
        into_contiguous(tensor)
    }

    /// Memory for a tensor beside `near`, in order and without gaps; a kernel has to write all of it.
    pub(crate) fn empty<const D: usize>(near: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
        empty_device_contiguous_dtype(near.client.clone(), near.device.clone(), Shape::new(shape), dtype)
    }
}
