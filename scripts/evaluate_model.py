#!/usr/bin/env python3
"""The seed's `evaluate_model.py`: `semsynth evaluate` of what `generate_images.py` wrote."""

import sys

from semsynth.cli.seed import run

DEFAULTS = {
    "samples": "./results/generated",
    "data": "./data/sidewalk_processed",
    "output": "./results/report",
}
if __name__ == "__main__":
    sys.exit(run("evaluate", DEFAULTS))
