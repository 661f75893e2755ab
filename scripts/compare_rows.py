"""Generated conversations for compare_axolotl.py: one feature each at first, then up to three together.

A conversation is a dictionary: `messages` in the form of OpenAI's rows, `columns` beside them, `tags` that name its features.
Flags stand under the key `train`, details under `train_detail`; an option that does not read them leaves them out.
"""

import copy
import json
import random

WORDS = "the sky river stone answer maybe seven green engine quiet Zürich 東京 naïve coffee window open late train book".split()
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Weather of a city.", "parameters": CITY}}


def words(rng, most=6):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def plain(rng, turns=None):
    messages = []
    for _ in range(turns or rng.choice([1, 1, 2, 3])):
        messages.append({"role": "user", "content": words(rng).capitalize() + "?"})
        messages.append({"role": "assistant", "content": words(rng).capitalize() + "."})
    return messages


def last_answer(row):
    return [message for message in row["messages"] if message["role"] == "assistant"][-1]


def any_answer(row, rng):
    return rng.choice([message for message in row["messages"] if message["role"] == "assistant"])


def last_question(row):
    return [message for message in row["messages"] if message["role"] == "user"][-1]


def call(arguments, **more):
    return {"type": "function", "function": {"name": "weather", "arguments": arguments}, **more}


def with_tools(row, rng, calls, content, replies=("sunny",), last="It is sunny.", **more):
    """Appends a question that calls tools, their results and the answer."""
    row["messages"].append({"role": "user", "content": "Weather?"})
    message = {"role": "assistant", "content": content, "tool_calls": calls, **more}
    if content == "MISSING":
        message.pop("content")
    row["messages"].append(message)
    for reply in replies:
        row["messages"].append({"role": "tool", "content": reply, "name": "weather", "tool_call_id": "call_1"})
    if last is not None:
        row["messages"].append({"role": "assistant", "content": last})


FEATURES = {}


def feature(function):
    FEATURES[function.__name__] = function
    return function


# -- system messages


@feature
def system_first(row, rng):
    row["messages"].insert(0, {"role": "system", "content": "Be " + words(rng, 3) + "."})


@feature
def system_middle(row, rng):
    row["messages"].insert(len(row["messages"]) - 2, {"role": "system", "content": "Now " + words(rng, 2) + "."})


@feature
def system_last(row, rng):
    row["messages"].append({"role": "system", "content": "The end."})


@feature
def system_twice(row, rng):
    row["messages"][:0] = [{"role": "system", "content": "One."}, {"role": "system", "content": "Two."}]


@feature
def system_empty(row, rng):
    row["messages"].insert(0, {"role": "system", "content": ""})


@feature
def system_column(row, rng):
    row["columns"]["system"] = "From the " + words(rng, 2) + "."


@feature
def system_column_and_message(row, rng):
    system_first(row, rng)
    row["columns"]["system"] = "From the column."


# -- content


@feature
def answer_empty(row, rng):
    any_answer(row, rng)["content"] = ""


@feature
def answer_blank(row, rng):
    any_answer(row, rng)["content"] = rng.choice([" ", "\n", " \n\t "])


@feature
def question_empty(row, rng):
    last_question(row)["content"] = ""


@feature
def space_around(row, rng):
    message = any_answer(row, rng)
    message["content"] = rng.choice([" ", "\n", "\n\n", "  "]) + message["content"] + rng.choice(["", " ", "\n", "\n\n"])


@feature
def space_behind(row, rng):
    message = any_answer(row, rng)
    message["content"] += rng.choice([" ", "\n", "\n\n", " \n"])


@feature
def question_spaces(row, rng):
    last_question(row)["content"] = "\n  " + last_question(row)["content"] + " \n"


@feature
def same_answers(row, rng):
    row["messages"] += plain(rng, 2)
    for message in row["messages"]:
        message["content"] = "yes"


@feature
def answer_is_question(row, rng):
    last_answer(row)["content"] = last_question(row)["content"]


@feature
def content_is_role(row, rng):
    last_question(row)["content"], last_answer(row)["content"] = "assistant", "user"


@feature
def special_in_question(row, rng):
    last_question(row)["content"] = "What is <|im_end|> or </s> or <|eot_id|>?"


@feature
def special_in_answer(row, rng):
    last_answer(row)["content"] = "It is <|im_end|> or <end_of_turn> or <|end|>, see?"


@feature
def answer_with_brackets(row, rng):
    last_answer(row)["content"] = "[[a]] and zz"


@feature
def long_lines(row, rng):
    last_answer(row)["content"] = "\n\n".join(words(rng) for _ in range(4)) + "\n```python\nprint('x')\n```"


@feature
def emoji(row, rng):
    last_answer(row)["content"] = "🙂👍🏽 é́ ok 🙂"


@feature
def inline_think(row, rng):
    last_answer(row)["content"] = "<think>\nwhy\n</think>\n\nr"


@feature
def inline_think_early(row, rng):
    row["messages"] = plain(rng, 2)
    row["messages"][1]["content"] = "<think>first</think>a"


@feature
def inline_think_empty(row, rng):
    last_answer(row)["content"] = "<think>\n\n</think>\n\nr"


# -- order


@feature
def ends_with_question(row, rng):
    row["messages"].append({"role": "user", "content": "And then?"})


@feature
def begins_with_answer(row, rng):
    row["messages"].insert(0, {"role": "assistant", "content": "Hello, I am here."})


@feature
def two_answers(row, rng):
    row["messages"].append({"role": "assistant", "content": "And more."})


@feature
def two_questions(row, rng):
    row["messages"].insert(1, {"role": "user", "content": "Please."})


@feature
def one_message(row, rng):
    row["messages"] = [{"role": "assistant", "content": "Only me."}]


# -- parts


@feature
def parts_one(row, rng):
    message = any_answer(row, rng)
    message["content"] = [{"type": "text", "text": message["content"]}]


@feature
def parts_everywhere(row, rng):
    for message in row["messages"]:
        if isinstance(message.get("content"), str):
            message["content"] = [{"type": "text", "text": message["content"]}]


@feature
def parts_two(row, rng):
    last_answer(row)["content"] = [{"type": "text", "text": "One"}, {"type": "text", "text": " and two."}]


@feature
def parts_in_question(row, rng):
    last_question(row)["content"] = [{"type": "text", "text": "One"}, {"type": "text", "text": " and two?"}]


@feature
def parts_train(row, rng):
    last_answer(row)["content"] = [{"type": "text", "text": "Let me think.", "train": False}, {"type": "text", "text": " It is four.", "train": True}]


@feature
def parts_train_last_off(row, rng):
    last_answer(row)["content"] = [{"type": "text", "text": "It is four."}, {"type": "text", "text": " Or so.", "train": False}]


@feature
def parts_weight(row, rng):
    last_answer(row)["content"] = [
        {"type": "text", "text": "One.", "weight": 0},
        {"type": "text", "text": " Two.", "weight": 1},
        {"type": "text", "text": " Three.", "weight": 0.0},
        {"type": "text", "text": " Four."},
    ]


@feature
def parts_all_off(row, rng):
    last_answer(row)["content"] = [{"type": "text", "text": "It is four.", "train": False}]


@feature
def parts_straddle(row, rng):
    last_answer(row)["content"] = [{"type": "text", "text": "It is fo", "train": False}, {"type": "text", "text": "ur then. ", "train": True}, {"type": "text", "text": "Yes.", "train": False}]


@feature
def parts_in_question_train(row, rng):
    last_question(row)["content"] = [{"type": "text", "text": "Quote:", "train": False}, {"type": "text", "text": " words?", "train": True}]


@feature
def parts_other_keys(row, rng):
    last_answer(row)["content"] = [{"type": "text", "content": "One."}, {"type": "text", "value": " Two."}]


@feature
def parts_without_type(row, rng):
    last_answer(row)["content"] = [{"text": "One."}, {"text": " Two."}]


@feature
def parts_empty_list(row, rng):
    last_answer(row)["content"] = []


# -- nulls


@feature
def nulls_beside(row, rng):
    for message in row["messages"]:
        message.update(tool_calls=None, name=None, reasoning_content=None, tool_call_id=None)


@feature
def null_tools(row, rng):
    row["columns"].update(tools=None, system=None)


@feature
def null_train(row, rng):
    for message in row["messages"]:
        message["train"] = None


@feature
def unknown_keys(row, rng):
    for number, message in enumerate(row["messages"]):
        message.update(id=f"m{number}", metadata={"score": 0.5, "by": None}, recipient="all")


@feature
def other_columns(row, rng):
    row["columns"].update(source="web", score=0.25, tags=["a", None], meta={"k": None})


# -- tools


@feature
def tools_unused(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]


@feature
def tools_and_system(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]
    system_first(row, rng)


@feature
def tools_as_text(row, rng):
    row["columns"]["tools"] = json.dumps([TOOL])


@feature
def tools_empty(row, rng):
    row["columns"]["tools"] = []


@feature
def parameters_as_text(row, rng):
    tool = copy.deepcopy(TOOL)
    tool["function"]["parameters"] = json.dumps(CITY)
    row["columns"]["tools"] = [tool]


@feature
def call_empty_content(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]
    with_tools(row, rng, [call({"city": "Rome"})], "")


@feature
def call_null_content(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]
    with_tools(row, rng, [call({"city": "Rome", "days": 2})], None)


@feature
def call_missing_content(row, rng):
    with_tools(row, rng, [call({"city": "Rome"})], "MISSING")


@feature
def call_with_content(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]
    with_tools(row, rng, [call({"city": "Rome"})], "Let me look.")


@feature
def call_arguments_text(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]
    with_tools(row, rng, [call(json.dumps({"city": "Rome", "days": 2}))], "")


@feature
def call_arguments_no_json(row, rng):
    with_tools(row, rng, [call("city: Rome")], "")


@feature
def call_arguments_empty(row, rng):
    with_tools(row, rng, [call({})], "")


@feature
def call_arguments_nested(row, rng):
    with_tools(row, rng, [call({"city": "Zürich", "days": [1, 2.5, None, True], "more": {"a": "\"<b>\"", "z": None}})], "")


@feature
def call_twice(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]
    with_tools(row, rng, [call({"city": "Rome"}), call({"city": "Oslo"})], "", replies=("sunny", "rain"))


@feature
def call_bare(row, rng):
    with_tools(row, rng, [{"name": "weather", "arguments": {"city": "Rome"}}], "")


@feature
def call_with_ids(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]
    with_tools(row, rng, [call({"city": "Rome"}, id="call_1")], None)


@feature
def call_is_last(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]
    with_tools(row, rng, [call({"city": "Rome"})], "", replies=(), last=None)


@feature
def call_reply_object(row, rng):
    with_tools(row, rng, [call({"city": "Rome"})], "", replies=({"sky": "sunny", "degrees": 31},))


@feature
def call_reply_is_last(row, rng):
    with_tools(row, rng, [call({"city": "Rome"})], "", last=None)


@feature
def calls_empty_list(row, rng):
    any_answer(row, rng)["tool_calls"] = []


@feature
def calls_as_text(row, rng):
    with_tools(row, rng, json.dumps([call({"city": "Rome"})]), "")


@feature
def call_with_reasoning(row, rng):
    row["columns"]["tools"] = [copy.deepcopy(TOOL)]
    with_tools(row, rng, [call({"city": "Rome"})], "", reasoning_content="I need the weather.")


# -- reasoning


@feature
def reasoning(row, rng):
    last_answer(row)["reasoning_content"] = "why " + words(rng, 3)


@feature
def reasoning_early(row, rng):
    row["messages"] = plain(rng, 2)
    row["messages"][1]["reasoning_content"] = "because"


@feature
def reasoning_everywhere(row, rng):
    for message in row["messages"]:
        if message["role"] == "assistant":
            message["reasoning_content"] = "so " + words(rng, 2)


@feature
def reasoning_empty(row, rng):
    last_answer(row)["reasoning_content"] = ""


@feature
def reasoning_spaces(row, rng):
    last_answer(row)["reasoning_content"] = "\n why \n\n"


@feature
def reasoning_without_content(row, rng):
    last_answer(row).update(content="", reasoning_content="only thoughts")


@feature
def reasoning_null_content(row, rng):
    last_answer(row).update(content=None, reasoning_content="only thoughts")


@feature
def reasoning_parts(row, rng):
    last_answer(row)["reasoning_content"] = [{"type": "text", "text": "one"}, {"type": "text", "text": " two", "train": False}]


@feature
def reasoning_and_parts(row, rng):
    parts_train(row, rng)
    last_answer(row)["reasoning_content"] = "why"


@feature
def reasoning_other_key(row, rng):
    last_answer(row)["thinking"] = "why in another key"


# -- flags


@feature
def flags(row, rng):
    row["messages"] += plain(rng, 2)
    for message in row["messages"]:
        message["train"] = rng.choice([True, False])


@feature
def flags_some(row, rng):
    row["messages"] += plain(rng, 2)
    last_answer(row)["train"] = False
    row["messages"][0]["train"] = True


@feature
def flags_all_off(row, rng):
    for message in row["messages"]:
        message["train"] = False


@feature
def flags_as_numbers(row, rng):
    row["messages"] += plain(rng, 1)
    last_answer(row)["train"] = 0
    row["messages"][0]["train"] = 1


@feature
def details(row, rng):
    content = last_answer(row)["content"] = "One two three four."
    middle = content.index(" three")
    last_answer(row)["train_detail"] = [
        {"begin_offset": 0, "end_offset": middle - 1, "train": True},
        {"begin_offset": middle, "end_offset": len(content) - 1, "train": False},
    ]


@feature
def details_partial(row, rng):
    last_answer(row)["content"] = "One two three four."
    last_answer(row)["train_detail"] = [{"begin_offset": 5, "end_offset": 9, "train": True}]


@feature
def details_in_question(row, rng):
    last_question(row)["content"] = "One two three four?"
    last_question(row)["train_detail"] = [{"begin_offset": 4, "end_offset": 12, "train": True}]


@feature
def details_empty(row, rng):
    last_answer(row)["train_detail"] = []


@feature
def details_and_flag(row, rng):
    details(row, rng)
    last_answer(row)["train"] = False


@feature
def weight_keys(row, rng):
    row["messages"] += plain(rng, 1)
    row["messages"][1]["weight"] = 0
    row["messages"][-1]["weight"] = 1


# -- roles


@feature
def role_unknown(row, rng):
    row["messages"].insert(1, {"role": "critic", "content": "Hmm."})


@feature
def roles_of_others(row, rng):
    names = {"user": "human", "assistant": "gpt"}
    for message in row["messages"]:
        message["role"] = names.get(message["role"], message["role"])


@feature
def role_model(row, rng):
    for message in row["messages"]:
        message["role"] = {"assistant": "model"}.get(message["role"], message["role"])


@feature
def role_bot(row, rng):
    for message in row["messages"]:
        message["role"] = {"assistant": "bot", "user": "prompter"}.get(message["role"], message["role"])


@feature
def role_developer(row, rng):
    row["messages"].insert(0, {"role": "developer", "content": "Be brief."})


@feature
def role_observation(row, rng):
    row["messages"] += [{"role": "observation", "content": "15"}, {"role": "assistant", "content": "It is 15."}]


@feature
def names(row, rng):
    for message in row["messages"]:
        message["name"] = {"user": "Ann", "assistant": "Bo"}.get(message["role"], "Cy")


# Features that change the roles of all messages go last, since others look for `assistant`.
LATE = ["roles_of_others", "role_model", "role_bot"]


def conversations(seed, count):
    """The conversations of a seed; those of a smaller count are the first ones of a larger."""
    names = list(FEATURES)
    made = []
    for index in range(count):
        rng = random.Random(f"{seed}-{index}")
        row = {"messages": plain(rng), "columns": {}, "tags": ["plain"]}
        if 0 < index <= len(names):
            row["tags"] = [names[index - 1]]
        elif index > len(names):
            row["tags"] = sorted(rng.sample(names, rng.choice([1, 2, 2, 3])), key=lambda name: (name in LATE, rng.random()))
        try:
            for tag in row["tags"]:
                if tag != "plain":
                    FEATURES[tag](row, rng)
        except (IndexError, TypeError, KeyError):  # features that exclude each other
            row = {"messages": plain(rng), "columns": {}, "tags": ["plain"]}
        made.append(row)
    return made


def row_of(conversation, option):
    """The conversation as a row in the form of an option."""
    row = copy.deepcopy(conversation)
    source = option.get("source", {})
    for message in row["messages"]:
        for key, reader in (("train", "message_field_training"), ("train_detail", "message_field_training_detail")):
            if key in message and source.get(reader) != key:
                message.pop(key)
    if option.get("form") == "sharegpt":
        names = {"user": "human", "assistant": "gpt"}
        messages = []
        for message in row["messages"]:
            turn = {"from": names.get(message["role"], message["role"])}
            if "content" in message:
                turn["value"] = message["content"]
            turn.update({key: value for key, value in message.items() if key not in ("role", "content")})
            messages.append(turn)
        return {"conversations": messages, **row["columns"]}
    return {"messages": row["messages"], **row["columns"]}
