#!/bin/bash
# exit 0: the product does what a user expects; exit 1: it does not (all of these failed on 0255a0f).
cd "$(dirname "$0")" || exit 3
S=${SEMSYNTH:-semsynth}; PY=${PYTHON:-python}; O=$(mktemp -d); trap 'rm -rf "$O"' EXIT
P="$S prepare --source folder --height 48 --width 64 --workers 1"
$PY make.py $O/data; $P --data $O/data --output $O/o --tile 4096 --overlap 128 2>&1 | tail -1; test -f $O/o/dataset.json
