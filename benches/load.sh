#!/bin/bash
# load.sh: how much memory does loading take beyond the model? Writes a bf16 checkpoint of 3 GB in four shards, loads it
# on the CPU (where 16-bit weights stay as they are) to generate one token, and prints the peak resident memory beside the model's own size.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tune=${CARGO_TARGET_DIR:-$root/target}/release/tune
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$root"/examples/tiny-base/tokenizer*.json "$work"
python3 - "$work" "$tune" <<'PY'
import json, os, random, resource, struct, subprocess, sys

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
subprocess.run([tune, "generate", folder, "--prompt", "hello", "--max-tokens", "1", "--device", "cpu"],
               check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
mib = lambda size: size / (1 << 20)
model, largest = 2 * total, 2 * largest
print(f"checkpoint {model / 1e9:.2f} GB in {shards} shards; model {mib(model):.0f} MiB, largest tensor {mib(largest):.0f} MiB")
print(f"peak resident memory {mib(peak):.0f} MiB: {mib(peak - model):.0f} MiB beyond the model, the program itself among them")
PY
