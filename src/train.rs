//! Training: one step from a batch to changed weights, and the loss on held-out rows.

mod backward;
mod checkpoint;
mod eight_bit;
mod evaluate;
mod fault;
mod loss;
mod loss_scale;
mod optimizer;
mod rounds;
mod schedule;
mod split;
mod trainer;
mod watchdog;

pub use checkpoint::{Position, STATE_FILE, SavedState, StateError, TrainerState};
pub use evaluate::{Evaluation, evaluate};
pub use loss::HeadCut;
pub use optimizer::{AdamW, StateBits};
pub use rounds::{Cut, Largest, largest};
pub use schedule::{Schedule, Shape};
pub use trainer::{StepReport, TrainError, TrainSettings, Trainer};
pub use watchdog::{Verdict, Watchdog, WatchdogSettings};
