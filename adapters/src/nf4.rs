//! NF4: weights as 4-bit codes with a scale for each block of 64, as QLoRA introduced it (Dettmers et al. 2023,
//! arXiv:2305.14314) and bitsandbytes writes it.
//!
//! [`Nf4`] is the format on the host: made from values, decoded, read and written under bitsandbytes' names.
//! [`Nf4Weight`](crate::Nf4Weight) is a matrix of it on a device, to multiply by.

mod lookup;
mod quantise;
pub mod serialised;
mod tables;

use burn::tensor::FloatDType;

pub(crate) use lookup::{Packed, PackedScales};
pub use serialised::{Nf4Error, Nf4Part, Nf4Parts};
pub use tables::{CODES, dynamic_map};

/// Values that share a scale.
pub const BLOCK: usize = 64;
/// Scales that share a scale where they are quantised themselves.
pub const SCALE_BLOCK: usize = 256;

/// The settings of quantisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nf4Spec {
    /// Keep scales in 8 bits too.
    pub double: bool,
}

impl Default for Nf4Spec {
    fn default() -> Self {
        Self { double: true }
    }
}

impl Nf4Spec {
    /// Bytes that `count` values take.
    pub fn bytes(&self, count: u64) -> u64 {
        let blocks = count.div_ceil(BLOCK as u64);
        let scales = match self.double {
            true => blocks + 4 * blocks.div_ceil(SCALE_BLOCK as u64) + 4,
            false => 4 * blocks,
        };
        count.div_ceil(2) + scales
    }
}

/// Quantised values, rows one after the other; blocks do not end with rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4 {
    /// Two codes a byte, the first in its upper half; `count / 2` rounded up of them.
    pub codes: Vec<u8>,
    /// The scales of blocks.
    pub scales: Scales,
    /// Number of values.
    pub count: usize,
    /// The type of the values that were quantised, to which decoded ones are rounded.
    pub dtype: FloatDType,
}

/// The scales of blocks of [`BLOCK`] values.
#[derive(Debug, Clone, PartialEq)]
pub enum Scales {
    /// In f32.
    Plain(Vec<f32>),
    /// In 8 bits, less their mean, in blocks of [`SCALE_BLOCK`].
    Double {
        /// Places in [`dynamic_map`].
        codes: Vec<u8>,
        /// The scale of each block of scales.
        blocks: Vec<f32>,
        /// Their mean.
        offset: f32,
    },
}

impl Nf4 {
    /// The numbers that the codes stand for.
    pub fn dequantise(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.count];
        self.view().decode(0, &mut values);
        values
    }

    /// The scale of each block, decoded.
    pub fn block_scales(&self) -> Vec<f32> {
        let view = self.view();
        (0..self.count.div_ceil(BLOCK)).map(|block| view.scales.of(block)).collect()
    }

    pub(crate) fn view(&self) -> Packed<'_> {
        let scales = match &self.scales {
            Scales::Plain(scales) => PackedScales::Plain(scales),
            Scales::Double { codes, blocks, offset } => PackedScales::Double { codes, blocks, offset: *offset },
        };
        Packed { codes: &self.codes, scales, dtype: self.dtype }
    }
}
