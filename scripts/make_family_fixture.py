#!/usr/bin/env python3
"""Writes the reference of a small model: what transformers and PEFT compute with it on the CPU, in f32.

    make_family_fixture.py NAME CONFIG [--out FOLDER] [options]

CONFIG is a `config.json` of the family in the style of its publisher, with small sizes: some 50 hidden values, 2 to 4
layers, windows and chunks of 8, so that every rule of the architecture applies within 24 positions. FOLDER (tests/fixtures by
default) gets, in the layout that tests/it/parity reads and tests/fixtures/README.md describes:

    models/NAME/            config.json, config_v5.json, weights drawn from the name, a tokenizer
    forward/NAME/           logits, hidden states, loss and gradients of a padded batch; logits of packed documents
    lora/NAME_all_linear/   (NAME_lora/ with other targets) a LoRA adapter before and after 20 steps, every step of them, and the merged weights

The same versions of the libraries write the same bytes on the same machine. Run it with the Python of reference-python.sh:

    "$(scripts/reference-python.sh)" scripts/make_family_fixture.py mistral_tiny config.json --out tests/fixtures
"""
import argparse
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, get_cosine_schedule_with_warmup  # noqa: E402

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
WIDTH, PROMPT, DOCUMENTS = 24, 5, (9, 6, 11)  # of the padded batch, and the lengths of the packed documents
STEPS, ACCUMULATION, ROWS, TRACE_WIDTH = 20, 2, 2, 16
HYPER = dict(optimizer="adamw", lr=4e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, max_grad_norm=1.0,
             schedule="cosine with linear warm-up (transformers get_cosine_schedule_with_warmup)", warmup_steps=4,
             total_steps=STEPS, gradient_accumulation=ACCUMULATION, micro_batch=ROWS)


# ---------------------------------------------------------------- random numbers, files, checks
def generator(*key) -> torch.Generator:
    """A generator seeded by a readable key, so that no number depends on the order in which they are drawn."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def normal(shape, *key, std=1.0, mean=0.0) -> torch.Tensor:
    return torch.randn(tuple(shape), generator=generator(*key)) * std + mean


def token_ids(vocabulary: int, shape, *key) -> torch.Tensor:
    return torch.randint(0, vocabulary, tuple(shape), generator=generator(*key))


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: dict) -> None:
    """A safetensors file; scalars get the shape [1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: (t.detach().reshape(1) if t.ndim == 0 else t.detach()) for name, t in sorted(tensors.items())}
    save_file({name: t.contiguous().clone() for name, t in plain.items()}, str(path), metadata={"format": "pt"})


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.detach().double() - b.detach().double()).abs().max())


def check(what: str, ok: bool, figure) -> None:
    print(f"{'ok    ' if ok else 'WRONG '} {what}: {figure}")
    if not ok:
        sys.exit(1)


# ---------------------------------------------------------------- the model
def load(folder: Path, attention="eager"):
    model, info = AutoModelForCausalLM.from_pretrained(
        str(folder), attn_implementation=attention, experts_implementation="eager", dtype=torch.float32, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


def draw_weights(model, seed: str) -> None:
    """Values that are not degenerate, for every parameter by its name: norms near what transformers begins with (1, or 0
    where the norm adds 1), the rest scaled by the width of the input."""
    parameters = dict(model.named_parameters())
    saved = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in saved and buffer.is_floating_point():
            buffer.data.copy_(normal(buffer.shape, seed, name, std=0.15))
    for name, p in parameters.items():
        inputs = p.shape[-1] ** 0.5
        if name.endswith("norm.weight"):
            values = normal(p.shape, seed, name, std=0.2, mean=float(p.data.mean().round()))
        elif "embed_tokens" in name:
            values = normal(p.shape, seed, name, std=0.25 if model.config.tie_word_embeddings else 0.7)
        elif name.endswith("sinks"):
            values = normal(p.shape, seed, name)
        elif p.ndim == 1:
            values = normal(p.shape, seed, name, std=0.3)
        elif name.startswith("lm_head") or re.search(r"(mlp\.gate|router)\.weight$", name):
            values = normal(p.shape, seed, name, std=2.0 / inputs)
        else:
            values = normal(p.shape, seed, name, std=1.2 / inputs)
        p.data.copy_(values)


def saved_tensors(model) -> tuple[dict, dict]:
    """The tensors under the names of a checkpoint, and the `config.json` beside them."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors"), json.loads(Path(f"{folder}/config.json").read_text())


def write_model(folder: Path, name: str, config: dict, tokenizer: Path) -> int:
    """Writes the base model; returns the size of the tokenizer's vocabulary."""
    folder.mkdir(parents=True)
    for file in TOKENIZER_FILES:
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder / file)
    known = transformers.AutoTokenizer.from_pretrained(str(folder))
    for token in ("bos", "eos", "pad"):
        if config.get(f"{token}_token_id") is None:
            config[f"{token}_token_id"] = getattr(known, f"{token}_token_id")
    vocabulary = len(known)
    if config["vocab_size"] < vocabulary:
        sys.exit(f"vocab_size is {config['vocab_size']}; the tokenizer of {tokenizer} has {vocabulary} tokens")
    write_json(folder / "config.json", dict(sorted(config.items())))
    model = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(str(folder)), attn_implementation="eager", experts_implementation="eager").float()
    draw_weights(model, f"base/{name}")
    tensors, config_v5 = saved_tensors(model)
    write_tensors(folder / "model.safetensors", tensors)
    write_json(folder / "config_v5.json", config_v5)
    write_json(folder / "generation_config.json", {
        "_from_model_config": True, "bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"],
        "transformers_version": config.get("transformers_version", transformers.__version__)})
    return vocabulary


# ---------------------------------------------------------------- forward pass, loss and gradients
def padded_batch(name: str, vocabulary: int) -> dict:
    """Two rows, the second padded on the right; the first 5 tokens of each are a prompt and not trained."""
    ids = token_ids(vocabulary, (2, WIDTH), "ids", name)
    mask = torch.ones_like(ids)
    mask[1, WIDTH * 5 // 8:] = 0
    ids[mask == 0] = 0
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    labels[mask == 0] = -100
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def packed_batch(name: str, vocabulary: int) -> dict:
    """Documents in one row: positions restart, and the first token of each is not predicted."""
    ids = token_ids(vocabulary, (1, sum(DOCUMENTS)), "packed", name)
    positions = torch.cat([torch.arange(length) for length in DOCUMENTS])[None]
    return dict(input_ids=ids, position_ids=positions, labels=ids.masked_fill(positions == 0, -100))


def rotary(model) -> dict:
    """Frequencies after scaling, and the factor on cosine and sine."""
    tensors = {}
    for module_name, module in model.named_modules():
        if module_name.endswith("rotary_emb"):
            for name, buffer in module.named_buffers():
                if name.endswith("inv_freq") and "original" not in name:
                    tensors[f"rope.{name}"] = buffer.float().clone()
            if getattr(module, "attention_scaling", None) is not None:
                tensors["rope.attention_scaling"] = torch.tensor([float(module.attention_scaling)])
    return tensors


def gradients(model) -> dict:
    """The gradient of every weight under its name in a checkpoint: the model is saved with gradients in the weights' places."""
    buffers = {name for name, _ in model.named_buffers()}
    values = {name: p.data for name, p in model.named_parameters()}
    for p in model.parameters():
        p.data = torch.zeros_like(p) if p.grad is None else p.grad.clone()
    saved, _ = saved_tensors(model)
    for name, p in model.named_parameters():
        p.data = values[name]
    return {name: gradient for name, gradient in saved.items() if name not in buffers}


def write_forward(folder: Path, base: Path, name: str, vocabulary: int, patterns: list) -> None:
    model, batch, packed = load(base), padded_batch(name, vocabulary), packed_batch(name, vocabulary)
    out = model(**batch, use_cache=False, output_hidden_states=True)
    out.loss.backward()
    tensors = {f"batch.{key}": value for key, value in batch.items()}
    tensors.update({"batch.logits": out.logits, "batch.loss": out.loss}, **rotary(model))
    tensors.update({f"batch.hidden.{index}": hidden for index, hidden in enumerate(out.hidden_states)})
    grads = gradients(model)
    stored = sorted(key for key in grads if any(re.search(pattern, key) for pattern in patterns))
    tensors.update({f"grad.{key}": grads[key] for key in stored})

    # The reference of a packed row is each document alone: not every model of transformers keeps documents apart.
    with torch.no_grad():
        documents = packed["input_ids"].split(DOCUMENTS, dim=1)
        alone = torch.cat([model(input_ids=ids, use_cache=False).logits for ids in documents], 1)
        apart = difference(alone, model(**packed, use_cache=False).logits)
    tensors.update({f"packed.{key}": value for key, value in packed.items()})
    loss = cross_entropy(alone[0, :-1].double(), packed["labels"][0, 1:], ignore_index=-100).float()
    tensors.update({"packed.logits": alone, "packed.loss": loss})
    print(f"       packed by transformers: logits within {apart:.1e} of each document alone")

    # The noise of f32, and the second style of configuration. An expert that is chosen by a hair would show as noise.
    exact, valid = load(base).double(), batch["attention_mask"].bool()
    with torch.no_grad():
        # Without the mask, which would leave rows of nothing for padding: tokens do not see later ones.
        doubled = exact(input_ids=batch["input_ids"], use_cache=False).logits
        with tempfile.TemporaryDirectory() as other:
            shutil.copy(base / "config_v5.json", f"{other}/config.json")
            shutil.copy(base / "model.safetensors", f"{other}/model.safetensors")
            again = load(Path(other))(**batch, use_cache=False).logits
    noise = difference(doubled[valid], out.logits[valid])
    # The tests train in 16 bits as well. With experts, some weights have tokens on the border between two of them.
    with torch.no_grad():
        rounded = difference(load(base).bfloat16()(**batch, use_cache=False).loss, out.loss)
    advice = "" if rounded < 2.5e-2 else ": too much for the tests in 16 bits; draw other weights by another NAME"
    print(f"       the loss in bf16 is off by {rounded:.1e}{advice}")
    check("f32 noise of the logits is small", noise < 1e-3, f"{noise:.1e}")
    check("logits are not degenerate", 1.0 < float(out.logits[valid].abs().max()) < 100.0, float(out.logits[valid].abs().max()))
    check("config.json and config_v5.json are the same model", torch.equal(again, out.logits), difference(again, out.logits))

    write_tensors(folder / "forward.safetensors", tensors)
    write_json(folder / "forward.json", {
        "grad_norms": {key: float(value.double().norm()) for key, value in sorted(grads.items())}, "grads_stored": stored,
        "loss": float(out.loss.detach()), "packed_solo_vs_hf_maxdiff": apart, "noise_f32_vs_f64_logits": noise,
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, peft)}})


# ---------------------------------------------------------------- LoRA
def make_adapter(base: Path, spec: dict, seed: str):
    """The base with an adapter whose two factors are both drawn."""
    config = {key: value for key, value in spec.items() if key not in ("base", "max_grad_norm")}
    model = peft.get_peft_model(load(base), peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", **config))
    for name, p in model.named_parameters():
        if "lora_A" in name:
            p.data.copy_(normal(p.shape, seed, name, std=1.0 / p.shape[1] ** 0.5))
        elif "lora_B" in name:
            p.data.copy_(normal(p.shape, seed, name, std=0.1))
    return model.eval()


def save_adapter(model, folder: Path, base: str) -> None:
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"models/{base}"
    if isinstance(config["target_modules"], list):  # a set, written in any order
        config["target_modules"].sort()
    write_json(folder / "adapter_config.json", dict(sorted(config.items())))
    write_tensors(folder / "adapter_model.safetensors", load_file(str(folder / "adapter_model.safetensors")))


def trace_batches(name: str, vocabulary: int) -> dict:
    """Micro-batches for all steps: four windows of data, over and over; every other one has a padded second row."""
    ids = token_ids(vocabulary, (STEPS * ACCUMULATION, ROWS, TRACE_WIDTH), "trace", name)
    mask = torch.ones_like(ids)
    mask[1::2, 1, TRACE_WIDTH - 5:] = 0
    ids = ids[: 4 * ACCUMULATION].repeat(STEPS // 4, 1, 1)
    ids[mask == 0] = 0
    labels = ids.clone()
    labels[:, :, : TRACE_WIDTH // 2] = -100
    labels[mask == 0] = -100
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def train(model, batches: dict, hyper: dict) -> tuple[list, dict]:
    """The loop of transformers' Trainer: loss per trained token of the window, clipping, AdamW, then the schedule. Returns a
    record of each step and the first gradients, before clipping."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=hyper["lr"], betas=(hyper["beta1"], hyper["beta2"]), eps=hyper["eps"],
                                  weight_decay=hyper["weight_decay"], foreach=False)
    schedule = get_cosine_schedule_with_warmup(optimizer, hyper["warmup_steps"], hyper["total_steps"])
    model.train()
    records, first = [], {}
    for step in range(STEPS):
        window = range(step * ACCUMULATION, (step + 1) * ACCUMULATION)
        tokens = int(sum((batches["labels"][i][:, 1:] != -100).sum() for i in window))
        micro = []
        for i in window:
            labels = batches["labels"][i][:, 1:]
            logits = model(input_ids=batches["input_ids"][i], attention_mask=batches["attention_mask"][i], use_cache=False).logits
            summed = cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100, reduction="sum")
            (summed / tokens).backward()
            micro.append(dict(loss_sum=float(summed.detach()), tokens=int((labels != -100).sum())))
        first = first or {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, hyper["max_grad_norm"]))
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss = sum(part["loss_sum"] for part in micro) / tokens
        records.append(dict(step=step + 1, lr=rate, loss=loss, grad_norm=norm, label_tokens=tokens, micro=micro))
    model.eval()
    return records, first


def write_lora(folder: Path, base: Path, name: str, spec: dict, vocabulary: int) -> None:
    hyper = dict(HYPER, max_grad_norm=spec.get("max_grad_norm", HYPER["max_grad_norm"]))
    batch, batches = padded_batch(spec["base"], vocabulary), trace_batches(name, vocabulary)
    inputs, valid = {key: batch[key] for key in ("input_ids", "attention_mask")}, batch["attention_mask"].bool()
    model = make_adapter(base, spec, name)
    save_adapter(model, folder / "init", spec["base"])
    with torch.no_grad():
        plain, init = load(base)(**inputs, use_cache=False).logits, model(**batch, use_cache=False)
        reloaded = peft.PeftModel.from_pretrained(load(base), str(folder / "init")).eval()(**batch, use_cache=False).logits
    check("the saved adapter loads again", difference(reloaded, init.logits) < 1e-5, f"{difference(reloaded, init.logits):.1e}")
    check("it changes the logits", difference(plain[valid], init.logits[valid]) > 0.05, f"{difference(plain[valid], init.logits[valid]):.2f}")

    steps, first = train(model, batches, hyper)
    trained = {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}
    save_adapter(model, folder / "final", spec["base"])
    with torch.no_grad():
        final = model(**batch, use_cache=False)
        merged = model.merge_and_unload()
        merged_logits = merged(**inputs, use_cache=False).logits
    apart = difference(merged_logits[valid], final.logits[valid])
    check("merged and adapted logits are equal", apart < 1e-3, f"{apart:.1e}")
    before, (after, _) = load_file(str(base / "model.safetensors")), saved_tensors(merged)
    check("the merged model has the base's tensors", set(after) == set(before), len(after))
    changed = {key: value for key, value in after.items() if not torch.equal(value, before[key])}

    exact = make_adapter(base, spec, name).double()
    exact_steps, _ = train(exact, batches, hyper)
    drift = max(abs(a["loss"] - b["loss"]) for a, b in zip(steps, exact_steps))
    check("losses are stable in f32", drift < 2e-4, f"{drift:.1e}")
    drift = max(difference(p, trained[key]) for key, p in exact.named_parameters() if p.requires_grad)
    check("the final adapter is stable in f32", drift < 1e-3, f"{drift:.1e}")
    check("the loss falls", steps[-1]["loss"] < steps[3]["loss"], f"{steps[3]['loss']:.3f} to {steps[-1]['loss']:.3f}")

    write_tensors(folder / "merged_changed.safetensors", changed)
    tensors = {f"batch.{key}": value for key, value in batch.items()}
    write_tensors(folder / "forward.safetensors", {
        **tensors, "logits.base": plain, "logits.init": init.logits, "loss.init": init.loss, "logits.final": final.logits,
        "loss.final": final.loss, "logits.merged": merged_logits})
    grads = {f"grad1.{key.replace('.default', '')}": value for key, value in first.items()}
    write_tensors(folder / "trace.safetensors", {**{f"trace.{key}": value for key, value in batches.items()}, **grads})
    write_json(folder / "trace.json", {
        "spec": spec, "hyper": hyper, "steps": steps, "merged_changed": sorted(changed), "merged_vs_adapter_logits_maxdiff": apart})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the name of the case; random numbers are drawn from it")
    parser.add_argument("config", type=Path, help="a config.json with small sizes")
    parser.add_argument("--out", type=Path, default=FIXTURES, help="the folder with models/, forward/ and lora/ (tests/fixtures)")
    parser.add_argument("--tokenizer", type=Path, default=FIXTURES / "models" / "qwen3", help="a folder with a tokenizer (models/qwen3)")
    parser.add_argument("--gradients", action="append", metavar="REGEX",
                        help="weights whose gradients are stored, beside the norms of all (those of the last layer)")
    parser.add_argument("--lora", type=json.loads, metavar="JSON", default=dict(r=6, lora_alpha=6, target_modules="all-linear"),
                        help="settings of PEFT's LoraConfig, and max_grad_norm (rank 6 on all linear maps; name target_modules where PEFT cannot wrap a router)")
    parser.add_argument("--no-lora", action="store_true", help="no adapter: for a second model of a family that has one")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    base = args.out / "models" / args.name
    lora = f"{args.name}_{'all_linear' if args.lora['target_modules'] == 'all-linear' else 'lora'}"
    folders = [base, args.out / "forward" / args.name] + ([] if args.no_lora else [args.out / "lora" / lora])
    if occupied := [folder for folder in folders if folder.exists()]:
        sys.exit(f"{occupied[0]} exists already; delete it to write the case again")
    config = json.loads(args.config.read_text(encoding="utf-8"))
    vocabulary = write_model(base, args.name, config, args.tokenizer)
    patterns = args.gradients or [rf"layers\.{AutoConfig.from_pretrained(str(base)).get_text_config().num_hidden_layers - 1}\."]
    write_forward(folders[1], base, args.name, vocabulary, patterns)
    if not args.no_lora:
        write_lora(folders[2], base, lora, {"base": args.name, **args.lora}, vocabulary)
    for folder in folders:
        print(f"wrote  {folder} ({sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) // 1024} KiB)")


if __name__ == "__main__":
    main()
