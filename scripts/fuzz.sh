#!/bin/bash
# Damages the inputs of every reader at random, an hour a target (or as many seconds as $1 says), two targets at a time,
# and prints how many inputs each was given. A crash prints the number of the input; `TUNE_FUZZ_SEED=NUMBER` starts there.
set -euo pipefail
cd "$(dirname "$0")/.."

export TUNE_FUZZ_SECONDS=${1:-3600}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --release --workspace --test fuzz --no-fail-fast -- --nocapture --test-threads 2 2>&1 | tee "$log" || status=1

inputs=$(sed -n 's/^fuzz .*: \([0-9]*\) inputs, 0 crashes$/\1/p' "$log" | awk '{ sum += $1 } END { printf "%d", sum }')
targets=$(grep -c '^fuzz .* inputs, 0 crashes$' "$log" || true)
crashes=$(grep -c '^test .* FAILED$' "$log" || true)
grep -E '^fuzz |seed [0-9]+ (panics|takes)' "$log" || true
echo "$inputs inputs to $targets targets, $crashes crashes"
exit $status
