#!/bin/bash
# gpu-host.sh BINARY [SHAPE [TOKENS [KEY: VALUE]...]]: what a training step costs the host of an NVIDIA GPU, measured without
# one: cuda-stand-in.c in the driver's place keeps memory and runs nothing. LoRA r16 on all linear maps of a model of zeros
# of SHAPE (llama3-8b; also qwen3-8b, llama3-70b, and with `:LAYERS` fewer layers), rows of TOKENS (4096), and what else the
# recipe is to say. BINARY is built with `--features cuda`. Prints launches and the median seconds of a step, which a GPU's
# own time should exceed, kernels that were compiled and how long the first step took, and the device memory that was asked
# for; with PTXAS (NVIDIA's assembler) also what it says of every kernel for an H200. PTX names a folder to keep kernels in.
#
# Calls go through two threads beside the program's own, and all three wait by spinning: on few cores they wait for each other
# and not for work. So the one that fuses operations, which does most, has a core of its own here, and the last one goes
# before the first, for which root is needed. Needs libdevice, from CUDA_PATH or PyTorch's triton (TUNE_PYTHON3); HF_HOME keeps kernels.
set -euo pipefail
usage="usage: gpu-host.sh BINARY [SHAPE [TOKENS [KEY: VALUE]...]]"
binary=$(realpath "${1:?$usage}") shape=${2:-llama3-8b} tokens=${3:-4096}
shift $(($# < 3 ? $# : 3))
root=$(cd "$(dirname "$0")/.." && pwd)
python=${TUNE_PYTHON3:-python3} steps=${STEPS:-16}
work=$(mktemp -d) process=
trap '[ -z "$process" ] || kill -9 "$process" 2>/dev/null; rm -rf "$work"' EXIT
ptx=${PTX:-$work/ptx}
mkdir -p "$work/driver" "$ptx"
cc -O2 -shared -fPIC -o "$work/driver/libcuda.so.1" "$root/benches/cuda-stand-in.c"
ln -s libcuda.so.1 "$work/driver/libcuda.so"

if [ -z "${CUDA_PATH:-}" ]; then
  triton=$("$python" -c 'import triton, os; print(os.path.dirname(triton.__file__))')/backends/nvidia
  mkdir -p "$work/cuda/nvvm/libdevice"
  ln -s "$triton/lib/libdevice.10.bc" "$work/cuda/nvvm/libdevice"
  export CUDA_PATH=$work/cuda
fi

cp "$root"/examples/tiny-base/{tokenizer,tokenizer_config,special_tokens_map,generation_config}.json "$work"
python3 - "$work" "$shape" "$tokens" "$root/datasets/samples/support-tickets.jsonl" <<'PY'
import json, struct, sys
folder, shape, tokens, samples = sys.argv[1], *sys.argv[2:]
name, _, fewer = shape.partition(":")
family, hidden, intermediate, layers, heads, kv_heads, vocab = {
    "llama3-8b": ("Llama", 4096, 14336, 32, 32, 8, 128256), "qwen3-8b": ("Qwen3", 4096, 12288, 36, 32, 8, 151936),
    "llama3-70b": ("Llama", 8192, 28672, 80, 64, 8, 128256)}[name]
layers, dim = int(fewer or layers), 128
shapes = {"model.embed_tokens.weight": [vocab, hidden], "lm_head.weight": [vocab, hidden], "model.norm.weight": [hidden]}
for layer in range(layers):
    path = f"model.layers.{layer}."
    shapes |= {f"{path}{name}_layernorm.weight": [hidden] for name in ("input", "post_attention")}
    shapes |= {f"{path}self_attn.{name}_proj.weight": [width * dim, hidden]
               for name, width in (("q", heads), ("k", kv_heads), ("v", kv_heads))}
    shapes[f"{path}self_attn.o_proj.weight"] = [hidden, heads * dim]
    shapes |= {f"{path}mlp.{name}_proj.weight": [intermediate, hidden] for name in ("gate", "up")}
    shapes[f"{path}mlp.down_proj.weight"] = [hidden, intermediate]
    if family == "Qwen3":
        shapes |= {f"{path}self_attn.{name}_norm.weight": [dim] for name in "qk"}
header, end = {}, 0
for tensor, sizes in shapes.items():
    size = 2 * sizes[0] * (sizes[1] if len(sizes) > 1 else 1)
    header[tensor] = {"dtype": "BF16", "shape": sizes, "data_offsets": [end, end + size]}
    end += size
header = json.dumps(header).encode()
with open(f"{folder}/model.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(header)) + header)
    file.truncate(8 + len(header) + end)  # zeros that take no place
config = {"architectures": [f"{family}ForCausalLM"], "model_type": family.lower(), "hidden_size": hidden, "head_dim": dim,
          "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
          "num_key_value_heads": kv_heads, "vocab_size": vocab, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
          "rope_scaling": None, "max_position_embeddings": 8192, "hidden_act": "silu", "tie_word_embeddings": False,
          "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16", "bos_token_id": None, "eos_token_id": 2,
          "pad_token_id": 0}
json.dump(config, open(f"{folder}/config.json", "w"))
text = " ".join(" ".join(turn["content"] for turn in json.loads(line)["messages"]) for line in open(samples))
text *= 1 + 9 * int(tokens) // len(text)
with open(f"{folder}/rows.jsonl", "w") as rows:
    for row in range(8):
        turns = [("user", f"Report {row}"), ("assistant", text[row:row + 8 * int(tokens)])]
        print(json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]}), file=rows)
PY
cat >"$work/recipe.yaml" <<YAML
base_model: $work
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
datasets:
  - path: $work/rows.jsonl
    type: chat_template
chat_template: chatml
sequence_len: $tokens
excess_length_strategy: truncate
sample_packing: true
micro_batch_size: 1
gradient_accumulation_steps: 1
num_epochs: 100
max_steps: 1000
learning_rate: 1e-4
gradient_checkpointing: false
save_strategy: "no"
eval_strategy: "no"
logging_steps: 1
seed: 7
device: cuda
output_dir: $work/out
export:
  formats: [adapter]
YAML
for line in "$@"; do
  sed -i "/^${line%%:*}:/d" "$work/recipe.yaml"
  echo "$line" >>"$work/recipe.yaml"
done

export LD_LIBRARY_PATH=$work/driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} STAND_IN_LOG=$work/driver.log STAND_IN_PTX=$ptx
export HF_HOME=${HF_HOME:-$work/hf} HF_HUB_OFFLINE=1
"$binary" run "$work/recipe.yaml" >"$work/run.log" 2>&1 &
process=$!
done_steps() { grep -c '"seconds"' "$work/out/metrics.jsonl" 2>/dev/null || true; }
wait_for() {
  while [ "$(done_steps)" -lt "$1" ] 2>/dev/null || [ -z "$(done_steps)" ]; do
    kill -0 $process 2>/dev/null || { tail -n 5 "$work/run.log" >&2; exit 1; }
    sleep 0.2
  done
}
wait_for 2
for thread in /proc/$process/task/*; do
  case $(cat "$thread/comm") in
    DSU*) taskset -pc 0 "${thread##*/}" ;;
    DSD*) taskset -pc 1-"$(($(nproc) - 1))" "${thread##*/}" && renice -n -15 -p "${thread##*/}" ;;
    *) taskset -pc 1-"$(($(nproc) - 1))" "${thread##*/}" && renice -n 15 -p "${thread##*/}" ;;
  esac
done >/dev/null
first=$(($(done_steps) + 1))
wait_for $((first + steps))
kill $process
wait $process || true
process=

echo "$shape, rows of $tokens${*:+, }$*; $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
grep -o '"seconds": *[0-9.e-]*' "$work/out/metrics.jsonl" | sed 's/.*: *//' | tail -n +$((first + 1)) | sort -g |
  awk '{ v[NR] = $1 } END { printf "seconds a step on the host: %.3f, the median of %d; least %.3f\n", v[int((NR + 1) / 2)], NR, v[1] }'
grep -m1 -o '"seconds": *[0-9.e-]*' "$work/out/metrics.jsonl" | sed 's/.*: */seconds of the first step: /'
# Each step reads losses and the norm of the gradients once.
awk '/^read/ && $5 != before { times[++n] = $5 - before; before = $5 } END {
  for (i = 1; i <= n; i++) seen[times[i]]++
  for (t in seen) if (seen[t] > most) { most = seen[t]; best = t }
  print "launches a step: " best }' "$work/driver.log"
sed -n 's/^memory  *//p' "$work/out/plan.txt" | cut -d: -f1 | sed 's/^/planned: /'
tail -n 1 "$work/driver.log" | sed 's/.* launches, \(.*\) kernels, at most \(.*\) bytes/\1 \2/' |
  awk '{ printf "kernels loaded: %d; device memory: at most %.2f GiB\n", $1, $2 / 2 ^ 30 }'
grep refused "$work/driver.log" && exit 1
if [ -n "${PTXAS:-}" ]; then
  for kernel in "$ptx"/*.ptx; do
    grep -m1 -o 'entry [A-Za-z]*[a-z_]*' "$kernel"
    "$PTXAS" -arch=sm_90a -v "$kernel" -o /dev/null 2>&1 || echo refused
  done | awk '/^entry/ { name = $2; n++ } /^refused/ { refused[name]++ }
    / bytes spill stores/ && !/ 0 bytes spill stores/ { spilled[name]++ }
    { for (i = 1; i < NF; i++) if ($i == "Used" && $(i + 1) > most) most = $(i + 1) }
    END { print "assembled: " n ", registers at most " most
      for (name in spilled) print "with spills: " spilled[name] " of " name
      for (name in refused) print "refused: " refused[name] " of " name }'
fi
