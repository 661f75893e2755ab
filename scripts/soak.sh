#!/bin/bash
# soak.sh [KILLS]: kills a run with SIGKILL at random moments (while it loads, tokenises, steps, evaluates, saves, exports),
# resumes it until it is done, now and then killed again, and compares every byte that it wrote with those of a run
# without a kill; as often as KILLS says (200).
#
# Environment: BINARY (built here by default), SEED of the moments (random by default; printed, so that it can be repeated).
set -euo pipefail
cd "$(dirname "$0")/.."
kills=${1:-200}
RANDOM=${SEED:=$((10#$(date +%N) % 32768))}
if [ -z "${BINARY:-}" ]; then
  cargo build --release
  BINARY=${CARGO_TARGET_DIR:-target}/release/tune
fi
binary=$(realpath "$BINARY")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work/tmp HF_HUB_OFFLINE=1
mkdir "$TMPDIR"
head -40 datasets/samples/support-tickets.jsonl >"$work/rows.jsonl"
cat >"$work/recipe.yaml" <<YAML
base_model: $PWD/tests/fixtures/models/qwen3
adapter: lora
lora_r: 8
lora_alpha: 16
lora_dropout: 0.1
lora_target_linear: true
datasets:
  - path: rows.jsonl
    type: chat_template
dataset_prepared_path: prepared
val_set_size: 4
sequence_len: 512
sample_packing: true
micro_batch_size: 1
gradient_accumulation_steps: 2
num_epochs: 3
optimizer: adamw_bnb_8bit
learning_rate: 1e-2
eval_steps: 2
save_steps: 2
save_total_limit: 2
output_dir: out
device: cpu
export:
  formats: [adapter, merged]
YAML
cd "$work"

# What a run leaves, as hashes: its exports, the tensors of its last checkpoint, its figures without those of the clock.
digest() {
  (cd "$1" && sha256sum adapter/*.safetensors adapter/*.json merged/* checkpoint-*/*.safetensors)
  sed -E 's/"(seconds|seconds_before_training|tokens_per_second|memory_bytes)":[^,}]*//g' "$1/metrics.jsonl" | sha256sum
  grep -vE '"(seconds|seconds_before_training|tokens_per_second|memory_bytes)"' "$1/summary.json" | sha256sum
}
fail() { echo "FAILED after $killed kills (SEED=$SEED): $1" >&2; tail -20 log >&2; exit 1; }

begin=$(date +%s%N)
"$binary" run recipe.yaml 2>log || fail "the run without a kill"
span=$((($(date +%s%N) - begin) / 1000))   # microseconds
digest out >expected
mv out straight
bytes=$(cat straight/adapter/* straight/merged/* straight/checkpoint-*/*.safetensors | wc -c)

killed=0 resumed=0 compared=0 finished=0
declare -A moments
while [ "$killed" -lt "$kills" ]; do
  rm -rf out
  # Every third run tokenises again.
  [ $((finished % 3)) -eq 0 ] && rm -rf prepared
  more=1
  while :; do
    # A folder that holds no run yet begins with one.
    if [ -f out/run.json ]; then command=(resume out); else command=(run recipe.yaml); fi
    [ "${command[0]}" = resume ] && resumed=$((resumed + 1))
    "$binary" "${command[@]}" 2>log &
    process=$!
    if [ "$more" = 1 ] && [ "$killed" -lt "$kills" ]; then
      # 30 random bits, as a moment within the time of the whole run.
      moment=$((((RANDOM << 15) | RANDOM) % span))
      sleep "$(printf '%d.%06d' $((moment / 1000000)) $((moment % 1000000)))"
      if kill -KILL "$process" 2>/dev/null; then
        wait "$process" 2>/dev/null && status=0 || status=$?
        if [ "$status" = 137 ]; then
          killed=$((killed + 1))
          place=$(ls -A out 2>/dev/null | grep -oE '^\.(checkpoint|adapter|merged)' | head -1 || true)
          place=${place:-$([ -f out/metrics.jsonl ] && echo training || echo preparing)}
          moments[$place]=$((${moments[$place]:-0} + 1))
          more=$((RANDOM % 2))
          continue
        fi
        [ "$status" = 0 ] || fail "exit code $status"
        break
      fi
    fi
    wait "$process" || fail "exit code $?"
    break
  done
  finished=$((finished + 1))
  digest out >found
  cmp -s expected found || { diff expected found >&2 || true; fail "other bytes"; }
  compared=$((compared + bytes))
  left=$(find out prepared tmp -name '.*' -o -name '*.part*' -o -path 'tmp/*')
  [ -z "$left" ] || fail "temporary files are left: $left"
  grep -q 'is damaged' log && fail "a checkpoint was damaged"
done
where=$(for place in "${!moments[@]}"; do echo "${moments[$place]} ${place#.}"; done | sort -rn | paste -sd, | sed 's/,/, /g')
echo "$killed kills ($where), resumed $resumed times, $finished runs finished, $compared bytes compared, 0 differ (SEED=$SEED)"
