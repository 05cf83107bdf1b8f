#!/bin/bash
# exit 0: the product does what a user expects; exit 1: it does not.
cd "$(dirname "$0")" || exit 3
S=${SEMSYNTH:-semsynth}; PY=${PYTHON:-python}; O=$(mktemp -d); trap 'rm -rf "$O"' EXIT
P="$S prepare --source folder --height 48 --width 64 --workers 1"
mkdir $O/a; cp -r data $O/a/raw; (cd $O/a && $P --data raw --output prepared | tail -1); mv $O/a $O/b; cd $O/b && $P --data raw --output prepared
