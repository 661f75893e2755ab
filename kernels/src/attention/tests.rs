use super::*;
use crate::testing::{assert_close, draw};

/// Attention of burn's operations, with every mask and score written out.
fn reference(
    [query, key, value]: [Tensor<4>; 3],
    sinks: Option<Tensor<1>>,
    Attention { scale, visible }: &Attention,
) -> Tensor<2> {
    let ([rows, width, heads, _], [_, keys, kv_heads, _]) = (query.dims(), key.dims());
    let value_dim = value.dims()[3];
    let repeat = |x: Tensor<4>| {
        let [rows, keys, kv_heads, dim] = x.dims();
        let group = heads / kv_heads;
        let x = x.reshape([rows, keys, kv_heads, 1, dim]).expand([rows, keys, kv_heads, group, dim]);
        x.reshape([rows, keys, heads, dim]).swap_dims(1, 2)
    };
    assert_eq!(heads % kv_heads, 0);
    let scores = query.swap_dims(1, 2).matmul(repeat(key).swap_dims(2, 3)).mul_scalar(*scale);
    let mask: Vec<f32> = (0..rows * width * keys)
        .map(|cell| (cell / (width * keys), cell / keys % width, cell % keys))
        .map(|(row, query, key)| if visible.of(row, query).contains(&key) { 0.0 } else { -1e30 })
        .collect();
    let mask =
        Tensor::<4>::from_data(burn::tensor::TensorData::new(mask, [rows, 1, width, keys]), &scores.device().inner());
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

struct Case {
    rows: usize,
    width: usize,
    past: usize,
    heads: usize,
    kv_heads: usize,
    dims: [usize; 2],
    first: Vec<u32>,
    sinks: bool,
}

impl Case {
    fn check(&self) {
        let Case { rows, width, past, heads, kv_heads, dims: [query_dim, value_dim], .. } = *self;
        let visible = Arc::new(Visible { first: self.first.clone(), width, past });
        let settings = Attention { scale: 0.4, visible };
        let keys = past + width;
        let shapes =
            [[rows, width, heads, query_dim], [rows, keys, kv_heads, query_dim], [rows, keys, kv_heads, value_dim]];
        let leaves = [0, 1, 2].map(|index| draw(index as u64 + 1, shapes[index], 1.5).autodiff().require_grad());
        let sinks = draw(5, [heads], 1.0).autodiff().require_grad();
        let given = self.sinks.then(|| sinks.clone());
        let run = |operation: &dyn Fn([Tensor<4>; 3], Option<Tensor<1>>) -> Tensor<2>| {
            let mixed = operation(leaves.clone(), given.clone());
            let mut graph = (mixed.clone() * draw(9, [rows * width, heads * value_dim], 1.0)).backward();
            let gradients = leaves.clone().map(|leaf| leaf.grad_remove(&mut graph).unwrap());
            (mixed.inner(), gradients, sinks.grad_remove(&mut graph))
        };
        let (expected, expected_gradients, expected_sinks) = run(&|inputs, sinks| reference(inputs, sinks, &settings));
        for threads in [1, 2] {
            let (got, gradients, to_sinks) = crate::with_threads(threads, || {
                run(&|[query, key, value], sinks| attention(&query, &key, &value, sinks, settings.clone()).unwrap())
            });
            assert_close(&got, &expected, 1e-5);
            for (got, expected) in gradients.iter().zip(&expected_gradients) {
                assert_close(got, expected, 2e-5);
            }
            match (to_sinks, &expected_sinks) {
                (Some(got), Some(expected)) => assert_close(&got, expected, 2e-5),
                (got, expected) => assert!(got.is_none() && expected.is_none()),
            }
        }
    }
}

fn case(width: usize, first: impl Fn(usize) -> usize) -> Case {
    let first = (0..width).map(|query| first(query) as u32).collect();
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
    let first = (0..2).flat_map(|row| (0..60).map(move |query| documents(row, query) as u32)).collect();
    Case { first, ..case(60, |_| 0) }.check();
}

#[test]
fn groups_of_any_size_widths_of_values_and_sinks_equal_the_reference() {
    Case { heads: 3, kv_heads: 3, dims: [6, 10], ..case(50, |_| 0) }.check();
    Case { heads: 16, kv_heads: 1, dims: [12, 4], ..case(50, |_| 0) }.check();
    Case { sinks: true, ..case(150, |query| query.saturating_sub(40)) }.check();
}

#[test]
fn keys_of_the_past_are_seen() {
    Case { past: 5, ..case(3, |_| 0) }.check();
    Case { past: 200, ..case(1, |_| 130) }.check();
}
