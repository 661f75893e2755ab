#!/bin/bash
# transformers 5.24.0 takes template files of a folder in place of the `chat_template` in tokenizer_config.json, all or
# nothing: a folder whose configuration holds the usual template and which has one further file,
# additional_chat_templates/tool_use.jinja, cannot render a conversation without tools any more; the template in the
# configuration is gone, without a word while loading.
#
# Seen: without the file the configuration's template renders; with it `chat_template` is {'tool_use': ...} and rendering
# without tools is a ValueError that asks for a default, while rendering with tools works.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 jinja2==3.1.6
HF_HOME=$work/home WORK=$work "$work/venv/bin/python" - <<'PY'
import json
import os
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models

assert transformers.__version__ == "5.24.0"
folder = Path(os.environ["WORK"], "model")
tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
path = folder / "tokenizer_config.json"
configuration = json.loads(path.read_text())
configuration["chat_template"] = "plain:{{ messages[0].content }}"
path.write_text(json.dumps(configuration))
messages = [{"role": "user", "content": "hi"}]
tools = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}]


def loaded():
    return transformers.AutoTokenizer.from_pretrained(folder)


before = loaded().apply_chat_template(messages, tokenize=False)
print("configuration alone:", before)
assert before == "plain:hi"
(folder / "additional_chat_templates").mkdir()
(folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools:{{ messages[0].content }}")
after = loaded()
print("with a template for tools:", after.chat_template)
assert after.chat_template == {"tool_use": "tools:{{ messages[0].content }}"}, "the configuration's template is kept now"
assert after.apply_chat_template(messages, tools=tools, tokenize=False) == "tools:hi"
try:
    after.apply_chat_template(messages, tokenize=False)
    raise AssertionError("a conversation without tools is rendered now")
except ValueError as error:
    print("without tools:", str(error)[:90])
PY
