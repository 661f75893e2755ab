#!/usr/bin/env python3
"""check_families.py TUNE MODELS: does PEFT load what TUNE exports for every model folder in MODELS?

For each model: a short run with every linear map adapted (and further cases with stacked experts, DoRA and a whole
head); then PEFT loads the adapter and transformers the merged checkpoint, whose logits must be equal and differ from
the base's. The modules that PEFT itself adapts for `all-linear` must be those of our adapter, but for routers, which we
adapt only where they are named.
"""
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()

ROUTERS = (".gate", ".router")
EXPERTS = "[experts.gate_up_proj, experts.down_proj]"
FURTHER = [
    ("llama4_text", f"lora_target_parameters: {EXPERTS}"),
    ("llama4_text", "lora_target_parameters: [feed_forward.experts.down_proj]"),
    ("llama4_mm", f"lora_target_linear: true\nlora_target_parameters: {EXPERTS}"),
    ("gpt_oss", f"lora_target_modules: [q_proj, v_proj]\nlora_target_parameters: {EXPERTS}"),
    ("gemma3", "lora_target_linear: true\npeft_use_dora: true"),
    ("qwen3", "lora_target_linear: true\nlora_modules_to_save: [lm_head]"),
]
TEXTS = ["A decoder reads tokens and writes the next one.", "Experts are chosen by a router for every token.",
         "Support tickets are sorted by team and by priority.", "What is written is loaded again and compared."]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").eval()


def run(tune, model, targets, work):
    (work / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (work / "recipe.yaml").write_text(f"""base_model: {model}
datasets: [{{path: data.jsonl, type: completion}}]
adapter: lora
lora_r: 2
lora_alpha: 4
{targets}
learning_rate: 0.02
micro_batch_size: 2
gradient_accumulation_steps: 1
num_epochs: 3
warmup_steps: 1
sequence_len: 64
output_dir: {work}/out
device: cpu
export: {{formats: [adapter, merged], dtype: f32}}
""")
    done = subprocess.run([tune, "run", str(work / "recipe.yaml")], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{model.name}: tune run failed\n{done.stderr}")
    return work / "out"


def adapted(model):
    keys = (key for key, _ in model.named_parameters() if ".lora_A" in key)
    return {key.removeprefix("base_model.model.").split(".lora_A")[0] for key in keys}


def main(tune, models):
    failed = 0
    folders = sorted(folder for folder in Path(models).iterdir() if (folder / "config.json").exists())
    cases = [(folder, "lora_target_linear: true", True) for folder in folders]
    cases += [(Path(models) / name, targets, False) for name, targets in FURTHER]
    for model, targets, all_linear in cases:
        ids = torch.arange(1, 41).reshape(2, 20)
        with tempfile.TemporaryDirectory() as work, torch.no_grad():
            out = run(tune, model.resolve(), targets, Path(work))
            base = load(model)
            before = base(ids).logits
            peft = PeftModel.from_pretrained(load(model), str(out / "adapter")).eval()
            after, merged = peft(ids).logits, load(out / "merged")(ids).logits
            apart, changed = float((after - merged).abs().max()), float((after - before).abs().max())
            complaints = []
            if apart > 2e-4:
                complaints.append("adapter and merged checkpoint differ")
            if changed < 1e-2:
                complaints.append("the adapter changes nothing")
            if all_linear:
                theirs = adapted(get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2)))
                theirs = {path for path in theirs if not path.endswith(ROUTERS)}
                if adapted(peft) != theirs:
                    complaints.append(f"all-linear differs from PEFT's: {sorted(adapted(peft) ^ theirs)[:6]}")
        failed += bool(complaints)
        what = targets.replace("\n", ", ")
        print(f"{model.name:14} {what:90} apart {apart:.1e}, changed {changed:5.2f}  {'; '.join(complaints) or 'ok'}", flush=True)
    print(f"{len(cases)} cases, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
