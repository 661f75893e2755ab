#!/usr/bin/env python3
"""compare_builds.py OLD NEW: do two builds of `tune` write the same bytes?

For changes that must not change a number. Runs the quickstart and the set-ups of tests/it/resume.rs with both binaries
on the CPU and compares every file of the two run folders: safetensors byte for byte; JSON without figures of the clock,
of memory and of the program's version; text that people read (plan, model card) is counted, not compared.
Needs Python's standard library alone. Status 1 when anything differs.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests/fixtures/models"
ROWS = ROOT / "datasets/samples/support-tickets.jsonl"

# Figures that no two runs share, and what follows from them: a manifest's hashes of files that hold some.
CLOCK = {"seconds", "seconds_before", "seconds_before_training", "tokens_per_second", "memory_bytes"}
PROSE = {"README.md", "plan.txt"}
CHANGING = {"manifest.json", "run.json", ".lock"}

LORA = {
    "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj", "v_proj"],
    "sequence_len": 512, "micro_batch_size": 2, "learning_rate": "1e-2", "device": "cpu",
    "max_steps": 5, "num_epochs": 5, "val_set_size": 4, "eval_steps": 2, "save_strategy": "steps",
    "save_steps": 1, "save_total_limit": 9, "lr_scheduler": "cosine",
}
FULL = {key: value for key, value in LORA.items() if not key.startswith("lora_")} | {"adapter": None}

# Name, base model, keys.
SETUPS = [
    ("lora", "llama31", LORA | {
        "lora_dropout": 0.1, "sample_packing": True, "gradient_accumulation_steps": 2, "micro_batch_size": 1,
        "neftune_noise_alpha": 5, "export": {"formats": ["adapter", "merged"]}}),
    ("qlora", "qwen3", LORA | {
        "adapter": "qlora", "load_in_4bit": True, "lora_r": 64, "lora_target_modules": "all-linear",
        "optimizer": "adamw_bnb_8bit", "lora_dropout": 0.05,
        "export": {"formats": ["adapter", "merged", "bnb-4bit"]}}),
    ("full-8-bit", "qwen3", FULL | {"optimizer": "adamw_bnb_8bit", "learning_rate": "1e-3", "weight_decay": 0.1}),
    ("dora", "qwen3", LORA | {
        "peft_use_dora": True, "lora_modules_to_save": ["lm_head"], "gradient_checkpointing": True}),
    ("some", "llama31_bf16", FULL | {"unfrozen_parameters": [r"layers\.1\."], "export": {"dtype": "bf16"}}),
    ("bf16", "qwen3", LORA | {"bf16": True, "lora_target_modules": "all-linear"}),
    ("experts", "qwen3_moe", LORA | {"lr_scheduler": "linear", "warmup_steps": 2}),
]


def recipe(base: str, keys: dict) -> str:
    lines = [f"base_model: {json.dumps(str(MODELS / base))}"]
    lines += [f"{key}:" if value is None else f"{key}: {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines + ["datasets:", "  - path: rows.jsonl", "    type: chat_template", "output_dir: out", ""])


def run(binary: str, folder: pathlib.Path, arguments: list[str]) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "NO_COLOR": "1"}
    done = subprocess.run([binary, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{binary} {' '.join(arguments)}: status {done.returncode}\n{done.stderr}")


def plain(value):
    """JSON without what no two runs share."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key not in CLOCK}
    return [plain(part) for part in value] if isinstance(value, list) else value


def content(path: pathlib.Path):
    if path.suffix == ".json":
        return plain(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [plain(json.loads(line)) for line in path.read_text().splitlines()]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compare(name: str, old: pathlib.Path, new: pathlib.Path) -> int:
    files = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (old, new)]
    wrong = [f"only in one: {path}" for path in sorted(files[0] ^ files[1])]
    count = size = prose = 0
    for path in sorted(files[0] & files[1]):
        if path.name in CHANGING:
            continue
        if path.name in PROSE:
            prose += (old / path).read_bytes() != (new / path).read_bytes()
            continue
        count, size = count + 1, size + (old / path).stat().st_size
        one, other = content(old / path), content(new / path)
        if path.name == "training_state.json":
            # A length that depends on how many digits the clock's figures have.
            one.pop("metrics_bytes", None), other.pop("metrics_bytes", None)
        if one != other:
            wrong.append(f"differs: {path}")
    print(f"{name}: {count} files, {size} bytes compared, {len(wrong)} differ; texts with other words: {prose}")
    print("".join(f"  {line}\n" for line in wrong), end="")
    return len(wrong)


def main() -> None:
    old, new = (str(pathlib.Path(binary).resolve()) for binary in sys.argv[1:3])
    wrong = 0
    for name, base, keys in SETUPS + [("quickstart", None, {})]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch)
            (folder / "rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:24]))
            arguments = ["run", str(ROOT / "recipes/quickstart.yaml"), "--set", "output_dir=out", "--set", "device=cpu"]
            if base:
                (folder / "recipe.yaml").write_text(recipe(base, keys))
                arguments = ["run", "recipe.yaml"]
            for binary, place in ((old, "old"), (new, "new")):
                run(binary, folder, arguments)
                (folder / "out").rename(folder / place)
            wrong += compare(name, folder / "old", folder / "new")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
