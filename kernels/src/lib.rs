//! Operations of a decoder as one step each, with backward passes of their own.
//!
//! Each keeps for its backward pass what cannot be had again cheaply, and nothing else. On the CPU in f32 they
//! are loops over host memory, on GPUs CubeCL kernels with arithmetic in f32. What is neither (LoRA's thin
//! products on a GPU, 16-bit types on the CPU) is composed of burn's tensor operations, which are also what
//! the tests compare with.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adam;
mod attention;
#[cfg(feature = "cube")]
mod caches;
mod cube;
mod exponential;
#[cfg(feature = "cube")]
mod fusion;
mod gated;
mod gather;
mod gradient;
mod host;
mod linear;
mod low_rank;
#[cfg(feature = "cube")]
mod multi_tensor;
pub mod product;
pub mod profile;
mod rms_norm;
mod rotary;
#[cfg(feature = "cube")]
mod rows;
mod softmax_loss;
mod threads;
pub mod vector;

pub use adam::{
    AdamState, AdamStep, AdamWork, EightBitMoment, EightBitState, EightBitWork, adam_all, adam_eight_bit, square_sums,
};
pub use attention::{AttentionMethod, Visible, attention, attention_by, block_scores_bytes};
#[cfg(feature = "cube")]
pub use caches::keep_caches_in;
#[cfg(feature = "cube")]
pub use fusion::leave_products_alone;
pub use gated::{Activation, gated};
pub use gather::gather_rows;
pub use gradient::{GradientSum, trainable_linear, trains_in_place};
pub use host::on_host;
pub use linear::{linear, linear_back};
pub use low_rank::{FrozenMap, GatedOrigin, LowRankTerm, linear_with_low_rank};
pub use rms_norm::{NormForm, rms_norm};
pub use rotary::{RopePairs, Rotation, rotate};
pub use softmax_loss::{SoftmaxInPieces, softmax_loss};
pub use threads::{for_each, threads, with_threads};

#[cfg(test)]
mod testing;
