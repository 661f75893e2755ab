//! Types of numbers as tensors have them, and as a cast takes them.

use burn::tensor::{DType, FloatDType};

/// The type of floats that `dtype` is.
pub(crate) fn float_dtype(dtype: DType) -> FloatDType {
    match dtype {
        DType::BF16 => FloatDType::BF16,
        DType::F16 => FloatDType::F16,
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    }
}
