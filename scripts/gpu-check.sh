#!/bin/bash
# gpu-check.sh OUT [--only PART,PART...]: is this GPU usable, right and fast? For a machine with a GPU's driver and this
# folder, into which gpu-build.sh has put dist/; Python with torch, transformers and PEFT where there is one.
# Every part has its own time limit, all together have TUNE_TOTAL, and what is done stays done, so that a cut loses
# little: --only runs the parts that are named, and the table shows all that OUT holds. A first run on a shape compiles
# some 350 kernels, which later runs find in OUT. Status 1 when a part failed or could not begin.
#
#   devices         what is found; the rate of large matrix products and of a copy
#   parity-cuda     the parity tests; parity-vulkan the same through Vulkan
#   quickstart      the quickstart on CUDA
#   llama-model     random weights of the llama3-8b shape; qwen-model of qwen3-8b
#   llama           LoRA r16 on all linear maps, bf16, rows of 4096 tokens; qwen the same on the other shape
#   llama-peer      the same rows with transformers and PEFT, a plain torch loop; qwen-peer
#   qlora           the llama3-8b shape in 4 bits, rows of 2048
#   profile         a step of `llama` and one of `qlora`, kernel by kernel
#   vulkan          `llama` through Vulkan: f16 where the device has it, and f32
#   qlora-70b       the llama3-70b shape with random weights in 4 bits, read file by file, rows of 2048
#   families        every model, method and step of the parity tests on CUDA, in f32 and in 16 bits
#   warm            `llama` again: how long the first step takes with what the earlier run left in the kernel cache
#   cpp             `llama` on kernels through CUDA C++, if dist/tune-cpp.tar.xz is there
#
# Environment: TUNE_TOTAL (1470): the seconds that all parts may take together, parts that are left then do not begin;
# TUNE_CUDA (cuda) and TUNE_VULKAN (vulkan) name the two devices; TUNE_SIZES (full) is `tiny` to rehearse on a machine
# without a GPU, TUNE_LIMIT then a limit for every part; TUNE_PYTHON3 (python3).
set -uo pipefail
usage="usage: gpu-check.sh OUT [--only PART,PART...]"
self=$(realpath "$0")
out=${1:?$usage}
mkdir -p "$out" && out=$(realpath "$out")
cd "$(dirname "$self")/.."

parts="devices parity-cuda parity-vulkan quickstart llama-model llama llama-peer qlora profile vulkan qlora-70b \
qwen-model qwen qwen-peer families warm cpp"
cuda=${TUNE_CUDA:-cuda}
vulkan=${TUNE_VULKAN:-vulkan}
python=${TUNE_PYTHON3:-python3}
sizes=${TUNE_SIZES:-full}
work=$out/work
tune=$work/tune
export TUNE_FIXTURES=${TUNE_FIXTURES:-$PWD/tests/fixtures} HF_HOME=$work/hf HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$work}
case $sizes in
  full) llama=llama3-8b qwen=qwen3-8b tokens=4096 short=2048 steps=8 skip=3 square=8192 rows="1 2"
    deep="8192 28672 80 64 8 128 128256" ;;
  tiny) llama=tiny-30m qwen=tiny-30m tokens=64 short=64 steps=3 skip=1 square=256 rows=1
    deep="64 96 3 4 2 16 10000" ;;
  *) echo "TUNE_SIZES is \`$sizes\`; accepted: full, tiny" >&2; exit 2 ;;
esac

# limit PART: the seconds that it may take.
limit() {
  case $1 in
    devices) echo 90 ;; parity-cuda) echo 200 ;; parity-vulkan) echo 150 ;; quickstart) echo 100 ;;
    llama-model) echo 110 ;; llama) echo 260 ;; llama-peer) echo 90 ;; qlora) echo 160 ;; profile) echo 100 ;;
    vulkan) echo 180 ;; families) echo 240 ;; qlora-70b) echo 260 ;; qwen-model) echo 90 ;; qwen) echo 160 ;; qwen-peer) echo 70 ;;
    warm) echo 40 ;; cpp) echo 150 ;; *) return 1 ;;
  esac
}

# record NAME KEY VALUE...: a line of JSON in OUT/results.jsonl; values are texts unless they are numbers.
record() {
  local line="{\"name\": \"$1\"" key value
  shift
  while [ $# -gt 1 ]; do
    key=$1 value=$2
    shift 2
    [[ $value =~ ^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$ ]] || value="\"${value//[\"\\]/ }\""
    line+=", \"$key\": $value"
  done
  echo "$line}" >>"$out/results.jsonl"
}

# What CUDA kernels are made with: of a toolkit, or what PyTorch's packages have of one, gathered in the working folder.
find_toolkit() {
  local root lib
  [ -z "${CUDA_PATH:-}" ] || return 0
  for root in /usr/local/cuda /opt/cuda /usr/lib/cuda /usr; do
    [ -f "$root/nvvm/libdevice/libdevice.10.bc" ] && return 0
  done
  root=$("$python" -c 'import triton, os; print(os.path.dirname(triton.__file__))' 2>/dev/null)/backends/nvidia
  [ -f "$root/lib/libdevice.10.bc" ] || return 0
  mkdir -p "$work/cuda/nvvm/libdevice"
  ln -sfn "$root/include" "$work/cuda/include"
  ln -sf "$root/lib/libdevice.10.bc" "$work/cuda/nvvm/libdevice"
  export CUDA_PATH=$work/cuda
  # The compiler of CUDA C++, for the part cpp.
  for lib in "$root"/../../../nvidia/{cu*,cuda_nvrtc}/lib; do
    [ -d "$lib" ] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(realpath "$lib")
  done
  return 0
}

# unpack ARCHIVE: into the working folder, by Python where there is no xz.
unpack() { tar -C "$work" -xJf "$1" 2>/dev/null || "$python" -m tarfile -e "$1" "$work"; }

# number FILE KEY: the last value of a number in a file of JSON.
number() { grep -o "\"$2\": *[-0-9.eE+]*" "$1" 2>/dev/null | tail -n 1 | sed 's/.*: *//'; }

# speed METRICS: the median tokens per second of the steps but the first ones.
speed() {
  grep -o '"tokens_per_second": *[0-9.eE+]*' "$1" 2>/dev/null | sed 's/.*: *//' | tail -n +$((skip + 1)) | sort -g |
    awk '{ v[NR] = $1 } END { if (NR) printf "%.1f", v[int((NR + 1) / 2)] }'
}

# with_memory NAME COMMAND...: runs it; the most memory of the GPU that was in use meanwhile, in MiB, in NAME-memory.txt.
with_memory() {
  local name=$1 watcher=
  shift
  if command -v nvidia-smi >/dev/null; then
    (while sleep 0.3; do nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0; done) \
      >"$out/$name-memory.txt" 2>/dev/null &
    watcher=$!
  fi
  "$@"
  local status=$?
  [ -z "$watcher" ] || { kill "$watcher"; wait "$watcher"; } 2>/dev/null
  return $status
}
most_memory() { sort -n "$out/$1-memory.txt" 2>/dev/null | tail -n 1; }

# Rows that fill $tokens, in the form that both programs read.
make_rows() {
  [ -f "$work/rows.jsonl" ] || "$python" - datasets/samples/support-tickets.jsonl "$work/rows.jsonl" "$tokens" <<'PY'
import json, sys
text = " ".join(" ".join(m["content"] for m in json.loads(line)["messages"]) for line in open(sys.argv[1]))
length = 8 * int(sys.argv[3])
with open(sys.argv[2], "w") as rows:
    for row in range(64):
        start = (row * 7919) % max(len(text) - 1000, 1)
        answer = (text[start:] + text * (length // len(text) + 1))[:length]
        question = f"Report {row}"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        print(json.dumps({"question": question, "answer": answer, "messages": messages}), file=rows)
PY
}

# recipe FILE MODEL DEVICE TOKENS ROWS STEPS KEY: VALUE...: LoRA r16 on all linear maps, for speed and memory alone.
recipe() {
  local file=$1 model=$2 device=$3 width=$4 micro=$5 count=$6
  shift 6
  cat >"$file" <<YAML
base_model: $model
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
datasets:
  - path: $work/rows.jsonl
    type: chat_template
chat_template: chatml
sequence_len: $width
excess_length_strategy: truncate
sample_packing: true
micro_batch_size: $micro
gradient_accumulation_steps: 1
num_epochs: 100
max_steps: $count
learning_rate: 1e-4
lr_scheduler: constant
gradient_checkpointing: false
save_strategy: "no"
eval_strategy: "no"
logging_steps: 1
seed: 7
device: $device
output_dir: ${file%.yaml}
export:
  formats: [adapter]
YAML
  local line
  for line in "$@"; do
    sed -i "/^${line%%:*}:/d" "$file"
    echo "$line" >>"$file"
  done
}

# train NAME BINARY MODEL DEVICE TOKENS ROWS STEPS KEY: VALUE...: a run, and its figures recorded.
train() {
  local name=$1 binary=$2
  shift 2
  make_rows || return 1
  rm -rf "${work:?}/$name"
  recipe "$work/$name.yaml" "$@"
  with_memory "$name" "$binary" run "$work/$name.yaml" >"$out/$name.log" 2>&1 || { tail -n 5 "$out/$name.log"; return 1; }
  local run=$work/$name
  cp "$run/metrics.jsonl" "$out/$name-metrics.jsonl"
  cp "$run/summary.json" "$out/$name-summary.json"
  record "$name" device "$2" tokens "$3" rows "$4" tokens_per_second "$(speed "$run/metrics.jsonl")" \
    pool_mib "$(number "$run/summary.json" memory_bytes | awk '{ printf "%d", $1 / 1048576 }')" \
    gpu_mib "$(most_memory "$name")" seconds_before_training "$(number "$run/summary.json" seconds_before_training)" \
    first_step_seconds "$(grep -m1 -o '"seconds": *[0-9.eE+]*' "$run/metrics.jsonl" | sed 's/.*: *//')" \
    planned "$(sed -n 's/^memory  *//p' "$run/plan.txt" | cut -c1-60)" \
    type "$(sed -n 's/^device  *//p' "$run/plan.txt")"
}

# make_model SHAPE: its folder in work, by the peer's script, on the GPU if torch sees one.
make_model() {
  "$python" - dist/peer/make_model.py --shape "$1" --out "$work/$1" --text datasets/samples/support-tickets.jsonl <<'PY'
import runpy, sys
import torch
if torch.cuda.is_available():
    torch.set_default_device("cuda")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
PY
}

# make_deep HIDDEN INTERMEDIATE LAYERS HEADS KV_HEADS HEAD_DIM VOCAB: a checkpoint of random 4-bit codes of that llama
# shape, as bitsandbytes stores them, a file for each layer; embedding and head in bf16.
make_deep() {
  rm -rf "$work/deep" && mkdir -p "$work/deep"
  cp examples/tiny-base/{tokenizer,tokenizer_config,special_tokens_map,generation_config}.json "$work/deep"
  "$python" - "$work/deep" "$TUNE_FIXTURES/nf4/tables.safetensors" "$@" <<'PY'
import json, os, struct, sys
folder, tables = sys.argv[1:3]
hidden, intermediate, layers, heads, kv_heads, head_dim, vocab = map(int, sys.argv[3:])
tables = open(tables, "rb").read()
begin = 8 + struct.unpack("<Q", tables[:8])[0]
dynamic, book = tables[begin:begin + 1024], tables[begin + 1024:begin + 1088]
noise = os.urandom(1 << 26)
weights = struct.pack("<f", 0.01)[2:], struct.pack("<f", -0.02)[2:], struct.pack("<f", 0.03)[2:], struct.pack("<f", -0.005)[2:]
half = b"".join(weights[byte & 3] for byte in noise[:1 << 20])
index = {}

def write(name, tensors):
    """A file of (name, dtype, shape, size in bytes, content that is repeated)."""
    header, end = {}, 0
    for tensor, dtype, shape, size, _ in tensors:
        header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
        index[tensor] = name
    header = json.dumps(header).encode()
    with open(os.path.join(folder, name), "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _, _, _, size, content in tensors:
            while size > 0:
                file.write(memoryview(content)[:min(size, len(content))])
                size -= len(content)

def plain(name, shape, content=half):
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    return [(name, "BF16", shape, 2 * count, content)]

def packed(name, out, inputs):
    count = out * inputs
    blocks = -(-count // 64)
    nested = -(-blocks // 256)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [out, inputs], "nested_blocksize": 256,
             "nested_dtype": "float32", "nested_offset": 0.05}
    state = json.dumps(state).encode()
    return [(name, "U8", [count // 2, 1], count // 2, noise), (name + ".absmax", "U8", [blocks], blocks, noise),
            (name + ".quant_map", "F32", [16], 64, book), (name + ".nested_quant_map", "F32", [256], 1024, dynamic),
            (name + ".nested_absmax", "F32", [nested], 4 * nested, struct.pack("<f", 0.01)),
            (name + ".quant_state.bitsandbytes__nf4", "U8", [len(state)], len(state), state)]

one = struct.pack("<f", 1.0)[2:]
write("ends.safetensors", plain("model.embed_tokens.weight", [vocab, hidden]) + plain("lm_head.weight", [vocab, hidden])
      + plain("model.norm.weight", [hidden], one))
for layer in range(layers):
    path = f"model.layers.{layer}."
    tensors = []
    for name, out, inputs in (("self_attn.q_proj", heads * head_dim, hidden), ("self_attn.k_proj", kv_heads * head_dim, hidden),
                              ("self_attn.v_proj", kv_heads * head_dim, hidden), ("self_attn.o_proj", hidden, heads * head_dim),
                              ("mlp.gate_proj", intermediate, hidden), ("mlp.up_proj", intermediate, hidden),
                              ("mlp.down_proj", hidden, intermediate)):
        tensors += packed(f"{path}{name}.weight", out, inputs)
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors += plain(f"{path}{name}.weight", [hidden], one)
    write(f"layer-{layer}.safetensors", tensors)
json.dump({"metadata": {}, "weight_map": index}, open(os.path.join(folder, "model.safetensors.index.json"), "w"))
config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
          "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
          "num_key_value_heads": kv_heads, "head_dim": head_dim, "vocab_size": vocab, "tie_word_embeddings": False,
          "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "rms_norm_eps": 1e-5, "rope_theta": 500000,
          "rope_scaling": None, "max_position_embeddings": 8192, "initializer_range": 0.02, "bos_token_id": None,
          "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "bfloat16",
          "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                  "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16"}}
json.dump(config, open(os.path.join(folder, "config.json"), "w"))
PY
}

# peer NAME SHAPE: the same rows, steps and adapter with transformers and PEFT, for each number of rows.
peer() {
  local micro device=cpu type=float32 status=0
  "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' && device=cuda type=bfloat16
  make_rows || return 1
  for micro in $rows; do
    "$python" dist/peer/peft_train.py --plain --device $device --dtype $type --model "$work/$2" \
      --data "$work/rows.jsonl" --rows 64 --epochs 100 --steps "$steps" --skip "$skip" --batch "$micro" --max-tokens "$tokens" \
      --rank 16 --alpha 32 --lr 1e-4 >"$out/$1-$micro.json" 2>"$out/$1-$micro.log" || { tail -n 3 "$out/$1-$micro.log"; status=1; continue; }
    record "$1-$micro" device $device tokens "$tokens" rows "$micro" type $type \
      tokens_per_second "$(number "$out/$1-$micro.json" tokens_per_second)" \
      pool_mib "$(number "$out/$1-$micro.json" peak_device_mib)"
  done
  return $status
}

parity() {
  TUNE_TEST_DEVICE=$1 "$work/it" --nocapture --test-threads 1 parity >"$out/parity-$2.log" 2>&1
  local status=$?
  record "parity-$2" device "$1" result "$(sed -n 's/^test result: \(.*failed\).*/\1/p' "$out/parity-$2.log")"
  grep '^test result\|panicked\|is off by\|was not found' "$out/parity-$2.log" | head -n 12
  return $status
}

each() { # each NAME BINARY MODEL DEVICE KEY: VALUE...: `train` for each number of rows.
  local name=$1 binary=$2 model=$3 device=$4 micro status=0
  shift 4
  for micro in $rows; do
    train "$name-$micro" "$binary" "$model" "$device" "$tokens" "$micro" "$steps" "$@" || status=1
  done
  return $status
}

four_bits=("adapter: qlora" "load_in_4bit: true" "gradient_checkpointing: true")
run_part() {
  case $1 in
    devices)
      "$tune" devices 2>&1 | tee "$out/devices.log"
      local status=0
      for device in "$cuda" "$vulkan"; do
        "$tune" devices --measure "$device" --size $square 2>&1 | tee -a "$out/devices.log"
        [ "${PIPESTATUS[0]}" = 0 ] || status=1
      done
      while read -r device type _ _ _ _ rate _; do
        record "ceiling-$device-$type" tflops "$rate"
      done < <(grep ' product of ' "$out/devices.log")
      while read -r device _ rate; do
        record "ceiling-$device-copy" gb_per_s "$rate"
      done < <(sed -n 's/^\([^ ]*\) *copy of .*[^0-9.]\([0-9.]*\) GB\/s.*/\1 copy \2/p' "$out/devices.log")
      return $status ;;
    parity-cuda) parity "$cuda" cuda ;;
    parity-vulkan) parity "$vulkan" vulkan ;;
    families) TUNE_TEST_FULL=1 parity "$cuda" families ;;
    quickstart)
      rm -rf "$work/quickstart"
      "$tune" run recipes/quickstart.yaml --set device="$cuda" --set output_dir="$work/quickstart" \
        ${TINY_STEPS:+--set max_steps=$TINY_STEPS} >"$out/quickstart.log" 2>&1 || { tail -n 5 "$out/quickstart.log"; return 1; }
      local summary=$work/quickstart/summary.json
      cp "$summary" "$out/quickstart-summary.json"
      record quickstart device "$cuda" exact_match "$(number "$summary" exact_match_after)" \
        loss_before "$(number "$summary" loss_before)" loss_after "$(number "$summary" loss_after)" \
        tokens_per_second "$(number "$summary" tokens_per_second | cut -c1-8)" ;;
    llama-model) make_model "$llama" ;;
    qwen-model) make_model "$qwen" ;;
    llama) each llama "$tune" "$work/$llama" "$cuda" ;;
    qwen) each qwen "$tune" "$work/$qwen" "$cuda" ;;
    llama-peer) peer llama-peer "$llama" ;;
    qwen-peer) peer qwen-peer "$qwen" ;;
    qlora) train qlora "$tune" "$work/$llama" "$cuda" $short 1 "$steps" "${four_bits[@]}" ;;
    profile)
      make_rows || return 1
      recipe "$work/profile-lora.yaml" "$work/$llama" "$cuda" "$tokens" 1 "$steps"
      recipe "$work/profile-qlora.yaml" "$work/$llama" "$cuda" $short 1 "$steps" "${four_bits[@]}"
      local name status=0
      for name in lora qlora; do
        "$tune" check "$work/profile-$name.yaml" --measure >"$out/profile-$name.txt" 2>"$out/profile-$name.log" ||
          { tail -n 3 "$out/profile-$name.log"; status=1; }
        sed -n '/^time /,$p' "$out/profile-$name.txt"
        # Lines of parts: name, milliseconds, `ms`, share.
        while read -r part milliseconds share; do
          record "profile-$name-$part" ms "$milliseconds" percent "$share"
        done < <(sed -n 's/^\(products\|attention\|loss\|unpacking\|optimizer\|sums\|elementwise\|idle gaps\) *\([0-9.]*\) ms *\([0-9.]*\) %.*/\1 \2 \3/p' \
          "$out/profile-$name.txt" | sed 's/idle gaps/idle/')
      done
      return $status ;;
    vulkan)
      local status=0
      # A device without f16, or with one that is wrong, refuses it in its plan.
      train vulkan-f16 "$tune" "$work/$llama" "$vulkan" "$tokens" 1 "$steps" "fp16: true" ||
        grep -q 'fp16: true. is ' "$out/vulkan-f16.log" || status=1
      train vulkan-f32 "$tune" "$work/$llama" "$vulkan" "$tokens" 1 "$steps" || status=1
      return $status ;;
    qlora-70b)
      # shellcheck disable=SC2086  # a list of numbers
      make_deep $deep || return 1
      train qlora-70b "$tune" "$work/deep" "$cuda" $short 1 "$steps" "${four_bits[@]}"
      local status=$?
      rm -rf "$work/deep"
      return $status ;;
    warm) train warm "$tune" "$work/$llama" "$cuda" "$tokens" 1 2 ;;
    cpp)
      [ -f dist/tune-cpp.tar.xz ] || { echo "no dist/tune-cpp.tar.xz: not compared"; return 0; }
      [ -x "$work/tune-cpp" ] || unpack dist/tune-cpp.tar.xz || return 1
      train cpp "$work/tune-cpp" "$work/$llama" "$cuda" "$tokens" 1 "$steps" ;;
    *) echo "\`$1\` is no part; accepted: $parts" >&2; return 2 ;;
  esac
}

if [ "${2:-}" = --part ]; then
  run_part "$3"
  exit $?
fi
wanted=$parts
[ "${2:-}" = --only ] && wanted=${3:?$usage} && wanted=${wanted//,/ }
for part in $wanted; do
  limit "$part" >/dev/null || { echo "\`$part\` is no part; accepted: $parts" >&2; exit 2; }
done

mkdir -p "$work"
touch "$out/results.jsonl"
find_toolkit
if [ ! -x "$tune" ]; then
  if [ -n "${TUNE_BINARY:-}" ]; then
    cp "$TUNE_BINARY" "$tune" && cp "${TUNE_TESTS:?TUNE_BINARY needs TUNE_TESTS}" "$work/it"
  else
    unpack dist/tune.tar.xz || exit 2
  fi
fi
{
  date -u
  uname -a
  grep -m1 'model name' /proc/cpuinfo
  nproc
  cat dist/commit.txt
  command -v nvidia-smi >/dev/null && nvidia-smi
  "$python" -c 'import torch, transformers, peft; print(torch.__version__, transformers.__version__, peft.__version__)'
  echo "CUDA_PATH ${CUDA_PATH:-is not set}"
} >"$out/machine.txt" 2>&1

failed=0 left_out=
for part in $wanted; do
  seconds=${TUNE_LIMIT:-$(limit "$part")} left=$((${TUNE_TOTAL:-1470} - SECONDS))
  [ "$seconds" -le $left ] || seconds=$left
  if [ "$seconds" -lt 10 ]; then
    left_out+=${left_out:+,}$part
    continue
  fi
  printf '\n=== %s (at most %s s)\n' "$part" "$seconds"
  # What an earlier try said of this part is replaced.
  sed -i "/\"name\": \"part-$part\"/d" "$out/results.jsonl" 2>/dev/null
  begin=$SECONDS
  timeout --kill-after=10 "$seconds" bash "$self" "$out" --part "$part"
  status=$?
  case $status in
    0) verdict=ok ;;
    124 | 137) verdict="out of time" ;;
    *) verdict=failed ;;
  esac
  [ $status -eq 0 ] || failed=1
  record "part-$part" verdict "$verdict" seconds $((SECONDS - begin))
done

"$python" - "$out" >"$out/table.txt" <<'PY'
import json, re, sys
from pathlib import Path

out = Path(sys.argv[1])
found = {}
for line in (out / "results.jsonl").read_text().splitlines():
    entry = json.loads(line)
    found[entry.pop("name")] = entry
machine = (out / "machine.txt").read_text().splitlines()
gpu = next((line.strip("| ") for line in machine if "NVIDIA" in line and "SMI" not in line), machine[2] if len(machine) > 2 else "")
print(machine[0], "|", " ".join(gpu.split())[:60])
for name, entry in found.items():
    if name.startswith("part-"):
        print(f"{name[5:]:14} {entry['verdict']:12} {entry['seconds']:>5} s")
for name, entry in found.items():
    if name.startswith(("ceiling", "profile", "parity", "quickstart")):
        print(f"{name:26}", ", ".join(f"{key} {value}" for key, value in entry.items() if value != ""))

def best(kind):
    # Its micro-batches or types, but not the peer's run of it, nor that of another size.
    runs = [entry for name, entry in found.items() if re.fullmatch(re.escape(kind) + r"(-\d+|-f\d+)?", name)]
    runs = [run for run in runs if isinstance(run.get("tokens_per_second"), (int, float))]
    return max(runs, key=lambda run: run["tokens_per_second"], default=None)

def ratio(what, over, under, key="tokens_per_second"):
    a, b = best(over), best(under)
    if a and b and isinstance(a.get(key), (int, float)) and isinstance(b.get(key), (int, float)) and b[key]:
        print(f"{what:40} {a[key] / b[key]:.2f}")

print("all parts", sum(entry["seconds"] for name, entry in found.items() if name.startswith("part-")), "s")
print(f"{'run':14} {'tokens/s':>9} {'pool MiB':>9} {'GPU MiB':>8} {'load s':>7} {'step 1 s':>8}")
for name, entry in found.items():
    if "tokens_per_second" in entry and name != "quickstart":
        keys = ("tokens_per_second", "pool_mib", "gpu_mib", "seconds_before_training", "first_step_seconds")
        cells = [entry.get(key, "") for key in keys]
        cells = [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells]
        print(f"{name:14} {cells[0]:>9} {cells[1]:>9} {cells[2]:>8} {cells[3]:>7} {cells[4]:>8}  {entry.get('type', '')}")
# Weights that take part in products, the input embedding left out: 4 operations for each and token with a frozen base.
products = {"llama": 7.505e9, "qwen": 7.568e9}
rates = [entry["tflops"] for name, entry in found.items() if name.startswith("ceiling-cuda") and name.endswith("bf16")]
for name, weights in products.items():
    run = best(name)
    if run and rates and isinstance(rates[0], (int, float)):
        share = 4 * weights * run["tokens_per_second"] / (rates[0] * 1e12)
        print(f"{name + ': share of the measured product rate':40} {100 * share:.1f} %")
ratio("llama tokens/s, ours over the peer's", "llama", "llama-peer")
ratio("llama pool, ours over the peer's", "llama", "llama-peer", "pool_mib")
ratio("qwen tokens/s, ours over the peer's", "qwen", "qwen-peer")
ratio("qlora tokens/s over lora's", "qlora", "llama")
ratio("vulkan tokens/s over cuda's", "vulkan", "llama")
ratio("first step, warm over cold", "warm", "llama-1", "first_step_seconds")
PY
[ $? -eq 0 ] || failed=1
echo
cat "$out/table.txt"
if [ -n "$left_out" ]; then
  echo "no time was left for: scripts/gpu-check.sh $out --only $left_out"
  failed=1
fi
exit $failed
