//! A quantised matrix on a device: packed words, and products that decode them on the way.

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use crate::frozen::{self, Nf4Form, Nf4Tensors, Side};
use crate::nf4::{BLOCK, CODES, Nf4, SCALE_BLOCK, Scales, dynamic_map};

/// A matrix `[out, in]` in 4 bits, frozen.
#[derive(Debug, Clone)]
pub struct Nf4Weight {
    tensors: Nf4Tensors,
    form: Nf4Form,
}

impl Nf4Weight {
    /// The matrix `[outputs, inputs]` that `packed` holds, on `device`.
    pub fn new(packed: &Nf4, [outputs, inputs]: [usize; 2], device: &Device) -> Self {
        assert_eq!(packed.count, outputs * inputs, "the values fill the matrix");
        let (scale_codes, scale_values, double) = match &packed.scales {
            Scales::Plain(scales) => (Vec::new(), [&CODES[..], scales].concat(), false),
            Scales::Double { codes, blocks, offset } => {
                (codes.clone(), [&CODES[..], dynamic_map(), &[*offset], blocks].concat(), true)
            }
        };
        let count = scale_values.len();
        let scale_values = Tensor::from_data(TensorData::new(scale_values, [count]), (device, DType::F32));
        let tensors = Nf4Tensors {
            codes: words(packed.codes.clone(), device),
            scale_codes: words(scale_codes, device),
            scale_values,
        };
        Self { tensors, form: Nf4Form { outputs, inputs, double, dtype: packed.dtype } }
    }

    /// Output and input features.
    pub fn sizes(&self) -> [usize; 2] {
        [self.form.outputs, self.form.inputs]
    }

    /// `x Wᵀ` for `x: [tokens, in]`, `[tokens, out]`; recorded if `x` is.
    pub fn multiply(&self, x: Tensor<2>) -> Tensor<2> {
        frozen::nf4_product(x, &self.tensors, self.form, Side::Inputs)
    }

    /// `y W` for `y: [tokens, out]`, `[tokens, in]`; recorded if `y` is.
    pub fn multiply_back(&self, y: Tensor<2>) -> Tensor<2> {
        frozen::nf4_product(y, &self.tensors, self.form, Side::Outputs)
    }

    /// The numbers in f32, `[out, in]`.
    pub fn dense(&self) -> Tensor<2> {
        let values = self.to_host().dequantise();
        Tensor::from_data(TensorData::new(values, self.sizes()), (&self.device(), DType::F32))
    }

    /// The packed numbers, read back from the device.
    pub fn to_host(&self) -> Nf4 {
        let Nf4Form { outputs, inputs, double, dtype } = self.form;
        let count = outputs * inputs;
        let blocks = count.div_ceil(BLOCK);
        let values = self.tensors.scale_values.clone().into_data();
        let values = values.try_to_vec::<f32>().expect("scales are f32");
        let values = &values[CODES.len()..];
        let scales = match double {
            false => Scales::Plain(values[..blocks].to_vec()),
            true => {
                let (offset, values) = (values[dynamic_map().len()], &values[dynamic_map().len() + 1..]);
                let codes = bytes(&self.tensors.scale_codes, blocks);
                Scales::Double { codes, blocks: values[..blocks.div_ceil(SCALE_BLOCK)].to_vec(), offset }
            }
        };
        Nf4 { codes: bytes(&self.tensors.codes, count.div_ceil(2)), scales, count, dtype }
    }

    /// The device that holds it.
    pub fn device(&self) -> Device {
        self.tensors.scale_values.device()
    }

    /// The type of the values that were quantised.
    pub fn dtype(&self) -> FloatDType {
        self.form.dtype
    }
}

/// Bytes as 32-bit words, the first in the lowest bits: every device has those.
fn words(mut bytes: Vec<u8>, device: &Device) -> Tensor<1, Int> {
    bytes.resize(bytes.len().max(1).next_multiple_of(4), 0);
    let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let count = words.len();
    Tensor::from_data(TensorData::new(words, [count]), (device, DType::U32))
}

/// The first `count` bytes of words.
fn bytes(words: &Tensor<1, Int>, count: usize) -> Vec<u8> {
    let words = words.clone().into_data().try_to_vec::<u32>().expect("words are u32");
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.truncate(count);
    bytes
}
