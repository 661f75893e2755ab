#!/usr/bin/env python3
"""Compares the token ids and labels of generated conversations with Axolotl's, row by row.

    scripts/compare_axolotl.py FIXTURES [--tune target/release/tune] [--rows 300] [--seed 1]

FIXTURES is a folder with `chat/*.json` (templates) and `tokenizers/*`. Conversations are drawn from the seed: roles, tools,
reasoning, nulls, parts, empty turns, system messages in every place, flags. Each goes through Axolotl's own configuration,
tokenizer loading and prompt strategy, and through `tune preview --json`, with every template under every option of
compare_options.py. Rows that differ are printed, grouped by cause; the exit status is 1 if one differs for a cause that is not
among those that `docs/recipe.md` lists as deliberate.

Axolotl is installed once, without its dependencies, into a cache outside the repository (some 6 GiB; TUNE_AXOLOTL, default
~/.cache/tune-axolotl); or name a Python that has it in TUNE_AXOLOTL_PYTHON. Its results are kept beside it, since they
change only with the rows. Not part of CI.
"""

import argparse
import collections
import concurrent.futures
import copy
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PACKAGES = [
    "transformers==5.24.0", "datasets==5.2.0", "peft==0.21.2", "torch", "accelerate", "jinja2", "addict", "fire", "colorama",
    "sentencepiece", "protobuf", "posthog", "python-dotenv", "requests", "typer", "zstandard", "einops", "scipy", "numba",
    "pillow",
]  # fmt: skip
WITHOUT_DEPENDENCIES = ["axolotl==0.19.0", "trl"]
HERE = pathlib.Path(__file__).resolve().parent
IGNORED = -100


def cache_folder():
    return pathlib.Path(os.environ.get("TUNE_AXOLOTL", pathlib.Path.home() / ".cache/tune-axolotl"))


def ensure_axolotl():
    """Continues under a Python that has Axolotl."""
    os.environ.update(AXOLOTL_DO_NOT_TRACK="1", TRL_EXPERIMENTAL_SILENCE="1", HF_HUB_OFFLINE="1")
    os.environ.update(TRANSFORMERS_VERBOSITY="error", AXOLOTL_LOG_LEVEL="ERROR", LOG_LEVEL="ERROR", TOKENIZERS_PARALLELISM="false")
    given = os.environ.get("TUNE_AXOLOTL_PYTHON")
    folder = cache_folder() / "venv"
    python = pathlib.Path(given) if given else folder / "bin/python"
    if os.environ.get("TUNE_AXOLOTL_INSIDE"):
        return
    if not given and not (folder / "complete").exists():
        print(f"installing Axolotl into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/pip", "install", "--quiet"]
        subprocess.run([*pip, *PACKAGES], check=True)
        subprocess.run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES], check=True)
        (folder / "complete").touch()
    os.environ["TUNE_AXOLOTL_INSIDE"] = "1"
    os.execv(python, [str(python), *sys.argv])


# ---------------------------------------------------------------------------------------------------------------- bases


def fixture_templates(fixtures):
    """The templates by name, each with its tokenizer and special tokens."""
    found = {}
    for path in sorted((fixtures / "chat").glob("*.json")):
        content = json.loads(path.read_text())
        if "template" in content:
            found[path.stem] = content
    return found


def write_base(folder, fixtures, template):
    """A base model's folder, without weights: the tokenizer with the special tokens of the template."""
    own = HERE.parent / "tests/fixtures/models" / template.get("model", "llama31")
    shutil.copytree(own if "model" in template else fixtures / template["tokenizer"], folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    settings.update(template["special_tokens"])
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(template["special_tokens"]))
    config = json.loads((own / "config.json").read_text())
    config["max_position_embeddings"] = 8192
    # The ids of the tokenizer, not of the model that the rest comes from.
    ids = {token["content"]: token["id"] for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}
    for key in ("bos_token", "eos_token", "pad_token"):
        config[f"{key}_id"] = ids.get(template["special_tokens"].get(key))
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(own / "model.safetensors", folder)


def recipe_of(base, template, option, rows):
    """The recipe that both programs get."""
    recipe = {
        "base_model": str(base), "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj"],
        "chat_template": "jinja", "chat_template_jinja": template["template"],
        "datasets": [{"path": str(rows), "ds_type": "json", "type": "chat_template"}],
        "sequence_len": 4096, "micro_batch_size": 1, "gradient_accumulation_steps": 1, "num_epochs": 1,
        "learning_rate": 0.001, "output_dir": "out",
    }  # fmt: skip
    if "name" in template:
        recipe["chat_template"] = template["name"]
        recipe.pop("chat_template_jinja")
    source = dict(option.get("source", {}))
    top = dict(option.get("top", {}))
    if top.get("eot_tokens") == "OF_TEMPLATE":
        top["eot_tokens"] = end_tokens(template)
    if source.get("chat_template_jinja") == "OF_TEMPLATE":
        source["chat_template_jinja"] = template["template"]
        recipe.pop("chat_template_jinja", None)
    recipe.update(top)
    recipe["datasets"][0].update(source)
    return recipe


def end_tokens(template):
    """The tokens that end a turn in the template, as its recipes name them."""
    known = ["<|im_end|>", "<|eot_id|>", "<|eot|>", "<|end|>", "<end_of_turn>", "<｜end▁of▁sentence｜>", "</s>"]
    eos = template["special_tokens"].get("eos_token")
    found = [token for token in known if token in template["template"]]
    return found or [eos]


# ------------------------------------------------------------------------------------------------------------- programs


def quiet():
    import logging
    import warnings

    logging.disable(logging.CRITICAL)
    warnings.filterwarnings("ignore")


def axolotl_rows(job):
    """What Axolotl makes of rows under a recipe: for each row its ids and labels, or the reason why it fails."""
    recipe, rows, folder = job
    quiet()
    os.chdir(folder)
    from axolotl.cli.config import load_cfg
    from axolotl.loaders.tokenizer import load_tokenizer
    from axolotl.prompt_strategies import load
    from axolotl.utils.dict import DictDefault

    with open(os.devnull, "w") as null:
        saved = os.dup(1), os.dup(2)
        os.dup2(null.fileno(), 1), os.dup2(null.fileno(), 2)
        try:
            cfg = load_cfg(DictDefault(copy.deepcopy(recipe)))
            tokenizer = load_tokenizer(cfg)
            source = cfg.datasets[0]
            strategy = load(source.type, tokenizer, cfg, source)
            results = []
            for row in rows:
                try:
                    found = strategy.tokenize_prompt(copy.deepcopy(row))
                    results.append({"ids": list(found["input_ids"]), "labels": list(found["labels"])})
                except Exception as error:  # noqa: BLE001  # any failure of a row is a result
                    results.append({"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]})
            return results
        except Exception as error:  # noqa: BLE001
            return [{"failed": f"recipe: {type(error).__name__}: {str(error)[:300]}"}] * len(rows)
        finally:
            os.dup2(saved[0], 1), os.dup2(saved[1], 2)


def remembered(job, versions):
    """`axolotl_rows`, kept on disk by recipe and row."""
    recipe, rows, folder = job
    plain = copy.deepcopy(recipe)
    base = pathlib.Path(plain.pop("base_model"))
    plain["datasets"][0].pop("path")
    files = b"".join((base / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json"))
    key = hashlib.sha256(json.dumps([versions, plain]).encode() + files).hexdigest()
    path = cache_folder() / "results" / f"{key}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    keys = [json.dumps(row) for row in rows]
    new = {key: row for key, row in zip(keys, rows) if key not in known}
    if new:
        known.update(zip(new, axolotl_rows((recipe, list(new.values()), folder))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(known))
        path.with_suffix(".part").rename(path)
    return [known[key] for key in keys]


def accepted_defects(tune):
    """The defects that `preflight.allow` can accept."""
    schema = json.loads(subprocess.run([tune, "schema"], capture_output=True, text=True, check=True).stdout)
    text = json.dumps(schema["properties"]["preflight"])
    return sorted(set(re.findall(r'"([a-z_]+)"', re.search(r'"enum": \[([^\]]*)\]', text).group(0))) - {"enum"})


def tune_rows(tune, recipe, rows, folder, defects, known_failures):
    """What `tune` makes of rows under a recipe; `known_failures` are left out at once."""
    results = [None] * len(rows)
    for index, reason in known_failures.items():
        results[index] = {"failed": reason}
    recipe = {**copy.deepcopy(recipe), "device": "cpu", "lora_target_modules": "all-linear", "preflight": {"allow": defects}}
    path, data = folder / "recipe.yaml", pathlib.Path(recipe["datasets"][0]["path"])
    path.write_text(json.dumps(recipe))
    while True:
        left = [index for index in range(len(rows)) if results[index] is None]
        if not left:
            return results
        data.write_text("".join(json.dumps(rows[index], ensure_ascii=False) + "\n" for index in left))
        done = subprocess.run(
            [tune, "preview", str(path), "--json", "--rows", str(len(rows))],
            capture_output=True, text=True, cwd=folder, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            break
        at = re.search(re.escape(data.name) + r":(\d+)", done.stderr)
        reason = " ".join(done.stderr.split())[-300:]
        if done.returncode == 101 or at is None:
            for index in left:
                results[index] = {"failed": f"recipe: {reason}" if done.returncode != 101 else f"PANIC: {reason}"}
            return results
        index = left[int(at.group(1)) - 1]
        results[index] = {"failed": reason}
        known_failures[index] = reason
    for example in json.loads(done.stdout)["examples"]:
        index = left[int(example["location"].rsplit(":", 1)[1]) - 1]
        results[index] = {"ids": example["input_ids"], "labels": example["labels"]}
    for index in left:
        results[index] = results[index] or {"left out": True}
    return results


# ----------------------------------------------------------------------------------------------------------- comparison


def trained(result):
    """The mask of a result; the first token is never predicted, so that its label does not count."""
    return [index > 0 and label != IGNORED for index, label in enumerate(result["labels"])]


def difference(theirs, ours, text_of):
    """None, or the kind of the difference and the pieces of text in which it shows."""
    if "failed" in theirs and "failed" in ours:
        return None
    if "failed" in theirs:
        return ("only Axolotl refuses", [theirs["failed"]])
    if "failed" in ours:
        return ("only tune refuses", [ours["failed"]])
    if "left out" in ours:
        return None if not any(trained(theirs)) else ("only tune leaves out", [])
    if theirs["ids"] != ours["ids"]:
        pairs = zip(theirs["ids"], ours["ids"])
        at = next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(theirs["ids"]), len(ours["ids"])))
        return ("ids", [text_of(theirs["ids"][at : at + 12]), text_of(ours["ids"][at : at + 12])])
    pieces = []
    masks = list(zip(trained(theirs), trained(ours)))
    start = 0
    while start < len(masks):
        if masks[start][0] == masks[start][1]:
            start += 1
            continue
        end = start
        while end < len(masks) and masks[end] == masks[start]:
            end += 1
        who = "Axolotl trains" if masks[start][0] else "tune trains"
        pieces.append((who, text_of(ours["ids"][start:end])))
        start = end
    return ("labels", pieces) if pieces else None


def kind_of(text):
    """The sort of text in which masks differ."""
    bare = text.strip()
    if not bare:
        return "white space"
    if "think>" in bare:
        return "think block"
    if re.fullmatch(r"(<[^<>]*>|<\|[^|]*\|>|</s>|\[/?[A-Z]+\]|\s)+", bare):
        return f"tokens {bare}" if len(bare) < 40 else "tokens"
    if re.search(r"<\|[^|]*\|>|<[a-z_/]+>|\[/?INST\]", bare):
        return "text with markers"
    return "text"


def group_of(kind, pieces, tags):
    if kind == "labels":
        parts = sorted({f"{who} {kind_of(text)}" for who, text in pieces})
        return f"labels: {', '.join(parts)}"
    if kind in ("only Axolotl refuses", "only tune refuses"):
        reason = re.sub(r"\S*/\S+|`[^`]*`|'[^']*'|\"[^\"]*\"|\d+", "*", pieces[0])
        return f"{kind}: {reason[:110]}"
    return kind


def shown(result, text_of):
    """A result as text, its trained parts in brackets."""
    if "ids" not in result:
        return json.dumps(result, ensure_ascii=False)
    text, mask, start = "", trained(result), 0
    while start < len(mask):
        end = start
        while end < len(mask) and mask[end] == mask[start]:
            end += 1
        piece = text_of(result["ids"][start:end])
        text += f"⟦{piece}⟧" if mask[start] else piece
        start = end
    return text.replace("\n", "\\n")


def kept(name, option, recipe, results, salt):
    """What is kept as a test of a template under an option: a few of the rows that are trained on and not long."""
    import compare_options

    fitting = [result for result in results if "ids" in result[1] and len(result[1]["ids"]) < 400 and any(trained(result[1]))]
    always = [set(tags) <= compare_options.ALWAYS_STORED and option["name"] == "default" for _, _, tags in fitting]
    rows = [
        {"row": row, "ids": found["ids"], "trained": runs(trained(found))}
        for number, (row, found, _) in enumerate(fitting)
        if number % 110 == salt * 37 % 110 or always[number]
    ]
    source = {key: value for key, value in recipe["datasets"][0].items() if key not in ("path", "ds_type")}
    top = {key: recipe[key] for key in ("train_on_inputs", "eot_tokens", "chat_template_kwargs") if key in recipe}
    source.pop("chat_template_jinja", None)
    return [{"template": name, "option": option["name"], "top": top, "source": source, "rows": rows}] if rows else []


def runs(mask):
    """The ranges of true entries."""
    found = []
    for index, entry in enumerate(mask):
        if entry and found and found[-1][1] == index:
            found[-1][1] = index + 1
        elif entry:
            found.append([index, index + 1])
    return found


def write_stored(path, templates, groups):
    """One line for each row."""
    lines = ["{", '"templates": ' + json.dumps(templates, ensure_ascii=False, indent=1) + ",", '"groups": [']
    for number, group in enumerate(groups):
        head = json.dumps({key: value for key, value in group.items() if key != "rows"}, ensure_ascii=False)
        rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in group["rows"])
        lines.append(head[:-1] + ', "rows": [\n' + rows + "\n]}" + ("," if number + 1 < len(groups) else ""))
    path.write_text("\n".join([*lines, "]", "}"]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixtures", type=pathlib.Path)
    parser.add_argument("--tune", default=str(HERE.parent / "target/release/tune"))
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--template", action="append", help="only this template; may be repeated")
    parser.add_argument("--option", action="append", help="only this option; may be repeated")
    parser.add_argument("--row", type=int, help="only this row, printed in full")
    parser.add_argument("--examples", type=int, default=1, help="examples per cause")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--store", type=pathlib.Path, help="keeps what Axolotl makes of some rows, for tests/it/axolotl.rs")
    parser.add_argument("--differences", type=pathlib.Path, help="every difference, as JSON lines")
    arguments = parser.parse_args()
    ensure_axolotl()
    sys.path.insert(0, str(HERE))
    import compare_options
    import compare_rows
    import tokenizers
    import transformers

    compare_options.check_words()
    fixtures = arguments.fixtures.resolve()
    templates = fixture_templates(fixtures)
    templates.update(compare_options.named_templates(templates))
    templates.update(compare_options.own_templates())
    templates = {name: found for name, found in templates.items() if not arguments.template or name in arguments.template}
    options = [option for option in compare_options.OPTIONS if not arguments.option or option["name"] in arguments.option]
    conversations = compare_rows.conversations(arguments.seed, arguments.rows)
    chosen = [index for index in range(len(conversations)) if arguments.row in (None, index)]
    versions = ["axolotl 0.19.0", transformers.__version__]
    defects = accepted_defects(arguments.tune)

    groups, stored = collections.defaultdict(list), []
    deliberate = collections.Counter()
    compared = failed = 0
    with tempfile.TemporaryDirectory(prefix="compare-axolotl-") as scratch:
        scratch = pathlib.Path(scratch)
        jobs = []
        for name, template in templates.items():
            base = scratch / "bases" / name
            write_base(base, fixtures, template)
            for option in options:
                if option.get("templates") and name not in option["templates"]:
                    continue
                folder = scratch / f"{name}-{option['name']}"
                folder.mkdir()
                rows = [compare_rows.row_of(conversations[index], option) for index in chosen]
                recipe = recipe_of(base, template, option, folder / "rows.jsonl")
                recipe["datasets"][0]["path"] = str(folder / "rows.jsonl")
                jobs.append((name, option, recipe, rows, folder))
        with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
            pending = [pool.submit(remembered, (job[2], job[3], str(job[4])), versions) for job in jobs]
            failures = collections.defaultdict(dict)
            for (name, option, recipe, rows, folder), found in zip(jobs, pending):
                known = failures[name, option.get("form", "messages")]
                ours = tune_rows(arguments.tune, recipe, rows, folder, defects, known)
                theirs = found.result()
                tokenizer = tokenizers.Tokenizer.from_file(str(pathlib.Path(recipe["base_model"]) / "tokenizer.json"))
                text_of = lambda ids, of=tokenizer: of.decode(ids, skip_special_tokens=False)  # noqa: E731
                to_store = []
                for place, index in enumerate(chosen):
                    compared += 1
                    failed += "failed" in theirs[place]
                    tags = conversations[index]["tags"]
                    if arguments.row is not None:
                        print(f"{name} {option['name']} {tags}\n  row     {json.dumps(rows[place], ensure_ascii=False)}")
                        print(f"  Axolotl {shown(theirs[place], text_of)}\n  tune    {shown(ours[place], text_of)}")
                    found_difference = difference(theirs[place], ours[place], text_of)
                    if found_difference is None:
                        to_store.append(place)
                        continue
                    kind, pieces = found_difference
                    case = {
                        "template": name, "option": option["name"], "row": index, "tags": tags, "kind": kind, "pieces": pieces,
                        "data": rows[place], "axolotl": shown(theirs[place], text_of), "tune": shown(ours[place], text_of),
                    }  # fmt: skip
                    reason = compare_options.deliberate(case, template=templates[name])
                    if reason:
                        deliberate[reason] += 1
                        continue
                    groups[group_of(kind, pieces, tags)].append(case)
                    to_store.append(place)
                if arguments.store and "model" in templates[name]:
                    stored += kept(name, option, recipe, [(rows[place], theirs[place], conversations[chosen[place]]["tags"]) for place in to_store], len(stored))
    if arguments.store:
        write_stored(arguments.store, compare_options.OWN, stored)
    if arguments.differences:
        arguments.differences.write_text("".join(json.dumps(case, ensure_ascii=False) + "\n" for cases in groups.values() for case in cases))
    for group, cases in sorted(groups.items(), key=lambda entry: -len(entry[1])):
        count = lambda key, cases=cases: collections.Counter(map(key, cases)).most_common(8)  # noqa: E731
        print(f"\n== {len(cases)} rows: {group}")
        print("   templates", ", ".join(f"{name} {number}" for name, number in count(lambda case: case["template"])))
        print("   options  ", ", ".join(f"{name} {number}" for name, number in count(lambda case: case["option"])))
        features = collections.Counter(tag for case in cases for tag in case["tags"]).most_common(8)
        print("   features ", ", ".join(f"{name} {number}" for name, number in features))
        for case in sorted(cases, key=lambda case: len(json.dumps(case["data"])))[: arguments.examples]:
            print(f"   e.g. {case['template']}, {case['option']}, row {case['row']} {case['tags']}")
            print(f"     row     {json.dumps(case['data'], ensure_ascii=False)}")
            print(f"     Axolotl {case['axolotl']}\n     tune    {case['tune']}")
    for reason, number in deliberate.most_common():
        print(f"\ndeliberate: {number} rows: {reason}")
    total = sum(map(len, groups.values()))
    print(
        f"\n{compared:,} rows compared ({len(chosen)} conversations, {len(templates)} templates, {len(options)} options; "
        f"Axolotl refuses {failed:,}): {total:,} differ, in {len(groups)} groups; {sum(deliberate.values()):,} more deliberately"
    )
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
