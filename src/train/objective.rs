//! The objective of training: from the log-probabilities of trained tokens to a loss and a weight for each of them.
//!
//! A step runs rows forward, reads the log-probabilities of their trained tokens (and those of the model without its
//! adapter, for an objective that asks for them), and the objective returns a loss and a weight per token. The backward
//! pass is that of a weighted cross-entropy, whatever the objective: `weight = -d loss / d log-probability`.
//!
//! An objective whose weights are known beforehand, as in supervised training, gives them by
//! [`Objective::known_weights`] and costs one pass over the head. Any other costs a second one, without a gradient, and one
//! read from the device for each micro-batch; with a reference a second forward pass as well.
//!
//! To add an objective, write `objectives/NAME.rs`, a type that implements [`Objective`], and a row in `OBJECTIVES`
//! (`objectives.rs`); the tests there compare the weights of every row with the derivative of its loss. For example:
//!
//! | objective | grouping | mean | reference | loss of a group, `p` and `r` being log-probabilities and the reference's |
//! |---|---|---|---|---|
//! | DPO (Rafailov et al. 2023, arXiv:2305.18290) | pairs | groups | yes | `-log sigmoid(beta (sum(p - r) of chosen - sum(p - r) of rejected))` |
//! | IPO (Azar et al. 2023, arXiv:2310.12036) | pairs | groups | yes | `(mean(p - r) of chosen - mean(p - r) of rejected - 1 / (2 beta))²` |
//! | SimPO (Meng et al. 2024, arXiv:2405.14734) | pairs | groups | no | `-log sigmoid(beta (mean p of chosen - mean p of rejected) - gamma)` |
//! | ORPO (Hong et al. 2024, arXiv:2403.07691) | pairs | groups | no | `-mean p of chosen - beta log sigmoid(log odds of chosen - log odds of rejected)` |
//! | KTO (Ethayarajh et al. 2024, arXiv:2402.01306) | groups: a micro-batch's answers, then the mismatched ones that give its KL, whose weights are 0 | groups | yes | the mean of `1 - sigmoid(±beta (sum(p - r) - KL))` |
//!
//! Whatever needs more than the log-probabilities of trained tokens (a distribution over the vocabulary, as in distillation)
//! does not fit. Fields of a document that an objective reads beside them, such as a label or a reward, come with the data
//! format that has them, as fields of [`Document`].

use std::borrow::Cow;
use std::fmt::Debug;

use burn::tensor::Tensor;
use datasets::MicroBatch;
use thiserror::Error;

use super::split::documents_of;

/// A measure by name, such as `rewards/margins`.
pub type Metric = (&'static str, f64);

/// An objective of training.
pub trait Objective: Debug + Send + Sync {
    /// Its name in recipes and messages.
    fn name(&self) -> &'static str;

    /// The documents of a micro-batch that belong together.
    fn grouping(&self) -> Grouping;

    /// The unit of the mean that a step's loss is.
    fn mean(&self) -> Mean;

    /// True if documents need the log-probabilities of the model without its adapter.
    fn needs_reference(&self) -> bool {
        false
    }

    /// The weights of the trained tokens of `documents`, one after the other, if they are known without log-probabilities,
    /// which `documents` do not have here. The loss is then the sum of the tokens' weighted cross-entropies.
    fn known_weights(&self, documents: &[Document]) -> Option<Vec<f32>> {
        let _ = documents;
        None
    }

    /// Loss, weights and metrics of `documents`, a whole number of groups, summed over groups or tokens: their mean over
    /// the accumulation window is taken elsewhere.
    fn loss(&self, documents: &[Document]) -> ObjectiveLoss {
        let weights = self.known_weights(documents).expect("an objective without a loss of its own knows its weights");
        let log_probabilities = documents.iter().flat_map(|document| document.log_probabilities);
        let loss =
            weights.iter().zip(log_probabilities).map(|(weight, log)| -f64::from(*weight) * f64::from(*log)).sum();
        ObjectiveLoss { loss, weights, metrics: Vec::new() }
    }
}

/// The documents that an objective compares with each other: consecutive ones of a micro-batch, which are worked on together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Every document is on its own.
    Single,
    /// A chosen document, then the rejected one.
    Pairs,
    /// Groups of so many documents.
    Groups(usize),
}

impl Grouping {
    /// Documents of a group.
    pub fn group(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Pairs => 2,
            Self::Groups(size) => size.max(1),
        }
    }
}

/// The unit of a step's mean loss, which is taken over the whole accumulation window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mean {
    /// Trained tokens.
    Tokens,
    /// Groups of documents, see [`Grouping`].
    Groups,
}

/// The trained tokens of a document, in their order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Document<'a> {
    /// Ids of the tokens that are predicted.
    pub tokens: &'a [i32],
    /// Their log-probabilities; none before the forward pass.
    pub log_probabilities: &'a [f32],
    /// Their log-probabilities without the adapter; none unless the objective needs them.
    pub reference: &'a [f32],
}

/// The loss of some documents.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectiveLoss {
    /// Summed over groups or tokens, as [`Objective::mean`] says.
    pub loss: f64,
    /// For each trained token the loss's derivative by its log-probability, with the opposite sign.
    pub weights: Vec<f32>,
    /// Measures that are reported, each summed over groups; always the same ones in the same order.
    pub metrics: Vec<Metric>,
}

/// The loss of a part of a micro-batch, or of the whole, on the device.
#[derive(Debug)]
pub struct PartLoss {
    /// Summed over groups or tokens, `[1]`.
    pub sum: Tensor<1>,
    /// Summed over groups.
    pub metrics: Vec<Metric>,
}

/// Adds `more` to `sums`, name by name.
pub(super) fn add_metrics(sums: &mut Vec<Metric>, more: Vec<Metric>) {
    for (name, value) in more {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += value,
            None => sums.push((name, value)),
        }
    }
}

/// A reason why an objective cannot train.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ObjectiveError {
    /// Data sets give documents one by one.
    #[error(
        "the objective `{objective}` compares {group} documents with each other, which no data set format provides yet"
    )]
    NoFormat {
        /// Its name.
        objective: &'static str,
        /// Documents of a group.
        group: usize,
    },
    /// A micro-batch ends within a group.
    #[error(
        "internal error: a micro-batch of {documents} documents does not consist of groups of {group}, as the objective `{objective}` needs"
    )]
    BrokenGroup {
        /// Its name.
        objective: &'static str,
        /// Documents of a group.
        group: usize,
        /// Those of the micro-batch.
        documents: usize,
    },
    /// The base model's own values change.
    #[error(
        "the objective `{objective}` compares with the model without its adapter, but `{parameter}` itself is trained and its first value is not kept"
    )]
    NoReference {
        /// Its name.
        objective: &'static str,
        /// A parameter that is trained in place.
        parameter: String,
    },
}

impl ObjectiveError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: &str = match self {
            ObjectiveError::NoFormat { .. } | ObjectiveError::BrokenGroup { .. } => return None,
            ObjectiveError::NoReference { .. } => "train an adapter without lora_modules_to_save",
        };
        Some(hint.into())
    }
}

/// Refuses an objective whose rows no data set format provides.
///
/// # Errors
/// When it takes other rows than single documents.
pub fn check_format(objective: &dyn Objective) -> Result<(), ObjectiveError> {
    match objective.grouping().group() {
        1 => Ok(()),
        group => Err(ObjectiveError::NoFormat { objective: objective.name(), group }),
    }
}

/// Groups of the accumulation window.
///
/// # Errors
/// When a micro-batch does not consist of whole groups.
pub(super) fn groups(objective: &dyn Objective, batch: &[MicroBatch]) -> Result<usize, ObjectiveError> {
    let group = objective.grouping().group();
    let mut groups = 0;
    for micro_batch in batch {
        let documents = documents_of(micro_batch).len();
        if !documents.is_multiple_of(group) {
            return Err(ObjectiveError::BrokenGroup { objective: objective.name(), group, documents });
        }
        groups += documents / group;
    }
    Ok(groups)
}
