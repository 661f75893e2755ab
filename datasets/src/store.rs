//! Examples as Arrow batches, in memory or in a file: a data set larger than memory stays on disk.
//!
//! A [`StoreWriter`] takes examples one by one and keeps small sets in memory; larger ones, and those
//! that are to be cached, go to a file. What it wrote is a [`Segment`]; [`Examples`] choose among the
//! examples of segments.

pub(crate) mod cache;
mod examples;
mod segment;
mod spool;
mod writer;

pub(crate) use self::cache::Key;
pub use self::examples::Examples;
#[cfg(test)]
pub(crate) use self::segment::Column;
pub(crate) use self::segment::Segment;
pub(crate) use self::writer::StoreWriter;
