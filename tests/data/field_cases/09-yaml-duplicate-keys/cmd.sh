#!/bin/bash
# exit 0: the product does what a user expects; exit 1: it does not (all of these failed on 0255a0f).
cd "$(dirname "$0")" || exit 3
S=${SEMSYNTH:-semsynth}; PY=${PYTHON:-python}; O=$(mktemp -d); trap 'rm -rf "$O"' EXIT
P="$S prepare --source folder --height 48 --width 64 --workers 1"
rc=0; $P --data data --output $O/o && { echo 'labels accepted'; rc=1; }
for r in recipe.yaml two_sections.yaml; do $PY -c "
import sys
from semsynth.core.errors import UserError
from semsynth.training.recipe import load_recipe
try:
    r=load_recipe('$r', ()); print('recipe accepted, steps', r.train.steps)
except UserError as error:
    print(error); sys.exit(2)" && rc=1; done
exit $rc
