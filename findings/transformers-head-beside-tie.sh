#!/bin/bash
# transformers 5.24.0 follows the file, not the configuration, where they disagree about tied embeddings: a checkpoint with
# an `lm_head.weight` of its own beside `tie_word_embeddings: true` keeps both matrices, with a warning. One with an equal
# head is tied. What it saves afterwards has both matrices and still says `tie_word_embeddings: true`, so that a reader
# which follows the configuration gets another model from the same folder.
#
# Seen: with a head of other values `lm_head.weight` is not the embedding and has the file's values; with equal values both
# are one parameter; the saved folder has lm_head.weight and tie_word_embeddings true.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0 safetensors==0.8.0
HF_HOME=$work/home WORK=$work "$work/venv/bin/python" - <<'PY'
import json
import os
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

assert transformers.__version__ == "5.24.0"
folder, saved = Path(os.environ["WORK"], "model"), Path(os.environ["WORK"], "saved")
sizes = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
torch.manual_seed(0)
transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=True)).save_pretrained(folder)
file = folder / "model.safetensors"
tensors = load_file(file)
assert "lm_head.weight" not in tensors, "a tied head is saved now"


def loaded(head):
    save_file({**tensors, "lm_head.weight": head}, file, metadata={"format": "pt"})
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


head = torch.randn(32, 16)
model = loaded(head)
print("another head: one parameter:", model.lm_head.weight is model.model.embed_tokens.weight,
      "| values of the file:", torch.equal(model.lm_head.weight, head), "| config:", model.config.tie_word_embeddings)
assert model.lm_head.weight is not model.model.embed_tokens.weight and torch.equal(model.lm_head.weight, head)
model.save_pretrained(saved)
configuration = json.loads((saved / "config.json").read_text())
print("saved:", "lm_head.weight" in load_file(saved / "model.safetensors"), configuration["tie_word_embeddings"])
assert "lm_head.weight" in load_file(saved / "model.safetensors") and configuration["tie_word_embeddings"] is True

equal = loaded(tensors["model.embed_tokens.weight"].clone())
print("an equal head: one parameter:", equal.lm_head.weight is equal.model.embed_tokens.weight)
assert equal.lm_head.weight is equal.model.embed_tokens.weight
PY
