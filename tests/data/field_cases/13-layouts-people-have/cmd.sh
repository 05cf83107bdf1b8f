#!/bin/bash
# exit 0: the product does what a user expects; exit 1: it does not (all of these failed on 0255a0f).
cd "$(dirname "$0")" || exit 3
S=${SEMSYNTH:-semsynth}; PY=${PYTHON:-python}; O=$(mktemp -d); trap 'rm -rf "$O"' EXIT
P="$S prepare --source folder --height 48 --width 64 --workers 1"
rc=0; for x in roboflow suffix nested; do $P --data $x --output $O/$x 2>&1 | tail -1; test -f $O/$x/dataset.json || rc=1; done
$P --images cvat/JPEGImages --masks cvat/SegmentationClass --labels cvat/labelmap.txt --masks-as colors --output $O/c 2>&1 | tail -1; test -f $O/c/dataset.json || rc=1; exit $rc
