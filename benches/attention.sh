#!/bin/bash
# attention.sh: how memory and time grow with the length of a document, on the CPU. Prints what attention and the head of a
# large vocabulary take alone (alone.rs), the peak of LoRA on the smollm2-135m shape on one document of 1024 to 8192
# tokens, and the seconds of a step of 4096 tokens that are 8, 4, 2 and 1 documents.
# The model has random weights and is made by make_model.py in TUNE_PEER (default ../shared/peer), once.
#
# Usage: benches/attention.sh [alone|memory|time]...: these parts (all).
# Environment: BINARY and ALONE (built here by default), STEPS (4), THREADS (2), DATA, TUNE_PEER, TUNE_PEER_CACHE (~/.cache/tune-peer).
set -euo pipefail
cd "$(dirname "$0")/.."
peer=$(realpath "${TUNE_PEER:-../shared/peer}")
data=$(realpath "${DATA:-$peer/../data/gsm8k-train.jsonl}")
model=${TUNE_PEER_CACHE:-$HOME/.cache/tune-peer}/models/smollm2-135m-bfloat16
export RAYON_NUM_THREADS=${THREADS:-2}
steps=${STEPS:-4}
parts=("$@")
[ $# -gt 0 ] || parts=(alone memory time)

[ -x /usr/bin/time ] || { apt-get -qq update && apt-get -qq install -y time; } >/dev/null
if [ -z "${BINARY:-}" ] || [ -z "${ALONE:-}" ]; then
  cargo build --release --bin tune --example alone
  BINARY=${CARGO_TARGET_DIR:-target}/release/tune ALONE=${CARGO_TARGET_DIR:-target}/release/examples/alone
fi
if [ ! -f "$model/config.json" ]; then
  "$(scripts/reference-python.sh)" "$peer/make_model.py" --shape smollm2-135m --dtype bfloat16 --out "$model" --text "$data" >&2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Documents of more than 8192 tokens: as many answers one after the other. As chats they are cut off where a row ends;
# a completion would become several rows, the last of them shorter.
python3 - "$data" "$work/rows.jsonl" <<'PYTHON'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1]).read().splitlines()]
with open(sys.argv[2], "w") as out:
    for first in range(0, 96 * 75, 75):
        text = " ".join(f"{row['question']} {row['answer']}" for row in rows[first:first + 75])
        messages = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": text}]
        print(json.dumps({"messages": messages}), file=out)
PYTHON

# train TOKENS ROWS CHECKPOINTING STEPS
train() {
  cat >"$work/recipe.yaml" <<YAML
base_model: $model
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
datasets: [{path: $work/rows.jsonl, type: chat_template}]
sequence_len: $1
excess_length_strategy: truncate
micro_batch_size: $2
max_steps: $4
learning_rate: 2e-4
lr_scheduler: constant
bf16: false
gradient_checkpointing: $3
save_strategy: no
eval_strategy: no
seed: 0
device: cpu
output_dir: $work/run
YAML
  rm -rf "$work/run"
  /usr/bin/time -f %M -o "$work/peak" "$BINARY" run "$work/recipe.yaml" >"$work/out" 2>&1 || { tail -n 30 "$work/out" >&2; exit 1; }
}
peak() { echo $(($(tail -n 1 "$work/peak") / 1024)); }

for part in "${parts[@]}"; do
  case $part in
    alone)
      for tokens in 1024 2048 4096 8192; do "$ALONE" attention "$tokens"; done
      for rows in 1 8; do for vocabulary in 128 151936; do "$ALONE" head "$vocabulary" "$rows"; done; done
      ;;
    memory)
      echo
      echo "LoRA r16 on the smollm2-135m shape, one document a step; peak MiB"
      printf '%8s%12s%14s\n' tokens recompute "no recompute"
      for tokens in 1024 2048 4096 8192; do
        train "$tokens" 1 true 1
        lean=$(peak)
        train "$tokens" 1 false 1
        printf '%8s%12s%14s\n' "$tokens" "$lean" "$(peak)"
      done
      ;;
    time)
      echo
      echo "LoRA r16 on the smollm2-135m shape, 4096 tokens a step; median seconds of steps 2 to $steps"
      printf '%8s%12s%12s%10s\n' tokens documents seconds ratio
      for tokens in 512 1024 2048 4096; do
        train "$tokens" $((4096 / tokens)) false "$steps"
        python3 - "$work" "$tokens" <<'PYTHON'
import json, pathlib, statistics, sys
work, tokens = pathlib.Path(sys.argv[1]), int(sys.argv[2])
steps = [line for line in map(json.loads, open(work / "run/metrics.jsonl")) if "seconds" in line and "loss" in line]
seconds = statistics.median(step["seconds"] / step["tokens"] * 4096 for step in steps[1:])
first = work / "first"
if not first.exists():
    first.write_text(str(seconds))
print(f"{tokens:8}{4096 // tokens:12}{seconds:12.2f}{seconds / float(first.read_text()):10.2f}")
PYTHON
      done
      ;;
    *) echo "unknown part $part: alone, memory, time" >&2; exit 2 ;;
  esac
done
