#!/bin/bash
# minijinja 3.1.0 differs from Jinja2 3.1.6 in what chat templates ask of values, without an error. A string or a mapping is
# not `sequence`, which both are in Python; large or small numbers are written out instead of with an exponent; the `attr`
# filter finds keys of a mapping, which have no attribute in Python; and a value in `with` sees the names that the same tag
# has set before it, not the outer ones. A template that tells a list of parts from text by `content is sequence`, or prints
# a number from a row, renders another prompt.
#
# Seen: `'x' is sequence` and `{} is sequence` are False (Jinja2: True); 1e16 prints 10000000000000000.0 (1e+16), 1e-7 prints
# 0.0000001 (1e-07); `call | attr('name')` prints the name (nothing); `with name = 'inner', other = name` sets other to
# 'inner' ('outer').
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet minijinja==3.1.0 jinja2==3.1.6
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import jinja2
import minijinja

assert (version("minijinja"), version("jinja2")) == ("3.1.0", "3.1.6")
seen = {
    "{{ content is sequence }}": ("True", "False"),
    "{{ call is sequence }}": ("True", "False"),
    "{{ large }}": ("1e+16", "10000000000000000.0"),
    "{{ small }}": ("1e-07", "0.0000001"),
    "{{ call | attr('name') }}": ("", "weather"),
    "{% with name = 'inner', other = name %}{{ other }}{% endwith %}": ("outer", "inner"),
}
values = {"content": "x", "call": {"name": "weather"}, "large": 1e16, "small": 1e-7, "name": "outer"}
for template, (python, rust) in seen.items():
    both = jinja2.Template(template).render(**values), minijinja.Environment().render_str(template, **values)
    print(template, "Jinja2:", both[0], "minijinja:", both[1])
    assert both == (python, rust), f"{template}: expected {(python, rust)}"
PY
