#!/bin/bash
# transformers 5.24.0 takes keys that are null out of messages before a chat template sees them, but only those of the
# message itself: nulls inside tool calls reach the template. So `content: null` is undefined in a template, not none, and
# prints nothing, while an argument that is null is printed as null.
#
# Seen: the keys of {"role": "user", "content": null, "name": null} are ['role'] inside the template; of a call's
# arguments {"city": "Rome", "day": null} both keys are there. Jinja itself, given the same message, prints None.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 jinja2==3.1.6
HF_HOME=$work/home "$work/venv/bin/python" - <<'PY'
import jinja2
import transformers
from tokenizers import Tokenizer, models

assert transformers.__version__ == "5.24.0"
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))


def render(template, messages):
    tokenizer.chat_template = template
    return tokenizer.apply_chat_template(messages, tokenize=False)


message = {"role": "user", "content": None, "name": None}
keys = render("{% for m in messages %}{{ m.keys() | list }}{% endfor %}", [message])
print("keys of the message:", keys)
assert keys == "['role']", "null keys reach the template now"
content = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
assert render(content, [message]) == "<>"
assert jinja2.Template(content).render(messages=[message]) == "<None>"

call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome", "day": None}}}
arguments = render(
    "{% for m in messages %}{{ m.tool_calls[0].function.arguments | tojson }}{% endfor %}",
    [{"role": "assistant", "content": None, "tool_calls": [call]}],
)
print("arguments of a call:", arguments)
assert arguments == '{"city": "Rome", "day": null}', "nulls inside calls are taken out now"
PY
