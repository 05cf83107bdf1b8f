#!/bin/bash
# exit 0: the product does what a user expects; exit 1: it does not.
cd "$(dirname "$0")" || exit 3
S=${SEMSYNTH:-semsynth}; PY=${PYTHON:-python}; O=$(mktemp -d); trap 'rm -rf "$O"' EXIT
P="$S prepare --source folder --height 48 --width 64 --workers 1"
$P --data data --output $O/o --near-duplicates 2 | tail -2; $PY -c "
from semsynth.data.dataset import PreparedDataset
p=PreparedDataset.open('$O/o'); bad=[s for s in p.stems('train') if not p.image_path('train',s).exists()]; print('listed but gone:', bad); raise SystemExit(int(bool(bad)))"
