#!/bin/bash
# Axolotl 0.19.0 accepts `field_tools` and `field_thinking` of a data set of `type: chat_template`, both of them documented,
# and neither has an effect. The first is not passed on to what renders the rows; the second is passed on, but only looked
# at where no mapping of keys is set, and validation always sets one for role and content. Tools and reasoning of the rows
# are missing from every prompt, without a warning. What works is a column called `tools`, and `message_property_mappings`.
#
# Seen, through Axolotl's own configuration and prompt strategy: with `field_tools: functions` and `field_thinking: thoughts`
# "user: Rain?<end>assistant: No.<end>"; with a column `tools` and the mapping
# "tools: weather<end>user: Rain?<end>assistant: (It is dry.) No.<end>".
# The same with the versions that Axolotl pins itself (transformers 5.16.1, datasets 4.8.4, trl 1.9.0).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 datasets==5.2.0 peft==0.21.2 torch==2.15.0 accelerate==1.15.0 jinja2==3.1.6 \
  addict fire colorama sentencepiece protobuf posthog python-dotenv requests typer zstandard einops scipy numba pillow
"$work/venv/bin/pip" install --quiet --no-deps axolotl==0.19.0 trl==1.16.0
cd "$work"
export AXOLOTL_DO_NOT_TRACK=1 AXOLOTL_LOG_LEVEL=WARNING HF_HUB_OFFLINE=1 HF_HOME=$work/home
"$work/venv/bin/python" - 2>"$work/log" <<'PY' || { tail "$work/log"; exit 1; }
from importlib.metadata import version

import transformers
from axolotl.cli.config import load_cfg
from axolotl.prompt_strategies import load
from axolotl.utils.dict import DictDefault
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

assert version("axolotl") == "0.19.0"
letters = Tokenizer(models.BPE({letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
letters.pre_tokenizer, letters.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<end>")
transformers.LlamaConfig(vocab_size=512, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained("model")
recipe = {
    "base_model": "model", "sequence_len": 256, "num_epochs": 1, "micro_batch_size": 2, "gradient_accumulation_steps": 1,
    "learning_rate": 1e-4, "optimizer": "adamw_torch", "lr_scheduler": "cosine", "output_dir": "out",
}
template = (
    "{% if tools %}tools:{% for tool in tools %} {{ tool.function.name }}{% endfor %}<end>{% endif %}"
    "{% for message in messages %}{{ message.role }}: "
    "{% if message.reasoning_content %}({{ message.reasoning_content }}) {% endif %}{{ message.content }}<end>{% endfor %}"
)
rows = {"path": "rows.jsonl", "type": "chat_template", "chat_template": "jinja", "chat_template_jinja": template}
mapping = {"role": "role", "content": "content", "reasoning_content": "thoughts"}


def rendered(column, keys):
    cfg = load_cfg(DictDefault({**recipe, "datasets": [{**rows, **keys}]}))
    row = load("chat_template", tokenizer, cfg, cfg.datasets[0]).tokenize_prompt({
        "messages": [
            {"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "No.", "thoughts": "It is dry."},
        ],
        column: [{"type": "function", "function": {"name": "weather", "description": "", "parameters": {}}}],
    })
    text = tokenizer.decode(row["input_ids"])
    print(f"column {column}, {keys}: {text}")
    return text


fields = rendered("functions", {"field_tools": "functions", "field_thinking": "thoughts"})
assert fields == "user: Rain?<end>assistant: No.<end>", "field_tools or field_thinking has an effect now"
names = rendered("tools", {"message_property_mappings": mapping})
assert names == "tools: weather<end>user: Rain?<end>assistant: (It is dry.) No.<end>"
PY
