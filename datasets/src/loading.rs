//! From settings to the data set that hands out batches: the one place that knows every part.
//!
//! [`prepare`](prepare::prepare) makes one source's rows examples, [`load`](load::load) puts sources
//! together and holds rows out, and [`Dataset`] gives the batch of a step.

mod counts;
mod dataset;
mod load;
mod prepare;
mod preview;
mod progress;

pub use self::counts::{Counts, SourceCounts};
pub use self::dataset::Dataset;
pub use self::preview::{Piece, Preview, preview, preview_of};
pub use self::progress::LoadProgress;
