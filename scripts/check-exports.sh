#!/bin/bash
# check-exports.sh RUN_DIR BASE_DIR: does PEFT load RUN_DIR/adapter on the base, and transformers RUN_DIR/merged? Do
# their golden prompts render and tokenise the same there?
# Uses the strict checker of the reference fixtures (TUNE_ORACLE, default ../shared/oracle), and says so and leaves with 0
# where that is not there. The Python for it: reference-python.sh.
set -euo pipefail
run=${1:?usage: check-exports.sh RUN_DIR BASE_DIR}
base=${2:?usage: check-exports.sh RUN_DIR BASE_DIR}
here=$(cd "$(dirname "$0")" && pwd)
oracle=${TUNE_ORACLE:-$here/../../shared/oracle}

if [ ! -f "$oracle/check_export.py" ]; then
  echo "SKIPPED: no check_export.py in $oracle, so PEFT and transformers did not load the exports"
  exit 0
fi
python=$("$here/reference-python.sh")
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
for kind in adapter merged; do
  echo "$kind:"
  "$python" "$oracle/check_export.py" "$kind" "$run/$kind" --base "$base"
  "$python" "$here/check_golden.py" "$run/$kind"
done
