//! The base model: its architecture as data, its decoder, and how both come from a checkpoint.

mod attention;
mod decoder;
mod failure;
pub mod families;
mod feed_forward;
mod input;
pub mod inspect;
mod layer;
mod load;
mod mask;
pub mod names;
mod norm;
mod rope;
pub mod spec;

pub use attention::KeyValues;
pub use decoder::{Decoder, Head};
pub use failure::DeviceFailure;
pub use input::{DecoderInput, TokenRows};
pub use layer::{Layer, Pass};
pub use load::{Source, load};
