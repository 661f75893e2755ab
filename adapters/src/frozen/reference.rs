//! The products in the plainest way: every number decoded, three loops in f64.

use super::Side;

/// The product of `x` with `matrix: [outputs, inputs]` from `side`, row-major.
pub(super) fn product(x: &[f32], matrix: &[f32], [outputs, inputs]: [usize; 2], side: Side) -> Vec<f32> {
    let (depth, columns) = match side {
        Side::Inputs => (inputs, outputs),
        Side::Outputs => (outputs, inputs),
    };
    let mut result = Vec::with_capacity(x.len() / depth * columns);
    for row in x.chunks(depth) {
        for column in 0..columns {
            let at = |place: usize| match side {
                Side::Inputs => matrix[column * inputs + place],
                Side::Outputs => matrix[place * inputs + column],
            };
            let sum: f64 = row.iter().enumerate().map(|(place, &x)| f64::from(x) * f64::from(at(place))).sum();
            result.push(sum as f32);
        }
    }
    result
}
