//! The values that recipe keys take where a number or a text is not enough, and no module that computes has the type.
//!
//! Each type is what was written, not what follows from it: the plan turns it into decisions.

pub use datasets::ChatTemplate;

/// The adapter method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// Low-rank updates on frozen projections (Hu et al. 2021).
    Lora,
    /// The same on a base in 4 bits (Dettmers et al. 2023).
    Qlora,
}

/// The rows that go through the model at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicroBatchSize {
    /// So many, at least 1.
    Rows(usize),
    /// As many as memory allows, of the `batch_size` rows of a step.
    Auto,
}

impl Default for MicroBatchSize {
    fn default() -> Self {
        Self::Rows(1)
    }
}

/// The times at which something periodic happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// Never.
    No,
    /// Every so many steps.
    Steps,
    /// At the end of each epoch.
    Epoch,
}

/// A distance between steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Steps {
    /// A number of steps, at least 1.
    Every(usize),
    /// A share of all steps, above 0 and below 1.
    Fraction(f64),
}

/// A switch that can also be left to the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Toggle {
    /// On.
    True,
    /// Off.
    #[default]
    False,
    /// The best choice for the device and the model.
    Auto,
}
