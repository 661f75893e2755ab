#!/bin/bash
# gpu-check.sh BINARY OUT_DIR [TEST_BINARY]: is this GPU usable, right and fast? For a machine with a driver, this
# folder of files, and nothing else (no Rust, no Python). BINARY is a built `tune`; TEST_BINARY the built `it` test.
# Runs: devices found, parity tests on the device, the quickstart, and a timed LoRA run on random weights. Goes on
# after a failure. Full figures go to OUT_DIR, a short table comes last. Exit status 1 when something failed.
#
# Environment: TUNE_DEVICE (cuda), TUNE_SHAPE (135m, 0.6b, 1.7b, 8b: the timed run's model, 0.6b), TUNE_STEPS (20),
# TUNE_TOKENS (1024 in a row), TUNE_ROWS (4 in a micro-batch), TUNE_FIXTURES (tests/fixtures), TUNE_TEST_FULL (1: every case).
set -uo pipefail
usage="usage: gpu-check.sh BINARY OUT_DIR [TEST_BINARY]"
binary=$(realpath "${1:?$usage}")
out=${2:?$usage}
tests=${3:+$(realpath "$3")}
mkdir -p "$out" && out=$(realpath "$out")
cd "$(dirname "$0")/.."

device=${TUNE_DEVICE:-cuda}
shape=${TUNE_SHAPE:-0.6b}
steps=${TUNE_STEPS:-20}
tokens=${TUNE_TOKENS:-1024}
rows=${TUNE_ROWS:-4}
export TUNE_FIXTURES=${TUNE_FIXTURES:-$PWD/tests/fixtures}
chmod +x "$binary" ${tests:+"$tests"} 2>/dev/null

table=()
failed=0
row() { table+=("$(printf '%-12s %-8s %6s s  %s' "$1" "$2" "$3" "$4")"); }

# step NAME COMMAND...: runs it into OUT_DIR/NAME.log; sets `seconds` and `verdict`.
step() {
  local name=$1 begin=$SECONDS
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  "$@" >"$out/$name.log" 2>&1
  local status=$?
  seconds=$((SECONDS - begin))
  tail -n 15 "$out/$name.log"
  verdict=ok
  if [ $status -ne 0 ]; then
    verdict="FAILED"
    failed=1
    echo "exit status $status after $seconds s"
  fi
}

# number FILE NAME: the last value of the number NAME in a file of JSON.
number() { grep -o "\"$2\": *[-0-9.eE+]*" "$1" 2>/dev/null | tail -n 1 | sed 's/.*: *//'; }

# median_speed FILE: the median tokens per second of the steps, the first quarter (warm-up) left out.
median_speed() {
  grep -o '"tokens_per_second": *[0-9.eE+]*' "$1" 2>/dev/null | sed 's/.*: *//' |
    awk '{ v[NR] = $1 } END { for (i = int(NR / 4) + 1; i <= NR; i++) print v[i] }' | sort -g |
    awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'
}

# Samples the device's used memory, in MiB, until killed.
watch_memory() {
  command -v nvidia-smi >/dev/null || return 0
  while sleep 0.5; do nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0; done >"$out/$1-memory.txt" 2>/dev/null
}
# The most of it; without nvidia-smi, what the run itself says it used.
peak_memory() {
  [ -s "$out/$1-memory.txt" ] && { sort -n "$out/$1-memory.txt" | tail -n 1; return; }
  number "$out/$1/summary.json" memory_bytes | awk '{ printf "%d", $1 / 1048576 }'
}

{
  uname -a
  grep -m1 'model name' /proc/cpuinfo
  command -v nvidia-smi >/dev/null && nvidia-smi
} >"$out/machine.txt" 2>&1
cat "$out/machine.txt"

step devices "$binary" devices
row devices "$verdict" "$seconds" "$(grep -ci "$device" "$out/devices.log") line(s) name $device"

if [ -n "$tests" ]; then
  TUNE_TEST_DEVICE=$device step parity "$tests" --nocapture --test-threads 1 parity
  row parity "$verdict" "$seconds" "$(grep -m1 '^test result' "$out/parity.log" | cut -c1-70)"
else
  row parity skipped 0 "no test binary given"
fi

step quickstart "$binary" run recipes/quickstart.yaml --set device="$device" --set output_dir="$out/quickstart"
summary=$out/quickstart/summary.json
row quickstart "$verdict" "$seconds" \
  "exact match $(number "$summary" exact_match_before) -> $(number "$summary" exact_match_after), loss $(number "$summary" loss_before) -> $(number "$summary" loss_after)"

# hidden intermediate layers heads kv_heads head_dim vocab tied: published shapes of the Qwen 3 and Llama architectures
case $shape in
  135m) family=llama; set -- 576 1536 30 9 3 64 49152 true ;;
  0.6b) family=qwen3; set -- 1024 3072 28 16 8 128 151936 true ;;
  1.7b) family=qwen3; set -- 2048 6144 28 16 8 128 151936 true ;;
  8b) family=qwen3; set -- 4096 12288 36 32 8 128 151936 false ;;
  *) echo "TUNE_SHAPE is \`$shape\`; accepted: 135m, 0.6b, 1.7b, 8b"; exit 2 ;;
esac
[ $family = llama ] && architecture=LlamaForCausalLM || architecture=Qwen3ForCausalLM
model=$out/model-$shape
mkdir -p "$model"
cp examples/tiny-base/tokenizer*.json examples/tiny-base/special_tokens_map.json examples/tiny-base/generation_config.json "$model"
cat >"$model/config.json" <<JSON
{"architectures": ["$architecture"], "model_type": "$family", "hidden_size": $1, "intermediate_size": $2,
 "num_hidden_layers": $3, "num_attention_heads": $4, "num_key_value_heads": $5, "head_dim": $6, "vocab_size": $7,
 "tie_word_embeddings": $8, "hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "rms_norm_eps": 1e-6,
 "rope_theta": 1000000, "rope_scaling": null, "max_position_embeddings": 8192, "initializer_range": 0.02,
 "bos_token_id": null, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "bfloat16"}
JSON
[ $family = llama ] || sed -i 's/ "mlp_bias": false,//' "$model/config.json"
# A folder with a configuration alone means random weights; one step of full training writes them out.
cat >"$out/weights.yaml" <<YAML
base_model: $model
adapter:
unfrozen_parameters: [model.norm.weight]
datasets:
  - path: $PWD/datasets/samples/support-tickets.jsonl
    type: chat_template
max_steps: 1
learning_rate: 1e-6
save_strategy: no
device: $device
output_dir: $out/weights
export:
  formats: [merged]
YAML
step weights "$binary" run "$out/weights.yaml"
row weights "$verdict" "$seconds" "random weights of the $shape shape written"
cat >"$out/speed.yaml" <<YAML
# LoRA on random weights of a published shape: for speed and memory, not for what it learns.
base_model: $out/weights/merged
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_modules: all-linear
datasets:
  - path: $PWD/datasets/samples/support-tickets.jsonl
    type: chat_template
chat_template: tokenizer_default
sequence_len: $tokens
sample_packing: true
micro_batch_size: $rows
gradient_accumulation_steps: 1
num_epochs: 100
max_steps: $steps
learning_rate: 1e-4
lr_scheduler: constant
gradient_checkpointing: true
bf16: auto
logging_steps: 1
seed: 7
device: $device
output_dir: $out/speed
export:
  formats: [adapter]
YAML
watch_memory speed &
watcher=$!
step speed "$binary" run "$out/speed.yaml"
kill $watcher 2>/dev/null
wait $watcher 2>/dev/null
speed=$(median_speed "$out/speed/metrics.jsonl")
row "lora $shape" "$verdict" "$seconds" \
  "${speed:-?} tokens/s median of $steps steps of $rows x $tokens tokens, peak $(peak_memory speed) MiB"
rm -rf "$model" "$out/weights"

{
  printf '\n%s, %s\n' "$(command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1 || uname -m)" "$device"
  printf '%s\n' "${table[@]}"
} | tee "$out/table.txt"
exit $failed
