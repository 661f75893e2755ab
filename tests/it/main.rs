//! Tests of the whole, in one binary, so that a device compiles its kernels once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adapters;
mod axolotl;
mod bad_data;
mod bad_input;
mod cases;
mod cli;
mod data;
mod experts;
mod export;
mod faults;
mod harness;
mod hostile;
mod hub;
mod invariants;
mod masks;
mod memory;
mod output;
mod parity;
mod plain_text;
mod precision;
mod qlora;
mod reading;
mod readme;
mod recipes;
mod resume;
mod rows;
mod run;
mod serving;
mod settings;
mod signals;
mod snapshots;
mod storage;
mod trouble;
