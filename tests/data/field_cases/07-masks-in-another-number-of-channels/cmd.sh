#!/bin/bash
# exit 0: the product does what a user expects; exit 1: it does not (all of these failed on 0255a0f).
cd "$(dirname "$0")" || exit 3
S=${SEMSYNTH:-semsynth}; PY=${PYTHON:-python}; O=$(mktemp -d); trap 'rm -rf "$O"' EXIT
P="$S prepare --source folder --height 48 --width 64 --workers 1"
rc=0; $P --data rgb --output $O/a || rc=1; $P --data la --output $O/b || rc=1; $P --data mixed --output $O/c --masks-as colors || rc=1; exit $rc
