#!/bin/bash
# checkpoint.sh: what saving costs a LoRA run on the smollm2-135m shape on the CPU, and how long it takes from a signal to a
# valid checkpoint. The same steps are run with a checkpoint after each and with none, in turn; the difference is what
# checkpoints cost, the work of their own thread included. By default a run saves once an epoch; one of GSM8K is counted.
# Model and rows are those of benches/peer.sh, whose environment names them too.
#
# Environment: BINARY (built here by default), ROUNDS (3), STEPS (10), SIGNALS (5), TUNE_PEER, DATA, TUNE_PEER_CACHE.
set -euo pipefail
cd "$(dirname "$0")/.."
peer=$(realpath "${TUNE_PEER:-../shared/peer}")
data=$(realpath "${DATA:-$peer/../data/gsm8k-train.jsonl}")
model=${TUNE_PEER_CACHE:-$HOME/.cache/tune-peer}/models/smollm2-135m-bfloat16
rounds=${ROUNDS:-3} steps=${STEPS:-10} signals=${SIGNALS:-5}
if [ -z "${BINARY:-}" ]; then
  cargo build --release
  BINARY=${CARGO_TARGET_DIR:-target}/release/tune
fi
binary=$(realpath "$BINARY")
[ -f "$model/config.json" ] || { echo "no $model: benches/peer.sh makes it" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 - "$data" "$work/rows.jsonl" $((steps * 4)) <<'PYTHON'
import json, sys
rows = open(sys.argv[1]).read().splitlines()
with open(sys.argv[2], "w") as out:
    for row in map(json.loads, rows[: int(sys.argv[3])]):
        messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        out.write(json.dumps({"messages": messages}) + "\n")
PYTHON
cat >"$work/recipe.yaml" <<YAML
base_model: $model
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
datasets:
  - path: $work/rows.jsonl
    type: chat_template
sequence_len: 512
excess_length_strategy: truncate
micro_batch_size: 4
num_epochs: 1
max_steps: $steps
learning_rate: 2e-4
lr_scheduler: constant
device: cpu
YAML

# Seconds of a run from beginning to end.
timed() {
  rm -rf "$work/run"
  local begin end
  begin=$(date +%s.%N)
  "$binary" run "$work/recipe.yaml" --set output_dir="$work/run" "$@" 2>"$work/log" || { tail "$work/log" >&2; exit 1; }
  end=$(date +%s.%N)
  python3 -c "print($end - $begin)"
}
for _ in $(seq "$rounds"); do
  timed --set save_strategy=no >>"$work/without"
  timed --set save_steps=1 >>"$work/with"
done
size=$(du -sm "$work/run/checkpoint-$steps" | cut -f1)
step=$(python3 -c "
import json
seconds = [line['seconds'] for line in map(json.loads, open('$work/run/metrics.jsonl')) if 'seconds' in line]
print(sorted(seconds)[len(seconds) // 2])")

for _ in $(seq "$signals"); do
  rm -rf "$work/run"
  "$binary" run "$work/recipe.yaml" --set output_dir="$work/run" --set save_steps=1000 2>"$work/log" &
  process=$!
  until [ -s "$work/run/metrics.jsonl" ]; do sleep 0.05; done
  # Anywhere within a step.
  sleep "$(python3 -c "import random; print(random.random() * $step)")"
  begin=$(date +%s.%N)
  kill -TERM "$process"
  wait "$process" && code=0 || code=$?
  [ "$code" = 130 ] && ls "$work"/run/checkpoint-*/manifest.json >/dev/null || { cat "$work/log" >&2; exit 1; }
  python3 -c "import time; print(time.time() - $begin)" >>"$work/signals"
done

echo "$(lscpu | sed -n 's/^Model name: *//p' | head -1), $(nproc) cores; smollm2-135m, LoRA r 16, steps of 4 rows; $rounds rounds of $steps steps"
python3 - "$work" "$steps" "$step" "$(wc -l <"$data")" "$size" <<'PYTHON'
import statistics, sys
from pathlib import Path

work, steps, step, rows, size = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
read = lambda name: [float(line) for line in (work / name).read_text().split()]
without, saved, signals = read("without"), read("with"), read("signals")
cost = (statistics.median(saved) - statistics.median(without)) / steps
epoch = step * rows / 4
each = lambda values: " ".join(f"{value:.2f}" for value in values)
print(f"run without checkpoints {statistics.median(without):.2f} s ({each(without)}), with one after each step {statistics.median(saved):.2f} s ({each(saved)})")
print(f"a checkpoint ({size} MiB) costs {cost:.3f} s, {100 * cost / step:.1f} % of a step of {step:.2f} s")
print(f"by default, once an epoch ({rows} rows, {epoch:.0f} s): {100 * max(cost, 0) / epoch:.4f} % of the training time")
print(f"from a signal to the end of the process, its checkpoint valid: at most {max(signals):.2f} s ({each(signals)})")
PYTHON
