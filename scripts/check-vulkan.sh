#!/bin/bash
# check-vulkan.sh [FILTER...]: the parity tests, and the tests of our own kernels, as a build with the feature `vulkan` runs
# them on a GPU: SPIR-V shaders, and kernels in f16. On Mesa's software Vulkan of Debian's testing, since that of Debian 12
# crashes on such shaders; what the tests leave out there, `OpenDevice::breaks_matrix_units` says. It goes into a folder of
# its own and is entered with chroot, so this needs root, debootstrap, and the network once. A slower job than CI's; FILTER
# names tests instead; TUNE_TEST_FULL=1 runs every case.
#
# Environment: TUNE_VULKAN_ROOT ($HOME/.cache/tune-vulkan): the folder; TUNE_FEATURES (vulkan; `cuda,vulkan` is what
# gpu-build.sh builds); TUNE_TEST_SECONDS (3000): the limit of each program.
set -euo pipefail
cd "$(dirname "$0")/.."
root=${TUNE_VULKAN_ROOT:-$HOME/.cache/tune-vulkan}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
begin=$SECONDS

if [ ! -f "$root/complete" ]; then
  command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get -qq install -y debootstrap >/dev/null
  rm -rf --one-file-system "${root:?}"
  debootstrap --variant=minbase --include=mesa-vulkan-drivers,libvulkan1 testing "$root" >"${TMPDIR:-/tmp}/debootstrap.log"
  touch "$root/complete"
fi

# The paths of the test binaries are in cargo's messages.
build() {
  cargo test --release --features "${TUNE_FEATURES:-vulkan}" "$@" --no-run --message-format json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}
library=$(build -p tune -p kernels -p adapters --lib)
parity=$(build --test it | grep '/it-')

# inside COMMAND...: there, with this folder and the built programs at their own paths, which end with the command.
inside() {
  # shellcheck disable=SC2016  # for the inner shell
  TUNE_TEST_DEVICE=wgpu:cpu unshare --mount bash -euc '
    root=$1 here=$2 target=$3
    shift 3
    mkdir -p "$root$here" "$root$target"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --bind "$here" "$root$here"
    mount --bind "$target" "$root$target"
    exec chroot "$root" /usr/bin/env -C "$here" HOME=/root XDG_RUNTIME_DIR=/run timeout "$@"' \
    sh "$root" "$PWD" "$target" "${TUNE_TEST_SECONDS:-3000}" "$@"
}

# Products in f16 are compiled and measured in all their variants on first use; here the first that serves is enough.
export CUBECL_AUTOTUNE_LEVEL=${CUBECL_AUTOTUNE_LEVEL:-minimal}
kernels="adam:: attention::tests dropout:: fusion:: gated:: rms_norm:: rotary:: rows:: softmax_loss:: gather:: frozen:: optimizers::"
if [ $# -gt 0 ]; then
  for program in $library $parity; do inside "$program" --test-threads 1 --nocapture "$@"; done
else
  # shellcheck disable=SC2086  # a list of filters
  for program in $library; do inside "$program" --test-threads 1 $kernels; done
  inside "$parity" --nocapture --test-threads 1 parity
fi
echo "$((SECONDS - begin)) s on software Vulkan with SPIR-V"
