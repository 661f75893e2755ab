#!/bin/bash
# Axolotl 0.19.0 sets rows aside for `val_set_size` and never evaluates them unless a further key asks for it, although its
# schema says of `eval_steps`: leave empty to eval at each epoch. An empty one leaves transformers' default, which is "no".
# `evals_per_epoch: 1` does not help a run of one epoch: it becomes `eval_steps: 1.0`, which is not kept as a share of the
# run. No warning is given. `eval_strategy: epoch` works in both.
#
# Seen, in runs of a tiny model with 2 of 10 rows set aside, by the epochs that have a loss of the evaluation: none without a
# key; none for evals_per_epoch 1 and one epoch; 0, 1, 2 for evals_per_epoch 1 and two epochs; 0, 1 for eval_strategy epoch.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.16.1 datasets==4.8.4 peft==0.20.0 torch==2.15.0 accelerate==1.13.0 jinja2==3.1.6 \
  evaluate==0.4.6 wandb==0.31.0 addict fire colorama sentencepiece protobuf posthog python-dotenv requests typer zstandard einops scipy \
  numba pillow
"$work/venv/bin/pip" install --quiet --no-deps axolotl==0.19.0 trl==1.9.0
cd "$work"
export AXOLOTL_DO_NOT_TRACK=1 AXOLOTL_LOG_LEVEL=WARNING CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 HF_HOME=$work/home WANDB_MODE=disabled
"$work/venv/bin/python" - 2>"$work/log" <<'PY' || { tail "$work/log"; exit 1; }
import sys
from contextlib import redirect_stdout
from importlib.metadata import version

import datasets
import transformers
from axolotl.cli.config import load_cfg
from axolotl.utils.dict import DictDefault
from axolotl.utils.trainer import calculate_total_num_steps, setup_trainer
from tokenizers import Tokenizer, models

assert version("axolotl") == "0.19.0"
sizes = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
model.save_pretrained("model")
words = Tokenizer(models.WordLevel({"a": 0, "<end>": 1}, unk_token="a"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>")
rows = datasets.Dataset.from_dict({"input_ids": [[0, 1]] * 10, "labels": [[0, 1]] * 10, "attention_mask": [[1, 1]] * 10})
recipe = {
    "base_model": "model", "datasets": [{"path": "rows.jsonl", "type": "alpaca"}], "val_set_size": 0.2, "sequence_len": 16,
    "micro_batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-4, "optimizer": "adamw_torch",
    "lr_scheduler": "cosine", "output_dir": "out", "save_strategy": "no", "bf16": False, "fp16": False,
    "dataloader_pin_memory": False,
}
for keys, expected in [
    ({"num_epochs": 1}, []),
    ({"num_epochs": 1, "evals_per_epoch": 1}, []),
    ({"num_epochs": 2, "evals_per_epoch": 1}, [0, 1, 2]),
    ({"num_epochs": 1, "eval_strategy": "epoch"}, [0, 1]),
]:
    cfg = load_cfg(DictDefault({**recipe, **keys}))
    parts = rows.train_test_split(cfg.val_set_size, shuffle=False)
    steps = calculate_total_num_steps(cfg, parts["train"])
    trainer = setup_trainer(cfg, parts["train"], parts["test"], model, tokenizer, None, steps)
    with redirect_stdout(sys.stderr):
        trainer.train()
    evaluated = [entry["epoch"] for entry in trainer.state.log_history if "eval_loss" in entry]
    print(f"{keys}: {trainer.state.global_step} steps, evaluated at epochs {evaluated}")
    assert evaluated == expected, "the rows are evaluated at other times now"
PY
