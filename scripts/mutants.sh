#!/bin/bash
# Plants faults, one at a time, in the functions that decide numbers or bytes on the CPU, and counts those that a test
# notices: first by the tests of the fault's own package, then, for those that are left, by all tests. One fault takes a
# minute or three. Faults that nothing noticed are printed: each is either equivalent to the code or lacks a test.
#
#   scripts/mutants.sh [SAMPLE [OF]]     the faults whose number is SAMPLE modulo OF; without arguments 0 of 33, some 100
#
# Needs cargo-mutants (`cargo install cargo-mutants`).
set -euo pipefail
cd "$(dirname "$0")/.."

sample=${1:-0} of=${2:-33}
out=${TUNE_MUTANTS_OUT:-$(mktemp -d)}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
common=(--profile release --baseline skip --timeout 900 --colors never --no-times)
places=(
  --file 'src/train/**' --file 'src/export/**' --file src/run/checkpoints.rs --file src/run/same_run.rs
  --file 'adapters/src/**' --file 'kernels/src/**'
  --file 'datasets/src/rows/**' --file 'datasets/src/text/**' --file 'datasets/src/batches/**'
  # Kernels of GPUs, matrix units that few processors have, and figures for the report.
  --exclude '**/kernel.rs' --exclude 'kernels/src/attention/device/**' --exclude kernels/src/attention/device.rs
  --exclude kernels/src/rows.rs --exclude kernels/src/multi_tensor.rs --exclude kernels/src/profile.rs
  --exclude adapters/src/frozen/tiles.rs --exclude 'kernels/src/product/amx*' --exclude 'kernels/src/product/amx/**'
)

# The faults that are left stand in missed.txt; exit code 2 says that there are some.
own() { cargo mutants --workspace "${common[@]}" "${places[@]}" --sharding round-robin --shard "$sample/$of" -o "$out/own"; }
everywhere() { cargo mutants --workspace --test-workspace=true "${common[@]}" "$@" -o "$out/all"; }

mkdir -p "$out"
own || [ $? -le 3 ]
chosen=()
while read -r fault; do
  chosen+=(--re "^$(sed 's/[][\.*^$+?(){}|/]/\\&/g' <<<"$fault")\$")
done < "$out/own/mutants.out/missed.txt"
left=/dev/null
if [ ${#chosen[@]} -gt 0 ]; then
  everywhere "${chosen[@]}" || [ $? -le 3 ]
  left=$out/all/mutants.out/missed.txt
fi

count() { cat "$@" 2>/dev/null | wc -l; }
caught=$(count "$out"/{own,all}/mutants.out/{caught,timeout}.txt)
missed=$(count "$left")
echo "$caught of $((caught + missed)) faults noticed (sample $sample of $of); not noticed:"
cat "$left"
