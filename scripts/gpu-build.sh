#!/bin/bash
# gpu-build.sh [DIST]: what a machine with a GPU needs to run gpu-check.sh, in the folder DIST (default dist/): the program
# and its tests with `cuda` and `vulkan`, stripped, in one archive of xz; with CUDA_CPP=1 the program also built on CUDA
# C++ instead of LLVM, in a second archive; and the peer's scripts, if there are any. The first two together must stay
# below 60 MB. About 25 minutes on 2 cores from nothing.
#
# Environment: CARGO_TARGET_DIR, CUDA_CPP, TUNE_PEER (the peer's folder, default ../shared/peer),
# CUDARC_CUDA_VERSION (13000: the oldest CUDA that the program must run on).
set -euo pipefail
cd "$(dirname "$0")/.."
dist=$(realpath -m "${1:-dist}")
target=${CARGO_TARGET_DIR:-target}
export CUDARC_CUDA_VERSION=${CUDARC_CUDA_VERSION:-13000}
limit=60000000

llvm=${XDG_DATA_HOME:-$HOME/.local/share}/tracel
compgen -G "$llvm/tracel-llvm-*/.tracel-llvm-installed" >/dev/null || scripts/llvm23-prefix.sh

mkdir -p "$dist"
rm -rf "$dist"/*
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The dictionary holds both programs, most of which is the same.
pack() { tar -C "$work" --sort=name --mtime=@0 --owner=0 --group=0 -c "${@:2}" | xz -T1 --lzma2=preset=6,dict=512MiB >"$1"; }

cargo build --release --features cuda,vulkan
# The path of the test binary is in cargo's messages.
tests=$(cargo test --release --features cuda,vulkan --test it --no-run --message-format json 2>"$work/log" |
  sed -n 's/.*"executable":"\([^"]*\/it-[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$tests" ] || { cat "$work/log" >&2; exit 1; }
strip -o "$work/tune" "$target/release/tune"
strip -o "$work/it" "$tests"
pack "$dist/tune.tar.xz" tune it
if [ "${CUDA_CPP:-0}" = 1 ]; then
  cargo build --release --features cuda-cpp,vulkan
  strip -o "$work/tune-cpp" "$target/release/tune"
  pack "$dist/tune-cpp.tar.xz" tune-cpp
fi

peer=${TUNE_PEER:-../shared/peer}
if [ -f "$peer/peft_train.py" ]; then
  mkdir -p "$dist/peer"
  cp "$peer/peft_train.py" "$peer/make_model.py" "$dist/peer"
fi
{
  git rev-parse HEAD 2>/dev/null || echo "no commit"
  git diff --quiet HEAD 2>/dev/null || echo "and changes that are not committed"
} >"$dist/commit.txt"

ls -l "$dist"
bytes=$(stat -c %s "$dist/tune.tar.xz")
echo "$bytes bytes: $(stat -c %s "$work/tune") of the program and $(stat -c %s "$work/it") of the tests, compressed"
[ "$bytes" -le $limit ] || { echo "more than $limit bytes" >&2; exit 1; }
