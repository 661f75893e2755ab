//! The operations that burn's fusion may put together on CubeCL devices.

/// Its name for products with what follows them.
const PRODUCTS: &str = "Matmul";

/// Leaves products of matrices out of it: each is an operation of its own, as [`crate::attention`]'s and those of packed
/// matrices are anyway. What follows them is still fused. To be called before the first use of a device; later it changes nothing.
///
/// With burn 0.22 each product that is fused is compiled and measured in all its variants once more. On Mesa's software
/// Vulkan some of those variants are wrong in f16 (the root package's `OpenDevice::breaks_matrix_units` says why).
pub fn leave_products_alone() {
    // Refused once a device is in use, as is everything that would change what streams fuse.
    burn_cubecl::fusion::remove(PRODUCTS).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, draw, half};
    use burn::tensor::{DType, Device, FloatDType, Tensor};

    #[test]
    fn burn_knows_products_by_this_name() {
        // To remove what is not there is no error.
        assert!(burn_cubecl::fusion::BUILTIN_NAMES.contains(&PRODUCTS));
    }

    #[test]
    fn products_and_what_follows_them_in_16_bits_equal_those_in_f32() {
        let Some((device, dtype, step)) = half() else { return };
        for [rows, inner, columns] in [[21, 400, 64], [48, 64, 96]] {
            let (x, weight, factor) =
                (draw(1, [rows, inner], 1.0), draw(2, [inner, columns], 1.0), draw(3, [rows, columns], 1.0));
            // The same numbers on both sides, read as they are kept.
            let [x, weight, factor] = [x, weight, factor].map(|tensor| tensor.to_device(&device).cast(dtype));
            let [a, b, c] = [&x, &weight, &factor].map(|tensor| {
                let data = tensor.clone().into_data().convert::<f32>();
                Tensor::<2>::from_data(data, (&Device::flex(), DType::F32))
            });
            let got = (x.matmul(weight) * factor).cast(FloatDType::F32);
            assert_close(&got, &(a.matmul(b) * c), step);
        }
    }
}
