//! DoRA (Liu et al. 2024, arXiv:2402.09353): LoRA's update of the direction of each output row, and a
//! trained length for it: `y = c (W x + s B A x)` with `c = m / |W + s B A|`, the length a constant in the
//! backward pass, as in the paper's section 4.3 and in PEFT.

use burn::tensor::{FloatDType, Tensor};

use crate::dropout::DropoutKey;
use crate::low_rank::LowRank;
use crate::parameter::Parameter;
use crate::weight::Weight;

/// A low-rank update with a trained length of each output row.
#[derive(Debug, Clone)]
pub struct Dora {
    /// The update of the direction.
    pub low_rank: LowRank,
    /// Lengths, `[out]`.
    pub magnitude: Parameter,
    /// Squared lengths of the rows of the frozen weight, `[out]`, f32.
    squares: Tensor<1>,
}

impl Dora {
    /// Starts from the weight's own lengths, so that a fresh update changes nothing; `weight: [out, in]`.
    pub fn new(low_rank: LowRank, weight: &Weight) -> Self {
        let squares = squares(weight);
        let mut update = Self { low_rank, magnitude: Parameter::from_tensor(squares.clone().sqrt()), squares };
        update.magnitude = Parameter::from_tensor(update.lengths(weight, update.squares.clone()));
        update.magnitude.train();
        update
    }

    /// With given lengths, `[out]`.
    pub fn with_magnitude(low_rank: LowRank, magnitude: Tensor<1>, weight: &Weight) -> Self {
        let mut magnitude = Parameter::from_tensor(magnitude);
        magnitude.train();
        Self { low_rank, magnitude, squares: squares(weight) }
    }

    /// The output for `x: [tokens, in]` without a bias, `[tokens, out]`.
    pub(crate) fn forward(&self, x: Tensor<2>, weight: &Weight, name: &str, dropout: Option<DropoutKey>) -> Tensor<2> {
        let lengths = Parameter::from_tensor(self.lengths(weight, self.squares.clone())).vector(&x);
        let factor = (self.magnitude.vector(&x) / lengths).unsqueeze::<2>(); // [1, out]
        match self.low_rank.dropped(&x, name, dropout) {
            None => (weight.multiply(x.clone()) + self.low_rank.apply(x)) * factor,
            // Dropout is on the way into the whole update, of which the change of length is a part.
            Some(dropped) => {
                let change = weight.multiply(dropped.clone()) * factor.clone().sub_scalar(1.0);
                weight.multiply(x) + change + self.low_rank.apply(dropped) * factor
            }
        }
    }

    /// `c (W + s B A)` in f32, `[out, in]`.
    pub fn merged(&self, weight: &Weight) -> Tensor<2> {
        // Another base weight than the one that was trained on has other lengths.
        let factor = self.magnitude.plain() / self.lengths(weight, squares(weight));
        (weight.dense() + self.low_rank.delta()) * factor.unsqueeze_dim::<2>(1)
    }

    /// The lengths of the rows of `W + s B A`, `[out]`, f32, outside the graph, without forming the sum:
    /// `|w|² + 2 s w·(b A) + s² b (A Aᵀ) b`, `squares` being `|w|²`.
    fn lengths(&self, weight: &Weight, squares: Tensor<1>) -> Tensor<1> {
        let low_rank = &self.low_rank;
        let scaling = low_rank.spec.scaling() as f32;
        let [a, b] = [matrix(&low_rank.a), matrix(&low_rank.b)]; // [rank, in], [out, rank]
        let products = weight.multiply(a.clone()).transpose(); // [out, rank]
        let gram = a.clone().matmul(a.transpose()); // [rank, rank]
        let crossed = products.mul_scalar(2.0 * scaling) + b.clone().matmul(gram).mul_scalar(scaling * scaling);
        let change: Tensor<1> = (crossed * b).sum_dim(1).squeeze_dim(1);
        (squares + change).sqrt()
    }
}

fn matrix(parameter: &Parameter) -> Tensor<2> {
    parameter.plain().cast(FloatDType::F32).reshape([parameter.shape()[0], parameter.shape()[1]])
}

fn squares(weight: &Weight) -> Tensor<1> {
    weight.dense().square().sum_dim(1).squeeze_dim(1)
}
