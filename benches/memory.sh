#!/bin/bash
# memory.sh: the plan's estimate of peak memory beside the peak that the run then has, for 24 runs on the CPU: LoRA,
# QLoRA and full fine-tuning, with and without gradient_checkpointing, at several sequence lengths and ranks, on shapes
# of two families; a few constants of the estimate were chosen in their light.
# Packed rows of GSM8K, so that every row is as long as the recipe says, but without sample_packing.
# The models have random weights and are made by make_model.py in TUNE_PEER (default ../shared/peer), once.
#
# Usage: benches/memory.sh [FIRST [LAST]]: the runs from FIRST (1) to LAST (24); all take about 15 minutes.
# Environment: BINARY (built here by default), STEPS (3), THREADS (2), DATA, TUNE_PEER, TUNE_PEER_CACHE (~/.cache/tune-peer).
set -euo pipefail
cd "$(dirname "$0")/.."
peer=$(realpath "${TUNE_PEER:-../shared/peer}")
data=$(realpath "${DATA:-$peer/../data/gsm8k-train.jsonl}")
cache=${TUNE_PEER_CACHE:-$HOME/.cache/tune-peer}
export RAYON_NUM_THREADS=${THREADS:-2}
first=${1:-1} last=${2:-24}

# shape, dtype of the checkpoint, adapter, gradient_checkpointing, sequence_len, micro_batch_size; other settings
runs=(
  "smollm2-135m float32 lora false 512 4"
  "smollm2-135m float32 lora false 2048 1"
  "smollm2-135m float32 lora true 2048 2"
  "smollm2-135m float32 qlora false 1024 2"
  "smollm2-135m float32 qlora true 512 4"
  "smollm2-135m float32 full false 256 2"
  "smollm2-135m float32 full true 512 2"
  "tiny-30m float32 lora false 256 8"
  "tiny-30m float32 full false 1024 2"
  "tiny-30m float32 full true 2048 1"
  "qwen3-0.6b bfloat16 lora false 512 2"
  "qwen3-0.6b bfloat16 qlora true 1024 2"
  "smollm2-135m bfloat16 lora false 768 3 lora_r=64"
  "smollm2-135m bfloat16 lora true 4096 1 lora_r=8"
  "smollm2-135m bfloat16 full false 384 4"
  "smollm2-135m bfloat16 full true 1536 1 optimizer=adamw_bnb_8bit"
  "smollm2-135m bfloat16 qlora false 320 6 sample_packing=false"
  "smollm2-135m bfloat16 qlora true 3072 1 lora_r=32"
  "tiny-30m float32 lora true 1024 4 lora_r=32"
  "tiny-30m float32 qlora false 512 2 gradient_accumulation_steps=2"
  "tiny-30m float32 full false 256 3 gradient_accumulation_steps=3"
  "tiny-30m float32 full true 4096 1"
  "qwen3-0.6b bfloat16 lora true 768 2 lora_r=4"
  "qwen3-0.6b bfloat16 qlora false 384 1 lora_r=8"
)

[ -f "$data" ] || { echo "no $data; TUNE_PEER and DATA name the peer's folder and the rows" >&2; exit 2; }
[ -x /usr/bin/time ] || { apt-get -qq update && apt-get -qq install -y time; } >/dev/null
if [ -z "${BINARY:-}" ]; then
  cargo build --release
  BINARY=${CARGO_TARGET_DIR:-target}/release/tune
fi
binary=$(realpath "$BINARY")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 - "$data" "$work/rows.jsonl" <<'PYTHON'
import json, sys
with open(sys.argv[2], "w") as out:
    for row in map(json.loads, open(sys.argv[1]).read().splitlines()[:600]):
        messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        out.write(json.dumps({"messages": messages}) + "\n")
PYTHON

# recipe MODEL ADAPTER CHECKPOINTING TOKENS ROWS
recipe() {
  cat <<YAML
base_model: $1
datasets:
  - path: $work/rows.jsonl
    type: chat_template
sequence_len: $4
sample_packing: true
micro_batch_size: $5
num_epochs: 1
max_steps: ${STEPS:-3}
optimizer: adamw_torch
learning_rate: 2e-4
lr_scheduler: constant
bf16: false
gradient_checkpointing: $3
save_strategy: no
eval_strategy: no
seed: 0
device: cpu
YAML
  [ "$2" = full ] && return
  echo "adapter: $2"
  [ "$2" = qlora ] && echo "load_in_4bit: true"
  echo "lora_r: 16"
  echo "lora_alpha: 32"
  echo "lora_target_linear: true"
}

[ "$first" = 1 ] && printf '%-14s%-7s%-12s%7s%7s%15s%12s%8s\n' shape trains recompute tokens rows "estimate MiB" "peak MiB" ratio
for ((at = first; at <= last; at++)); do
  read -r shape dtype adapter checkpointing tokens rows other <<<"${runs[at - 1]}"
  settings=(--set output_dir="$work/run")
  for setting in $other; do settings+=(--set "$setting"); done
  model=$cache/models/$shape-$dtype
  if [ ! -f "$model/config.json" ]; then
    "$(scripts/reference-python.sh)" "$peer/make_model.py" --shape "$shape" --dtype "$dtype" --out "$model" --text "$data" >&2
  fi
  recipe "$model" "$adapter" "$checkpointing" "$tokens" "$rows" >"$work/recipe.yaml"
  rm -rf "$work/run"
  "$binary" check "$work/recipe.yaml" "${settings[@]}" >"$work/plan.txt"
  /usr/bin/time -f %M -o "$work/peak" "$binary" run "$work/recipe.yaml" "${settings[@]}" >"$work/out" 2>&1 ||
    { tail -n 30 "$work/out" >&2; exit 1; }
  [ -z "${VERBOSE:-}" ] || grep -A 20 '^memory' "$work/plan.txt" | sed -n '1p;/^ /p' >&2
  python3 - "$work" "$shape" "$adapter" "$checkpointing" "$tokens" "$rows" "$other" <<'PYTHON'
import re, sys
work, shape, adapter, checkpointing, tokens, rows, other = sys.argv[1:]
number, unit = re.search(r"^memory +about ([\d.]+) (\w+)", open(f"{work}/plan.txt").read(), re.M).groups()
estimate = float(number) * {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}[unit]
peak = int(open(f"{work}/peak").read().split()[-1]) / 1024
print(f"{shape:14}{adapter:7}{checkpointing:12}{tokens:>7}{rows:>7}{estimate:15.0f}{peak:12.0f}{estimate / peak:8.2f}  {other}")
PYTHON
done
