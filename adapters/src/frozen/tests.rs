//! Products with frozen matrices and their gradients, against three loops, on the device that `TUNE_TEST_DEVICE` names.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use super::{Side, reference};
use crate::nf4::Nf4;
use crate::nf4_weight::Nf4Weight;
use crate::parameter::Parameter;
use crate::random::normal;
use crate::testing::device;
use crate::weight::Weight;

fn tensor(values: &[f32], sizes: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), sizes), &device())
}

fn numbers(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

/// Products from both sides and both gradients of `weight`, whose numbers are `matrix`, against three loops.
fn check(name: &str, weight: &Weight, matrix: &[f32], tokens: usize) {
    let sizes = weight.sizes();
    let [outputs, inputs] = sizes;
    let close = |what: &str, found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len(), "{name} {what}");
        let scale = expected.iter().fold(1e-6f32, |largest, value| largest.max(value.abs()));
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 2e-6 * scale, "{name} {what} {sizes:?}: {worst} of {scale}");
    };
    let x = normal(1, tokens * inputs, 1.0);
    let y = normal(2, tokens * outputs, 1.0);
    let forward = reference::product(&x, matrix, sizes, Side::Inputs);
    let back = reference::product(&y, matrix, sizes, Side::Outputs);
    close("forward", &numbers(weight.multiply(tensor(&x, [tokens, inputs]))), &forward);
    close("back", &numbers(weight.multiply_back(tensor(&y, [tokens, outputs]))), &back);

    let leaf = tensor(&x, [tokens, inputs]).autodiff().require_grad();
    let result = weight.multiply(leaf.clone());
    close("recorded", &numbers(result.clone().inner()), &forward);
    let gradients = (result * tensor(&y, [tokens, outputs])).backward();
    close("gradient", &numbers(leaf.grad(&gradients).unwrap()), &back);

    let leaf = tensor(&y, [tokens, outputs]).autodiff().require_grad();
    let gradients = (weight.multiply_back(leaf.clone()) * tensor(&x, [tokens, inputs])).backward();
    close("gradient of back", &numbers(leaf.grad(&gradients).unwrap()), &forward);
}

/// Few tokens and many; sizes below and above those of the CPU's tiles, some for its matrix units; rows that end within blocks. On a device
/// for which products are compiled and measured for each size, one that does and one that does not end with a block.
fn sizes() -> Vec<([usize; 2], usize)> {
    if device() != Device::flex() {
        return vec![([48, 64], 3), ([37, 19], 5)];
    }
    let few = vec![([1, 64], 1), ([48, 64], 3), ([37, 19], 5), ([97, 130], 7), ([4200, 1100], 2)];
    let many = vec![([37, 19], 12), ([97, 130], 10), ([300, 576], 64), ([4200, 1100], 9)];
    [few, many].concat()
}

#[test]
fn nf4_products_and_gradients_equal_three_loops_over_the_decoded_matrix() {
    for (sizes, tokens) in sizes() {
        for (double, dtype) in [(false, FloatDType::F32), (true, FloatDType::F32), (true, FloatDType::BF16)] {
            let packed = Nf4::quantise(&normal(3, sizes[0] * sizes[1], 0.05), double, dtype);
            let weight = Weight::Nf4(Nf4Weight::new(&packed, sizes, &device()));
            check("nf4", &weight, &packed.dequantise(), tokens);
        }
    }
}

#[test]
fn products_with_16_bit_numbers_equal_three_loops_over_them() {
    for (sizes, tokens) in sizes() {
        let there = |dtype: &FloatDType| device() == Device::flex() || device().supports_dtype(*dtype);
        for dtype in [FloatDType::BF16, FloatDType::F16].into_iter().filter(there) {
            let values = normal(4, sizes[0] * sizes[1], 0.05);
            let parameter = Parameter::from_host(values, &sizes, dtype, &device());
            // Read as they are kept: a cast back to f32 can be fused with the one before, which then rounds nothing.
            let matrix: Vec<f32> = parameter.plain().into_data().iter().collect();
            check("half", &Weight::Dense(parameter), &matrix, tokens);
        }
    }
}

#[test]
fn what_is_unpacked_again_is_what_was_packed() {
    let packed = Nf4::quantise(&normal(5, 37 * 19, 1.0), true, FloatDType::BF16);
    assert_eq!(Nf4Weight::new(&packed, [37, 19], &device()).to_host(), packed);
}
