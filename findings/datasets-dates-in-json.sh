#!/bin/bash
# datasets 5.2.0 turns text of JSON Lines into dates: where every value of a string column looks like an ISO date or time,
# `load_dataset("json")` gives datetime objects instead of the text, although JSON has no dates, and an offset from UTC is
# lost. One value that is no date leaves the whole column as text, so that the type of an answer depends on other rows.
#
# Seen: answers "2024-01-05" and "2024-01-06T12:00:00+02:00" come out as datetime(2024, 1, 5) and
# datetime(2024, 1, 6, 10, 0), without a zone; with a third answer "unknown" all three are strings.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1
HF_HOME=$work/home WORK=$work "$work/venv/bin/python" - <<'PY'
import json
import os
from datetime import datetime
from pathlib import Path

import datasets

datasets.disable_progress_bars()
work = os.environ["WORK"]


def answers(name, values):
    path = Path(work, f"{name}.jsonl")
    path.write_text("".join(json.dumps({"question": "When?", "answer": value}) + "\n" for value in values))
    return list(datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=work)["answer"])


dates = ["2024-01-05", "2024-01-06T12:00:00+02:00"]
read = answers("dates", dates)
print("dates alone:", read)
assert read == [datetime(2024, 1, 5), datetime(2024, 1, 6, 10)], "the values are read otherwise now"
mixed = answers("mixed", [*dates, "unknown"])
print("with another text:", mixed)
assert mixed == [*dates, "unknown"]
PY
