#!/bin/bash
# PEFT 0.21.2 keeps `target_modules` as a set and writes it in the set's order, which Python draws anew for every process:
# the same configuration gives an `adapter_config.json` with other bytes in every run, and a hash of an adapter's folder
# differs although nothing in it does. PYTHONHASHSEED=0 fixes the order.
#
# Seen: ten processes that save the same LoraConfig with seven targets write several different files, whose targets are the
# same once sorted; with PYTHONHASHSEED=0 ten processes write one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet peft==0.21.2 torch==2.15.0 transformers==5.24.0
cat > "$work/save.py" <<'PY'
import sys

import peft

assert peft.__version__ == "0.21.2"
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets).save_pretrained(sys.argv[1])
PY
different() { sha256sum "$work/$1"-*/adapter_config.json | cut -d' ' -f1 | sort -u | wc -l; }
for number in 1 2 3 4 5 6 7 8 9 10; do
  env -u PYTHONHASHSEED "$work/venv/bin/python" "$work/save.py" "$work/drawn-$number"
  PYTHONHASHSEED=0 "$work/venv/bin/python" "$work/save.py" "$work/fixed-$number"
done
echo "ten processes: $(different drawn) different files; with PYTHONHASHSEED=0: $(different fixed)"
[ "$(different drawn)" -gt 1 ] && [ "$(different fixed)" -eq 1 ]
"$work/venv/bin/python" - "$work" <<'PY'
import json
import sys
from pathlib import Path

files = [json.loads(path.read_text()) for path in Path(sys.argv[1]).glob("drawn-*/adapter_config.json")]
for file in files:
    file["target_modules"].sort()
assert len(files) == 10 and all(file == files[0] for file in files)
print("equal once the targets are sorted")
PY
