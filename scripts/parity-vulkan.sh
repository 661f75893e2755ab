#!/bin/bash
# parity-vulkan.sh: the parity tests, and the tests of our own kernels, on software Vulkan (Mesa's lavapipe, of Debian's
# mesa-vulkan-drivers) through wgpu: every model, method and step. 20 to 60 minutes on 2 cores.
#
# Environment: TUNE_TEST_PART (K/N, such as 2/4): the smallest set and one of N parts of the rest, as CI runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
export TUNE_TEST_DEVICE=wgpu:cpu XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$(mktemp -d)}
[ -n "${TUNE_TEST_PART:-}" ] || export TUNE_TEST_FULL=1
# In one process: most of the time goes into compiling kernels.
cargo test --release --features wgpu --test it -- --nocapture --test-threads 1 parity
# The rest of the workspace's tests do not run on a device.
cargo test --release --workspace --features wgpu --lib -- --test-threads 1 \
  adam:: attention::tests dropout:: fusion:: gated:: rms_norm:: rotary:: rows:: softmax_loss:: gather:: frozen:: optimizers::
