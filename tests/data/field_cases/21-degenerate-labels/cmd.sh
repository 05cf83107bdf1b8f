#!/bin/bash
# exit 0: the product does what a user expects; exit 1: it does not.
cd "$(dirname "$0")" || exit 3
S=${SEMSYNTH:-semsynth}; PY=${PYTHON:-python}; O=$(mktemp -d); trap 'rm -rf "$O"' EXIT
P="$S prepare --source folder --height 48 --width 64 --workers 1"
rc=0; for x in binary empty never; do $P --data $x --output $O/$x > $O/t 2>&1; r=$?; echo "$x rc $r: $(tail -1 $O/t)"; test $r -ne 0 || grep -qi warning $O/t || rc=1; done; exit $rc
