#!/bin/bash
# experts.sh [ROUNDS]: does a training step cost what its active parameters cost? LoRA on two models that differ only in
# the number of experts, 8 and 64, two of them for a token, in turn on the CPU; prints the medians and their ratio.
set -euo pipefail
rounds=${1:-3}
root=$(cd "$(dirname "$0")/.." && pwd)
tune=${CARGO_TARGET_DIR:-$root/target}/release/tune
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
few=8 many=64

# A model of random weights: one step from nothing, exported whole.
make_model() {
  local experts=$1 seed_folder=$work/config-$1
  mkdir -p "$seed_folder"
  cp "$root"/examples/tiny-base/tokenizer*.json "$seed_folder"
  cat > "$seed_folder/config.json" <<JSON
{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 512, "num_hidden_layers": 4,
 "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 1024,
 "moe_intermediate_size": 512, "num_experts": $experts, "num_experts_per_tok": 2, "norm_topk_prob": true,
 "vocab_size": 2048, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
 "tie_word_embeddings": false, "hidden_act": "silu", "torch_dtype": "float32", "eos_token_id": 2}
JSON
  recipe "$seed_folder" "adapter:" 1e-6 1 "[merged]" "$work/base-$experts"
  "$tune" run "$work/recipe.yaml" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
}

recipe() {
  cat > "$work/recipe.yaml" <<YAML
base_model: $1
$2
datasets:
  - {path: $root/datasets/samples/support-tickets.jsonl, type: chat_template}
chat_template: tokenizer_default
sequence_len: 1024
sample_packing: true
micro_batch_size: 4
gradient_accumulation_steps: 1
num_epochs: 9
max_steps: $4
learning_rate: $3
eval_strategy: no
save_strategy: no
device: cpu
output_dir: $6
export: {formats: $5}
YAML
}

# Seconds of the middle step of a run.
seconds() {
  local experts=$1
  recipe "$work/base-$experts/merged" "$(printf 'adapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: [q_proj, v_proj]')" \
    1e-4 7 "[adapter]" "$work/run"
  "$tune" run "$work/recipe.yaml" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
  python3 - "$work/run/metrics.jsonl" <<'PY'
import json, statistics, sys
steps = [json.loads(line) for line in open(sys.argv[1])]
print(statistics.median(step["seconds"] for step in steps if "seconds" in step))
PY
  rm -rf "$work/run"
}

for experts in $few $many; do make_model "$experts"; done
for round in $(seq "$rounds"); do
  a=$(seconds "$few") b=$(seconds "$many")
  echo "round $round: $few experts $a s, $many experts $b s"
  echo "$a $b" >> "$work/figures"
done
python3 - "$work/figures" "$few" "$many" <<'PY'
import statistics, sys
rows = [tuple(map(float, line.split())) for line in open(sys.argv[1])]
few, many = (statistics.median(column) for column in zip(*rows))
ratio = statistics.median(b / a for a, b in rows)
print(f"step of 4 x 1024 tokens, 2 experts a token: {sys.argv[2]} experts {few:.3f} s, {sys.argv[3]} experts {many:.3f} s, ratio {ratio:.2f}")
PY
