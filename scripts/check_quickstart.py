#!/usr/bin/env python3
"""Checks what the quickstart left behind: its figures, and that both exports exist.

    check_quickstart.py runs/quickstart

Exit status 0 when held-out exact match went from at most 10 % to at least 90 %, the held-out loss fell, and
the adapter and the merged model are there. Every complaint is one line.
"""
import json
import sys
from pathlib import Path

EXPORTS = {
    "adapter": ["adapter_config.json", "adapter_model.safetensors"],
    "merged": ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
}


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    run = Path(sys.argv[1])
    summary = json.loads((run / "summary.json").read_text())
    names = ["exact_match_before", "exact_match_after", "loss_before", "loss_after"]
    problems = [f"summary.json has no number `{name}`" for name in names if not isinstance(summary.get(name), (int, float))]
    if not problems:
        for name in names:
            print(f"{name:20} {summary[name]:.4f}")
        if summary["exact_match_before"] > 0.10:
            problems.append("exact_match_before is above 0.10")
        if summary["exact_match_after"] < 0.90:
            problems.append("exact_match_after is below 0.90")
        if not summary["loss_after"] < summary["loss_before"]:
            problems.append("the held-out loss did not fall")
    for folder, files in EXPORTS.items():
        problems += [f"no {run / folder / file}" for file in files if not (run / folder / file).is_file()]
    for problem in problems:
        print("PROBLEM:", problem)
    print("the quickstart's figures hold" if not problems else f"{len(problems)} problem(s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
