//! A router and its experts (Shazeer et al. 2017, arXiv:1701.06538): tokens are sorted by expert, each
//! used expert multiplies its own tokens once, and the results are put back in the tokens' order.
//!
//! The choice is made on the host from the router's scores, one read for each layer. The gradient of a
//! slice is as large as what it was cut from; the sorted tokens are therefore halved again and again on
//! the way to one expert, so that the cost of many experts grows with their logarithm.

use adapters::{ExpertStack, Parameter, Pass, Projection, StackView};
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use kernels::{gated, gather_rows};

use super::feed_forward::{Mlp, halves};
use super::norm::compute;
use super::route::{Assignment, choose};
use super::spec::{Activation, RouterSpec, Scoring, Weighs};

/// A feed-forward of which each token uses a part.
#[derive(Debug, Clone)]
pub(crate) struct Experts {
    pub(crate) router: Projection,
    /// Name and values of what is added to the scores for the choice alone.
    pub(crate) correction: Option<(String, Parameter)>,
    pub(crate) routing: RouterSpec,
    pub(crate) experts: ExpertWeights,
    /// The perceptron of every token beside its experts.
    pub(crate) shared: Option<Mlp>,
}

/// The experts' weights.
#[derive(Debug, Clone)]
pub(crate) enum ExpertWeights {
    Separate(Vec<Mlp>),
    Stacked(Box<StackedExperts>),
}

/// Experts that are stored in one tensor per matrix.
#[derive(Debug, Clone)]
pub(crate) struct StackedExperts {
    pub(crate) gate_up: ExpertStack,
    pub(crate) down: ExpertStack,
    /// If set, the columns of gate and up alternate.
    pub(crate) interleaved: bool,
    pub(crate) activation: Activation,
}

/// An expert and how many of the sorted tokens are its own.
type Share = (usize, usize);

impl Experts {
    /// `x: [tokens, hidden]`, same shape out.
    pub(crate) fn forward(&self, x: Tensor<2>, pass: Pass) -> Tensor<2> {
        let [tokens, hidden] = x.dims();
        let chosen = self.routing.chosen;
        let device = x.device();
        let (scores, assignment) = self.route(&x, pass);
        let ids = |values: &[i32]| -> Tensor<1, Int> { indices(values, &device) };
        let (slots, places) = (ids(&assignment.slots), ids(&assignment.places));
        let weights = self.weights(scores, &assignment, &device).cast(compute(x.dtype())); // [tokens, chosen]
        let weights = gather_rows(weights.reshape([tokens * chosen, 1]), slots.clone(), places.clone());

        let sorted = gather_rows(x.clone(), ids(&assignment.tokens), places.clone()); // [tokens * chosen, hidden]
        let mixed = match self.routing.weighs {
            Weighs::Input => self.experts.forward(sorted * weights, &assignment.shares, pass),
            Weighs::Output => self.experts.forward(sorted, &assignment.shares, pass) * weights,
        };
        let mixed = gather_rows(mixed, places, slots).reshape([tokens, chosen, hidden]);
        let mixed = mixed.sum_dim(1).reshape([tokens, hidden]);
        match &self.shared {
            Some(shared) => mixed + shared.forward(x, pass),
            None => mixed,
        }
    }

    /// The router's scores for all experts, f32, `[tokens, experts]`, and which tokens go where.
    fn route(&self, x: &Tensor<2>, pass: Pass) -> (Tensor<2>, Assignment) {
        let x = if x.dtype() == DType::F32 { x.clone() } else { x.clone().cast(FloatDType::F32) };
        let logits = self.router.forward(x, pass);
        let scores = match self.routing.scoring {
            Scoring::Softmax => softmax(logits, 1),
            Scoring::SoftmaxOfChosen => logits,
            Scoring::Sigmoid => sigmoid(logits),
        };
        let for_choice = match &self.correction {
            Some((_, correction)) => scores.clone().inner() + correction.vector(&scores).inner().unsqueeze::<2>(),
            None => scores.clone().inner(),
        };
        let experts = for_choice.dims()[1];
        let values = for_choice.into_data().try_to_vec::<f32>().expect("scores are f32");
        (scores, choose(&values, experts, &self.routing))
    }

    /// The weights of the chosen experts, f32, `[tokens, chosen]`.
    fn weights(&self, scores: Tensor<2>, assignment: &Assignment, device: &Device) -> Tensor<2> {
        let tokens = scores.dims()[0];
        let chosen: Tensor<2, Int> = indices(&assignment.experts, device).reshape([tokens, self.routing.chosen]);
        let weights = scores.gather(1, chosen);
        let weights = match self.routing.scoring {
            Scoring::SoftmaxOfChosen => softmax(weights, 1),
            Scoring::Softmax | Scoring::Sigmoid => weights,
        };
        let weights = match self.routing.normalise {
            true => weights.clone() / weights.sum_dim(1).add_scalar(1e-20),
            false => weights,
        };
        if self.routing.scale == 1.0 { weights } else { weights.mul_scalar(self.routing.scale) }
    }

    /// The projections and the stacks, each in the checkpoint's order.
    pub(crate) fn linear(&mut self) -> (Vec<&mut Projection>, Vec<&mut ExpertStack>) {
        let mut projections = vec![&mut self.router];
        let mut stacks = Vec::new();
        match &mut self.experts {
            ExpertWeights::Separate(experts) => projections.extend(experts.iter_mut().flat_map(Mlp::projections)),
            ExpertWeights::Stacked(stacked) => {
                let StackedExperts { gate_up, down, .. } = stacked.as_mut();
                stacks.extend([gate_up, down]);
            }
        }
        projections.extend(self.shared.iter_mut().flat_map(Mlp::projections));
        (projections, stacks)
    }

    /// Calls `visit` with every parameter.
    pub(crate) fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Parameter)) {
        let (projections, stacks) = self.linear();
        projections.into_iter().for_each(|projection| projection.visit(visit));
        stacks.into_iter().for_each(|stack| stack.visit(visit));
        if let Some((name, correction)) = &mut self.correction {
            visit(name, correction);
        }
    }
}

impl ExpertWeights {
    /// `sorted: [n, hidden]`, the tokens of each expert of `shares` after those of the one before, same shape out.
    fn forward(&self, sorted: Tensor<2>, shares: &[Share], pass: Pass) -> Tensor<2> {
        match self {
            Self::Separate(experts) => by_expert(sorted, shares, &|x, expert| experts[expert].forward(x, pass)),
            Self::Stacked(stacked) => {
                let (gate_up, down) = (stacked.gate_up.view(&sorted, pass), stacked.down.view(&sorted, pass));
                stacked.forward(sorted, shares, gate_up, down)
            }
        }
    }
}

/// Runs `map` for each expert on its tokens; halves the tokens on the way, see the head of the file.
fn by_expert(sorted: Tensor<2>, shares: &[Share], map: &dyn Fn(Tensor<2>, usize) -> Tensor<2>) -> Tensor<2> {
    if let [(expert, _)] = shares {
        return map(sorted, *expert);
    }
    let (first, second) = shares.split_at(shares.len() / 2);
    let [below, above] = cut(sorted, first);
    Tensor::cat(vec![by_expert(below, first, map), by_expert(above, second, map)], 0)
}

/// The tokens of `first`, and the others.
fn cut(sorted: Tensor<2>, first: &[Share]) -> [Tensor<2>; 2] {
    let [tokens, width] = sorted.dims();
    let middle = first.iter().map(|(_, count)| count).sum();
    [sorted.clone().slice([0..middle, 0..width]), sorted.slice([middle..tokens, 0..width])]
}

impl StackedExperts {
    fn forward(&self, sorted: Tensor<2>, shares: &[Share], gate_up: StackView, down: StackView) -> Tensor<2> {
        if let [(expert, _)] = shares {
            let both = gate_up.forward(*expert, sorted);
            let (gate, up) = if self.interleaved { alternate(both) } else { halves(both) };
            return down.forward(*expert, gated(self.activation, gate, up));
        }
        let (first, second) = shares.split_at(shares.len() / 2);
        let [below, above] = cut(sorted, first);
        let boundary = second[0].0;
        let (gate_up_below, gate_up_above) = gate_up.split(boundary);
        let (down_below, down_above) = down.split(boundary);
        let below = self.forward(below, first, gate_up_below, down_below);
        Tensor::cat(vec![below, self.forward(above, second, gate_up_above, down_above)], 0)
    }
}

/// The columns of `x: [tokens, 2 * width]` with even and with odd numbers.
fn alternate(x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let [tokens, columns] = x.dims();
    let width = columns / 2;
    let paired = x.reshape([tokens, width, 2]);
    let part = |index| paired.clone().slice([0..tokens, 0..width, index..index + 1]).reshape([tokens, width]);
    (part(0), part(1))
}

fn indices(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::I32))
}
