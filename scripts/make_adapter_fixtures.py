#!/usr/bin/env python3
"""Writes tests/fixtures/adapters: small adapters as PEFT saves them, and the logits that PEFT computes with them.

    "$(scripts/reference-python.sh)" scripts/make_adapter_fixtures.py [FOLDER]

Each folder has `adapter/`, and `logits.safetensors` with `ids` `[1, 16]` and the logits on them of PEFT's adapted model, read
again from the folder on the untouched base model (`adapted`), and of the base model (`base`). `case.json` names the base, a
folder of tests/fixtures/models. The same versions of the libraries write the same bytes on the same machine.
"""
import hashlib
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
QV = ["q_proj", "v_proj"]

# Name, base model, settings of LoraConfig, and whether PEFT stores the weight of an adapted embedding or head beside the update.
CASES = [
    ("patterns", "llama31", dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"],
     rank_pattern={"layers.1.self_attn.q_proj": 6, "q_proj": 2, r"^model\.layers\.2\.mlp\..*": 3},
     alpha_pattern={r".*[02]\.self_attn\.(q|v)_proj": 16}), False),
    ("patterns_rslora", "llama31", dict(r=4, lora_alpha=8, target_modules=QV, use_rslora=True, rank_pattern={"v_proj": 2},
     alpha_pattern={"layers.1.self_attn.v_proj": 3.5}), False),
    ("patterns_dora", "qwen3", dict(r=4, lora_alpha=8, target_modules=QV, use_dora=True, rank_pattern={"v_proj": 2}), False),
    ("embedding", "llama31", dict(r=2, lora_alpha=8, target_modules=["embed_tokens", "q_proj"]), True),
    ("embedding_scaled", "gemma3_options", dict(r=2, lora_alpha=8, target_modules=["embed_tokens", "q_proj"]), False),
    ("head", "llama31", dict(r=2, lora_alpha=4, target_modules=["lm_head", "v_proj"], rank_pattern={"lm_head": 3}), False),
    ("tokens", "llama31", dict(r=2, lora_alpha=4, target_modules=["q_proj"], trainable_token_indices=[3, 250]), False),
    ("tokens_of_both", "llama31", dict(r=2, lora_alpha=4, target_modules=["q_proj"],
     trainable_token_indices={"embed_tokens": [7], "lm_head": [5, 300]}), False),
    ("tied_embedding", "llama32_tied", dict(r=2, lora_alpha=4, target_modules=["embed_tokens", "q_proj"]), False),
    ("tied_head", "llama32_tied", dict(r=2, lora_alpha=4, target_modules=["lm_head", "q_proj"]), False),
    ("tied_tokens", "llama32_tied", dict(r=2, lora_alpha=4, target_modules=["q_proj"], trainable_token_indices=[3, 250]), False),
    ("tied_copy", "llama32_tied", dict(r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"]), False),
    ("eva", "llama31", dict(r=2, lora_alpha=4, target_modules=QV), False),
    ("converted", "llama31", dict(r=2, lora_alpha=4, target_modules=QV, init_lora_weights="pissa"), False),
]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def draw(name, key, like):
    digest = hashlib.sha256(f"{name}/{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return torch.randn(like.shape, generator=generator)


def change(name, model):
    """Gives every trained tensor a value that is far from where it began."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_magnitude" in key:
                parameter.mul_(1 + 0.2 * draw(name, key, parameter))
            elif "lora_" in key:
                parameter.copy_(0.3 * draw(name, key, parameter))
            elif "trainable_tokens" in key or "modules_to_save" in key:
                parameter.add_(0.5 * draw(name, key, parameter))


def write(root, name, base, settings, with_base):
    folder = root / name
    ids = (torch.arange(16) * 23 + 3).reshape(1, 16)
    if "trainable_token_indices" in settings or name.startswith("tied"):
        ids[0, :3] = torch.tensor([3, 250, 7])
    torch.manual_seed(0)
    origin = FIXTURES / "models" / base
    model = get_peft_model(load(origin), LoraConfig(task_type="CAUSAL_LM", **settings))
    options = dict(save_embedding_layers=with_base)
    with tempfile.TemporaryDirectory() as work:
        if settings.get("init_lora_weights") == "pissa":
            options["path_initial_model_for_weight_conversion"] = f"{work}/initial"
            model.peft_config["default"].init_lora_weights = True
            model.save_pretrained(f"{work}/initial")
            model.peft_config["default"].init_lora_weights = "pissa"
            with torch.no_grad():
                for key, parameter in model.named_parameters():
                    if "lora_" in key:
                        parameter.add_(0.2 * draw(name, key, parameter))
        else:
            change(name, model)
        with torch.no_grad():
            trained = model(ids).logits.clone()
        model.save_pretrained(f"{work}/adapter", **options)
        path = Path(f"{work}/adapter/adapter_config.json")
        config = json.loads(path.read_text())
        config["base_model_name_or_path"] = base
        for key in ("target_modules", "modules_to_save", "target_parameters"):
            if isinstance(config.get(key), list):
                config[key] = sorted(config[key])
        if name == "eva":
            # Where the matrices began is of no matter: the base weights stayed as they were.
            config.update(init_lora_weights="eva", eva_config={"rho": 2.0, "tau": 0.99})
        path.write_text(json.dumps(config, indent=2) + "\n")
        reloaded = PeftModel.from_pretrained(load(origin), f"{work}/adapter").eval()
        with torch.no_grad():
            adapted, plain = reloaded(ids).logits, load(origin)(ids).logits
        gap, effect = float((adapted - trained).abs().max()), float((adapted - plain).abs().max())
        print(f"{name}: moves logits by {effect:.2f}, read again within {gap:.1e}", flush=True)
        assert gap < 2e-4 and effect > 0.5, name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "adapter").mkdir(parents=True)
        shutil.copy(path, folder / "adapter")
        tensors = load_file(f"{work}/adapter/adapter_model.safetensors")
        save_file(dict(sorted(tensors.items())), str(folder / "adapter" / "adapter_model.safetensors"), metadata={"format": "pt"})
    save_file({"ids": ids, "adapted": adapted.contiguous(), "base": plain.contiguous()}, str(folder / "logits.safetensors"))
    (folder / "case.json").write_text(json.dumps({"base": base}, indent=2) + "\n")


def main():
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURES / "adapters"
    for name, base, settings, with_base in CASES:
        write(root, name, base, settings, with_base)


main()
