#!/usr/bin/env python3
"""Checks licences, bans and sources of every dependency, of every feature, against deny.toml. No network needed."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def allowed(expression: str, licences: set[str]) -> bool:
    """Whether an SPDX expression leaves a choice of allowed licences; `/` is how old manifests write OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternatives() -> bool:
        found = conjunction()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            found = conjunction() or found
        return found

    def conjunction() -> bool:
        found = licence()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            found = licence() and found
        return found

    def licence() -> bool:
        name = tokens.pop(0)
        if name == "(":
            found = alternatives()
            tokens.pop(0)
            return found
        if tokens and tokens[0] == "WITH":
            name = " ".join([name, tokens.pop(0), tokens.pop(0)])
        return name in licences

    return alternatives()


def licence_of(package: dict) -> str:
    """What the manifest says, else what the file that it names begins with."""
    if package["license"]:
        return package["license"]
    if package["license_file"]:
        text = (Path(package["manifest_path"]).parent / package["license_file"]).read_text(errors="replace")
        for words, name in [("Apache License", "Apache-2.0"), ("MIT License", "MIT"), ("Permission is hereby granted, free of charge", "MIT")]:
            if words in text[:2000]:
                return name
    return "none"


def main() -> int:
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    packages = metadata["packages"]
    licences = set(rules["licenses"]["allow"])
    banned = {entry["crate"]: entry["reason"] for entry in rules["bans"]["deny"]}
    sources = {package["source"] for package in packages if package["source"]}
    problems = []
    if len(sources) != 1 or not next(iter(sources)).startswith("registry+"):
        problems.append(f"sources: {sorted(sources)}; accepted is one registry, and no git")
    used = set()
    for package in packages:
        name = f"{package['name']} {package['version']}"
        licence = licence_of(package)
        if not allowed(licence, licences):
            problems.append(f"{name}: licence `{licence}` is not in deny.toml")
        if package["name"] in banned:
            problems.append(f"{name}: {banned[package['name']]}")
        used.update(one for one in licences if one in licence)
        for dependency in package["dependencies"]:
            if package["source"] is None and dependency["source"] and dependency["req"] == "*":
                problems.append(f"{name}: takes any version of {dependency['name']}")
    problems += [f"deny.toml allows `{one}`, which nothing has" for one in sorted(licences - used)]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(packages)} packages, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
