#!/bin/bash
# Runs a recipe where there is no network at all: a namespace whose only interface is the loopback, which is down. The
# run must not notice, since nothing is sent or asked for unless a recipe names something of the hub; a run that does
# name something must say so and end.
set -euo pipefail
tune=$(realpath "$1")
recipe=$2
shift 2

alone=(unshare --net)
# Without root, as root of a namespace of its own.
[ "$(id -u)" -eq 0 ] || alone=(unshare --map-root-user --net)
routes=$("${alone[@]}" cat /proc/net/route | tail -n +2)
[ -z "$routes" ] || { echo "there is a network in here: $routes" >&2; exit 1; }

"${alone[@]}" "$tune" run "$recipe" "$@"

empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
if HF_HOME=$empty "${alone[@]}" "$tune" inspect no/such-model 2>"$empty/said"; then
  echo "a model of the hub was found without a network" >&2
  exit 1
fi
grep -q 'hint: ' "$empty/said" || { cat "$empty/said" >&2; exit 1; }
echo "without a network: the run went through, and a name of the hub was refused with a hint"
