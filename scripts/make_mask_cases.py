#!/usr/bin/env python3
"""make_mask_cases.py TOKENIZER OUT.json: rows with the token ids and masks that Axolotl gives them.

Needs Axolotl (0.19.0) and transformers. `datasets/tests/masks.rs` puts the same rows through the same templates and
compares every token. TOKENIZER is `tests/fixtures/tokenizers/qwen3`.
"""
import copy
import json
import logging
import sys

import transformers
from axolotl.prompt_strategies.chat_template import StrategyLoader
from axolotl.utils.dict import DictDefault
from transformers import AutoTokenizer

TEMPLATES = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}",
    # Reasoning after the last question only, an empty block where there is none, calls after the content.
    "thinking": """{%- set last = namespace(user=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
  {%- set content = message.content if message.content is string else '' %}
  {%- if message.role == 'assistant' %}
    {%- set why = '' %}
    {%- if message.reasoning_content is string %}
      {%- set why = message.reasoning_content %}
    {%- elif '</think>' in content %}
      {%- set why = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
      {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>assistant\n' }}
    {%- if loop.index0 > last.user and (loop.last or why) %}
      {{- '<think>\n' + why.strip('\n') + '\n</think>\n\n' }}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls or [] %}
      {{- '\n' if content or not loop.first }}
      {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
  {%- elif message.role == 'tool' %}
    {{- '<|im_start|>user\n<tool_response>\n' + content + '\n</tool_response><|im_end|>\n' }}
  {%- else %}
    {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
  {%- endif %}
{%- endfor %}""",
    "calls_first": "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% for call in message.tool_calls or [] %}"
    "{{ '<tool_call>' + call.function.name + ' ' + (call.function.arguments | tojson) + '</tool_call>\n' }}{% endfor %}"
    "{{ message.content or '' }}{{ '<|im_end|>\n' }}{% endfor %}",
    # A result is answered without a header, and its own header and end are not those of other turns.
    "results": "{% for message in messages %}{% if message.role == 'tool' %}{{ '<tool_response>' + message.content + '</tool_response>' }}"
    "{% elif message.role == 'assistant' %}{{ '' if loop.index0 and messages[loop.index0 - 1].role == 'tool' else '<|im_start|>' }}"
    "{{ message.content or '' }}{% for call in message.tool_calls or [] %}{{ '<tool_call>' + call.function.name + '</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>' }}{% else %}{{ '[' + message.role + ']' + message.content }}{% endif %}{% endfor %}",
    "trimmed": "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n\n' + (message.content | trim) + '\n\n<|im_end|>' }}{% endfor %}"
    "{{ eos_token }}",
    "far_end": "{% for message in messages %}{{ message.role + ': ' + message.content + ' (end of turn) <|im_end|>' }}{% endfor %}",
    "merged": "{% for message in messages %}{% if message.role == 'system' %}{% elif message.role == 'user' %}{{ '<|im_start|>' }}"
    "{{ messages[0].content + '\n\n' if loop.index0 == 1 and messages[0].role == 'system' else '' }}{{ message.content + '<|im_start|>' }}"
    "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}{% endfor %}",
}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


Q, A = turn("user", "How far is it?"), turn("assistant", "Not far: 3 km.")
Q2, A2 = turn("user", "On foot?"), turn("assistant", " Half an hour. ")
S = turn("system", "Be brief.")
CALL = turn("assistant", None, tool_calls=[call("route", to="Rom", by=["foot", "train"])])
TEXT_CALL = turn("assistant", "Let me see.", tool_calls=[call("route", to="Rom"), call("time")])
RESULT = turn("tool", "3 km")
THOUGHT = turn("assistant", "Not far.", reasoning_content="They walk.\nIt is 3 km.")
INLINE = turn("assistant", "<think>\nThey walk.\n</think>\n\nNot far.")
EMPTY = turn("assistant", "")

CONVERSATIONS = {
    "one": [Q, A],
    "two": [Q, A, Q2, A2],
    "system": [S, Q, A],
    "begins_with_answer": [A, Q, A2],
    "ends_with_question": [Q, A, Q2],
    "two_answers": [Q, A, A2],
    "call": [Q, CALL, RESULT, A],
    "text_call": [S, Q, TEXT_CALL, RESULT, turn("tool", "soon"), A2],
    "ends_with_call": [Q, TEXT_CALL],
    "reasoning": [Q, THOUGHT],
    "reasoning_twice": [Q, THOUGHT, Q2, THOUGHT],
    "reasoning_call": [Q, {**TEXT_CALL, "reasoning_content": "Look it up."}, RESULT, THOUGHT],
    "inline": [Q, INLINE],
    "inline_twice": [Q, INLINE, Q2, INLINE],
    "empty": [Q, EMPTY, Q2, A],
    "empty_last": [Q, A, Q2, EMPTY],
    "only_reasoning": [Q, A, Q2, turn("assistant", "", reasoning_content="Hm.")],
    "whitespace": [Q, turn("assistant", "\n\n  Not far.\n\n")],
    "unicode": [turn("user", "Größe? 中文"), turn("assistant", "é中🚀 Größe\u0301")],
    "tokens_in_text": [Q, turn("assistant", "A turn ends in <|im_end|> here.")],
    "like_header": [turn("user", "assistant\n"), turn("assistant", "assistant\nassistant\n")],
    "same_letters": [turn("user", "ttt"), turn("assistant", "tt"), turn("user", "tt"), turn("assistant", "t")],
    "brackets": [Q, turn("assistant", "[[dummy]] zz")],
}
ONLY_TEXT = {name for name, messages in CONVERSATIONS.items()
             if all(isinstance(m["content"], str) and "tool_calls" not in m and m["role"] != "tool" for m in messages)}

OPTIONS = {
    "plain": {},
    "inputs": {"train_on_inputs": True},
    "users": {"roles_to_train": ["user", "system"]},
    "results": {"roles_to_train": ["assistant", "tool"]},
    "all_ends": {"train_on_eos": "all"},
    "last_end": {"train_on_eos": "last"},
    "no_end": {"train_on_eos": "none"},
    "eot_alone": {"train_on_eos": "none", "train_on_eot": "turn"},
}


def part(text, **more):
    return {"type": "text", "text": text, **more}


DETAIL = {"message_field_training": "train", "message_field_training_detail": "detail"}
MARKED = {
    "parts": ({}, [Q, turn("assistant", [part("Two and two", train=False), part(" It is four.", train=True)])]),
    "weights": ({}, [Q, turn("assistant", [part("Two and two", weight=0), part(" It is four.", weight=1), part("!", weight=0)])]),
    "some_marked": ({}, [Q, turn("assistant", [part("First. "), part("Second. ", train=False), part("Third.")]), Q2, A2]),
    "straddling": ({}, [Q, turn("assistant", [part("The walk", train=False), part("ing is fun", train=True), part("ny", train=False)])]),
    "one_letter": ({}, [Q, turn("assistant", [part("Th", train=False), part("e", train=True), part(" en", train=False), part("d of it", train=True)])]),
    "other_keys": ({}, [Q, turn("assistant", [{"content": "Two", "train": False}, {"value": " is four.", "weight": 1.0}])]),
    "unmarked": ({}, [Q, turn("assistant", [part("Two"), part(" parts.")])]),
    "none_trained": ({}, [Q, turn("assistant", [part("Two", train=False)]), Q2, A2]),
    "no_text": ({}, [Q, turn("assistant", [part("", train=True)]), Q2, A2]),
    "user_parts": ({}, [turn("user", [part("How", train=True), part(" far is it?", train=False)]), A]),
    "user_parts_unmarked": ({}, [turn("user", [part("How"), part(" far?")]), A]),
    "unicode_parts": ({}, [Q, turn("assistant", [part("é中", train=False), part("🚀é", train=True), part("ß", train=False)])]),
    "reasoning_parts": ({}, [Q, turn("assistant", "Not far.", reasoning_content=[part("They", train=False), part(" walk.", train=True)])]),
    "both_parts": ({}, [Q, turn("assistant", [part("Not", train=True), part(" far.", train=False)],
                             reasoning_content=[part("They", train=False), part(" walk.", train=True)])]),
    "content_parts": ({}, [Q, turn("assistant", [part("Not", train=False), part(" far.", train=True)], reasoning_content="Why.")]),
    "parts_and_call": ({}, [Q, turn("assistant", [part("Let", train=False), part(" me see.", train=True)],
                                  tool_calls=[call("time")])]),
    "flag": (DETAIL, [Q, {**A, "train": False}, {**Q2, "train": True}, A2]),
    "detail": (DETAIL, [Q, {**A, "detail": [{"begin_offset": 0, "end_offset": 2, "train": True},
                                             {"begin_offset": 3, "end_offset": 13, "train": False}]}]),
    "detail_in_part": (DETAIL, [Q, {**A, "detail": [{"begin_offset": 4, "end_offset": 8, "train": True}]}, Q2, A2]),
    "detail_empty": (DETAIL, [Q, {**A, "detail": []}, Q2, A2]),
    "detail_and_flag": (DETAIL, [Q, {**A, "train": False, "detail": [{"begin_offset": 0, "end_offset": 2, "train": True}]}, Q2, A2]),
    "detail_and_parts": (DETAIL, [Q, turn("assistant", [part("Two", train=False), part(" four.", train=True)],
                                        detail=[{"begin_offset": 0, "end_offset": 8, "train": True}])]),
    "detail_beyond": (DETAIL, [Q, {**A, "detail": [{"begin_offset": 4, "end_offset": 99, "train": True}]}]),
}


def strategy(tokenizer, template, options):
    top = {"sequence_len": 4096, "chat_template": "jinja", "chat_template_jinja": TEMPLATES[template],
           "train_on_inputs": options.get("train_on_inputs", False), "eot_tokens": ["<|im_end|>"]}
    # As a validated recipe has them: a template gets the reasoning only if it reads it.
    source = {"field_thinking": None, "template_thinking_key": None}
    source.update({key: value for key, value in options.items() if key != "train_on_inputs"})
    return StrategyLoader()(tokenizer, DictDefault(top), source)


def result(tokenizer, template, messages, all_options):
    results = []
    for options in all_options:
        tokenized = strategy(tokenizer, template, options).tokenize_prompt({"messages": copy.deepcopy(messages)})
        ids = tokenized["input_ids"]
        results.append({**options, "trained": "".join("0" if label == -100 else "1" for label in tokenized["labels"])})
    return {"template": template, "messages": messages, "ids": ids, "results": results}


def main():
    logging.disable(logging.WARNING)
    folder, out = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder, eos_token="<|endoftext|>")
    rows = []
    for template in TEMPLATES:
        for name, messages in CONVERSATIONS.items():
            if name not in ONLY_TEXT and template in ("chatml", "trimmed", "far_end", "merged"):
                continue
            chosen = [options for option, options in OPTIONS.items() if template in ("chatml", "thinking")
                      or option in ("plain", "inputs", "all_ends") or name in ("two", "call")]
            rows.append(result(tokenizer, template, messages, chosen))
    for template in ("chatml", "thinking"):
        for options, messages in MARKED.values():
            rows.append(result(tokenizer, template, messages, [options, {**options, "train_on_eos": "none"}]))
    with open(out, "w", encoding="utf-8") as file:
        head = json.dumps({"axolotl": "0.19.0", "transformers": transformers.__version__, "templates": TEMPLATES},
                          ensure_ascii=False)[1:-1]
        lines = ",\n".join("    " + json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
        file.write("{" + head + ',\n  "rows": [\n' + lines + "\n  ]}\n")
    print(sum(len(row["results"]) for row in rows), "masks")


main()
