#!/usr/bin/env python3
"""The seed's `prepare_dataset.py --output_dir D`: `semsynth prepare` of the sidewalk data set."""

import sys

from semsynth.cli.seed import run

if __name__ == "__main__":
    sys.exit(run("prepare", {"source": "sidewalk", "output": "./data/sidewalk_processed"}))
