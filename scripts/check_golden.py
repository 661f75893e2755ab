"""Does transformers render and tokenise the golden prompts of exported folders to the text and ids that training had?"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = json.loads((Path(folder) / "golden_prompts.json").read_text())
    for prompt in prompts:
        text, special = prompt["text"], prompt.get("add_special_tokens", True)
        if prompt["messages"]:
            special = False
            text = tokenizer.apply_chat_template(
                prompt["messages"],
                tokenize=False,
                add_generation_prompt=prompt["add_generation_prompt"],
                **prompt["template_variables"],
            )
        ids = tokenizer(text, add_special_tokens=special)["input_ids"]
        if text != prompt["text"] or ids != prompt["input_ids"]:
            sys.exit(f"{folder}: {prompt['text']!r} {prompt['input_ids']}\nbecomes {text!r} {ids}")
    print(f"{folder}: {len(prompts)} golden prompts, text and ids equal")
