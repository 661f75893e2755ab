#!/usr/bin/env bash
# Tokenising side by side: this project, and Hugging Face datasets + tokenizers, on the same file in one run; then
# whether memory stays flat from 100 MB to 1 GB, and how soon a run starts whose rows were prepared before.
#
# usage: benches/tokenize.sh GSM8K_TRAIN.jsonl [FOLDER]
# The rows are GSM8K's as chats, repeated to a size, each with a number of its own. PYTHON names an interpreter with
# datasets, transformers and tokenizers (default: that of scripts/reference-python.sh); THREADS the cores to use.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=${1:?usage: tokenize.sh GSM8K_TRAIN.jsonl [FOLDER]}
folder=${2:-${TMPDIR:-/tmp}/tokenize-bench}
python=${PYTHON:-$("$here/../scripts/reference-python.sh")}
threads=${THREADS:-$(nproc)}

export HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 TOKENIZERS_PARALLELISM=true RAYON_NUM_THREADS=$threads
manifest=$here/../Cargo.toml
cargo build --release --quiet --example tokenize --manifest-path "$manifest"
target=$(cargo metadata --format-version 1 --no-deps --manifest-path "$manifest" |
    "$python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
ours=$target/release/examples/tokenize

for megabytes in 100 200 1000; do
    "$python" "$here/tokenize_peer.py" make "$source" "$folder" "$megabytes"
done
rows=$folder/rows-200.jsonl
head -n 100000 "$rows" >"$folder/rows-100k.jsonl"
rm -rf "$folder/prepared"

grep -m 1 'model name' /proc/cpuinfo | sed 's/.*: /machine:                      /'
echo "cores:                        $threads"
echo "200 MB, tune:                 $("$ours" "$folder" "$rows")"
echo "200 MB, datasets:             $("$python" "$here/tokenize_peer.py" prepare "$folder" "$rows" "$threads" 2>/dev/null)"
echo "100 MB, tune:                 $("$ours" "$folder" "$folder/rows-100.jsonl")"
echo "1000 MB, tune:                $("$ours" "$folder" "$folder/rows-1000.jsonl")"
echo "100 000 rows, filling cache:  $("$ours" "$folder" "$folder/rows-100k.jsonl" "$folder/prepared")"
echo "100 000 rows, from cache:     $("$ours" "$folder" "$folder/rows-100k.jsonl" "$folder/prepared")"
rm -rf "$folder/prepared" "$folder/rows-1000.jsonl"
