#!/bin/bash
# peer.sh: our training and TRL's, in turn, on the same model, rows and settings on the CPU; prints both and the
# ratios of tokens per second and of peak memory. The peer's programs lie in TUNE_PEER (default ../shared/peer).
# The model has the smollm2-135m shape and random weights in bf16, as published models have; both compute in f32. The
# rows are GSM8K's; trained are the answers.
#
# Environment: BINARY (built here by default), SHAPE, WEIGHTS (bfloat16, float32: how the checkpoint stores them),
# ROUNDS (3), STEPS (8), SKIP (2 of these, to warm up), BATCH (4),
# ACCUMULATE (1), TOKENS (512 at most in a row), RANK (16), THREADS (2), PACKING and CHECKPOINTING (1 for on, on both
# sides), FULL (1: all weights learn instead of LoRA), PLAIN (1: the peer is a hand-written torch loop instead of TRL),
# PRODUCTS (what the example `products` printed here: says how near we are to the machine's products), TUNE_PEER_CACHE (models and runs, ~/.cache/tune-peer).
set -euo pipefail
cd "$(dirname "$0")/.."
peer=$(realpath "${TUNE_PEER:-../shared/peer}")
data=$(realpath "${DATA:-$peer/../data/gsm8k-train.jsonl}")
cache=${TUNE_PEER_CACHE:-$HOME/.cache/tune-peer}
shape=${SHAPE:-smollm2-135m}
rounds=${ROUNDS:-3} steps=${STEPS:-8} skip=${SKIP:-2} batch=${BATCH:-4} accumulate=${ACCUMULATE:-1}
tokens=${TOKENS:-512} rank=${RANK:-16} threads=${THREADS:-2}
rows=$((steps * batch * accumulate))
on() { if [ "${1:-0}" = 1 ]; then echo true; else echo false; fi; }

for file in "$peer/make_model.py" "$peer/peft_train.py" "$data"; do
  [ -f "$file" ] || { echo "no $file; TUNE_PEER and DATA name the peer's folder and the rows" >&2; exit 2; }
done
[ -x /usr/bin/time ] || { apt-get -qq update && apt-get -qq install -y time; } >/dev/null
python=$(scripts/reference-python.sh)
if [ -z "${BINARY:-}" ]; then
  cargo build --release
  BINARY=${CARGO_TARGET_DIR:-target}/release/tune
fi
binary=$(realpath "$BINARY")
weights=${WEIGHTS:-bfloat16}
model=$cache/models/$shape-$weights
if [ ! -f "$model/config.json" ]; then
  "$python" "$peer/make_model.py" --shape "$shape" --dtype "$weights" --out "$model" --text "$data"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" - "$data" "$rows" "$work/rows.jsonl" <<'PYTHON'
import json, sys
lines = open(sys.argv[1]).read().splitlines()[: int(sys.argv[2])]
with open(sys.argv[3], "w") as out:
    for row in map(json.loads, lines):
        messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        out.write(json.dumps({"messages": messages}) + "\n")
PYTHON
if [ "${FULL:-0}" = 1 ]; then
  trains="all weights learn" exported=merged adapter="# no adapter"
else
  trains="LoRA r$rank" exported=adapter
  adapter="adapter: lora
lora_r: $rank
lora_alpha: $((2 * rank))
lora_dropout: 0.0
lora_target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]"
fi
cat >"$work/recipe.yaml" <<YAML
base_model: $model
$adapter
datasets:
  - path: $work/rows.jsonl
    type: chat_template
chat_template: tokenizer_default
sequence_len: $tokens
excess_length_strategy: truncate
sample_packing: $(on "${PACKING:-}")
micro_batch_size: $batch
gradient_accumulation_steps: $accumulate
num_epochs: 1
max_steps: $steps
optimizer: adamw_torch
learning_rate: 2e-4
lr_scheduler: constant
weight_decay: 0.0
max_grad_norm: 1.0
bf16: false
gradient_checkpointing: $(on "${CHECKPOINTING:-}")
save_strategy: no
eval_strategy: no
logging_steps: 1
seed: 0
device: cpu
export:
  formats: [$exported]
YAML

export RAYON_NUM_THREADS=$threads OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads TOKENIZERS_PARALLELISM=false
pin=()
command -v taskset >/dev/null && [ "$(nproc)" -gt "$threads" ] && pin=(taskset -c "0-$((threads - 1))")
options=(--model "$model" --data "$data" --rows "$rows" --steps "$steps" --skip "$skip" --max-tokens "$tokens"
  --batch "$batch" --accumulate "$accumulate" --rank "$rank" --alpha "$((2 * rank))" --lr 2e-4 --threads "$threads"
  --dtype float32 --out "$work/peer-out")
[ "${PACKING:-0}" = 1 ] && options+=(--packing)
[ "${CHECKPOINTING:-0}" = 1 ] && options+=(--checkpointing)
[ "${PLAIN:-0}" = 1 ] && options+=(--plain)
program=("$peer/peft_train.py")
[ "${FULL:-0}" = 1 ] && program=(benches/peer_full.py "$peer/peft_train.py")

# timed NAME COMMAND...: runs it with its output in NAME.out and NAME.log and its peak memory in NAME.kib.
timed() {
  local name=$1
  shift
  /usr/bin/time -f %M -o "$work/$name.kib" "${pin[@]}" "$@" >"$work/$name.out" 2>"$work/$name.log" ||
    { tail -n 30 "$work/$name.log" >&2; echo "$name failed" >&2; exit 1; }
}
for round in $(seq "$rounds"); do
  rm -rf "$work/run"
  timed "ours-$round" "$binary" run "$work/recipe.yaml" --set output_dir="$work/run"
  cp "$work/run/metrics.jsonl" "$work/ours-$round.metrics"
  timed "peer-$round" "$python" "${program[@]}" "${options[@]}"
  echo "round $round of $rounds done" >&2
done

echo "$shape, $trains, weights in $weights, computed in f32, $threads threads, $steps steps of $accumulate x $batch rows, the first $skip not counted; medians of $rounds rounds"
"$python" - "$work" "$rounds" "$skip" <<'PYTHON'
import json, statistics, sys
from pathlib import Path

work, rounds, skip = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def memory(name):
    return int((work / f"{name}.kib").read_text().split()[-1]) / 1024


def ours(at):
    """Tokens per second of the steps after the first `skip`, and every step's loss."""
    lines = map(json.loads, (work / f"ours-{at}.metrics").read_text().splitlines())
    steps = [line for line in lines if "tokens_per_second" in line]
    counted = steps[skip:]
    seconds = sum(step["tokens"] / step["tokens_per_second"] for step in counted)
    return sum(step["tokens"] for step in counted) / seconds, [round(step["loss"], 4) for step in steps]


def peer(at):
    result = json.loads((work / f"peer-{at}.out").read_text().splitlines()[-1])
    return result["tokens_per_second"], [round(loss, 4) for loss in result["losses"]], result["peer"]


speeds, memories, losses, name = {"ours": [], "peer": []}, {"ours": [], "peer": []}, {}, "peer"
for at in range(1, rounds + 1):
    speed, losses["ours"] = ours(at)
    speeds["ours"].append(speed)
    speed, losses["peer"], name = peer(at)
    speeds["peer"].append(speed)
    for side in memories:
        memories[side].append(memory(f"{side}-{at}"))
print(f"{'':8}{'tokens/s':>10}{'(each round)':>30}{'peak MiB':>10}")
for side, label in (("ours", "tune"), ("peer", name)):
    each = " ".join(f"{speed:.1f}" for speed in speeds[side])
    print(f"{label:8}{statistics.median(speeds[side]):10.1f}  {each:>28}{statistics.median(memories[side]):10.0f}")
ratio = statistics.median(speeds["ours"]) / statistics.median(speeds["peer"])
share = statistics.median(memories["ours"]) / statistics.median(memories["peer"])
print(f"tokens/s {ratio:.2f} times the peer's, peak memory {share:.2f} times the peer's")
print("losses, tune: ", *losses["ours"][:4], "...", *losses["ours"][-2:])
print(f"losses, {name}:  ", *losses["peer"][:4], "...", *losses["peer"][-2:])
PYTHON
if [ -n "${PRODUCTS:-}" ]; then
  python3 benches/efficiency.py "$model" "$work/ours-$rounds.metrics" "$PRODUCTS" --rank "$rank" --rows "$batch" --skip "$skip"
fi
