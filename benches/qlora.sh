#!/bin/bash
# qlora.sh: what a base in 4 bits costs and saves. Writes a bf16 checkpoint of the qwen3-1.7b shape (1.7 billion weights,
# 3.4 GB, random), then on the CPU: loads it in 4 bits to generate one token, and trains LoRA r16 on all linear maps with
# batch 1 and 512 trained tokens, with the base in 4 bits and in 16. Prints peak resident memory and tokens per second.
#
# Environment: BINARY (target/release/tune), STEPS (6), SKIP (2 of these, to warm up), TOKENS (512), LAYERS (28),
# ROUNDS (1; of more, the medians), WORK (a folder to keep the checkpoint in; a temporary one by default).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tune=${BINARY:-${CARGO_TARGET_DIR:-$root/target}/release/tune}
if [ -n "${WORK:-}" ]; then
  mkdir -p "$WORK"
  work=$WORK
else
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
cp "$root"/examples/tiny-base/tokenizer*.json "$work"
python3 - "$work" "$tune" "${STEPS:-6}" "${SKIP:-2}" "${TOKENS:-512}" "${LAYERS:-28}" "${ROUNDS:-1}" <<'PY'
import json, os, random, shutil, statistics, struct, subprocess, sys

folder, tune = sys.argv[1:3]
steps, skip, tokens, layers, rounds = map(int, sys.argv[3:])
hidden, heads, kv_heads, head_dim, intermediate, vocab = 2048, 16, 8, 128, 6144, 151936
config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": hidden,
          "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
          "head_dim": head_dim, "intermediate_size": intermediate, "vocab_size": vocab,
          "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "hidden_act": "silu",
          "tie_word_embeddings": True, "torch_dtype": "bfloat16", "eos_token_id": 2}
tensors = [("model.embed_tokens.weight", [vocab, hidden])]
for layer in range(layers):
    path = f"model.layers.{layer}"
    tensors += [(f"{path}.self_attn.{name}_proj.weight", [size * head_dim, hidden])
                for name, size in (("q", heads), ("k", kv_heads), ("v", kv_heads))]
    tensors += [(f"{path}.self_attn.o_proj.weight", [hidden, heads * head_dim])]
    tensors += [(f"{path}.self_attn.{name}_norm.weight", [head_dim]) for name in "qk"]
    tensors += [(f"{path}.mlp.{name}_proj.weight", [intermediate, hidden]) for name in ("gate", "up")]
    tensors += [(f"{path}.mlp.down_proj.weight", [hidden, intermediate])]
    tensors += [(f"{path}.{name}_layernorm.weight", [hidden]) for name in ("input", "post_attention")]
tensors += [("model.norm.weight", [hidden])]
count = lambda shape: shape[0] * (shape[1] if len(shape) > 1 else 1)
checkpoint = os.path.join(folder, "model.safetensors")
if not os.path.exists(checkpoint):
    random.seed(7)
    block = b"".join(struct.pack("<f", random.gauss(0, 0.02))[2:] for _ in range(1 << 20))
    header, end = {}, 0
    for tensor, shape in tensors:
        header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * count(shape)]}
        end += 2 * count(shape)
    header = json.dumps(header).encode()
    with open(checkpoint, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        while end > 0:
            file.write(block[:min(end, len(block))])
            end -= len(block)
json.dump(config, open(os.path.join(folder, "config.json"), "w"))
words = "the quick brown fox jumps over a lazy dog and then it sleeps in the warm sun until evening".split()
with open(os.path.join(folder, "rows.jsonl"), "w") as rows:
    for row in range(steps):
        print(json.dumps({"text": " ".join(random.choice(words) for _ in range(4 * tokens))}), file=rows)
total, largest = sum(count(shape) for _, shape in tensors), max(count(shape) for _, shape in tensors)
linear = sum(count(shape) for name, shape in tensors if name.endswith("_proj.weight"))
gib, mib = (lambda size: f"{size / (1 << 30):.2f} GiB"), (lambda size: f"{size / (1 << 20):.0f} MiB")
packed = linear // 2 + linear // 64 + 4 * (linear // 64 // 256) + 2 * (total - linear)
print(f"{total / 1e9:.2f} billion weights, {gib(2 * total)} in bf16, {gib(packed)} with linear maps in 4 bits")

def run(recipe, *arguments):
    """Peak memory of one run in bytes."""
    process = subprocess.Popen([tune, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(errors)
    return usage.ru_maxrss * 1024

def train(adapter, train_steps, save=None):
    out = os.path.join(folder, f"run-{adapter}")
    shutil.rmtree(out, ignore_errors=True)
    recipe = {"base_model": folder, "adapter": adapter, "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True,
              "datasets": [{"path": os.path.join(folder, "rows.jsonl"), "type": "completion", "field": "text"}],
              "sequence_len": tokens, "excess_length_strategy": "truncate", "micro_batch_size": 1, "max_steps": train_steps,
              "learning_rate": 1e-4, "gradient_checkpointing": True, "device": "cpu", "output_dir": out,
              "export": {"formats": ["adapter"]}}
    if adapter == "qlora":
        recipe["load_in_4bit"] = True
    path = os.path.join(folder, f"{adapter}.yaml")
    json.dump(recipe, open(path, "w"))
    peak = run(recipe, "run", path)
    lines = [json.loads(line) for line in open(os.path.join(out, "metrics.jsonl"))]
    taken = [line for line in lines if "seconds" in line][skip:]
    return peak, sum(line["tokens"] for line in taken) / sum(line["seconds"] for line in taken)

results = {adapter: [train(adapter, steps) for _ in range(rounds)] for adapter in ("qlora", "lora")}
for adapter, runs in results.items():
    peak, rate = max(run[0] for run in runs), statistics.median(run[1] for run in runs)
    print(f"{adapter:6} peak resident memory {gib(peak)}, {rate:.1f} tokens/s")
ratio = statistics.median(q[1] / l[1] for q, l in zip(results["qlora"], results["lora"]))
print(f"qlora at {ratio:.2f} x the tokens/s of lora")
PY
