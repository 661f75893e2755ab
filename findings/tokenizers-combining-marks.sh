#!/bin/bash
# tokenizers 0.23.3 with an NFC normalizer: where a letter and a combining mark are composed into one character, the token's
# offsets cover the letter alone, and the mark belongs to no token. Offsets that are used to cut the text, or to tell which
# tokens lie in a part of it, leave a gap there, and text[begin:end] of the token is another word than the token. Without a
# normalizer, or with NFD, every character of the text lies in a token.
#
# Seen: for "caf", "e", U+0301, "s" (6 characters) NFC gives the tokens "caf", "\u00e9", "s" with offsets (0, 3), (3, 4),
# (5, 6): nothing covers 4 to 5. NFKC gives the same; NFD, and no normalizer, give (0, 3), (3, 4), (4, 5), (5, 6).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tokenizers==0.23.3
"$work/venv/bin/python" - <<'PY'
import tokenizers
from tokenizers import Tokenizer, models, normalizers

assert tokenizers.__version__ == "0.23.3"
text = "cafe\u0301s"
vocabulary = {token: number for number, token in enumerate(["c", "a", "f", "e", "s", "\u0301", "\u00e9", "ca", "caf"])}
composed = ["caf", "\u00e9", "s"], [(0, 3), (3, 4), (5, 6)]
apart = ["caf", "e", "\u0301", "s"], [(0, 3), (3, 4), (4, 5), (5, 6)]
for normalizer, expected in [
    (normalizers.NFC(), composed), (normalizers.NFKC(), composed), (normalizers.NFD(), apart), (None, apart),
]:
    tokenizer = Tokenizer(models.BPE(vocabulary, [("c", "a"), ("ca", "f")]))
    if normalizer:
        tokenizer.normalizer = normalizer
    encoding = tokenizer.encode(text)
    covered = {place for begin, end in encoding.offsets for place in range(begin, end)}
    gaps = [place for place in range(len(text)) if place not in covered]
    print(f"{type(normalizer).__name__}: {ascii(encoding.tokens)} {encoding.offsets}, characters in no token: {gaps}")
    assert (encoding.tokens, encoding.offsets) == expected, "the offsets are others now"
PY
