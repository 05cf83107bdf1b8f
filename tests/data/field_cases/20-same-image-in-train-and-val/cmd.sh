#!/bin/bash
# exit 0: the product does what a user expects; exit 1: it does not.
cd "$(dirname "$0")" || exit 3
S=${SEMSYNTH:-semsynth}; PY=${PYTHON:-python}; O=$(mktemp -d); trap 'rm -rf "$O"' EXIT
P="$S prepare --source folder --height 48 --width 64 --workers 1"
$P --data data --output $O/o > $O/t 2>&1; tail -2 $O/t; grep -qi 'cop\|identical\|same' $O/t
