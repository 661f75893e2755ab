//! Fine-tunes open-weights language models: a recipe picks a base model, a data set and a way to adapt
//! it; burn trains; a PEFT adapter or a merged checkpoint comes out.
//!
//! Read [`run`] first: the whole of `tune run` is one straight line.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod allocator;
pub mod answers;
pub mod cli;
pub mod commands;
pub mod device;
pub mod errors;
mod exact;
pub mod export;
pub mod generate;
pub mod hint;
pub mod hub;
pub mod interruption;
pub mod model;
pub mod open;
mod panics;
mod paths;
pub mod plan;
pub mod recipe;
pub mod report;
pub mod run;
pub mod run_dir;
pub mod text;
pub mod train;
