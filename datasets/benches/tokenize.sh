#!/usr/bin/env bash
# Tokenising side by side: this package, and Hugging Face datasets + tokenizers on the same file in one run.
#
# usage: benches/tokenize.sh GSM8K_TRAIN.jsonl [FOLDER [MEGABYTES]]
# PYTHON names an interpreter with datasets, transformers and tokenizers; THREADS the cores to use.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$1
folder=${2:-${TMPDIR:-/tmp}/tokenize-bench}
megabytes=${3:-200}
python=${PYTHON:-python3}
threads=${THREADS:-$(nproc)}

export HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 TOKENIZERS_PARALLELISM=true RAYON_NUM_THREADS=$threads
"$python" "$here/peer.py" make "$source" "$folder" "$megabytes"
cargo build --release --quiet --package datasets --example tokenize --manifest-path "$here/../Cargo.toml"
target=$(cargo metadata --format-version 1 --no-deps --manifest-path "$here/../Cargo.toml" |
    "$python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
ours=$target/release/examples/tokenize
rows=$folder/rows-$megabytes.jsonl
rm -rf "$folder/prepared"

echo "tune, no cache:      $("$ours" "$folder" "$rows")"
echo "datasets:            $("$python" "$here/peer.py" prepare "$folder" "$rows" "$threads" 2>/dev/null)"
echo "tune, filling cache: $("$ours" "$folder" "$rows" "$folder/prepared")"
echo "tune, from cache:    $("$ours" "$folder" "$rows" "$folder/prepared")"
