#!/usr/bin/env python3
"""make_jinja_cases.py OUT.json: small templates with what Python's Jinja makes of them, set up as transformers does.

Needs transformers. `datasets/tests/jinja.rs` renders the same templates and compares; a template whose result differs
must be refused with a message that names what is missing.
"""
import json
import re
import sys

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template as compile_template

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": " Größe of <b>it</b>? "},
    {"role": "assistant", "content": "It's 3.50 \"m\"", "weight": 0.5},
    {"role": "tool", "content": "3", "name": "sum", "parts": [{"a": 1, "t": "x"}, {"a": 2, "t": "y"}, {"a": 1, "t": "z"}]},
]
VARIABLES = {
    "bos_token": "<s>", "n": 7, "big": 10**16, "f": 2.5, "small": 1e-7, "e16": 1e16, "text": "the quick brown fox",
    "names": ["bo", "Al", "cy", "al"], "numbers": [3, 1, 2], "mapping": {"b": 1, "a": [1, 2.0, None, True], "c": "d'e"},
    "nothing": None, "yes": True, "nested": [[1, 2], [3, [4]]], "lines": "one\ntwo\n\nthree", "empty": [],
    "html": "<p>a &amp; b</p>", "pairs": [["x", 1], ["y", 2]],
}

# One template a line; expressions between bars are templates of their own.
LINES = r"""
{{ 1e-7 }}|{{ 1e16 }}|{{ 1e3 }}|{{ 1.0 }}|{{ 1_000 }}|{{ 123456789.0 * 10 }}
{{ 1e22 }}|{{ 1.5e300 }}|{{ 12345678901234567890.0 }}
{{ 0.1 + 0.2 }}|{{ 1 / 3 }}|{{ 2 / 1 }}|{{ 10 / 4 }}
{{ 7 // 2 }}|{{ -7 // 2 }}|{{ 7 % 3 }}|{{ -7 % 3 }}|{{ 7.5 // 2 }}|{{ -7.5 % 2 }}
{{ 2 ** 10 }}|{{ 2 ** -1 }}|{{ 2 ** 0.5 }}|{{ -2 ** 2 }}
{{ 0x1f }}|{{ 0b101 }}|{{ 0o17 }}
{{ 2 ** 70 }}
{{ small }}|{{ e16 }}|{{ big }}|{{ [small, e16, f] }}
{{ small | tojson }}|{{ e16 | tojson }}|{{ mapping | tojson }}
{{ 'x' ~ 1e16 ~ 2.5 }}|{{ 1e16 | string }}|{{ [1e16, 2] | join(' ') }}|{{ 'x' ~ small|string|upper ~ (n + 0.5) }}|{{ [1e16] + [1] }}|{{ (n % 3) ~ '%' ~ n % 4 * 2 }}|{{ 'a%sb' % (n % 5) }}|{{ 'a' 'b' }}|{{ 'a' ~ 1 ~ none ~ true ~ 1.0 }}
{{ 'a\tb\\n' }}|{{ "it's" }}|{{ 'say "x"' }}
{{ ['it\'s', "q\"q", 'both\'"', 'new\nline', 'tab\t', 'é', '\\'] }}
{{ none }}|{{ true }}|{{ True }}|{{ None }}|{{ False }}
{{ [none, true, 1.0, 'x', (1,), (1, 2), {}, []] }}
{{ {'a': none, 1: 'x', 'c': {'d': [1]}} }}
{{ mapping }}|{{ nested }}|{{ messages[2] }}
{{ () }}|{{ (1,) }}|{{ 1, 2 }}
{{ 'x' | int }}|{{ '3' | int }}|{{ '3.7' | int }}|{{ 3.9 | int }}|{{ nothing | int }}|{{ 'x' | int(5) }}|{{ true | int }}
{{ '0x1f' | int(0, 16) }}|{{ '101' | int(base=2) }}|{{ ' 42 ' | int }}|{{ '-3' | int }}|{{ -3.9 | int }}
{{ 'x' | float }}|{{ '1e3' | float }}|{{ 3 | float }}|{{ 'x' | float(1.5) }}|{{ nothing | float }}
{{ 2.5 | round }}|{{ 3.5 | round }}|{{ 42.55 | round(1) }}|{{ 42.55 | round(1, 'floor') }}|{{ 42.51 | round(0, 'ceil') }}|{{ 7 | round }}
{{ -3 | abs }}|{{ -2.5 | abs }}
{{ 'hello'.index('l') }}|{{ 'hello'.rindex('l') }}|{{ [1, 2, 1].index(2) }}
{{ 'hello'.find('l') }}|{{ 'hello'.rfind('l') }}|{{ 'hello'.find('z') }}|{{ 'Größe'.find('ß') }}
{{ 'hello'.index('z') }}
{{ 'a=b=c'.partition('=') }}|{{ 'a=b=c'.rpartition('=') }}|{{ 'abc'.partition('=') }}|{{ 'abc'.rpartition('=') }}
{{ 'a,b,c'.rsplit(',', 1) }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a  b '.split() }}|{{ ' a  b '.rsplit() }}|{{ 'a b c'.rsplit(maxsplit=1) }}
{{ 'a,b,,c'.split(',') }}|{{ ''.split() }}|{{ ''.split(',') }}|{{ 'a b c'.split(none, 1) }}|{{ 'a b c'.split(' ', maxsplit=1) }}
{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ 'abcd'.zfill(3) }}|{{ '+7'.zfill(4) }}
{{ 'ab'.ljust(5) }}|{{ 'ab'.rjust(5) }}|{{ 'ab'.center(5) }}|{{ 'ab'.center(6, '*') }}|{{ 'ab'.ljust(4, '-') }}|{{ 'ab'.rjust(4, '-') }}|
{{ 'abc'.center(6, '*') }}|{{ 'ab'.center(5, '*') }}|{{ 'abc'.center(2) }}
{{ 'aBc'.swapcase() }}|{{ 'STRASSE ß'.casefold() }}|{{ "it's a dog".title() }}|{{ 'hELLO wORLD'.capitalize() }}
{{ 'aBc'.upper() }}|{{ 'aBc'.lower() }}|{{ 'ß'.upper() }}
{{ 'hello'.count('l') }}|{{ [1, 2, 1].count(1) }}|{{ 'aaa'.count('aa') }}|{{ 'abc'.count('') }}
{{ '12'.isdigit() }}|{{ 'ab'.isalpha() }}|{{ 'a1'.isalnum() }}|{{ 'ab'.islower() }}|{{ 'AB'.isupper() }}|{{ ' '.isspace() }}|{{ ''.isdigit() }}
{{ '½'.isnumeric() }}|{{ '²'.isdecimal() }}|{{ 'a_1'.isidentifier() }}|{{ 'Title Case'.istitle() }}|{{ 'abc'.isascii() }}|{{ 'é'.isascii() }}|{{ 'a'.isprintable() }}
{{ 'hello'.startswith('he') }}|{{ 'hello'.startswith(('x', 'he')) }}|{{ 'hello'.endswith('lo') }}|{{ 'hello'.startswith('l', 2) }}
{{ 'hello'.replace('l', 'L') }}|{{ 'hello'.replace('l', 'L', 1) }}|{{ 'abc'.replace('', '-') }}
{{ lines.splitlines() }}|{{ 'a\r\nb'.splitlines() }}|{{ 'a\nb\n'.splitlines(true) }}|{{ ''.splitlines() }}
{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcba'.lstrip('ab') }}|{{ 'abcba'.rstrip('ab') }}|{{ '  x '.rstrip() }}|
{{ 'a\tb'.expandtabs(4) }}|{{ 'a\tb'.expandtabs() }}
{{ 'abc'.join(['1', '2']) }}|{{ ', '.join(names) }}|{{ '-'.join('abc') }}
{{ 'abc'.removeprefix('a') }}|{{ 'abc'.removesuffix('c') }}|{{ 'abc'.removeprefix('x') }}
{{ '{} and {}'.format(1, 'x') }}|{{ '{0}{1}{0}'.format('a', 'b') }}|{{ '{x}'.format(x=3) }}|{{ '{:>5}|{:<5}|{:^5}'.format('a', 'b', 'c') }}
{{ '{:.2f}'.format(3.14159) }}|{{ '{:,}'.format(1234567) }}|{{ '{:05d}'.format(42) }}|{{ '{:x}'.format(255) }}|{{ '{:%}'.format(0.25) }}|{{ '{!r}'.format('a') }}
{{ '%s and %s' % ('a', 3) }}|{{ '%05.2f' % 3.14159 }}|{{ '%s' % 'x' }}|{{ '%d%%' % 5 }}|{{ '%r' % 'x' }}|{{ '%5s|%-5s|' % ('a', 'b') }}
{{ '%x' % 255 }}|{{ '%.3e' % 12345.678 }}|{{ '%s' % [1, 'a'] }}|{{ '%(a)s' % {'a': 1} }}
{{ '%s-%s' | format('a', 3) }}|{{ '%.1f' | format(2.25) }}
{{ 'a' * 3 }}|{{ 3 * 'ab' }}|{{ [1] * 3 }}|{{ 'ab' + 'c' }}|{{ [1] + [2] }}|{{ (1,) + (2,) }}
{{ 'a' + 1 }}
{{ 'hello'[1] }}|{{ 'hello'[-1] }}|{{ 'hello'[1:3] }}|{{ 'hello'[::-1] }}|{{ 'hello'[::2] }}|{{ 'hello'[-3:] }}|{{ 'hello'[9:] }}
{{ numbers[1:] }}|{{ numbers[::-1] }}|{{ numbers[-1] }}|{{ numbers[5] }}|{{ (1, 2, 3)[1:] }}|{{ numbers[-2:] }}
{{ mapping.items() | list }}|{{ mapping.keys() | list }}|{{ mapping.values() | list }}
{{ mapping.items() }}
{{ mapping.keys() }}|{{ mapping.values() }}
{{ mapping.get('b') }}|{{ mapping.get('z') }}|{{ mapping.get('z', 5) }}|{{ mapping['b'] }}|{{ mapping.z }}|{{ mapping['z'] }}
{{ mapping.copy() }}|{{ numbers.copy() }}
{{ mapping.update({'z': 1}) }}
{{ numbers.append(1) }}
{{ mapping.pop('b') }}
{{ text | wordcount }}|{{ 'a, b-c' | wordcount }}
{{ text | truncate(10) }}|{{ text | truncate(10, true) }}|{{ text | truncate(10, false, '!') }}|{{ 'short' | truncate(10) }}|{{ text | truncate(14) }}
{{ text | truncate(10, true, '', 0) }}|{{ text | truncate(length=12, leeway=0) }}
{{ 'ab' | center(6) }}|{{ 'abc' | center(6) }}|{{ 'ab' | center }}|
{{ html | striptags }}|{{ '<b>x  y</b> <!-- c -->z' | striptags }}
{{ 'a b/c?d=é&e' | urlencode }}|{{ {'a': 'x y', 'b': 1} | urlencode }}|{{ [['a', 1], ['b', 'é']] | urlencode }}
{{ 1000 | filesizeformat }}|{{ 1 | filesizeformat }}|{{ 0 | filesizeformat }}|{{ 1234567 | filesizeformat }}|{{ 1024 | filesizeformat(true) }}|{{ 999 | filesizeformat }}|{{ '2000' | filesizeformat }}
{% for key, items in messages[3].parts | groupby('a') %}{{ key }}: {{ items | map(attribute='t') | join(',') }};{% endfor %}
{{ messages[3].parts | groupby('a') }}
{{ messages[3].parts | groupby('a') | map('first') | list }}|{% for group in messages[3].parts | groupby('a') %}{{ group.grouper }}={{ group.list | length }} {% endfor %}
{{ ['a', 'B', 'b'] | groupby('0') | list | length }}|{% for g, i in [{'k': 'a'}, {'k': 'A'}, {}] | groupby('k', default='z') %}{{ g }}:{{ i | length }} {% endfor %}
{{ numbers | batch(2) | list }}|{{ numbers | batch(2, 0) | list }}|{{ numbers | slice(2) | list }}|{{ [1, 2, 3, 4, 5] | slice(3, 'x') | list }}
{{ mapping | dictsort }}|{{ {'B': 2, 'a': 1} | dictsort }}|{{ {'B': 2, 'a': 1} | dictsort(true) }}|{{ {'b': 1, 'a': 2} | dictsort(by='value') }}|{{ {'b': 1, 'a': 2} | dictsort(reverse=true) }}
{{ names | sort(true) }}|{{ names | sort(false, true) }}|{{ names | max(true) }}|{{ {'b': 1, 'a': 2} | dictsort(false, 'value') }}|{{ names | unique | list }}|{{ names | unique(true) | list }}|{{ [1, 1.0, '1'] | unique | list }}
{{ names | sort }}|{{ names | sort(reverse=true) }}|{{ names | sort(case_sensitive=true) }}|{{ numbers | sort }}|{{ messages[3].parts | sort(attribute='t', reverse=true) | map(attribute='t') | list }}
{{ numbers | min }}|{{ numbers | max }}|{{ names | max }}|{{ names | min(case_sensitive=true) }}|{{ messages[3].parts | max(attribute='a') }}|{{ [] | max }}
{{ numbers | sum }}|{{ messages[3].parts | sum(attribute='a') }}|{{ numbers | sum(start=10) }}|{{ [1.5, 2] | sum }}
{{ messages | map(attribute='role') | list }}|{{ messages | map(attribute='weight', default=0) | list }}|{{ names | map('upper') | join }}|{{ names | map('replace', 'a', 'o') | list }}
{{ numbers | select('odd') | list }}|{{ numbers | reject('odd') | list }}|{{ [0, 1, '', 'a'] | select | list }}|{{ numbers | select('gt', 1) | list }}|{{ numbers | select('divisibleby', 3) | list }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}|{{ messages | selectattr('weight') | list | length }}|{{ messages | rejectattr('role', 'in', ['user', 'tool']) | map(attribute='role') | list }}|{{ messages | selectattr('content', 'none') | list | length }}
{{ numbers | first }}|{{ numbers | last }}|{{ [] | first }}|{{ 'abc' | first }}|{{ 'abc' | last }}|{{ messages | last | attr('role') }}
{{ 'abc' | list }}|{{ mapping | list }}|{{ (1, 2) | list }}|{{ range(3) | list }}
{{ numbers | reverse | list }}|{{ 'abc' | reverse }}
{{ lines | indent }}|{{ lines | indent(2, true) }}|{{ lines | indent(2, blank=true) }}|{{ lines | indent('> ') }}
{{ 'the quick brown fox jumps' | wordwrap(10) }}|{{ 'abcdefghijkl' | wordwrap(5) }}|{{ 'a b' | wordwrap(79, true, '+') }}|{{ 'abcdefghijkl mn' | wordwrap(5, false) }}
{{ {'class': 'a b', 'id': none, 'n': 1} | xmlattr }}|{{ html | escape }}|{{ html | e }}|{{ html | safe }}|{{ html | forceescape }}
{{ 'hello world' | title }}|{{ "it's o'neil-x" | title }}|{{ 'hELLO' | capitalize }}|{{ 'Ab' | upper }}|{{ 'Ab' | lower }}|{{ '  a ' | trim }}|{{ 'xax' | trim('x') }}|
{{ missing | default('d') }}|{{ nothing | default('d') }}|{{ nothing | default('d', true) }}|{{ '' | d('e', boolean=true) }}|{{ missing.x | default('d') }}
{{ mapping | items | list }}|{{ missing | items | list }}
{{ numbers | join(', ') }}|{{ messages | join(',', attribute='role') }}|{{ [1, none, true] | join('-') }}
{{ mapping | length }}|{{ 'Größe' | count }}|{{ numbers | length }}
{{ 'aaa' | replace('a', 'b') }}|{{ 'aaa' | replace('a', 'b', 2) }}
{{ 5 | string }}|{{ 'x' | string }}|{{ nothing | string }}|{{ 1.0 | string }}|{{ [1.0, none] | string }}
{{ mapping | pprint }}|{{ 'x' | pprint }}|{{ 1.0 | pprint }}
{{ mapping | tojson(indent=2) }}|{{ 'é<' | tojson }}|{{ 'é' | tojson(ensure_ascii=true) }}|{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}|{{ [1, 2] | tojson(separators=(',', ':')) }}
{{ (1, 2) | tojson }}|{{ {1: 2, none: 3, true: 4} | tojson }}|{{ nothing | tojson }}|{{ 1.0 | tojson }}|{{ '\u2028"\\/' | tojson }}
{{ missing | tojson }}
{{ range is callable }}|{{ 'x' is callable }}|{{ 'x'.upper is callable }}
{{ true is boolean }}|{{ 1 is boolean }}|{{ 1 is integer }}|{{ true is integer }}|{{ 1.0 is float }}|{{ 1 is float }}|{{ 1 is number }}|{{ true is number }}|{{ 'x' is number }}
{{ 'x' is string }}|{{ mapping is mapping }}|{{ names is mapping }}|{{ names is sequence }}|{{ 'x' is sequence }}|{{ mapping is sequence }}|{{ 'x' is iterable }}|{{ 1 is iterable }}|{{ range(2) is sequence }}|{{ missing is iterable }}
{{ 2 is even }}|{{ 3 is odd }}|{{ 6 is divisibleby 3 }}|{{ 6 is divisibleby(4) }}
{{ 1 is eq 1 }}|{{ 1 is ne 1 }}|{{ 1 is lt 2 }}|{{ 2 is ge 2 }}|{{ 1 is in [1] }}|{{ 'a' is in 'abc' }}|{{ 1 is equalto 1.0 }}|{{ 1 is sameas 1 }}|{{ none is sameas none }}|{{ true is sameas true }}
{{ nothing is none }}|{{ missing is none }}|{{ missing is defined }}|{{ missing is undefined }}|{{ mapping.z is defined }}|{{ mapping.b is defined }}|{{ missing is not defined }}
{{ 'ab' is lower }}|{{ 'AB' is upper }}|{{ true is true }}|{{ 1 is true }}|{{ false is false }}|{{ 'upper' is filter }}|{{ 'nope' is filter }}|{{ 'odd' is test }}|{{ 'x' is escaped }}
{{ 1 == 1.0 }}|{{ '1' == 1 }}|{{ true == 1 }}|{{ [1, 2] == [1, 2] }}|{{ (1, 2) == [1, 2] }}|{{ {'a': 1} == {'a': 1} }}|{{ none == false }}|{{ 'a' < 'b' }}|{{ [1, 2] < [1, 3] }}
{{ 1 < 2 < 3 }}|{{ 1 < 3 < 2 }}|{{ 1 in [1] }}|{{ 'b' in mapping }}|{{ 1 not in [1] }}|{{ 'ell' in 'hello' }}|{{ '' in 'x' }}|{{ not true }}|{{ not '' }}
{{ 1 < 'a' }}
{{ 1 and 2 }}|{{ 0 or 'x' }}|{{ none or '' or 3 }}|{{ '' and 1 }}|{{ [] or {} }}|{{ not [] }}
{{ 'a' if yes else 'b' }}|{{ 'a' if not yes }}|{{ ('a' if not yes) is defined }}
{{ range(5) | list }}|{{ range(2, 8, 3) | list }}|{{ range(5, 0, -2) | list }}|{{ range(3) }}|{{ range(3)[1] }}|{{ range(4) | length }}|{{ 2 in range(4) }}
{{ dict(a=1, b='x') }}|{{ dict([('a', 1)]) }}|{{ dict({'a': 1}, b=2) }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}|{{ c.current }}{% set _ = c.reset() %}|{{ c.current }}
{% set j = joiner(', ') %}{% for x in numbers %}{{ j() }}{{ x }}{% endfor %}
{% set ns = namespace(a=1, found=false) %}{% for x in numbers %}{% set ns.a = ns.a + x %}{% if x == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.a }}{{ ns.found }}
{% macro m(a, b=2) %}{{ a }}-{{ b }}-{{ varargs }}-{{ kwargs }};{% endmacro %}{{ m(1) }}{{ m(1, 3, 4, 5) }}{{ m(1, z=9) }}{{ m(b=1, a=2) }}
{% macro m(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}{{ m('1') }}{{ m('1', b='2') }}{{ m() }}|{{ m.name }}|{{ m.arguments }}
{% macro m() %}({{ caller() }}){% endmacro %}{% call m() %}inside{% endcall %}
{% macro m(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(x) m(numbers) %}<{{ x }}>{% endcall %}
{% macro f(x) %}{{ x if x < 2 else f(x - 1) ~ x }}{% endmacro %}{{ f(4) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% for x in nested recursive %}{{ loop(x) if x is iterable else x }}{{ loop.depth }}{% endfor %}
{% for x in names %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('o', 'e') }};{% endfor %}
{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for x in [] %}a{% else %}none{% endfor %}|{% for x in numbers if x > 1 %}{{ x }}{{ loop.length }}{% endfor %}
{% for k, v in mapping.items() %}{{ k }}={{ v }};{% endfor %}{% for k in mapping %}{{ k }}{% endfor %}{% for a, b in pairs %}{{ a }}{{ b }}{% endfor %}
{% for x in range(6) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}|{% for c in 'abc' %}{{ c }}.{% endfor %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}|{% set x %}block {{ a }}{% endset %}{{ x }}|{% set y | upper %}abc{% endset %}{{ y }}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}|{% if true %}{% set x = 9 %}{% endif %}{{ x }}
{% filter upper %}abc {{ n }}{% endfilter %}|{% filter replace('a', 'b') %}banana{% endfilter %}
{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}|{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}
{% raw %}{{ x }}{% endraw %}|{# comment #}x
{{ missing }}|{{ missing is defined and missing.x }}|{{ mapping.zzz }}|[{{ missing }}]
{{ missing.attribute }}
{{ mapping.zzz.deeper }}
{{ missing + 1 }}
{{ missing | length }}|{{ missing | list }}|{{ missing | upper }}|{{ missing == none }}|{% for x in missing %}x{% endfor %}{{ missing ~ 'x' }}
{{ nothing.x is defined }}|{{ none ~ '' }}|{{ nothing | upper }}|{{ nothing | trim }}
{{ nothing | length }}
{{ messages[0]['role'] }}|{{ messages[-1].name }}|{{ messages[::-1][0]['role'] }}|{{ messages[1:] | length }}|{{ (messages | first).role }}|{{ messages[99] is defined }}
{{ messages[3].content is none }}|{{ messages[3]['content'] is not none }}|{{ 'weight' in messages[2] }}|{{ messages[2].get('nope', 'x') }}
{{ 'x' if messages[1]['content'] is string else 'y' }}|{{ messages[1].content.strip().split(' ')[0] }}|{{ messages[1].content | trim | upper }}
{{ nested | map('first') | list }}|{{ nested | map('length') | list }}|{{ nested | sum(start=[]) }}
{{ nested | tojson }}|{{ nested[1][1][0] }}|{{ nested.0 }}|{{ nested.1.0 }}|{{ pairs | map(attribute=1) | list }}|{{ pairs | map(attribute='0') | list }}
{{ dict(pairs) }}
{{ raise_exception('no') }}
{{ 1 / 0 }}
{{ 'abc' | nope }}
{{ 'abc' is nope }}
{{ nope('x') }}
{{ 'abc'.nope() }}
{{ lipsum is callable }}|{{ self is defined }}
{{ '%s' | format }}
{{ 3.0 }}|{{ 3.10 }}|{{ 100000000000000000000.0 }}|{{ 0.0001 }}|{{ 0.00001 }}|{{ -0.0 }}
{{ 1e308 * 10 }}|{{ -1e308 * 10 }}
{{ 'a' <= 'b' }}|{{ 'é' > 'z' }}|{{ 'Z' < 'a' }}|{{ 1.5 > 1 }}|{{ true > false }}
{{ true + true }}|{{ true * 3 }}|{{ 5 - true }}|{{ -true }}|{{ +3 }}
{{ 'ab' in ['ab'] }}|{{ none in [none] }}|{{ 1.0 in [1] }}|{{ [1] in [[1]] }}|{{ 'a' in ('a', 'b') }}
{{ messages | map(attribute='content') | select('string') | map('length') | list }}|{{ messages | map(attribute='parts.0.t') | list }}
{{ text | capitalize }}|{{ text.title() }}|{{ text.split() | length }}|{{ text.split()[-1][0] }}
{{ text | list | unique | sort | join }}|{{ text | upper | replace(' ', '') | reverse }}
{{ 'x'.encode() }}
{{ 'a-b_c'.translate({45: '+'}) }}
{{ 'abc'.__class__ }}
{{ 1.5.is_integer() }}|{{ f.is_integer() }}|{{ n.bit_length() }}
{{ '\x41\u0042\101' }}|{{ '\N{BULLET}' }}
{{ '' | wordcount }}|{{ 'é à' | wordcount }}|{{ 12 | wordcount }}
{{ 'http://a.b c' | urlize }}
{{ namespace(a=1) }}
{{ [1, 2, 3] | random is in [1, 2, 3] }}
{{ (1, 2) is sequence }}|{{ mapping.items() is iterable }}|{{ (numbers | map('string')) is iterable }}|{{ namespace is callable }}
{{ strftime_now is defined }}|{{ raise_exception is defined }}|{{ bos_token }}|{{ tools is none }}|{{ documents is defined }}|{{ add_generation_prompt }}
{{ 'a' ~ messages[3].parts[0].t ~ 'b' }}|{{ messages[1].content.strip() ~ '!' }}|{{ 'x' ~ mapping['a'][1:][0] }}|{{ messages[3].parts[0].a + messages[3].parts[1].a }}|{{ messages[3].parts[1].a % 2 }}|{{ messages[3].parts[2].t|upper ~ messages[0].role[:3] }}
{{ [messages[3].parts[0].t] + [messages[3].name] }}|{{ -messages[3].parts[1].a }}|{{ ('a' ~ messages[3].name).upper() ~ messages[2]['weight'] }}|{{ messages[3].parts|map(attribute='t')|join ~ messages[3].parts[0].t.upper().lower() }}|{{ numbers[1] if messages[3].parts[0].a == 1 else 'z' ~ n }}
{{ messages[0].content[-4:] ~ (n + messages[3].parts[1].a) ~ 'q' }}|{{ (messages[3].parts[0].t is string) ~ 'x' }}|{{ mapping.items()|list ~ mapping.a[0] }}|{{ messages[3].parts|sort(true, attribute='a')|map(attribute='t')|list ~ messages[3].parts|length }}
""".strip("\n").split("\n")

TEMPLATES = [template for line in LINES
             for template in (re.split(r"(?<=\}\})\|(?=\{\{)", line) if line.startswith("{{") else [line])]
TEMPLATES += [
    "a\n  {% if true %}\nb\n  {% endif %}\nc\n",
    "a\n  {%- if true %}\nb\n  {%- endif %}\nc\n",
    "{% for m in messages -%}\n  {{ m.role }}\n{%- endfor %}\n",
    "  {# note #}\n  x {#- y -#} \n z\n\n",
    "{%+ if true %} a {%+ endif %}\n b",
    "{{ 'a' }}\n{{ 'b' }}\n\n",
    "{%- set x = [\n  1,\n  2,\n] -%}\n{{ x }}",
    "{% for x in numbers %}\n{{ x }}{{ ',' if not loop.last }}\n{% endfor %}\nend",
    "\n\n{% if false %}\nx\n{% elif n > 5 %}\nbig\n{% else %}\ny\n{% endif %}\n\n",
    "{% macro m(x) %}\n  [{{ x }}]\n{% endmacro %}\n{{ m(1) }}\n{{ m(2) -}}\n z",
]


def result(template):
    try:
        rendered = compile_template(template).render(
            messages=json.loads(json.dumps(MESSAGES)), tools=None, documents=None, add_generation_prompt=False,
            **json.loads(json.dumps(VARIABLES)))
    except (jinja2.exceptions.TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        return {"template": template, "error": f"{type(error).__name__}: {error}"}
    return {"template": template, "rendered": rendered}


def main():
    cases = [result(template) for template in TEMPLATES]
    versions = {"jinja2": jinja2.__version__, "transformers": transformers.__version__}
    lines = ",\n".join("    " + json.dumps(case, ensure_ascii=False) for case in cases)
    head = json.dumps({"versions": versions, "messages": MESSAGES, "variables": VARIABLES}, ensure_ascii=False)[1:-1]
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        out.write("{" + head + ',\n  "cases": [\n' + lines + "\n  ]}\n")


main()
