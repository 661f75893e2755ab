//! Operations of a decoder as one step each, with backward passes of their own.
//!
//! Each keeps for its backward pass what cannot be had again cheaply, and nothing else. On the CPU in f32
//! they are loops over host memory; on other devices and in other types the functions that the operations
//! are named after are composed of burn's tensor operations, which are also what the tests compare with.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adam;
mod attention;
#[cfg(feature = "cube")]
mod caches;
mod exponential;
mod gated;
mod host;
mod linear;
mod low_rank;
pub mod product;
pub mod profile;
mod rms_norm;
mod rotary;
mod softmax_loss;
mod threads;
pub mod vector;

pub use adam::{AdamState, AdamStep, adam};
pub use attention::{Attention, Visible, attention};
#[cfg(feature = "cube")]
pub use caches::keep_caches_in;
pub use gated::{Activation, gated};
pub use host::on_host;
pub use linear::{linear, linear_back};
pub use low_rank::{FrozenMap, GatedOrigin, LowRankTerm, linear_with_low_rank};
pub use rms_norm::rms_norm;
pub use rotary::{RopePairs, Rotation, rotate};
pub use softmax_loss::softmax_loss;
pub use threads::{for_each, threads, with_threads};

#[cfg(test)]
mod testing;
