#!/bin/bash
# check-cube-cpu.sh [FILTER...]: the parity tests, and the tests of our own kernels, on CubeCL's CPU runtime: GPU kernels
# without a GPU, compiled through LLVM. A slower job than CI's, which has every case but another compiler, that of
# software Vulkan. FILTER names tests instead; TUNE_TEST_FULL=1 runs every case.
# Needs LLVM, as the CUDA build does: scripts/llvm23-prefix.sh makes it where it cannot be downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."
export TUNE_TEST_DEVICE=cube-cpu
begin=$SECONDS
if [ $# -eq 0 ]; then
  cargo test --release --features cpu -p tune -p kernels -p adapters --lib
  # One process and one thread: kernels are compiled once, and tests take turns on the device anyway. Products are measured
  # without the probes that say when one is fast enough: each moves gigabytes.
  CUBECL_AUTOTUNE_LEVEL=${CUBECL_AUTOTUNE_LEVEL:-full} cargo test --release --features cpu --test it -- --nocapture --test-threads 1 parity
else
  cargo test --release --features cpu -p tune -p kernels -p adapters --lib --test it -- --nocapture --test-threads 1 "$@"
fi
echo "$((SECONDS - begin)) s on cube-cpu"
