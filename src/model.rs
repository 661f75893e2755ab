//! The base model: its architecture as data, its decoder, and how both come from a checkpoint.

mod attend;
mod attention;
mod continuation;
mod decoder;
mod experts;
mod failure;
pub mod families;
mod feed_forward;
mod input;
pub mod inspect;
mod latent_attention;
mod layer;
mod load;
mod mask;
pub mod names;
mod norm;
mod positions;
mod rope;
mod route;
pub mod spec;
mod storage;
mod token_rows;

pub use adapters::Pass;
pub use continuation::Continuation;
pub use decoder::{Decoder, Head};
pub use failure::DeviceFailure;
pub use input::DecoderInput;
pub use layer::Layer;
pub use load::{Source, load};
pub use storage::{Quantised, Storage, StoredSize, is_skipped, stored_values};
pub use token_rows::{TokenRows, span};
