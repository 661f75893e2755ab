//! The linear map of a decoder, and the ways to adapt it.
//!
//! All that an adapter changes is a linear map: a [`Projection`] multiplies by a weight as the
//! checkpoint stores it, and an optional [`Update`] adds what was trained. [`attach`] puts updates on
//! the projections that an [`AdapterSpec`] names; [`peft`] reads and writes them as PEFT does.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attach;
mod dora;
mod dropout;
mod dtype;
mod expert_stack;
mod frozen;
mod low_rank;
pub mod nf4;
mod nf4_weight;
mod parameter;
mod pass;
pub mod peft;
mod projection;
mod random;
#[cfg(test)]
mod testing;
mod weight;

pub use attach::{Adaptable, AdapterSpec, AttachError, Candidate, Method, Targets, attach, select, select_stacks};
pub use dora::Dora;
pub use dropout::DropoutKey;
pub use expert_stack::{ExpertStack, StackUpdate, StackView};
pub use frozen::UNPACKED_VALUES;
pub use low_rank::{LowRank, LowRankSpec};
pub use nf4_weight::Nf4Weight;
pub use parameter::Parameter;
pub use pass::{AdapterSwitch, Pass};
pub use projection::{Projection, Role, Update, is_of_update};
pub use random::{normal, seed_of};
pub use weight::Weight;
