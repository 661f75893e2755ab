//! Fine-tunes open-weights language models: a recipe picks a base model, a data set and a way to adapt
//! it; burn trains; a PEFT adapter or a merged checkpoint comes out.
//!
//! Read [`run`] first: the whole of `tune run` is one straight line.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod device;
pub mod hub;
pub mod model;
pub mod recipe;
pub mod train;
