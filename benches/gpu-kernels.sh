#!/bin/bash
# gpu-kernels.sh [DEVICE]: what each operation with a kernel of its own costs on a device (wgpu:cpu, software Vulkan, if
# none is named), beside the same composed of burn's operations with fusion. A process each, so that pools are fresh.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:-wgpu:cpu}
features=wgpu
case $device in cuda*) features=cuda ;; cube-cpu) features=cpu ;; esac
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$(mktemp -d)}
cargo build --release -p tune -p kernels --features "${TUNE_FEATURES:-$features}" --example gpu 2>/dev/null
program=${CARGO_TARGET_DIR:-target}/release/examples/gpu
echo "$device; $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores; median of 5 after 5, forward and backward"
for operation in softmax_loss rms_norm gated rotary gather_rows adam adam_eight_bit square_sums; do
  for kind in composed kernel; do "$program" "$device" $operation $kind; done
done
