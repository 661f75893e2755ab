#!/bin/bash
# reference-python.sh: prints the path of a Python that has torch, transformers, PEFT and TRL, the programs that
# this project is compared with. They are installed once, into a cache outside the repository (some 6 GiB;
# TUNE_PYTHON, default ~/.cache/tune-python). pip's own settings decide where packages come from; TUNE_TORCH_INDEX,
# if set, is the index for torch alone: its builds without CUDA are a tenth of the size.
set -euo pipefail
folder=${TUNE_PYTHON:-$HOME/.cache/tune-python}
packages="torch transformers==5.23 peft==0.21.2 trl datasets safetensors gguf"

if [ "$(cat "$folder/packages" 2>/dev/null)" != "$packages" ]; then
  echo "installing $packages into $folder" >&2
  rm -f "$folder/packages"
  python3 -m venv "$folder"
  if [ -n "${TUNE_TORCH_INDEX:-}" ]; then
    "$folder/bin/pip" install --quiet --index-url "$TUNE_TORCH_INDEX" torch >&2
  fi
  # shellcheck disable=SC2086  # a list of words
  "$folder/bin/pip" install --quiet $packages >&2
  echo "$packages" > "$folder/packages"
fi
echo "$folder/bin/python"
