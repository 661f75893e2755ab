//! The linear map of a decoder, and the ways in which it can learn.
//!
//! All that an adapter changes is a linear map: a [`Projection`] multiplies by a weight as the
//! checkpoint stores it, and an optional [`Update`] adds what was learnt. [`attach`] puts updates on
//! the projections that an [`AdapterSpec`] names; [`peft`] reads and writes them as PEFT does.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attach;
mod dropout;
mod low_rank;
mod parameter;
pub mod peft;
mod projection;
mod random;

pub use attach::{AdapterSpec, AttachError, Targets, attach, attach_saved, select};
pub use dropout::DropoutKey;
pub use low_rank::{LowRank, LowRankSpec};
pub use parameter::Parameter;
pub use projection::{Projection, Update};
pub use random::{normal, seed_of};
