#!/bin/bash
# safetensors 0.8.0 writes the entries of `__metadata__` in an order that is drawn anew with every call, while the tensors
# are sorted: the same tensors with the same two or more entries give files with different bytes, even within one process.
# A hash of such a file says nothing about equal contents; with one entry, such as {"format": "pt"}, it does.
#
# Seen: 20 files of the same input have several SHA-256 values (all orders of four entries occur sooner or later), 20 files
# with one entry have one, and the tensors' part of the header is the same in all of them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import hashlib
import json

import numpy as np
import safetensors
from safetensors.numpy import save

assert safetensors.__version__ == "0.8.0"
tensors = {"b": np.ones(2, np.float32), "a": np.zeros(3, np.float32)}


def files(metadata):
    return [save(tensors, metadata=metadata) for _ in range(20)]


def hashes(files):
    return {hashlib.sha256(file).hexdigest() for file in files}


def header(file):
    return json.loads(file[8:8 + int.from_bytes(file[:8], "little")])


several = files({"format": "pt", "base": "x", "rank": "8", "seed": "42"})
orders = {tuple(header(file)["__metadata__"]) for file in several}
print(f"four entries: {len(hashes(several))} different files of 20, {len(orders)} orders of the entries")
assert len(hashes(several)) > 1 and len(orders) > 1, "the order is fixed now"
names = {tuple(name for name in header(file) if name != "__metadata__") for file in several}
print(f"order of the tensors: {names}")
assert names == {("a", "b")}
assert len(hashes(files({"format": "pt"}))) == 1
print("one entry: 1 file")
PY
