#!/bin/bash
# load.sh: how much memory does loading take beyond the model? Writes a bf16 checkpoint of 3 GB in four shards and loads
# it on the CPU: as it is (16-bit weights stay so there) to generate one token, and in 4 bits, with LoRA on one projection of
# each layer and one micro-batch of 32 tokens. Prints the peak resident memory beside the model's own size.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tune=${CARGO_TARGET_DIR:-$root/target}/release/tune
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$root"/examples/tiny-base/tokenizer*.json "$work"
python3 - "$work" "$tune" <<'PY'
import json, os, random, struct, subprocess, sys

folder, tune = sys.argv[1:]
hidden, layers, heads, intermediate, vocab, shards = 2048, 28, 16, 5632, 32000, 4
config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
          "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads,
          "intermediate_size": intermediate, "vocab_size": vocab, "max_position_embeddings": 4096,
          "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
          "torch_dtype": "bfloat16", "eos_token_id": 2}
tensors = [("model.embed_tokens.weight", [vocab, hidden])]
for layer in range(layers):
    path = f"model.layers.{layer}"
    tensors += [(f"{path}.self_attn.{name}_proj.weight", [hidden, hidden]) for name in "qkvo"]
    tensors += [(f"{path}.mlp.{name}_proj.weight", [intermediate, hidden]) for name in ("gate", "up")]
    tensors += [(f"{path}.mlp.down_proj.weight", [hidden, intermediate])]
    tensors += [(f"{path}.{name}_layernorm.weight", [hidden]) for name in ("input", "post_attention")]
tensors += [("model.norm.weight", [hidden]), ("lm_head.weight", [vocab, hidden])]
count = lambda shape: shape[0] * (shape[1] if len(shape) > 1 else 1)
random.seed(7)
upper = lambda value: struct.pack("<f", value)[2:]
block = b"".join(upper(random.gauss(0, 0.02)) for _ in range(1 << 20))
weight_map, per_shard = {}, -(-len(tensors) // shards)
for shard in range(shards):
    name, part = f"model-{shard + 1:05}-of-{shards:05}.safetensors", tensors[shard * per_shard:(shard + 1) * per_shard]
    header, end = {}, 0
    for tensor, shape in part:
        header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * count(shape)]}
        end += 2 * count(shape)
        weight_map[tensor] = name
    header = json.dumps(header).encode()
    with open(os.path.join(folder, name), "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        while end > 0:
            file.write(block[:min(end, len(block))])
            end -= len(block)
json.dump(config, open(os.path.join(folder, "config.json"), "w"))
json.dump({"metadata": {}, "weight_map": weight_map}, open(os.path.join(folder, "model.safetensors.index.json"), "w"))
total, largest = sum(count(shape) for _, shape in tensors), max(count(shape) for _, shape in tensors)

def peak(*arguments):
    """Peak resident memory of one run, in bytes."""
    process = subprocess.Popen([tune, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(errors)
    return usage.ru_maxrss * 1024

def report(name, model, found):
    print(f"{name}: model {mib(model):.0f} MiB, peak resident memory {mib(found):.0f} MiB, "
          f"{mib(found - model):.0f} MiB beyond the model, the program itself among them")

mib = lambda size: size / (1 << 20)
print(f"checkpoint {2 * total / 1e9:.2f} GB in {shards} shards, largest tensor {mib(2 * largest):.0f} MiB, "
      f"largest linear map {mib(2 * intermediate * hidden):.0f} MiB")
report("16 bits", 2 * total, peak("generate", folder, "--prompt", "hello", "--max-tokens", "1", "--device", "cpu"))
with open(os.path.join(folder, "rows.jsonl"), "w") as rows:
    print(json.dumps({"text": "the quick brown fox jumps over the lazy dog " * 8}), file=rows)
recipe = os.path.join(folder, "qlora.yaml")
json.dump({"base_model": folder, "adapter": "qlora", "load_in_4bit": True, "lora_r": 1, "lora_alpha": 1,
           "lora_target_modules": ["q_proj"], "datasets": [{"path": os.path.join(folder, "rows.jsonl"),
           "type": "completion", "field": "text"}], "sequence_len": 32, "excess_length_strategy": "truncate",
           "micro_batch_size": 1, "max_steps": 1, "learning_rate": 1e-4, "device": "cpu",
           "output_dir": os.path.join(folder, "run")}, open(recipe, "w"))
linear = sum(count(shape) for name, shape in tensors if name.endswith("_proj.weight"))
packed = linear // 2 + linear // 64 + 4 * (linear // 64 // 256) + 2 * (total - linear)
report("4 bits", packed, peak("check", recipe, "--measure"))
PY
