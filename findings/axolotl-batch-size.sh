#!/bin/bash
# Axolotl 0.19.0 accepts `batch_size`, plans the run with it, and trains with something else: the number of accumulated
# micro-batches is derived from it only if `gradient_accumulation_steps` is unset, and the schema's default has already set
# that to 1. With `batch_size: 8` and `micro_batch_size: 2` the trainer steps after every 2 rows, but is stopped after
# ceil(rows x epochs / 8) steps: a quarter of the rows is trained on. All that is said is that the key is not recommended.
#
# Seen, through Axolotl's own configuration of a recipe: gradient_accumulation_steps 1, batch_size 8, and 10 steps for 80 rows
# and one epoch, which train 20 rows. With `gradient_accumulation_steps: 4` in its place: batch_size 8, 10 steps, 80 rows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 datasets==5.2.0 peft==0.21.2 torch==2.15.0 accelerate==1.15.0 jinja2 \
  addict fire colorama sentencepiece protobuf posthog python-dotenv requests typer zstandard einops scipy numba pillow
"$work/venv/bin/pip" install --quiet --no-deps axolotl==0.19.0 trl==1.16.0
cd "$work"
AXOLOTL_DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 HF_HOME=$work/home "$work/venv/bin/python" - 2>"$work/log" <<'PY' || { tail "$work/log"; exit 1; }
from importlib.metadata import version

import datasets
import transformers
from axolotl.cli.config import load_cfg
from axolotl.utils.dict import DictDefault
from axolotl.utils.trainer import calculate_total_num_steps

assert version("axolotl") == "0.19.0"
transformers.LlamaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained("model")
rows = datasets.Dataset.from_dict({"input_ids": [[1, 2]] * 80, "labels": [[1, 2]] * 80})
recipe = {
    "base_model": "model", "datasets": [{"path": "rows.jsonl", "type": "alpaca"}], "sequence_len": 16, "num_epochs": 1,
    "micro_batch_size": 2, "learning_rate": 1e-4, "optimizer": "adamw_torch", "lr_scheduler": "cosine", "output_dir": "out",
}
for keys, expected in [({"batch_size": 8}, (1, 8, 10, 20)), ({"gradient_accumulation_steps": 4}, (4, 8, 10, 80))]:
    cfg = load_cfg(DictDefault({**recipe, **keys}))
    steps = calculate_total_num_steps(cfg, rows)
    accumulated = cfg.gradient_accumulation_steps
    seen = accumulated, cfg.batch_size, steps, steps * accumulated * cfg.micro_batch_size
    print(f"{keys}: accumulates {seen[0]}, batch_size {seen[1]}, {seen[2]} steps of {accumulated * 2} rows: {seen[3]} of 80 rows")
    assert seen == expected, f"{seen} is not {expected}"
PY
