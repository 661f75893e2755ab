//! Operations of our own: each a folder of the public functions, a reference, kernels and the backward pass.

pub(crate) mod frozen;
