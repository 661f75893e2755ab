//! A cube a block of 256 values: it looks at them once to find the largest of each new moment, and again to encode.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn::tensor::TensorData;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::{EightBitMoment, EightBitState, EightBitWork};
use crate::adam::AdamStep;
use crate::adam::kernel::own;
use crate::cube::gapless;
use crate::multi_tensor::{self, Vector};
use crate::rows::{Team, cubes};

/// Words of a block's codes.
const WORDS: usize = 64;

mod launch {
    use cubecl::prelude::*;

    use crate::rows::team_max;

    /// The number that a code of `word` means; the second moment's numbers lie behind the first's.
    #[cube]
    fn decode(numbers: &[f32], word: u32, #[comptime] byte: u32, #[comptime] second: bool) -> f32 {
        let code = (word >> comptime!(8 * byte)) & 255u32;
        numbers[code as usize + comptime!(if second { 256usize } else { 0usize })]
    }

    /// The number of middles between neighbouring numbers that are below `value`, which is the nearest number's code.
    #[cube]
    fn encode(numbers: &[f32], value: f32, #[comptime] second: bool) -> u32 {
        let offset = comptime!(if second { 256usize } else { 0usize });
        let mut code = 0u32;
        #[unroll]
        for step in 0..8u32 {
            let next = code + comptime!(128u32 >> step);
            // 255 middles; the code stays below 256.
            let below = numbers[offset + next as usize - 1];
            let above = numbers[offset + next as usize];
            if (below + above) / 2.0f32 < value {
                code = next;
            }
        }
        code
    }

    #[cube(launch)]
    pub(super) fn adam(
        values: &[f32],
        gradients: &mut [f32],
        first_codes: &mut [u32],
        first_scales: &mut [f32],
        second_codes: &mut [u32],
        second_scales: &mut [f32],
        numbers: &[f32],
        factor: f32,
        beta1: f32,
        beta2: f32,
        enters1: f32,
        enters2: f32,
        epsilon: f32,
        correction2: f32,
        rate: f32,
        kept: f32,
        #[comptime] words: usize,
        #[comptime] units: usize,
        #[comptime] plane: usize,
    ) {
        let block = CUBE_POS;
        if block >= first_scales.len() {
            terminate!();
        }
        let length = gradients.len();
        let first_scale = first_scales[block];
        let second_scale = second_scales[block];
        let mut most_first = 0.0f32;
        let mut most_second = 0.0f32;
        for place in range_stepped(UNIT_POS as usize, words, units) {
            let word = block * words + place;
            let first_word = first_codes[word];
            let second_word = second_codes[word];
            #[unroll]
            for byte in 0..4u32 {
                let index = 4 * word + byte as usize;
                if index < length {
                    let gradient = gradients[index] * factor;
                    let first = decode(numbers, first_word, byte, false) * first_scale * beta1 + gradient * enters1;
                    let second =
                        decode(numbers, second_word, byte, true) * second_scale * beta2 + gradient * gradient * enters2;
                    most_first = max(most_first, first.abs());
                    most_second = max(most_second, second);
                }
            }
        }
        let most_first = team_max(most_first, units, plane);
        let most_second = team_max(most_second, units, plane);
        let mut first_inverse = 0.0f32;
        let mut second_inverse = 0.0f32;
        if most_first > 0.0f32 {
            first_inverse = 1.0f32 / most_first;
        }
        if most_second > 0.0f32 {
            second_inverse = 1.0f32 / most_second;
        }
        for place in range_stepped(UNIT_POS as usize, words, units) {
            let word = block * words + place;
            let first_word = first_codes[word];
            let second_word = second_codes[word];
            let mut new_first = 0u32;
            let mut new_second = 0u32;
            #[unroll]
            for byte in 0..4u32 {
                let index = 4 * word + byte as usize;
                if index < length {
                    let gradient = gradients[index] * factor;
                    let first = decode(numbers, first_word, byte, false) * first_scale * beta1 + gradient * enters1;
                    let second =
                        decode(numbers, second_word, byte, true) * second_scale * beta2 + gradient * gradient * enters2;
                    let denominator = second.sqrt() / correction2 + epsilon;
                    gradients[index] = values[index] * kept - first / denominator * rate;
                    new_first |= encode(numbers, first * first_inverse, false) << comptime!(8 * byte);
                    new_second |= encode(numbers, second * second_inverse, true) << comptime!(8 * byte);
                }
            }
            first_codes[word] = new_first;
            second_codes[word] = new_second;
        }
        if UNIT_POS == 0 {
            first_scales[block] = most_first;
            second_scales[block] = most_second;
        }
    }
}

/// The states after a step each.
pub(super) fn adam_on_cube(work: Vec<EightBitWork>, numbers: [Vec<f32>; 2]) -> Vec<EightBitState> {
    let steps: Vec<AdamStep> = work.iter().map(|work| work.step).collect();
    let mut inputs = Vec::with_capacity(6 * work.len());
    let mut outputs = Vec::with_capacity(5 * work.len());
    for EightBitWork { state, gradient, .. } in work {
        let EightBitState { value, first, second } = state;
        outputs.push((gradient.dims()[0], DType::F32));
        inputs.extend([value, gradient].map(Vector::Float));
        for EightBitMoment { codes, scales } in [first, second] {
            outputs.extend([(codes.dims()[0], codes.dtype()), (scales.dims()[0], DType::F32)]);
            inputs.extend([Vector::Int(codes), Vector::Float(scales)]);
        }
    }
    let numbers = numbers.concat();
    let updated =
        multi_tensor::apply("adam_eight_bit", inputs, &outputs, move |inputs| update(inputs, &steps, &numbers));
    let mut updated = updated.into_iter();
    std::iter::from_fn(|| {
        let value = updated.next()?.float();
        let mut moment = || Some(EightBitMoment { codes: updated.next()?.int(), scales: updated.next()?.float() });
        Some(EightBitState { value, first: moment()?, second: moment()? })
    })
    .collect()
}

/// `[value, gradient, codes, scales, codes, scales]` of every parameter to `[value, codes, scales, codes, scales]`.
fn update(inputs: Vec<CubeTensor>, steps: &[AdamStep], numbers: &[f32]) -> Vec<CubeTensor> {
    let client = inputs[0].client.clone();
    let numbers = TensorData::new(numbers.to_vec(), [numbers.len()]);
    let numbers = CubeBackend::float_from_data(numbers, &inputs[0].device);
    let team = Team::of(&client, WORDS);
    let mut inputs = inputs.into_iter().map(gapless);
    let mut updated = Vec::with_capacity(5 * steps.len());
    for step in steps {
        let mut next = || inputs.next().expect("six tensors a parameter");
        let value = next();
        let changed = [(); 5].map(|()| own(next()));
        let blocks = changed[2].shape().num_elements();
        let [gradient, first_codes, first_scales, second_codes, second_scales] =
            changed.each_ref().map(|tensor| tensor.clone().into_buffer_arg());
        launch::adam::launch(
            &client,
            cubes(&client, blocks),
            team.dim(),
            value.into_buffer_arg(),
            gradient,
            first_codes,
            first_scales,
            second_codes,
            second_scales,
            numbers.clone().into_buffer_arg(),
            step.factor,
            step.beta1,
            step.beta2,
            step.enters1,
            step.enters2,
            step.epsilon,
            step.correction2,
            step.rate,
            step.kept,
            WORDS,
            team.units,
            team.plane,
        );
        updated.extend(changed);
    }
    updated
}
