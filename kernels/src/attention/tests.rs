use super::*;
use crate::testing::{assert_close, device, draw};

/// Attention of burn's operations, with every mask and score written out.
fn reference([query, key, value]: [Tensor<4>; 3], sinks: Option<Tensor<1>>, case: &Case) -> Tensor<2> {
    let ([rows, width, heads, _], [_, keys, kv_heads, _]) = (query.dims(), key.dims());
    let value_dim = value.dims()[3];
    let repeat = |x: Tensor<4>| {
        let [rows, keys, kv_heads, dim] = x.dims();
        let group = heads / kv_heads;
        let x = x.reshape([rows, keys, kv_heads, 1, dim]).expand([rows, keys, kv_heads, group, dim]);
        x.reshape([rows, keys, heads, dim]).swap_dims(1, 2)
    };
    assert_eq!(heads % kv_heads, 0);
    let scores = query.swap_dims(1, 2).matmul(repeat(key).swap_dims(2, 3)).mul_scalar(SCALE);
    let mask: Vec<f32> = (0..rows * width * keys)
        .map(|cell| (cell / keys, cell / keys % width, cell % keys))
        .map(|(token, query, key)| (case.first[token % case.first.len()] as usize..=case.past + query).contains(&key))
        .map(|seen| if seen { 0.0 } else { -1e30 })
        .collect();
    let mask = Tensor::<4>::from_data(TensorData::new(mask, [rows, 1, width, keys]), &scores.device().inner());
    let scores = scores + mask;
    let scores = match sinks {
        None => scores,
        Some(sinks) => {
            let column = sinks.reshape([1, heads, 1, 1]).expand([rows, heads, width, 1]);
            Tensor::cat(vec![scores, column], 3)
        }
    };
    let weights = burn::tensor::activation::softmax(scores, 3).slice([0..rows, 0..heads, 0..width, 0..keys]);
    weights.matmul(repeat(value)).swap_dims(1, 2).reshape([rows * width, heads * value_dim])
}

const SCALE: f32 = 0.4;

struct Case {
    rows: usize,
    width: usize,
    past: usize,
    heads: usize,
    kv_heads: usize,
    dims: [usize; 2],
    first: Vec<i32>,
    sinks: bool,
}

/// The mix and the gradients of queries, keys, values and, where there are any, sinks; on the CPU in f32.
struct Results {
    mixed: Tensor<2>,
    inputs: Vec<Tensor<4>>,
    sinks: Option<Tensor<1>>,
}

impl Case {
    /// The results of `operation` for the inputs, rounded to `rounded`, as `dtype` on `device`.
    fn run(
        &self,
        device: &Device,
        rounded: FloatDType,
        dtype: FloatDType,
        operation: impl Fn([Tensor<4>; 3], Option<Tensor<1>>) -> Tensor<2>,
    ) -> Results {
        let Case { rows, width, past, heads, kv_heads, dims: [query_dim, value_dim], .. } = *self;
        let keys = past + width;
        let shapes =
            [[rows, width, heads, query_dim], [rows, keys, kv_heads, query_dim], [rows, keys, kv_heads, value_dim]];
        let leaves = [0, 1, 2].map(|index| {
            let input = draw(index as u64 + 1, shapes[index], 1.5).cast(rounded).cast(FloatDType::F32);
            input.to_device(device).cast(dtype).autodiff().require_grad()
        });
        let sinks = draw(5, [heads], 1.0).to_device(device).autodiff().require_grad();
        let mixed = operation(leaves.clone(), self.sinks.then(|| sinks.clone()));
        let weights = draw(9, [rows * width, heads * value_dim], 1.0).cast(rounded).cast(FloatDType::F32);
        let mut graph = (mixed.clone() * weights.to_device(device).cast(dtype)).backward();
        let home = Device::flex();
        let inputs = leaves.map(|leaf| leaf.grad_remove(&mut graph).unwrap().cast(FloatDType::F32).to_device(&home));
        Results {
            mixed: mixed.inner().cast(FloatDType::F32).to_device(&home),
            inputs: inputs.into(),
            sinks: sinks.grad_remove(&mut graph).map(|gradient| gradient.to_device(&home)),
        }
    }

    /// Compares the operation on `device` in `dtype` with the reference on the CPU in f32 on the same numbers.
    fn check_in(&self, device: &Device, dtype: FloatDType, way: Option<AttentionMethod>, tolerance: f32) {
        let home = Device::flex();
        let expected = self.run(&home, dtype, FloatDType::F32, |inputs, sinks| reference(inputs, sinks, self));
        let visible = Visible::new(self.first.clone(), self.width, self.past, device);
        let threads: &[usize] = if *device == home { &[1, 2] } else { &[1] };
        for &threads in threads {
            let got = crate::with_threads(threads, || {
                self.run(device, dtype, dtype, |[query, key, value], sinks| {
                    attention_by(way, query, key, value, sinks, SCALE, &visible)
                })
            });
            assert_close(&got.mixed, &expected.mixed, tolerance);
            for (got, expected) in got.inputs.iter().zip(&expected.inputs) {
                assert_close(got, expected, 2.0 * tolerance);
            }
            match (&got.sinks, &expected.sinks) {
                (Some(got), Some(expected)) => assert_close(got, expected, 2.0 * tolerance),
                (got, expected) => assert!(got.is_none() && expected.is_none()),
            }
        }
    }

    fn check(&self) {
        self.check_in(&device(), FloatDType::F32, Some(AttentionMethod::Tiles), 1e-5);
    }
}

fn case(width: usize, first: impl Fn(usize) -> usize) -> Case {
    let first = (0..width).map(|query| first(query) as i32).collect();
    Case { rows: 2, width, past: 0, heads: 4, kv_heads: 2, dims: [8, 8], first, sinks: false }
}

#[test]
fn causal_attention_and_its_gradients_equal_the_reference_within_and_across_tiles() {
    for width in [1, 7, 96, 97, 300] {
        case(width, |_| 0).check();
    }
}

#[test]
fn windows_chunks_and_documents_hide_the_same_keys_as_the_reference() {
    case(140, |query| (query + 1).saturating_sub(9)).check();
    case(140, |query| query - query % 32).check();
    case(200, |query| [0, 70, 71, 150][[70, 71, 150, 200].iter().position(|end| query < *end).unwrap()]).check();
    let documents = |row: usize, query: usize| if query < 20 + row { 0 } else { 20 + row };
    let first = (0..2).flat_map(|row| (0..60).map(move |query| documents(row, query) as i32)).collect();
    Case { first, ..case(60, |_| 0) }.check();
}

#[test]
fn groups_of_any_size_widths_of_values_and_sinks_equal_the_reference() {
    Case { heads: 3, kv_heads: 3, dims: [6, 10], ..case(50, |_| 0) }.check();
    Case { heads: 16, kv_heads: 1, dims: [12, 4], ..case(50, |_| 0) }.check();
    Case { sinks: true, ..case(150, |query| query.saturating_sub(40)) }.check();
}

#[test]
fn heads_wider_than_a_unit_can_hold_equal_the_reference() {
    Case { rows: 1, heads: 2, kv_heads: 1, dims: [192, 128], ..case(70, |query| query.saturating_sub(50)) }.check();
}

#[test]
fn keys_of_the_past_are_seen() {
    Case { past: 5, ..case(3, |_| 0) }.check();
    Case { past: 200, ..case(1, |_| 130) }.check();
}

#[test]
fn blocks_of_queries_equal_the_reference() {
    // Three blocks, of which the last do not see the first keys.
    let way = AttentionMethod::Blocks { scores_bytes: 64 * 4 * 2 * 4 * 145 };
    let case = Case { past: 5, sinks: true, ..case(140, |query| query.saturating_sub(30)) };
    case.check_in(&device(), FloatDType::F32, Some(way), 1e-5);
}

#[test]
fn inputs_of_16_bits_are_summed_in_32() {
    let device = device();
    for (dtype, tolerance) in [(FloatDType::F16, 2e-3), (FloatDType::BF16, 1e-2)] {
        if device.supports_dtype(dtype) {
            Case { sinks: true, ..case(140, |query| query.saturating_sub(70)) }
                .check_in(&device, dtype, None, tolerance);
        }
    }
}
