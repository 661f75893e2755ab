"""Options under which compare_axolotl.py compares rows, and the differences that are deliberate.

An option is a name with keys of the recipe (`top`), of its data set (`source`), and the form of the rows. A deliberate
difference is a sentence of docs/recipe.md with the rows that it covers.
"""

import json
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
SHAREGPT = {"field_messages": "conversations", "message_property_mappings": {"role": "from", "content": "value"}}

OPTIONS = [
    {"name": "default"},
    {"name": "on_inputs", "top": {"train_on_inputs": True}},
    {"name": "roles_all", "source": {"roles_to_train": ["user", "assistant", "system", "tool"]}},
    {"name": "roles_user", "source": {"roles_to_train": ["user"]}},
    {"name": "roles_gpt", "source": {"roles_to_train": ["gpt", "tool"]}},
    {"name": "roles_none", "source": {"roles_to_train": [], "message_field_training": "train"}},
    {"name": "eos_all", "source": {"train_on_eos": "all"}},
    {"name": "eos_last", "source": {"train_on_eos": "last"}},
    {"name": "eos_none", "source": {"train_on_eos": "none"}},
    {"name": "eot_own", "top": {"eot_tokens": "OF_TEMPLATE"}},
    {"name": "eot_all", "top": {"eot_tokens": "OF_TEMPLATE"}, "source": {"train_on_eot": "all", "train_on_eos": "all"}},
    {"name": "eot_last", "top": {"eot_tokens": "OF_TEMPLATE"}, "source": {"train_on_eot": "last", "train_on_eos": "last"}},
    {"name": "eot_none", "top": {"eot_tokens": "OF_TEMPLATE"}, "source": {"train_on_eot": "none", "train_on_eos": "none"}},
    {"name": "training", "source": {"message_field_training": "train"}},
    {"name": "detail", "source": {"message_field_training_detail": "train_detail"}},
    {"name": "training_detail", "source": {"message_field_training": "train", "message_field_training_detail": "train_detail"}},
    {"name": "training_inputs", "top": {"train_on_inputs": True}, "source": {"message_field_training": "train"}},
    {"name": "no_system", "source": {"drop_system_message": True}},
    {"name": "roles_mapped", "source": {"roles": {"assistant": ["gpt", "model", "assistant"], "user": ["human", "user"]}}},
    {"name": "sharegpt", "form": "sharegpt", "source": SHAREGPT},
    {"name": "sharegpt_training", "form": "sharegpt", "source": {**SHAREGPT, "message_field_training": "train"}},
    {"name": "split_thinking", "source": {"split_thinking": True}},
    {"name": "thinking_key", "source": {"field_thinking": "thinking"}},
    {"name": "kwargs", "top": {"chat_template_kwargs": {"enable_thinking": False}}},
    {
        "name": "source_template",
        "top": {"chat_template": "chatml"},
        "source": {"chat_template": "jinja", "chat_template_jinja": "OF_TEMPLATE"},
    },
]

# Axolotl's names of templates, each with a tokenizer that has its tokens.
NAMED = {
    "chatml": "qwen2", "alpaca": "llama3", "llama3": "llama3", "mistral_v1": "mistral_v1", "gemma": "gemma",
    "deepseek_v3": "deepseek", "qwen_25": "qwen2",
}  # fmt: skip


def named_templates(fixtures):
    """The named templates as Axolotl has them; a recipe gives them by name."""
    from axolotl.utils.chat_templates.base import get_chat_template

    found = {}
    for name, tokenizer in NAMED.items():
        like = next(template for template in fixtures.values() if template["tokenizer"] == f"tokenizers/{tokenizer}")
        found[f"named-{name}"] = {**like, "template": get_chat_template(name), "name": name}
    return found


# Templates of this project, on the models of tests/fixtures, of which some rows are kept as a test (`--store`). Together they
# have what published ones have: an empty think block before the last answer, calls before and after the content, content
# that is trimmed, a system turn that the template inserts or merges into a question, an end of sequence after the last turn.
OWN = {
    "own-think": {
        "model": "qwen3",
        "template": """{%- set last = namespace(question=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set last.question = loop.index0 %}{%- endif %}{%- endfor %}
{%- if tools %}{{- '<|im_start|>system\\nTools: ' + (tools | tojson) + '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- set content = message.content if message.content is string else '' %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > last.question %}{{- '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}{%- endif %}
{{- content }}
{%- for call in message.tool_calls or [] %}{{- '\\n<tool_call>' + (call.function.arguments | tojson) + '</tool_call>' }}{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}""",
    },
    "own-calls-first": {
        "model": "llama31",
        "template": """{{- bos_token }}
{%- if messages[0].role != 'system' %}{{- '<|start_header_id|>system<|end_header_id|>\\n\\nBe kind.<|eot_id|>' }}{%- endif %}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{%- if message.tool_calls is defined %}{%- for call in message.tool_calls %}{{- '<|python_tag|>' + (call.function | tojson) + '\\n' }}{%- endfor %}{%- endif %}
{{- (message.content or '') | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}""",
    },
    "own-inst": {
        "model": "mistral_sw",
        "template": """{{- bos_token }}
{%- set note = namespace(text='') %}
{%- for message in messages %}
{%- if message.role == 'system' %}{%- set note.text = (message.content or '') + '\\n\\n' %}
{%- elif message.role == 'assistant' %}{{- ' ' + (message.content or '') + eos_token }}
{%- else %}{{- ' [INST] ' + note.text + (message.content or '') + ' [/INST]' }}{%- set note.text = '' %}{%- endif %}
{%- endfor %}""",
    },
    "own-turns": {
        "model": "gemma3",
        "template": """{{- bos_token }}
{%- for message in messages %}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' + (message.content or '') | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}""",
    },
    "own-tail": {
        "model": "phi4_mini",
        "template": """{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' + (message.content or '') + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- else %}{{- eos_token }}{%- endif %}""",
    },
}  # fmt: skip


def own_templates():
    """The templates of this project, with the special tokens of their models."""
    found = {}
    for name, own in OWN.items():
        settings = json.loads((HERE.parent / "tests/fixtures/models" / own["model"] / "tokenizer_config.json").read_text())
        keys = ("bos_token", "eos_token", "pad_token", "unk_token")
        found[name] = {**own, "special_tokens": {key: settings[key] for key in keys if settings.get(key)}}
    return found


# Features of which a row is kept for every template of this project, besides some that are drawn.
ALWAYS_STORED = {"reasoning_parts", "parts_train", "inline_think", "reasoning", "call_null_content", "call_twice", "answer_empty", "nulls_beside", "system_column"}

# -- deliberate differences


def only(case, *starts):
    """True if masks alone differ, and each piece begins as one of `starts` says (who trains it, and the text)."""
    return case["kind"] == "labels" and all(any(who == by and text.strip() in texts for by, texts in starts) for who, text in case["pieces"])


def ends_without_eot_tokens(case, template):
    eos = template["special_tokens"].get("eos_token")
    ends = [token for token in ENDS if token in template["template"] and token != eos]
    named = case["option"].startswith("eot_")
    return not named and only(case, ("tune trains", ends))


def has(*tags):
    return lambda case, template: bool(set(case["tags"]) & set(tags))


def refused_there(*tags, reasons=()):
    """Rows with one of the features that only Axolotl, or the template in it, refuses."""

    def covers(case, template):
        is_known = not reasons or any(reason in case["axolotl"] for reason in reasons)
        return case["kind"] == "only Axolotl refuses" and is_known and (not tags or bool(set(case["tags"]) & set(tags)))

    return covers


def other_ids(*tags):
    return lambda case, template: case["kind"] == "ids" and bool(set(case["tags"]) & set(tags))


def of_templates(names, covers):
    return lambda case, template: case["template"] in names and covers(case, template)


CALLS = [
    "call_empty_content", "call_null_content", "call_missing_content", "call_with_content", "call_arguments_text",
    "call_arguments_empty", "call_arguments_nested", "call_twice", "call_bare", "call_with_ids", "call_is_last",
    "call_reply_object", "call_reply_is_last", "calls_as_text", "call_with_reasoning", "call_arguments_no_json",
]  # fmt: skip
ENDS = ["<|im_end|>", "<|eot_id|>", "<|eot|>", "<|end|>", "<end_of_turn>"]

# Each with the words of docs/recipe.md that say it, and the rows that it covers.
DELIBERATE = [
    ("The token with which the template closes an answer", ends_without_eot_tokens),
    ("Axolotl has no such key by default", lambda case, template: case["kind"] == "labels" and "weight_keys" in case["tags"]),
    ("Tool calls and their arguments are read as JSON text or as values", refused_there(*CALLS, reasons=["TypeError", "UndefinedError: 'str object'", "single tool-calls"])),
    ("Tool calls and their arguments are read as JSON text or as values", of_templates(["deepseek_v3", "named-deepseek_v3"], refused_there("call_arguments_no_json"))),
    ("Text that is no JSON is refused", lambda case, template: case["kind"] == "only tune refuses" and "call_arguments_no_json" in case["tags"]),
    ("`field_thinking` names the key of a message's reasoning", other_ids("reasoning_other_key")),
    ("These are real keys, of Axolotl 0.19", lambda case, template: "is an Axolotl key that is not implemented" in case["tune"]),
    ("A call without `function` around it", refused_there("call_bare", reasons=["has no attribute"])),
    ("An empty list of calls is no list", other_ids("calls_empty_list")),
    ("An empty list of calls is no list", refused_there("calls_empty_list")),
    ("A tool's result that is an object is written as JSON", other_ids("call_reply_object")),
    ("A tool's result that is an object is written as JSON", refused_there("call_reply_object")),
    ("Strings among the parts of a content are text", lambda case, template: case["kind"] == "ids" and {"space_behind", "space_around"} & set(case["tags"]) and "parts" in str(case["tags"])),
    ("A message without content is an empty one", refused_there(reasons=["has no attribute 'content'"])),
    ("The end of an empty turn is never trained", lambda case, template: "system_empty" in case["tags"] and only(case, ("Axolotl trains", ENDS))),
    ("The place of a part is that in the row", of_templates(["mistral_v1", "named-mistral_v1", "own-inst"], lambda case, template: case["kind"] == "labels" and re.search("parts|details", str(case["tags"])))),
]


def deliberate(case, template):
    """The words of docs/recipe.md for a deliberate difference; None if the case is not one."""
    for words, covers in DELIBERATE:
        if covers(case, template):
            return words
    return None


def check_words():
    """Every deliberate difference is listed in docs/recipe.md."""
    listed = re.sub(r"\s+", " ", (HERE.parent / "docs/recipe.md").read_text())
    missing = sorted({words for words, _ in DELIBERATE if words not in listed})
    if missing:
        raise SystemExit(f"docs/recipe.md does not list: {missing}")
