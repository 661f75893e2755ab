//! Training: one step from a batch to changed weights, and the loss on held-out rows.

mod backward;
mod checkpoint;
mod evaluate;
mod fault;
mod loss;
mod loss_scale;
mod noise;
mod objective;
mod objectives;
pub mod optimizers;
mod rounds;
pub mod schedules;
mod split;
mod trainer;
mod vectors;
mod watchdog;

pub use checkpoint::{Position, SavedState, TrainerState};
pub use evaluate::{Evaluation, evaluate};
pub use loss::HeadCut;
pub use objective::{
    Document, Grouping, Mean, Metric, Objective, ObjectiveError, ObjectiveLoss, PartLoss, check_format,
};
pub use objectives::{OBJECTIVES, Supervised, default_objective};
pub use optimizers::OptimizerSettings;
pub use rounds::{Cut, Largest, largest};
pub use schedules::Schedule;
pub use trainer::{StepReport, TrainError, TrainSettings, Trainer};
pub use vectors::{STATE_FILE, StateError};
pub use watchdog::{Verdict, Watchdog, WatchdogSettings};
