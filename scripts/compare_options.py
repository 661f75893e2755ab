"""Options under which compare_axolotl.py compares rows, and the differences that are deliberate.

An option is a name with keys of the recipe (`top`), of its data set (`source`), and the form of the rows. A deliberate
difference is a sentence of docs/recipe.md with the rows that it covers.
"""

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


# Each with the words of docs/recipe.md that say it, and a test of the case (see compare_axolotl.py).
DELIBERATE = []


def deliberate(case, template):
    """The words of docs/recipe.md for a deliberate difference; None if the case is not one."""
    for words, covers in DELIBERATE:
        if covers(case, template):
            return words
    return None


def check_words():
    """Every deliberate difference is said in docs/recipe.md."""
    said = re.sub(r"\s+", " ", (HERE.parent / "docs/recipe.md").read_text())
    missing = [words for words, _ in DELIBERATE if words not in said]
    assert not missing, f"docs/recipe.md does not say: {missing}"
