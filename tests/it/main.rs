//! Tests of the whole, in one binary, so that a device compiles its kernels once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod parity;
