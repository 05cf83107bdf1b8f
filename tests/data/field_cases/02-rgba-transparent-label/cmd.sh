#!/bin/bash
# exit 0: the product does what a user expects; exit 1: it does not (all of these failed on 0255a0f).
cd "$(dirname "$0")" || exit 3
S=${SEMSYNTH:-semsynth}; PY=${PYTHON:-python}; O=$(mktemp -d); trap 'rm -rf "$O"' EXIT
P="$S prepare --source folder --height 48 --width 64 --workers 1"
if $P --data data --output $O/o --masks-as colors; then $PY -c "
import glob,numpy as np; from PIL import Image
m=np.array(Image.open(glob.glob('$O/o/masks/*/p00.png')[0])); print('label of the transparent area', np.unique(m[10:20,10:30])); raise SystemExit(int((m[10:20,10:30]==3).any()))"; fi
