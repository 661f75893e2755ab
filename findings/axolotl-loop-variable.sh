#!/bin/bash
# Axolotl 0.19.0 hands a chat template only those keys of a message that it finds in the template's text, and it looks for
# them on the list, on variables assigned from it and on a variable called `message`, not on the loop's own variable. A valid
# template that says `for m in messages` gets role and content alone: calls and reasoning of the rows are neither rendered nor
# trained, without a warning. transformers renders the same template, given the same messages, with both.
#
# Seen, through Axolotl's own configuration and prompt strategy: with `m` the trained text of an answer with reasoning and a
# call is "Wait.<end>"; with `message` for `m` it is "(Look it up.) Wait. weather<end>", which transformers gives for either.
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
from copy import deepcopy
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
    "{% for VARIABLE in messages %}{{ VARIABLE.role }}: "
    "{% if VARIABLE.reasoning_content %}({{ VARIABLE.reasoning_content }}) {% endif %}{{ VARIABLE.content }}"
    "{% for call in VARIABLE.tool_calls or [] %} {{ call.function.name }}{% endfor %}<end>{% endfor %}"
)
call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
messages = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "Wait.", "reasoning_content": "Look it up.", "tool_calls": [call]},
]
question, plain = "user: Rain?<end>assistant: ", "Wait.<end>"
whole = "(Look it up.) Wait. weather<end>"
for variable, expected in [("m", plain), ("message", whole)]:
    text = template.replace("VARIABLE", variable)
    rows = {"path": "rows.jsonl", "type": "chat_template", "chat_template": "jinja", "chat_template_jinja": text}
    cfg = load_cfg(DictDefault({**recipe, "datasets": [rows]}))
    row = load("chat_template", tokenizer, cfg, cfg.datasets[0]).tokenize_prompt({"messages": deepcopy(messages)})
    rendered = tokenizer.decode(row["input_ids"])
    trained = tokenizer.decode([label for label in row["labels"] if label != -100])
    print(f"loop variable {variable}: rendered {rendered!r}, trained {trained!r}")
    assert tokenizer.apply_chat_template(messages, chat_template=text, tokenize=False) == question + whole
    assert rendered == question + expected, "the template is given other keys now"
    assert trained == expected
PY
